"""Generation of cells by a network of posteriors.

At each evaluation the network says with which probability each cell is filled and how its value is distributed. The
numbers of filled cells are made to agree with the summary, then the cells move along their posteriors (:class:`CellSampler`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from caloforge.models.flow.feedback import LayerMoments
from caloforge.models.flow.networks import CellNetwork
from caloforge.models.flow.path import Time, at_time

__all__ = ["BALANCED", "CellSampler", "repeated"]

BALANCED = 0.65
"""Time up to which the numbers of filled cells are imposed; later most cells are decided."""


class CellSampler:
    """The cells of a batch, generated from noise.

    Arguments:
        network: Network of the cells.
        encoded: Encoded conditions (B, k).
        summary: Summaries (B, rows, kinds).
        to: What they say of the layers.
        filled: Numbers of filled cells (B, n_layers) to which the probabilities of a layer's cells are balanced; none: they are left.
    """

    def __init__(
        self,
        network: CellNetwork,
        encoded: Tensor,
        summary: Tensor,
        to: LayerMoments | None,
        filled: Tensor | None = None,
    ) -> None:
        self.network, self.posterior = network, network.posterior
        self.encoded, self.summary, self.to, self.filled = encoded, summary, to, filled

    def step(self, x: Tensor, start: Time, end: Time, substeps: int) -> Tensor:
        """Return the data (B, n_cells) at time ``end`` from x at ``start``, by the midpoint method: two evaluations of the network.

        Between evaluations each cell follows its posterior with ``substeps`` steps, see ``SpikeSlab.advance``.
        """
        middle, half = 0.5 * (start + end), max(1, substeps // 2)
        halfway = self.posterior.advance(x, self.evaluated(x, start), start, middle, half)
        return self.posterior.advance(x, self.evaluated(halfway, middle), start, end, substeps)

    def drawn(self, noise: Tensor, times: Sequence[float]) -> Tensor:
        """Return the data (B, n_cells) of noise, each cell drawn from its posterior at each time: one evaluation of the network a step."""
        x = noise
        for turn, (start, end) in enumerate(pairwise(times)):
            x = self.posterior.draw(x, self.evaluated(x, start), start, end, repeated(noise, turn))
        return x

    def evaluated(self, x: Tensor, time: Time) -> tuple[Tensor, ...]:
        """Return the inputs of the posterior of x (B, n_cells) at a time, balanced."""
        network, times = self.network, at_time(x, time)
        change, *others = network.predicted(x, times, self.encoded, self.summary, self.to)
        early = time < BALANCED  # a tensor in a loop
        if self.filled is not None and network.balance is not None and (isinstance(early, Tensor) or early):
            odds = self.posterior.posterior(x, times, (change, *others))[0]
            balance = network.balance(odds, self.filled)
            change = change + (torch.where(early, balance, 0.0) if isinstance(early, Tensor) else balance)
        return change, *others


def repeated(noise: Tensor, turn: int) -> Tensor:
    """Return normal numbers of the shape of ``noise`` (B, n) for a turn: its own, moved along the row, with other signs.

    They belong to other cells than before, so that no cell sees a number twice within some turns.
    """
    n = noise.shape[1]
    generator = torch.Generator().manual_seed(turn + 1)
    signs = 2.0 * torch.randint(2, (n,), generator=generator) - 1.0
    offset = int(torch.randint(n // 4, 3 * n // 4 + 1, (1,), generator=generator))
    return noise.roll(offset, 1) * signs.to(noise)
