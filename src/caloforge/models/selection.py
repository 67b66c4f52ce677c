r"""Epoch selection: physics figures of generated against held-out showers.

Physics figures of generated against held-out showers, by which the best epoch is kept.

The held-out showers' own conditions are generated, with noise that is the same at every call. Each figure
is averaged over groups of equal numbers of showers ordered by incident energy, so that a beam of several
energies counts each of them. With reference r and generated g in a group:

- ``layer_fraction``: largest difference of the mean layer fractions, sum E_l / sum E, percentage points;
- ``response``: |mean g / mean r - 1| of the visible energy;
- ``resolution``: |sigma g / sigma r - 1| of the visible over incident energy;
- ``hits``: |mean g / mean r - 1| of the number of cells above ``threshold``;
- ``layer_spread``: mean over layers of |sigma g - sigma r| / sigma r of the layer energy;
- ``profile``: half the sum over cells of |mean g - mean r| over the sum of mean r;
- ``physics``: the sum of all, in units of 1 point, 2 %, 20 %, 10 %, 20 % and 10 %.

Distance of the cells' covariance between generated and held-out showers, by which seeds are chosen.

In each group of showers of similar incident energy, with C the covariance of cell energy over incident energy,

.. math:: d = |C_{gen} - C_{ref}|_F / |C_{ref}|_F

and the figure is the mean over the groups, so that low energies, where showers fluctuate most, do not count alone.

References:
    ATL-SOFT-PUB-2018-001: of several seeds the one with the best cell covariance is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from caloforge.models.base import ShowerModel
    from caloforge.models.stage import TrainingData

__all__ = ["compare", "covariance_distance", "covariance_figure", "physics_figures"]


_SCALES = {
    "layer_fraction": 1.0,
    "response": 0.02,
    "resolution": 0.2,
    "hits": 0.1,
    "layer_spread": 0.2,
    "profile": 0.1,
}
_TINY = 1e-12


def physics_figures(
    model: ShowerModel, data: TrainingData, n_max: int = 2000, groups: int = 9, threshold: float = 0.1
) -> dict[str, float]:
    """Generate as many showers as there are held-out ones (``n_max`` at most) and compare.

    Arguments:
        model: The model, in evaluation mode.
        data: Held-out showers.
        n_max: Most showers.
        groups: Groups by incident energy; fewer when a group would hold less than 20 showers.
        threshold: Of the number of hits, MeV.

    Returns:
        The figures that the module names.
    """
    layer = torch.as_tensor(model.detector.cell_layer, device=data.device)
    reference: list[Tensor] = []
    conditions: list[Tensor] = []
    n = 0
    for batch in data.batches(min(1024, n_max)):
        reference.append(batch.cells[: n_max - n])
        conditions.append(batch.conditions[: n_max - n])
        n += len(reference[-1])
        if n >= n_max:
            break
    matrix, truth = torch.cat(conditions), torch.cat(reference)
    fake = model.draw(matrix).to(truth.dtype)
    if "incident_energy" in model.columns:
        energy = model.condition(matrix, "incident_energy")[:, 0]
    else:
        energy = torch.ones(len(matrix), device=matrix.device)
    return compare(truth, fake, energy, layer, groups, threshold)


def compare(
    truth: Tensor, fake: Tensor, energy: Tensor, layer: Tensor, groups: int = 9, threshold: float = 0.1
) -> dict[str, float]:
    """Compare showers pair by pair of groups.

    Arguments:
        truth: (N, n_cells) MeV.
        fake: (N, n_cells) MeV, of the same conditions.
        energy: (N,) incident energies, MeV.
        layer: (n_cells,) layer of each cell.
        groups: Groups by incident energy.
        threshold: Of the number of hits, MeV.

    Returns:
        The figures that the module names.
    """
    order = torch.argsort(energy, stable=True)
    groups = max(1, min(groups, len(order) // 20))
    rows = []
    for part in torch.chunk(order, groups):
        rows.append(_figures(truth[part], fake[part], energy[part], layer, threshold))
    means = torch.stack(rows).mean(0).tolist()
    result = dict(zip(_SCALES, means, strict=True))
    result["physics"] = sum(result[name] / scale for name, scale in _SCALES.items())
    return result


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
            (totals[1].mean() / totals[0].mean().clamp_min(_TINY) - 1).abs(),
            (spread[1] / spread[0].clamp_min(_TINY) - 1).abs().clamp_max(10.0),
            (hits[1] / hits[0].clamp_min(_TINY) - 1).abs(),
            ((sigma[1] / sigma[0].clamp_min(_TINY) - 1).abs()[filled]).clamp_max(10.0).mean().nan_to_num(0.0),
            0.5 * (profiles[1] - profiles[0]).abs().sum() / profiles[0].sum().clamp_min(_TINY),
        ]
    )


_LEAST = 40
"""Fewest showers of a group."""


def covariance_figure(
    model: ShowerModel, data: TrainingData, n_max: int = 4000, groups: int = 9
) -> dict[str, float]:
    """Generate the held-out showers' own conditions and compare.

    Arguments:
        model: The model, in evaluation mode.
        data: Held-out showers.
        n_max: Most showers.
        groups: Groups by incident energy; fewer when a group would hold less than 40 showers.

    Returns:
        ``covariance``, the mean relative distance.
    """
    indices = torch.arange(min(n_max, len(data)), device=data.device)
    batch = data.take(indices)
    fake = model.draw(batch.conditions)
    energy = model.condition(batch.conditions, "incident_energy")[:, 0]
    return {"covariance": covariance_distance(batch.cells, fake, energy, groups)}


def covariance_distance(truth: Tensor, fake: Tensor, energy: Tensor, groups: int = 9) -> float:
    """Return the mean over groups of the relative Frobenius distance of covariances.

    Arguments:
        truth: (N, n_cells) MeV.
        fake: (N, n_cells) MeV, of the same conditions.
        energy: (N,) incident energies, MeV.
        groups: Groups by incident energy.
    """
    order = torch.argsort(energy, stable=True)
    groups = max(1, min(groups, len(order) // _LEAST))
    distances = []
    for part in torch.chunk(order, groups):
        real, made = (
            torch.cov((cells[part].double() / energy[part, None].double()).T, correction=0)
            for cells in (truth, fake)
        )
        norm = torch.linalg.matrix_norm(real).clamp_min(1e-30)
        distances.append(torch.linalg.matrix_norm(made - real) / norm)
    return float(torch.stack(distances).mean().clamp_max(1e3))
