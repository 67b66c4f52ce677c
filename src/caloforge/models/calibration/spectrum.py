r"""A rising function of the energy of a cell that gives hits the spectrum of true ones.

A network's spectrum of hits is smooth where the true one has an edge: particles that pass the silicon leave at least what a MIP
leaves. With :math:`x = \ln e` of generated hits and F, G the distribution functions of generated and true ones,

.. math:: x' = x + w(e) \, (G^{-1}(F(x)) - x),

a monotone map at equal steps of x for groups of showers ordered by their angle, on which the path in the silicon depends,
interpolated between the groups. w falls from 1 at five MIPs to 0 at fifteen: above, a cell's energy depends on the shower and
not on the silicon.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.models.calibration.monotone import MonotoneMap

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

    known: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("known", torch.zeros(1))
        self.map = MonotoneMap(1, _KNOTS, 1.0, even="x", beyond=1.0)
        for table in (self.map.x, self.map.y):
            table.copy_(torch.linspace(_LOWEST, _HIGHEST, _KNOTS))

    @property
    def fitted(self) -> bool:
        """Whether the map follows from showers."""
        return bool(self.known > 0)

    @torch.no_grad()
    def fit(self, reference: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor]) -> None:
        """Fit the map.

        Arguments:
            reference: Energies of hits (n,), MeV, and the angles of their showers (n,), degrees.
            generated: The same of generated showers of the same angles.
        """
        angles = generated[1].double()
        count = min(_GROUPS, len(angles) // _FEWEST) if bool(angles.amax() > angles.amin()) else 1
        levels = torch.linspace(0.0, 1.0, max(1, count) + 1, dtype=torch.float64)[1:-1].to(angles.device)
        edges = angles.sort().values[(levels * len(angles)).long()]
        knots = torch.linspace(_LOWEST, _HIGHEST, _KNOTS, dtype=torch.float64, device=angles.device)
        weight = ((_FADE[1] - knots) / (_FADE[1] - _FADE[0])).clamp(0.0, 1.0)
        groups = [torch.bucketize(by.double(), edges) for _, by in (reference, generated)]
        centres, rows = [], []
        for group in range(len(edges) + 1):
            true, made = (
                torch.log(energy[place == group].double()).sort().values
                for (energy, _), place in zip((reference, generated), groups, strict=True)
            )
            if min(len(true), len(made)) > 2 * _TAIL:
                centres.append(angles[groups[1] == group].mean())
                rows.append(knots + weight * _shifts(true, made, knots))
        if rows:
            self.map.position = torch.stack(centres).to(self.map.position)
            self.map.y = torch.stack(rows)[:, None, None].to(self.map.y)
            self.known.fill_(1.0)

    def forward(self, cells: Tensor, theta: Tensor) -> Tensor:
        """Return cells (B, ...), MeV, with mapped energies of hits, for angles (B,), degrees.

        The gradient is that of a constant factor.
        """
        if not self.fitted:
            return cells
        hits = cells > 0
        energy = cells[hits]
        position = (torch.log(energy.detach()) - _LOWEST) * ((_KNOTS - 1) / (_HIGHEST - _LOWEST))
        position = position.clamp(0.0, _KNOTS - 1.0)
        left = position.long().clamp_max(_KNOTS - 2)
        x, y = self.map.tables(theta, torch.float32)
        shifts = (y - x).expand(len(theta), -1)
        shower = hits.nonzero()[:, 0]
        shift = torch.lerp(shifts[shower, left], shifts[shower, left + 1], position - left)
        moved = cells.clone()
        moved[hits] = energy * torch.exp(shift)
        return moved


def _shifts(true: Tensor, made: Tensor, knots: Tensor) -> Tensor:
    """Return how far each knot (k,) must move, from sorted ln e of true hits (n,) and of generated ones (m,).

    Where less than ``_TAIL`` hits lie beyond a knot it moves as the nearest other.
    """
    inside = torch.minimum(torch.maximum(knots, made[_TAIL]), made[-1 - _TAIL])
    below = torch.searchsorted(made, inside).double() / len(made)
    place = (below * (len(true) - 1)).clamp(0, len(true) - 1)
    left = place.long().clamp_max(len(true) - 2)
    return torch.lerp(true[left], true[left + 1], place - left) - inside
