r"""Mean and width of quantities as functions of the incident energy, from training showers.

Showers are ordered by ln E and cut into groups of equal numbers; each group gives, at its mean ln E, the mean and
the standard deviation of each quantity; between groups both are interpolated linearly in ln E, beyond the ends
they are constant. Energies of a beam with few values fall into a group each. So a quantity whose width falls
like 1/sqrt(E) has unit width at every energy once it is standardised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["EnergyScale"]


class EnergyScale(nn.Module):
    """Conditional mean and standard deviation.

    Arguments:
        size: Number of quantities.
        knots: Most groups.
        floor: Smallest standard deviation.
    """

    position: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, size: int, knots: int = 9, floor: float = 1e-6) -> None:
        super().__init__()
        self.knots, self.floor = knots, floor
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1, size))
        self.register_buffer("std", torch.ones(1, size))

    @torch.no_grad()
    def fit(self, values: Tensor, energy: Tensor) -> None:
        """Set the constants from quantities (N, size) at incident energies (N,), MeV."""
        x = torch.log(energy.double())
        levels, index = torch.unique(x, return_inverse=True)
        if len(levels) > self.knots:
            rank = torch.empty_like(index)
            rank[torch.argsort(x, stable=True)] = torch.arange(len(x), device=x.device)
            groups = max(1, min(self.knots, len(x) // 50))
            index = rank * groups // len(x)
        rows = [torch.nonzero(index == group)[:, 0] for group in range(int(index.max()) + 1)]
        values = values.double()
        means, stds = [], []
        for row in rows:
            means.append(values[row].mean(0))
            stds.append(values[row].std(0, unbiased=False))
        self.position = torch.stack([x[row].mean() for row in rows]).to(self.mean)
        self.std = torch.stack(stds).clamp_min(self.floor).to(self.mean)
        self.mean = torch.stack(means).to(self.mean)

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (B, size), at incident energies (B,), MeV."""
        if len(self.position) == 1:
            return self.mean.expand(len(energy), -1), self.std.expand(len(energy), -1)
        x = torch.log(energy).contiguous()
        above = torch.searchsorted(self.position, x).clamp(1, len(self.position) - 1)
        low, high = self.position[above - 1], self.position[above]
        part = ((x - low) / (high - low)).clamp(0.0, 1.0)[:, None]
        mean = torch.lerp(self.mean[above - 1], self.mean[above], part)
        return mean, torch.lerp(self.std[above - 1], self.std[above], part)
