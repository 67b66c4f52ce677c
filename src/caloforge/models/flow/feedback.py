r"""Layer energies, centres and widths of the shower that a flow expects, against those of its summary.

At time t each cell has a posterior (:class:`~caloforge.models.flow.path.SpikeSlab`): it is filled with probability p, and then has a normal value, with
mean energy e. The layers of the expected shower have the moments

.. math:: \langle f \rangle = \sum_i p_i e_i f_i, \qquad f = 1, x, y, x^2, y^2.

The summary fixes those moments, so that an exact posterior agrees with it at every time, and any difference is an error of the network, which
sees a patch of cells through one token and logarithms of energies through linear maps. With feedback it is given, for the layers of each
token, the differences that the showers' average posterior has at the noisy values (:meth:`LayerFeedback.misses`).

References:
    T. Chen et al., "Analog bits", arXiv:2208.04202, section 2.2 (a network that is given an estimate of the data).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.flow.cells import CellValues, LayerTargets
from caloforge.models.flow.path import SpikeSlab
from caloforge.models.flow.summary import CoreMoments
from caloforge.models.nn.cell_networks import LayerView

__all__ = ["LayerFeedback", "LayerMoments"]

_KNOTS = 400
_LOWEST, _HIGHEST = -1.0, 10.0  # values of the table's ends
_TINY = 1e-12
_LEAST = 1e-3  # least width of a layer, in half widths of the layer
_FAINTEST = 1e-4  # least energy of a layer, in units of its summary's
_FARTHEST = 3.0  # largest difference that the network is given
_RATE = 1.0 / 0.48  # d ln e / d value of bright cells
_VARIANCE = 1.0  # largest variance of ln e


class LayerMoments(NamedTuple):
    """What the summary of a batch says of its layers."""

    sums: Tensor  # energies (B, n_layers), MeV
    filled: Tensor  # filled cells (B, n_layers)
    moments: Tensor  # target means of x, y, x^2 and y^2 (B, n_layers, 4), in half widths of the layer
    base: Tensor  # values (B, n_cells) at which core cells are 0, others 0

    @classmethod
    def of(cls, targets: LayerTargets, core: CoreMoments, summary: Tensor, encoded: Tensor) -> LayerMoments:
        """Return those of targets (see there), summaries (B, rows, kinds) and encoded conditions (B, k)."""
        squares = (
            targets.x.square() + targets.width_x.square(),
            targets.y.square() + targets.width_y.square(),
        )
        moments = torch.stack([targets.x, targets.y, *squares], 2)
        nothing = summary.new_zeros(summary.shape[0], len(core.layer))
        base = core.inverse(nothing, summary, encoded, edges=False)
        return cls(targets.sums, targets.hits + targets.faint, moments, base)


class LayerFeedback(nn.Module):
    """Expected moments of the layers; ``misses`` are ``kinds`` numbers a layer."""

    kinds = 6
    table: Tensor  # (columns, knots) ln e at equally spaced values
    spread: Tensor  # (n_cells,) value of a unit of each cell
    powers: (
        Tensor  # (n_layers, width, 5) 1, x, y, x^2 and y^2 of the cells, in float64, since differences follow
    )

    def __init__(self, detector: Detector, relative: bool, radial: float = 1.0) -> None:
        super().__init__()
        self.relative = relative
        self.view = LayerView(detector, radial)
        self.register_buffer(
            "table", torch.zeros(detector.n_layers if relative else 1, _KNOTS), persistent=False
        )
        self.register_buffer("spread", torch.ones(detector.n_cells), persistent=False)
        x, y = self.view.x.double(), self.view.y.double()
        powers = torch.stack([torch.ones_like(x), x, y, x.square(), y.square()], -1)
        self.register_buffer("powers", powers, persistent=False)

    @torch.no_grad()
    def fit(self, values: CellValues, core: CoreMoments) -> None:
        """Take the table of energies and the widths of core cells."""
        knots = torch.linspace(_LOWEST, _HIGHEST, _KNOTS, device=self.table.device)
        knots = knots.expand(1, self.table.shape[0], -1)
        self.table.copy_(values.logarithms(knots)[0])
        self.spread.fill_(1.0)
        self.spread[core.cells] = core.spread

    def misses(self, posterior: SpikeSlab, x: Tensor, time: Tensor, to: LayerMoments) -> Tensor:
        """Return by how much the layers miss their summary (B, n_layers, 6) with what noisy values x (B, n_cells) say at times (B,).

        Logarithms of energy and filled cells, centres in widths, logarithms of the widths; 0 for empty layers.
        """
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return self._misses(posterior, x, time, to)

    def _misses(self, posterior: SpikeSlab, x: Tensor, time: Tensor, to: LayerMoments) -> Tensor:
        p, e = self._expected(posterior, x, time, to)
        sums = torch.einsum("blw,lwk->blk", (p * e).to(self.powers), self.powers)
        whole = sums[..., 0].clamp_min(_TINY)
        mx, my, xx, yy = (sums[..., 1:] / whole[..., None]).unbind(-1)
        tx, ty, txx, tyy = to.moments.to(sums).unbind(-1)
        squares = (xx, mx), (yy, my), (txx, tx), (tyy, ty)
        wide = [(square - middle.square()).clamp_min(_LEAST**2) for square, middle in squares]
        numbers = [
            torch.log(whole.clamp_min(_FAINTEST)),
            torch.log((p.sum(2) + 1.0) / (to.filled + 1.0)).to(whole),
            (mx - tx) / wide[2].sqrt(),
            (my - ty) / wide[3].sqrt(),
            0.5 * torch.log(wide[0] / wide[2]),
            0.5 * torch.log(wide[1] / wide[3]),
        ]
        found = torch.stack(numbers, 2).clamp(-_FARTHEST, _FARTHEST)
        return torch.where(to.filled[..., None] > 0, found, 0.0).to(x)

    def _expected(
        self, posterior: SpikeSlab, x: Tensor, time: Tensor, to: LayerMoments
    ) -> tuple[Tensor, Tensor]:
        """Return p and e, in layer energies, (B, n_layers, width) each."""
        nothing = (torch.zeros_like(x[:1]),) * posterior.outputs
        odds, mean, variance = posterior.posterior(x, time, nothing)
        value = self.view(torch.addcmul(to.base, mean, self.spread))
        place = ((value - _LOWEST) * ((_KNOTS - 1) / (_HIGHEST - _LOWEST))).clamp(0.0, _KNOTS - 1.001)
        left = place.long()
        at = left + torch.arange(self.table.shape[0], device=x.device)[:, None] * _KNOTS
        flat = self.table.flatten()
        logs = torch.lerp(flat[at], flat[at + 1], place - left)
        if not self.relative:
            logs = logs - torch.log(to.sums.clamp_min(_TINY))[:, :, None]
        square = self.view(variance * (self.spread * _RATE).square()).clamp_max(_VARIANCE)
        return self.view(torch.sigmoid(odds)), torch.exp((logs + 0.5 * square).clamp_max(0.0))
