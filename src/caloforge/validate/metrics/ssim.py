r"""Structural similarity of pairs of showers, in the form of the support-size papers.

Two-dimensional Gaussian windows over x-y (sigma 1.5, 11 x 11), the layers as channels, data range
:math:`L = 10^{-4}` with energies in GeV. For one window of two images with means :math:`\mu`, variances
:math:`\sigma^2` and covariance :math:`\sigma_{xy}` under the Gaussian weights,

.. math::
    \mathrm{SSIM} = \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
    {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}, \quad C_1 = (0.01 L)^2, \quad C_2 = (0.03 L)^2,

averaged over the windows that fit into the image and over the layers: scikit-image's
``structural_similarity`` with ``gaussian_weights=True, use_sample_covariance=False``.

Each pair is of two different showers of like incident energy: both samples are put in order of energy (equal
ones at random), and neighbours, or showers of equal rank in two samples, make a pair. No shower is in two
pairs of a set, so that the error of the mean is the spread over the pairs divided by their number's root.

References:
    Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600; G. R. Khattak et al., Eur. Phys. J. C 82 (2022)
    386, arXiv:2109.07388.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.random import generator
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Cells, cell_pair

if TYPE_CHECKING:
    import torch

    from caloforge.validate.sample import Sample

__all__ = ["DATA_RANGE", "WINDOW", "StructuralSimilarity", "ssim_pairs"]

DATA_RANGE = 1e-4  # GeV
WINDOW = 11
_SIGMA = 1.5
_BATCH_VALUES = 1 << 22  # cells of one side in a batch
_MEV_A_GEV = 1000.0


def _window(size: int, device: torch.device) -> torch.Tensor:
    """Return the Gaussian window at each place that it fits into ``size`` cells: a band (size - 10, size)."""
    import torch

    x = np.arange(WINDOW) - (WINDOW - 1) / 2
    weights = np.exp(-0.5 * (x / _SIGMA) ** 2)
    band = np.zeros((size - WINDOW + 1, size))
    for row in range(len(band)):
        band[row, row : row + WINDOW] = weights / weights.sum()
    return torch.from_numpy(band).to(device)


def ssim_pairs(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    data_range: float = DATA_RANGE,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Return the structural similarity of each pair (P,).

    Arguments:
        first: Showers (P, nx, ny, n_layers), energies in the unit of ``data_range``.
        second: Their partners, of the same shape.
        data_range: L, by default 1e-4 for energies in GeV.
        device: Where to compute.

    Raises:
        InputError: When the images are smaller than the window or the shapes differ.
    """
    import torch

    if first.shape != second.shape or first.ndim != 4 or min(first.shape[1:3]) < WINDOW:
        msg = (
            f"ssim needs pairs (P, nx, ny, layers) with nx, ny >= {WINDOW}; got {first.shape}, {second.shape}"
        )
        raise InputError(msg)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    along_x = _window(first.shape[1], torch.device(device))
    along_y = _window(first.shape[2], torch.device(device)).T

    def smooth(images: torch.Tensor) -> torch.Tensor:
        """Return the weighted means (B, X - 10, Y - 10) over the windows of images (B, X, Y)."""
        return along_x @ (images @ along_y)

    size = max(1, _BATCH_VALUES // int(np.prod(first.shape[1:])))
    out = []
    for start in range(0, len(first), size):
        x, y = (
            torch.from_numpy(np.ascontiguousarray(part[start : start + size]))
            .to(device, torch.float64)
            .permute(0, 3, 1, 2)
            .flatten(0, 1)
            for part in (first, second)
        )
        mx, my = smooth(x), smooth(y)
        vx, vy = smooth(x * x) - mx * mx, smooth(y * y) - my * my
        vxy = smooth(x * y) - mx * my
        s = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        out.append(s.mean(dim=(1, 2)).reshape(-1, first.shape[3]).mean(dim=1).cpu().numpy())
    return np.concatenate(out)


def _by_energy(energy: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the order of increasing energy, equal energies at random."""
    return np.lexsort((rng.random(len(energy)), energy))


class StructuralSimilarity(Metric):
    """Mean structural similarity of reference pairs, generated pairs and mixed pairs."""

    name: ClassVar[str] = "ssim"
    keys: ClassVar[tuple[Key, ...]] = (Key("ssim", "SSIM", 1.0, by="pair"),)
    minimum: ClassVar[int] = 4

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        detector = reference.detector
        if not detector.is_grid:
            return f"needs a regular x-y grid of cells; '{detector.name}' is {detector.order}"
        if min(detector.shape[:2]) < WINDOW:
            return f"needs at least {WINDOW} x {WINDOW} cells a layer; '{detector.name}' has {detector.shape[:2]}"
        return None

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ref_ref, gen_gen and ref_gen; equal samples give three equal numbers."""
        pair = cell_pair(reference, generated, settings, n_max=2 * settings.ssim_pairs)
        shape = reference.detector.shape
        rng = generator(settings.seed, "ssim")
        ref, gen = _by_energy(pair.energy_reference, rng), _by_energy(pair.energy_generated, rng)
        n_ref, n_gen = len(ref) // 2, len(gen) // 2
        mixed = min(n_ref, n_gen)
        ranks = (np.arange(mixed) + 0.5) / mixed
        # ref_gen takes showers of equal rank in energy
        choices = {
            "ref_ref": (pair.reference, ref[0 : 2 * n_ref : 2], pair.reference, ref[1 : 2 * n_ref : 2]),
            "gen_gen": (pair.generated, gen[0 : 2 * n_gen : 2], pair.generated, gen[1 : 2 * n_gen : 2]),
            "ref_gen": (
                pair.reference,
                ref[(ranks * len(ref)).astype(np.int64)],
                pair.generated,
                gen[(ranks * len(gen)).astype(np.int64)],
            ),
        }
        out = {}
        for name, (a, rows_a, b, rows_b) in choices.items():
            values = _chunked(a, rows_a, b, rows_b, shape, settings.torch_device())
            error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            out[name] = Value(float(values.mean()), error, detail={"pairs": len(values), **pair.counts})
        return {"ssim": out}


def _chunked(
    a: Cells,
    rows_a: NDArray[np.int64],
    b: Cells,
    rows_b: NDArray[np.int64],
    shape: tuple[int, ...],
    device: str,
    size: int = 128,
) -> NDArray[np.float64]:
    """Return the similarity of the paired rows, copying few showers at a time."""
    parts = []
    for start in range(0, len(rows_a), size):
        x = a[rows_a[start : start + size]].reshape(-1, *shape) / np.float32(_MEV_A_GEV)
        y = b[rows_b[start : start + size]].reshape(-1, *shape) / np.float32(_MEV_A_GEV)
        parts.append(ssim_pairs(x, y, device=device))
    return np.concatenate(parts)
