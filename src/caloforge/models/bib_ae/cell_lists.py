"""Cells of showers sampled from lists of those that may be hit, without gradients.

The same as ``AxisGenerator.decode`` and ``finish`` do with arrays of all cells: means are scaled to the energies of the shower, cells
are sampled (:class:`~caloforge.models.bib_ae.axis.CellSampler`), scaled, mapped to the true spectrum and scaled again. Two
per cent of the cells of a shower of photons are filled, and one in seven may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from caloforge.models.bib_ae.axis import LOWEST, UNIT, CellSampler, uniform
from caloforge.models.bib_ae.axis_evaluation import Evaluated
from caloforge.models.bib_ae.networks import Pointwise
from caloforge.models.calibration.distributions import CellSpectrum, ShowerSums, Sums

__all__ = ["CellLists"]


class CellLists:
    """Sampler of the cells of decoded showers; constants follow from the weights when it is made.

    Arguments:
        sampler: The networks of the cells.
        maps: The decoder's last product, whose first output is the logit and the others are the sampler's maps.
        energies: Factors of the layers.
        spectrum: Map of the energies of hits, applied where it is fitted.
    """

    def __init__(
        self, sampler: CellSampler, maps: Pointwise, energies: ShowerSums, spectrum: CellSpectrum
    ) -> None:
        self.sampler, self.energies, self.spectrum = sampler, energies, spectrum
        weight, bias = sampler.local.weight, sampler.local.bias
        assert bias is not None
        assert maps.bias is not None
        self.of_log = weight[:, 0] / 4.0
        self.of_features = (weight[:, 1:] @ maps.weight[1:]).T.contiguous()
        self.bias = bias[:, 0] + weight[:, 1:] @ maps.bias[1:, 0]

    def __call__(
        self,
        showers: Iterable[Evaluated],
        target: Sums,
        conditions: Tensor,
        noise: Tensor,
        shared: Tensor,
        theta: Tensor | None,
    ) -> Tensor:
        """Return cells (B, X * Y * L), MeV, in the detector's order.

        Arguments:
            showers: B decoded showers.
            target: Their energies.
            conditions: The sampler's conditions (B, k).
            noise: Normal numbers (B, m) of the cells.
            shared: Which of them is that of a cell (L, X, Y).
            theta: Angles (B,), degrees, with which the energies of hits are mapped; none to leave them as they are.
        """
        tau, n_layers, plane = uniform(noise), shared.shape[0], shared[0].numel()
        level, common = torch.logit(tau), self.sampler.condition(conditions) + self.bias
        lists = []
        for b, shower in enumerate(showers):
            log = self._means(shower.logits, Sums(*(energy[b : b + 1] for energy in target)))
            cell = self.sampler.may_be_hit(log, level[b][shared]).flatten().nonzero()[:, 0]
            log = log.flatten()[cell]
            hidden = torch.addmm(common[b], shower.features.index_select(0, cell), self.of_features)
            hidden.addcmul_(log[:, None], self.of_log)
            hit, features, normal = self.sampler.hits(hidden.T, log, tau[b][shared.flatten()[cell]])
            lists.append((torch.full_like(hit, b), cell[hit], normal, features.T))
        which, cell, normal, features = (torch.cat(part) for part in zip(*lists, strict=True))
        energy = self.sampler.energies(features.T, normal)
        layer = cell.div(plane, rounding_mode="floor")
        place = which * n_layers + layer
        energy = self._scaled(energy, place, target, n_layers)
        if theta is not None and self.spectrum.fitted:
            mapped = self.spectrum.of_hits(energy, which, theta)
            energy = self._scaled(mapped, place, target, n_layers)
        cells = energy.new_zeros(len(noise), plane, n_layers)
        cells[which, cell - layer * plane, layer] = energy
        return cells.flatten(1)

    def _means(self, logits: Tensor, target: Sums) -> Tensor:
        """Return ln(mean / 0.2 MeV) (L, X, Y) of the logits and energies (1,) of a shower."""
        largest = logits.amax()
        layers = torch.exp(logits - largest).sum((1, 2))[None]
        scale = target.visible / layers.sum()
        factors = self.energies.factors(layers * scale, target)[0] * scale
        log = logits + (torch.log(factors / UNIT) - largest)[:, None, None]
        return log.clamp_min_(math.log(LOWEST / UNIT))

    def _scaled(self, energy: Tensor, place: Tensor, target: Sums, n_layers: int) -> Tensor:
        """Return energies of hits (n,), MeV, of the layers numbered shower by shower (n,), scaled to the energies of the showers."""
        layers = energy.new_zeros(len(target.visible) * n_layers).index_add_(0, place, energy)
        factors = self.energies.factors(layers.view(-1, n_layers), target)
        return energy * factors.flatten()[place]
