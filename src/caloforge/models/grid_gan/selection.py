r"""Figures of merit of the generators on grids, by which their best epoch is kept.

The published study (F. Rehm et al., arXiv:2103.13698) keeps the best epoch by the shower shapes and by the core cells:

- ``shape_mse``: mean over the axes of :math:`\frac1K \sum_i ((g_i - p_i) / \bar p)^2` of the mean x, y and z profiles of
  reference p and generated g;
- ``cell_mean_ratio``, ``cell_std_ratio``: mean over the core cells of generated over reference, of the mean and of the
  standard deviation of the energy over the incident energy. The core is the cube [10, 16]^3 of a 25 x 25 x 25 grid, elsewhere the cells whose
  mean is at least a tenth of the largest;
- ``core_error``: mean over the core cells of \|ratio of means - 1\| and of \|ratio of deviations - 1\|, added, since errors of both
  signs cancel in the ratios above;
- ``shapes``: shape_mse / 0.02 + |mean ratio - 1| / 0.02 + |std ratio - 1| / 0.05 + core_error / 0.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.models.selection import compare

if TYPE_CHECKING:
    from caloforge.models.base import ShowerModel
    from caloforge.models.stage import TrainingData

__all__ = ["core_mask", "grid_figures", "shape_figures"]

_CUBES: Mapping[tuple[int, ...], tuple[int, int]] = {(25, 25, 25): (10, 17)}
_SHARE = 0.1
_TINY = 1e-12
_MOST_CELLS = (
    60_000_000  # showers of the largest grid are fewer, so that both sets stay within half a gigabyte
)


def core_mask(detector: Detector, mean: Tensor) -> Tensor:
    """Return which cells (n_cells,) are core cells, for the reference's mean energies (n_cells,)."""
    cube = _CUBES.get(detector.shape)
    if cube is None:
        return (mean >= _SHARE * mean.max()) & (mean > 0)
    inside = torch.zeros(detector.shape, dtype=torch.bool, device=mean.device)
    cut = slice(*cube)
    inside[cut, cut, cut] = True
    return inside.flatten()


def shape_figures(truth: Tensor, fake: Tensor, energy: Tensor, detector: Detector) -> dict[str, float]:
    """Compare showers with generated ones of the same conditions.

    Arguments:
        truth: (N, n_cells) MeV.
        fake: (N, n_cells) MeV.
        energy: (N,) incident energies, MeV.
        detector: A grid.

    Returns:
        The figures that the module names.
    """
    means = [cells.mean(0, dtype=torch.float64).view(detector.shape) for cells in (truth, fake)]
    errors = []
    for summed in ((1, 2), (0, 2), (0, 1)):
        p, g = means[0].sum(summed), means[1].sum(summed)
        errors.append((((g - p) / p.mean().clamp_min(_TINY)) ** 2).mean())
    core = core_mask(detector, means[0].flatten())
    parts = [cells[:, core].double() / energy[:, None] for cells in (truth, fake)]
    mean_r, mean_g = (part.mean(0) for part in parts)
    std_r, std_g = (part.std(0, unbiased=len(part) > 1) for part in parts)
    ratio_mean = (mean_g / mean_r)[mean_r > 0]
    ratio_std = (std_g / std_r)[std_r > 0]
    figures = {
        "shape_mse": float(torch.stack(errors).mean()),
        "cell_mean_ratio": _mean(ratio_mean),
        "cell_std_ratio": _mean(ratio_std),
        "core_error": _mean((ratio_mean - 1).abs()) + _mean((ratio_std - 1).abs()),
    }
    figures["shapes"] = (
        figures["shape_mse"] / 0.02
        + abs(figures["cell_mean_ratio"] - 1) / 0.02
        + abs(figures["cell_std_ratio"] - 1) / 0.05
        + figures["core_error"] / 0.2
    )
    return figures


def grid_figures(model: ShowerModel, data: TrainingData, n_max: int = 2000) -> dict[str, float]:
    """Generate showers of the held-out ones' conditions, always with the same noise, and compare.

    Arguments:
        model: The model, in evaluation mode.
        data: Held-out showers.
        n_max: Most showers.

    Returns:
        The figures of this module and those of :mod:`caloforge.models.selection`.
    """
    n_max = min(n_max, max(1, _MOST_CELLS // model.detector.n_cells))
    first = data.take(torch.arange(min(n_max, len(data)), device=data.device))
    fake = model.draw(first.conditions, batch_size=256).to(first.cells.dtype)
    energy = model.condition(first.conditions, "incident_energy")[:, 0]
    layer = torch.as_tensor(model.detector.cell_layer, device=data.device)
    return {
        **compare(first.cells, fake, energy, layer),
        **shape_figures(first.cells, fake, energy, model.detector),
    }


def _mean(values: Tensor) -> float:
    """Return the mean; 1 of nothing, which is a bad figure but a finite one."""
    return float(values.mean()) if values.numel() else 1.0
