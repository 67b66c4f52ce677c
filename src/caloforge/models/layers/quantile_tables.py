r"""Numbers carried from the distribution that a model gives them to the one that they have in truth.

For each group g of incident energies, each class c of showers and each number x, two tables of quantiles
:math:`F^{-1}` at the same probabilities, of generated and of true showers, give the rising map

.. math:: x \mapsto F_{true}^{-1}\left(F_{made}(x)\right),

linear between the knots; x stops at the smallest and largest generated value. Between the groups the tables are
interpolated linearly in ln E. The probabilities are those of equally spaced normal numbers, with 0 and 1 at the ends.
The order of showers in each number, and so what belongs together in a shower, stays the model's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.models.layers.quantiles import quantiles

__all__ = ["QuantileTables", "energy_groups"]

_GROUPS = 9
_LEAST = 50
"""Fewest true showers of a group, where energies are continuous."""


def energy_groups(energy: Tensor, most: int = _GROUPS) -> tuple[Tensor, Tensor]:
    """Return the group (N,) of each shower and the mean ln E (G,) of each group.

    One group at each energy where there are few, else groups of equal numbers.

    Arguments:
        energy: (N,) MeV.
        most: Most groups.
    """
    x = torch.log(energy.double())
    levels, index = torch.unique(x, return_inverse=True)
    if len(levels) > most:
        rank = torch.empty_like(index)
        rank[torch.argsort(x, stable=True)] = torch.arange(len(x), device=x.device)
        groups = max(1, min(most, len(x) // _LEAST))
        index = rank * groups // len(x)
    count = int(index.max()) + 1
    centres = torch.stack([x[index == group].mean() for group in range(count)])
    return index, centres.to(energy.dtype)


class QuantileTables(nn.Module):
    """Tables of some numbers; before the fit they leave numbers between 0 and 1 as they are.

    Arguments:
        size: Numbers a shower.
        knots: Knots of a table.
        reach: Normal number of the last knot but one.
        dtype: Of the tables.

    Attributes:
        position: (G,) ln E of the groups.
        made: (G, classes, size, knots), rising.
        truth: The same.
    """

    position: Tensor
    made: Tensor
    truth: Tensor

    def __init__(
        self, size: int, knots: int = 41, reach: float = 3.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.size, self.knots, self.reach = size, knots, reach
        line = torch.linspace(0.0, 1.0, 2, dtype=dtype).expand(1, 1, size, 2)
        self.register_buffer("position", torch.zeros(1))
        self.register_buffer("made", line.clone())
        self.register_buffer("truth", line.clone())

    @property
    def fitted(self) -> bool:
        """Whether the tables follow from showers."""
        return self.made.shape[-1] > 2

    def levels(self) -> Tensor:
        """Return the probabilities of the knots (knots,), float64."""
        z = torch.linspace(-self.reach, self.reach, self.knots - 2, dtype=torch.float64)
        inner = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
        return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])

    @torch.no_grad()
    def fit(
        self,
        position: Tensor,
        true: tuple[Tensor, Tensor, Tensor],
        made: tuple[Tensor, Tensor, Tensor],
        classes: int = 1,
    ) -> None:
        """Set the tables.

        Arguments:
            position: (G,) ln E of the groups.
            true: Numbers of true showers (N, size), their groups (N,) and classes (N,).
            made: The same of generated ones (M, ...).
            classes: Number of classes; one without showers takes the tables of its whole group.
        """
        self.position = position.to(self.position)
        self.truth = self._quantiles(*true, len(position), classes).to(self.truth)
        self.made = self._quantiles(*made, len(position), classes).to(self.made)

    def _quantiles(self, values: Tensor, group: Tensor, kind: Tensor, groups: int, classes: int) -> Tensor:
        levels = self.levels().to(values.device)
        rows = []
        for g in range(groups):
            for c in range(classes):
                mine = values[(group == g) & (kind == c)]
                if len(mine) < 2:
                    mine = values[group == g]
                rows.append(quantiles(mine, levels).T)
        return torch.stack(rows).reshape(groups, classes, self.size, self.knots)

    def forward(self, values: Tensor, energy: Tensor, kind: Tensor | None = None) -> Tensor:
        """Return the carried numbers (B, size).

        Arguments:
            values: (B, size).
            energy: Incident energies (B,), MeV.
            kind: Classes (B,), int64; all 0 when missing.
        """
        made, truth = self._at(energy, kind)
        right = (made < values[..., None]).sum(-1).clamp(1, made.shape[-1] - 1)[..., None]
        low, high = made.gather(-1, right - 1), made.gather(-1, right)
        step = high - low
        part = (values[..., None] - low) / torch.where(step > 0, step, torch.ones_like(step))
        first, last = truth.gather(-1, right - 1), truth.gather(-1, right)
        carried: Tensor = (first + part.clamp(0.0, 1.0) * (last - first))[..., 0]
        return carried

    def _at(self, energy: Tensor, kind: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both tables (B, size, knots) at incident energies (B,)."""
        kind = torch.zeros_like(energy, dtype=torch.int64) if kind is None else kind
        kind = kind.clamp_max(self.made.shape[1] - 1)  # one class before the fit
        x = torch.log(energy).contiguous()
        last = len(self.position) - 1
        above = torch.searchsorted(self.position, x).clamp(min(1, last), last)
        below = (above - 1).clamp_min(0)
        low, high = self.position[below], self.position[above]
        gap = torch.where(high > low, high - low, torch.ones_like(low))
        part = ((x - low) / gap).clamp(0.0, 1.0)[:, None, None]
        made, truth = (
            torch.lerp(table[below, kind].to(energy.dtype), table[above, kind].to(energy.dtype), part)
            for table in (self.made, self.truth)
        )
        return made, truth
