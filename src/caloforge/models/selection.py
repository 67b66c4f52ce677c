r"""Epoch selection: physics figures of generated against held-out showers of the same conditions.

Functions of arrays, without a model; smaller figures are better. All but the shapes are means over groups of equal numbers of
showers ordered by incident energy, so that each energy of a beam counts. With reference r and generated showers g:

- ``layer_fraction``: largest difference of the mean layer fractions, sum E_l / sum E, percentage points;
- ``response``: |mean g / mean r - 1| of the visible energy;
- ``resolution``: |sigma g / sigma r - 1| of the visible over incident energy;
- ``hits``: |mean g / mean r - 1| of the number of cells above ``threshold``;
- ``layer_spread``: mean over layers of |sigma g - sigma r| / sigma r of the layer energy;
- ``profile``: half the sum over cells of |mean g - mean r| over the sum of mean r;
- ``physics``: the sum of all, in units of 1 point, 2 %, 20 %, 10 %, 20 % and 10 %;
- ``covariance``: with C the covariance of cell energy over incident energy and the Frobenius norm,

  .. math:: d = |C_g - C_r| / |C_r|.

For showers on a grid, as the published study of the GANs, with the mean x, y and z profiles p of the reference, and the core cells of
:func:`~caloforge.statistics.moments.core_cells`:

- ``shape_mse``: mean over the axes of :math:`\frac1K \sum_i ((g_i - p_i) / \bar p)^2`;
- ``cell_mean_ratio``, ``cell_std_ratio``: mean over the core cells of generated over reference, of the mean and of the standard
  deviation of the energy over the incident energy;
- ``core_error``: mean over the core cells of \|ratio of means - 1\| and of \|ratio of deviations - 1\|, added, since errors of both
  signs cancel in the ratios above;
- ``shapes``: shape_mse / 0.02 + |mean ratio - 1| / 0.02 + |std ratio - 1| / 0.05 + core_error / 0.2.

References:
    F. Rehm et al., arXiv:2103.13698: the best epoch is kept by shower shapes and core cells.
    ATL-SOFT-PUB-2018-001: of several seeds the one with the best cell covariance is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.statistics.distances import covariance_distance, shape_mse
from caloforge.statistics.moments import core_cells, moment_ratios

__all__ = ["compare", "covariance_figure", "shape_figures"]

_SCALES = {
    "layer_fraction": 1.0,
    "response": 0.02,
    "resolution": 0.2,
    "hits": 0.1,
    "layer_spread": 0.2,
    "profile": 0.1,
}
_TINY = 1e-12


def compare(
    truth: Tensor, fake: Tensor, energy: Tensor, layer: Tensor, groups: int = 9, threshold: float = 0.1
) -> dict[str, float]:
    """Return the figures of the module but ``covariance``.

    Arguments:
        truth: (N, n_cells) MeV.
        fake: (N, n_cells) MeV, of the same conditions.
        energy: (N,) incident energies, MeV.
        layer: (n_cells,) layer of each cell.
        groups: Groups by incident energy; fewer where a group would have less than 20 showers.
        threshold: Of the number of hits, MeV.
    """
    rows = [
        _figures(truth[part], fake[part], energy[part], layer, threshold)
        for part in _groups(energy, groups, 20)
    ]
    result = dict(zip(_SCALES, torch.stack(rows).mean(0).tolist(), strict=True))
    result["physics"] = sum(result[name] / scale for name, scale in _SCALES.items())
    return result


def covariance_figure(truth: Tensor, fake: Tensor, energy: Tensor, groups: int = 9) -> float:
    """Return ``covariance`` of the module; arguments as above, with at least 40 showers in a group."""
    distances = []
    for part in _groups(energy, groups, 40):
        reference, generated = (
            torch.cov((cells[part].double() / energy[part, None].double()).T, correction=0).cpu().numpy()
            for cells in (truth, fake)
        )
        distances.append(covariance_distance(reference, generated))
    return float(np.nan_to_num(np.mean(distances), nan=1e3).clip(max=1e3))


def shape_figures(truth: Tensor, fake: Tensor, energy: Tensor, shape: tuple[int, ...]) -> dict[str, float]:
    """Return the figures for a grid of that shape, with arguments as those of ``compare``."""
    means = [cells.mean(0, dtype=torch.float64).view(shape) for cells in (truth, fake)]
    core = torch.from_numpy(core_cells(means[0].flatten().cpu().numpy(), shape)).to(truth.device)
    reference, generated = (
        (x.mean(0).cpu().numpy(), x.std(0, unbiased=len(x) > 1).cpu().numpy())
        for x in (cells[:, core].double() / energy[:, None] for cells in (truth, fake))
    )
    ratios = moment_ratios(reference, generated)
    profiles = [[mean.sum(axes).cpu().numpy() for axes in ((1, 2), (0, 2), (0, 1))] for mean in means]
    figures = {
        "shape_mse": float(np.mean([shape_mse(p, g) for p, g in zip(*profiles, strict=True)])),
        "cell_mean_ratio": _mean(ratios[0]),
        "cell_std_ratio": _mean(ratios[1]),
        "core_error": _mean(np.abs(ratios[0] - 1)) + _mean(np.abs(ratios[1] - 1)),
    }
    figures["shapes"] = (
        figures["shape_mse"] / 0.02
        + abs(figures["cell_mean_ratio"] - 1) / 0.02
        + abs(figures["cell_std_ratio"] - 1) / 0.05
        + figures["core_error"] / 0.2
    )
    return figures


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean; 1 of nothing, which is a bad figure but a finite one."""
    return float(values.mean()) if values.size else 1.0


def _groups(energy: Tensor, groups: int, fewest: int) -> Iterator[Tensor]:
    """Yield the indices of each group of similar energies (N,)."""
    order = torch.argsort(energy, stable=True)
    yield from torch.chunk(order, max(1, min(groups, len(order) // fewest)))


def _figures(truth: Tensor, fake: Tensor, energy: Tensor, layer: Tensor, threshold: float) -> Tensor:
    """Return the figures of one group in the order of the scales."""
    sums = []
    for cells in (truth, fake):
        out = torch.zeros(len(cells), int(layer.max()) + 1, device=cells.device)
        sums.append(out.index_add_(1, layer, cells.float()))
    totals = [s.sum(1) for s in sums]
    fractions = [100.0 * s.sum(0) / s.sum().clamp_min(_TINY) for s in sums]
    spread = [(t / energy).std(unbiased=False) for t in totals]
    hits = [(cells > threshold).float().sum(1).mean() for cells in (truth, fake)]
    sigma = [(s / energy[:, None]).std(0, unbiased=False) for s in sums]
    filled = fractions[0] > 0.01
    profiles = [cells.float().mean(0) for cells in (truth, fake)]
    return torch.stack(
        [
            (fractions[1] - fractions[0]).abs().max(),
            _off(totals[1].mean(), totals[0].mean()),
            _off(spread[1], spread[0]).clamp_max(10.0),
            _off(hits[1], hits[0]),
            _off(sigma[1], sigma[0])[filled].clamp_max(10.0).mean().nan_to_num(0.0),
            0.5 * (profiles[1] - profiles[0]).abs().sum() / profiles[0].sum().clamp_min(_TINY),
        ]
    )


def _off(generated: Tensor, reference: Tensor) -> Tensor:
    """Return |generated / reference - 1|."""
    return (generated / reference.clamp_min(_TINY) - 1).abs()
