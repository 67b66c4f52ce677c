r"""Distance of the cells' covariance between generated and held-out showers, by which seeds are chosen.

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

__all__ = ["covariance_distance", "covariance_figure"]

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
