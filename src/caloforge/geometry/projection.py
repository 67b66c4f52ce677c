"""Images of showers: a grid summed over its layers and pooled, such as ``ild-ecal-10x10``.

The 10 x 10 images of the amplification study (S. Bieringer et al., arXiv:2202.07352) sum 30 x 30 x 30 cells
along the beam and pool 3 x 3 of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry.detector import Detector
from caloforge.geometry.flatplate import ild_ecal
from caloforge.geometry.readout import ReadoutLayer

__all__ = ["ild_ecal_10x10", "project"]


def ild_ecal_10x10() -> Detector:
    """Return the ILD calorimeter summed over its layers and pooled 3 x 3: one layer of 10 x 10 cells of 15 mm."""
    source = ild_ecal()
    z = float(np.mean([layer.z for layer in source.layers]))
    return Detector(
        name="ild-ecal-10x10",
        description="ild-ecal summed over its layers and pooled 3 x 3",
        order="xyl",
        layers=(ReadoutLayer("image", 10, 10, 15.0, 15.0, z),),
        beam=source.beam,
        sampling_fraction=source.sampling_fraction,
    )


def project(cells: NDArray[np.float32], source: Detector, image: Detector) -> NDArray[np.float32]:
    """Sum a grid over its layers and pool it to the cells of an image.

    Arguments:
        cells: Flat cells (N, n_cells) of the source, MeV.
        source: A grid detector.
        image: A one-layer grid whose numbers of cells divide those of the source.

    Returns:
        Flat cells (N, n_cells) of the image, MeV; total energies are those of the source.

    Raises:
        IncompatibleError: When the grids do not fit.
    """
    fits = source.is_grid and image.is_grid and image.n_layers == 1
    if not fits or source.shape[0] % image.shape[0] or source.shape[1] % image.shape[1]:
        msg = f"detector '{source.name}' {source.shape} cannot be projected to '{image.name}' {image.shape}"
        raise IncompatibleError(msg)
    nx, ny, n_layers = source.shape
    px, py = nx // image.shape[0], ny // image.shape[1]
    blocks = cells.reshape(len(cells), image.shape[0], px, image.shape[1], py, n_layers)
    images: NDArray[np.float32] = blocks.sum(axis=(2, 4, 5), dtype=np.float64).astype(np.float32)
    return images.reshape(len(cells), image.n_cells)
