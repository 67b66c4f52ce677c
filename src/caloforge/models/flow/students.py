"""Small students for one CPU core, with a separate network for each jump.

A jump always begins at the same time, so that each can have its own weights, which cost nothing at generation, and its own estimate
for each cell (:mod:`~caloforge.models.flow.path`). The cells' network is a narrow transformer of few large patches, that of the
summary a perceptron. Such students do not begin as copies of their teachers and take only their constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector
from caloforge.models.base import in_chunks
from caloforge.models.flow.networks import CellNetwork, CellPatches
from caloforge.models.flow.path import JumpPosterior, preconditioned
from caloforge.settings import Settings

__all__ = ["JumpNetworks", "StudentSettings", "SummaryPerceptron", "cell_jumps"]

_CACHED = 500_000  # cells of a batch on a CPU, which fit into its cache


_Positive = Annotated[int, Field(ge=1)]


class StudentSettings(Settings):
    """Sizes of the students."""

    pieces: tuple[_Positive, _Positive, _Positive] = (5, 5, 3)  # patches along x, y and the layers of a grid
    width: Annotated[int, Field(ge=8)] = 48  # width of the cells' transformers
    blocks: _Positive = 1  # their blocks
    heads: _Positive = 1  # their attention heads
    summary_width: Annotated[int, Field(ge=8)] = 256  # width of the summary's networks
    summary_blocks: _Positive = 2  # their blocks


class _Block(nn.Module):
    """x + W_2 silu(W_1 normalised x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.silu(self.up(functional.layer_norm(x, x.shape[-1:], eps=1e-6)))
        found: Tensor = x + self.down(h)
        return found


class SummaryPerceptron(nn.Module):
    """Estimate the summary (B, rows, kinds) from a noisy one at one time, all numbers at once, by blocks of two layers each."""

    def __init__(self, rows: int, kinds: int, conditions: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embed = nn.Linear(rows * kinds + conditions, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.out = nn.Linear(width, rows * kinds)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        """Return the estimate (B, R, K) of x (B, R, K) at times (B,), all the same, and encoded conditions (B, k)."""
        h = self.blocks(self.embed(torch.cat([x.flatten(1), encoded], 1)))
        return preconditioned(x, time, self.out(functional.silu(h)).float().view(x.shape))


class JumpNetworks(nn.Module):
    """One network for each jump; in training the rows of a batch take the jumps in turn."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        """Return the estimates (B, ...); row i is at jump i mod K, x (B, ...), times (B,), conditions (B, ...)."""
        turns = len(self.networks)
        found = torch.empty_like(x)
        for number, network in enumerate(self.networks):
            if number < len(x):
                rows = slice(number, None, turns)
                found[rows] = network(x[rows], time[rows], *(part[rows] for part in conditions))
        return found

    def jumps(self, x: Tensor, times: Sequence[float], *conditions: Tensor) -> Tensor:
        """Return the result of all jumps from x (B, ...), for generation; times are one more than the jumps."""
        for network, (start, end) in zip(self.networks, pairwise(times), strict=True):
            estimate = network(x, x.new_full((1,), start), *conditions)
            x = torch.lerp(x, estimate, (end - start) / (1.0 - start))
        return x

    @torch.no_grad()
    def take_constants(self, teacher: nn.Module) -> None:
        """Copy the fitted constants of a teacher, which have the same names."""
        theirs = teacher.state_dict()
        for network in self.networks:
            for name, buffer in network.named_buffers():
                if name in theirs:
                    buffer.copy_(theirs[name])


class CellJump(CellNetwork):
    """The network of one jump of the cells, which can stay in patches."""

    posterior: JumpPosterior

    def patched(
        self, x: Tensor, time: Tensor, encoded: Tensor, summary: Tensor, numbers: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the estimate (B, n_patches, places) of values in patches, with the posterior's constants in patches, too."""
        outputs = self.outputs(x, time, encoded, summary).chunk(self.posterior.outputs, -1)
        return self.posterior.estimate(x, outputs, numbers)


class CellJumps(JumpNetworks):
    """The networks of all jumps of the cells, of the same patches."""

    def jumps(self, x: Tensor, times: Sequence[float], *conditions: Tensor) -> Tensor:
        """Return the result of all jumps; the cells stay in patches in between, on a CPU few showers at a time."""
        networks = [network for network in self.networks if isinstance(network, CellJump)]
        patches = networks[0].patches
        numbers = [patches(network.posterior.numbers()).unbind(0) for network in networks]
        size = max(1, _CACHED // x.shape[1]) if x.device.type == "cpu" else x.shape[0]
        found = []
        for rows in in_chunks(size, x, *conditions):
            part = patches(rows[0])
            for network, own, (start, end) in zip(networks, numbers, pairwise(times), strict=True):
                time = part.new_full((1,), start)
                estimate = network.patched(part, time, rows[1], rows[2], own)
                part = torch.lerp(part, estimate, (end - start) / (1.0 - start))
            found.append(patches.cells(part))
        return torch.cat(found)


def cell_jumps(
    settings: StudentSettings,
    detector: Detector,
    rows: int,
    kinds: int,
    conditions: int,
    times: Sequence[float],
) -> CellJumps:
    """Return the students of a detector's cells for jumps from each of the times but the last."""
    s = settings
    box = tuple(-(-n // k) for n, k in zip(detector.shape, s.pieces, strict=True)) if detector.is_grid else ()
    patches = CellPatches(detector, box)
    size = rows, kinds, conditions, s.width, s.blocks, 1, s.heads
    return CellJumps([CellJump(patches, *size, JumpPosterior(detector.n_cells, time)) for time in times[:-1]])
