r"""The improved post-processor: draws each cell from the distribution that it has given the decoder's mean.

It is a stack of six 1 x 1 x 1 convolutions as the published one, but takes a normal number n of each cell too and does not average over
what the decoder cannot know. From ln m, the decoder's maps and the conditions, three convolutions give the probability p that
the cell holds energy. With :math:`\tau = \Phi(n)` it does where :math:`\tau > 1 - p`, and then

.. math:: \tau' = \frac{\tau - (1 - p)}{p}, \qquad \ln e = q(\tau')

with q from three more convolutions. p is learnt by the cross entropy and q, the quantile function of the energy, by the
pinball loss :math:`\langle (v - q) (\tau' - [v < q]) \rangle` at random :math:`\tau'` (W. Dabney et al., implicit quantile networks,
arXiv:1806.06923), both from pairs of true cells and decoded means. So the spectrum of the cells, the MIP peak and the number of hits follow from
likelihoods. Gradients pass the step at :math:`\tau = 1 - p` through a sigmoid of temperature 0.3 (C. Maddison et al.,
arXiv:1611.00712).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.layers.pointwise import Pointwise

__all__ = ["CellSampler"]

_UNIT = 0.2
"""MeV; about the energy of a MIP in half a millimetre of silicon."""
_LOWEST = 1e-6
_TEMPERATURE = 0.3
_EDGE = 1e-6
_REACH = 10.0
"""Largest |ln(e / 0.2 MeV)| of a cell."""


class CellSampler(nn.Module):
    """Draw cells.

    Arguments:
        features: Maps beside the mean.
        conditions: Numbers a shower that condition it.
        width: Channels.
    """

    def __init__(self, features: int, conditions: int, width: int = 32) -> None:
        super().__init__()
        self.local = Pointwise(1 + features, width)
        self.given = nn.Linear(conditions, width)
        self.common = nn.Sequential(nn.SiLU(), Pointwise(width, width), nn.SiLU())
        self.hit = Pointwise(width, 1)
        self.noise = Pointwise(1, width, bias=False)
        self.energy = nn.Sequential(Pointwise(width, width), nn.SiLU(), Pointwise(width, 1))
        self.mixed = Pointwise(width, width)

    def describe(self, mean: Tensor, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden features (B, width, X, Y, L) and the logit of p (B, X, Y, L).

        Arguments:
            mean: Decoded mean energies (B, X, Y, L), MeV.
            maps: (B, features, X, Y, L).
            conditions: (B, k).
        """
        log = torch.log(mean.clamp_min(_LOWEST) / _UNIT)[:, None]
        local = self.local(torch.cat([log / 4.0, maps], 1))
        found = self.common(local + self.given(conditions)[:, :, None, None, None])
        with torch.autocast(mean.device.type, enabled=False):
            logit = self.hit(found.float())[:, 0] + log[:, 0]
        return found, logit

    def quantile(self, found: Tensor, normal: Tensor) -> Tensor:
        """Return ln(e / 0.2 MeV) of hits: features (B, width, ...) and normal numbers (B, ...)."""
        mixed = functional.silu(self.mixed(found) + self.noise(normal[:, None]))
        with torch.autocast(found.device.type, enabled=False):
            value: Tensor = self.energy(mixed.float())
        return value[:, 0].clamp(-_REACH, _REACH)

    def forward(self, mean: Tensor, maps: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
        """Return cells (B, X, Y, L), MeV, for normal numbers of the cells (B, X, Y, L)."""
        found, logit = self.describe(mean, maps, conditions)
        tau = (0.5 * torch.erfc(-noise / math.sqrt(2.0))).clamp(_EDGE, 1.0 - _EDGE)
        over = logit + torch.logit(tau)
        hit = (over > 0).float()
        soft = torch.sigmoid(over / _TEMPERATURE)
        gate = hit + soft - soft.detach()
        empty = torch.sigmoid(-logit.detach())
        inside = ((tau - empty) / (1.0 - empty).clamp_min(_EDGE)).clamp(_EDGE, 1.0 - _EDGE)
        normal = math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0)
        return gate * _UNIT * torch.exp(self.quantile(found, normal))

    def losses(
        self, mean: Tensor, maps: Tensor, conditions: Tensor, cells: Tensor, normal: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of p and of q, sums over cells and means over showers.

        Arguments:
            mean: Decoded mean energies (B, X, Y, L), MeV.
            maps: (B, features, X, Y, L).
            conditions: (B, k).
            cells: True cells (B, X, Y, L), MeV.
            normal: Normal numbers (B, k) of the quantiles; they are learnt at the k largest cells of each shower.
        """
        found, logit = self.describe(mean, maps, conditions)
        n = len(cells)
        hits = functional.binary_cross_entropy_with_logits(logit, (cells > 0).float(), reduction="sum") / n
        top, where = torch.topk(cells.flatten(1), normal.shape[1], dim=1)
        there = found.flatten(2).gather(2, where[:, None].expand(-1, found.shape[1], -1))
        q = self.quantile(there[..., None, None], normal[..., None, None])[..., 0, 0]
        true = torch.log(top.clamp_min(_UNIT * math.exp(-_REACH)) / _UNIT)
        tau = 0.5 * torch.erfc(-normal / math.sqrt(2.0))
        off = true - q
        pinball = torch.where(top > 0, off * (tau - (off < 0).float()), torch.zeros_like(off))
        return {"hits": hits, "energies": pinball.sum() / n}
