r"""A rising function of the energy of a cell that gives hits the spectrum of true ones.

A network's spectrum of hits is smooth where the true one has an edge: particles that pass the silicon leave at least what a MIP
leaves. With :math:`x = \ln e` of drawn hits and F, G the distribution functions of drawn and true ones,

.. math:: x' = x + w(e) \, (G^{-1}(F(x)) - x),

a table of the difference at equal steps of x for groups of showers ordered by their angle, on which the path in the silicon
depends, interpolated between the groups. w falls from 1 at five MIPs to 0 at fifteen: above, a cell's energy tells of the shower and
not of the silicon. Fitted, not learnt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["CellSpectrum"]

_LOWEST, _HIGHEST, _KNOTS = math.log(1e-3), math.log(3.0), 241
"""ln(e / MeV) of the first and last knot; steps of 0.033."""
_FADE = (math.log(1.0), math.log(3.0))
_GROUPS = 6
_FEWEST = 20_000
"""Hits of a group."""
_TAIL = 50
"""Hits below which the distribution functions are not followed."""


class CellSpectrum(nn.Module):
    """See the module; it changes nothing before the fit."""

    centres: Tensor
    shifts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(0))
        self.register_buffer("shifts", torch.zeros(0, _KNOTS))

    @property
    def fitted(self) -> bool:
        """Whether there is a table."""
        return len(self.centres) > 0

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Fit the table.

        Arguments:
            true: Energies of hits (n,), MeV, and the angles of their showers (n,), degrees.
            made: The same of drawn showers of the same angles.
        """
        angles = made[1].double()
        count = min(_GROUPS, len(angles) // _FEWEST) if bool(angles.amax() > angles.amin()) else 1
        levels = torch.linspace(0.0, 1.0, max(1, count) + 1, dtype=torch.float64)[1:-1].to(angles.device)
        order = angles.sort().values
        edges = order[(levels * len(order)).long()]
        knots = torch.linspace(_LOWEST, _HIGHEST, _KNOTS, dtype=torch.float64, device=angles.device)
        weight = ((_FADE[1] - knots) / (_FADE[1] - _FADE[0])).clamp(0.0, 1.0)
        groups = [torch.bucketize(by.double(), edges) for _, by in (true, made)]
        centres, rows = [], []
        for group in range(len(edges) + 1):
            a, b = (
                torch.log(energy[place == group].double()).sort().values
                for (energy, _), place in zip((true, made), groups, strict=True)
            )
            if min(len(a), len(b)) <= 2 * _TAIL:
                continue
            centres.append(angles[groups[1] == group].mean())
            rows.append(weight * _difference(a, b, knots))
        if rows:
            self.centres = torch.stack(centres).to(self.centres)
            self.shifts = torch.stack(rows).to(self.shifts)

    def forward(self, cells: Tensor, theta: Tensor) -> Tensor:
        """Return cells (B, ...), MeV, with the energies of hits moved, for angles (B,), degrees."""
        if not self.fitted:
            return cells
        hits = cells > 0
        energy = cells[hits]
        step = (_HIGHEST - _LOWEST) / (_KNOTS - 1)
        x = torch.log(energy)
        position = ((x.detach() - _LOWEST) / step).clamp(0.0, _KNOTS - 1.0)
        left = position.long().clamp_max(_KNOTS - 2)
        shower = hits.nonzero()[:, 0]
        table = self._table(theta)
        low, high = table[shower, left], table[shower, left + 1]
        moved = cells.clone()
        moved[hits] = energy * torch.exp(torch.lerp(low, high, position - left))
        return moved

    def _table(self, theta: Tensor) -> Tensor:
        """Return the differences (B, knots) between the groups."""
        if len(self.centres) == 1:
            return self.shifts.expand(len(theta), -1)
        by = theta.to(self.centres).contiguous()
        above = torch.searchsorted(self.centres, by).clamp(1, len(self.centres) - 1)
        low, high = self.centres[above - 1], self.centres[above]
        part = ((by - low) / (high - low)).clamp(0.0, 1.0)[:, None]
        return torch.lerp(self.shifts[above - 1], self.shifts[above], part)


def _difference(true: Tensor, made: Tensor, knots: Tensor) -> Tensor:
    """Return how far each knot (k,) must move, from sorted ln e of true hits (n,) and of drawn ones (m,).

    Where less than ``_TAIL`` hits lie beyond a knot it moves as the nearest other.
    """
    ends = made[_TAIL], made[-1 - _TAIL]
    inside = torch.minimum(torch.maximum(knots, ends[0]), ends[1])
    below = torch.searchsorted(made, inside).double() / len(made)
    place = (below * (len(true) - 1)).clamp(0, len(true) - 1)
    left = place.long().clamp_max(len(true) - 2)
    return torch.lerp(true[left], true[left + 1], place - left) - inside
