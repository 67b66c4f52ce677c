"""Showers projected to images, such as ``ild-ecal`` to ``ild-ecal-10x10``."""

from __future__ import annotations

from collections.abc import Iterator

from caloforge.geometry import Detector, get_detector
from caloforge.geometry.projection import project
from caloforge.showers.container import Showers
from caloforge.showers.source import ShowerSource

__all__ = ["project_showers", "projected_chunks"]


def project_showers(source: ShowerSource, image_detector: str | Detector) -> Showers:
    """Sum showers over their layers and pool them to the cells of an image.

    To write a projected file in bounded memory, hand :func:`projected_chunks` to ``write_showers``::

        with open_showers("showers.h5") as source:
            write_showers("images.h5", projected_chunks(source, "ild-ecal-10x10"))

    Arguments:
        source: Showers of a grid detector, in memory or in a file.
        image_detector: A one-layer grid whose numbers of cells divide those of the source.

    Returns:
        Showers of the image detector, in memory; energies, angles, conditions and facts are those of the source.

    Raises:
        IncompatibleError: When the grids do not fit.
    """
    parts = list(projected_chunks(source, image_detector))
    return Showers.concatenate(parts) if parts else _projected(source[:0], get_detector(image_detector))


def projected_chunks(source: ShowerSource, image_detector: str | Detector) -> Iterator[Showers]:
    """Iterate over showers of a source, projected, in order; see :func:`project_showers`."""
    image = get_detector(image_detector)
    for chunk in source.chunks():
        yield _projected(chunk, image)


def _projected(showers: Showers, image: Detector) -> Showers:
    cells = project(showers.cells, showers.detector, image)
    attributes = {
        key: value for key, value in showers.attributes.items() if key != "shape"
    }  # was the source's
    return showers.replace(detector=image, cells=cells, attributes=attributes)
