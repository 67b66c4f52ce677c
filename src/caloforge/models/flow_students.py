"""Students smaller than their teachers: a network of its own for each jump.

A jump always begins at the same time, so each can have its own weights, which cost nothing at generation, and estimates of its own
for each cell (:mod:`~caloforge.models.layers.jump_posterior`). Such students do not begin as copies; they take their teachers'
constants only. They are for generation on one CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.config import Settings
from caloforge.models.flow_networks import CellNetwork, SummaryNetwork
from caloforge.models.layers.cell_patches import CellPatches
from caloforge.models.layers.jump_posterior import JumpPosterior

__all__ = ["JumpNetworks", "StudentSettings", "cell_jumps", "summary_jumps"]


class StudentSettings(Settings):
    """Sizes of the students.

    Arguments:
        pieces: Patches along each axis of a grid.
        width: Width of the cells' transformers.
        blocks: Their blocks.
        heads: Their attention heads.
        summary_width: Width of the summary's transformers.
        summary_blocks: Their blocks.
        summary_heads: Their attention heads.
    """

    pieces: Annotated[int, Field(ge=1)] = 5
    width: Annotated[int, Field(ge=8)] = 48
    blocks: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] = 2
    summary_width: Annotated[int, Field(ge=8)] = 64
    summary_blocks: Annotated[int, Field(ge=1)] = 2
    summary_heads: Annotated[int, Field(ge=1)] = 2


class JumpNetworks(nn.Module):
    """One network for each jump, called for rows whose jumps take turns.

    Arguments:
        networks: (x, time, *conditions) -> estimate, in the order of the jumps.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        """Return the estimates (B, ...); row i is at jump i mod K, x (B, ...), times (B,), conditions (B, ...)."""
        turns = len(self.networks)
        found = torch.empty_like(x)
        for number, network in enumerate(self.networks[: len(x)]):
            rows = slice(number, None, turns)
            found[rows] = network(x[rows], time[rows], *(part[rows] for part in conditions))
        return found

    @torch.no_grad()
    def take_constants(self, teacher: nn.Module) -> None:
        """Take the fitted constants of a teacher, which are stored under the same names."""
        theirs = teacher.state_dict()
        for network in self.networks:
            for name, buffer in network.named_buffers():
                if name in theirs:
                    buffer.copy_(theirs[name])


def summary_jumps(
    settings: StudentSettings, rows: int, kinds: int, conditions: int, jumps: int
) -> JumpNetworks:
    """Return the students of a summary (rows, kinds)."""
    s = settings
    return JumpNetworks(
        [
            SummaryNetwork(rows, kinds, conditions, s.summary_width, s.summary_blocks, s.summary_heads)
            for _ in range(jumps)
        ]
    )


def cell_jumps(
    settings: StudentSettings,
    detector: Detector,
    rows: int,
    kinds: int,
    conditions: int,
    times: Sequence[float],
) -> JumpNetworks:
    """Return the students of a detector's cells for jumps from each of the times but the last."""
    s = settings
    box = tuple(-(-n // s.pieces) for n in detector.shape) if detector.is_grid else ()
    patches = CellPatches(detector, box)
    return JumpNetworks(
        [
            CellNetwork(
                patches,
                rows,
                kinds,
                conditions,
                s.width,
                s.blocks,
                1,
                s.heads,
                JumpPosterior(detector.n_cells, time),
            )
            for time in times[:-1]
        ]
    )
