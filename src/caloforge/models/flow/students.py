r"""The summary of the flow distilled to a few evaluations.

The time from noise to data is cut at 0 = t_0 < ... < t_K = 1; the student's one evaluation at t_k replaces several Heun steps of the
teacher. With x_k on the straight path between noise and data, and x' the teacher's result at t_{k+1}, the student's estimate D of the data
is compared with

.. math:: \hat D = x_k + \frac{1 - t_k}{t_{k+1} - t_k} (x' - x_k),

the estimate with which one Euler step ends at x' (progressive distillation with all steps learned at once).

A jump always begins at the same time, so that a small student can have a network for each jump (:class:`JumpNetworks`), which costs
nothing at generation; that of the summary is a perceptron.

References:
    T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv:2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedSampling
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.path import Denoiser, jump, preconditioned, rowwise_heun, time_grid
from caloforge.models.flow.settings import ADAMW, FlowMatchingConfig
from caloforge.models.stage import Batch, Random, Stage
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["DistilledSummary", "DistilledSummaryConfig", "JumpNetworks", "SummaryPerceptron", "follow_jumps"]


class DistilledSummaryConfig(FlowMatchingConfig):
    """Settings of a flow whose summary is distilled."""

    summary_jumps: Annotated[int, Field(ge=1)] = 4  # evaluations of the summary's student
    # Heun steps of the teacher for one evaluation of the student
    teacher_steps: Annotated[int, Field(ge=1)] = 3
    summary_student_epochs: Annotated[int, Field(ge=0)] = 200  # epochs of the summary's student
    student: OptimizerSettings = OptimizerSettings(**ADAMW, lr=5e-4, warmup=100)  # optimiser of students


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


def follow_jumps(student: nn.Module, x: Tensor, times: tuple[float, ...], *conditions: Any) -> Tensor:
    """Return the result of one evaluation a step from x (B, ...)."""
    if isinstance(student, JumpNetworks):
        return student.jumps(x, times, *conditions)
    for start, end in pairwise(times):
        x = jump(lambda x, t: student(x, t[:1], *conditions), x, start, end)
    return x


class DistilledSummary(FlowMatching):
    """A flow whose summary is made by a student, ``summary_student``, which a subclass's constructor sets."""

    Config = DistilledSummaryConfig
    Sampling: ClassVar[type[Settings]] = CalibratedSampling
    sampling: CalibratedSampling  # type: ignore[assignment]
    config: DistilledSummaryConfig
    structure: ClassVar[tuple[str, ...]] = ()
    pretraining: ClassVar[Mapping[str, int]] = {}
    summary_student: nn.Module

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        self.summary_times = time_grid(self.config.summary_jumps)

    def summarise(self, noise: Tensor, encoded: Tensor) -> Tensor:
        """Return the summary (B, rows, kinds) of noise of that shape."""
        return follow_jumps(self.summary_student, noise, self.summary_times, encoded)

    def summary_student_stage(self) -> Stage:
        """Return the stage in which the summary's student learns from its teacher."""
        c = self.config
        return self._stage(
            "summary-student",
            c.summary_student_epochs,
            c.summary_batch_size,
            c.student,
            self.summary_student,
            self.summary_distance,
            (self.summary_net,),
        )

    def summary_distance(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the distance of the summary's student to its teacher; ``blur`` is not used."""
        summary, encoded = self._summary_data(batch, random)
        teacher, student = self.summary_denoiser(encoded), self.summary_student
        noise = random.normal(*summary.shape)
        return self._distance(
            teacher, lambda x, t: student(x, t, encoded), summary, noise, self.summary_times
        )

    def _distance(
        self, teacher: Denoiser, student: Denoiser, data: Tensor, noise: Tensor, times: tuple[float, ...]
    ) -> Tensor:
        """Return the mean squared distance of the velocities of teacher and student; the rows of a batch take the jumps in turn.

        Data x_1 and noise x_0 are (B, ...).
        """
        which = torch.arange(len(data), device=data.device) % (len(times) - 1)
        grid = torch.tensor(times, device=data.device, dtype=data.dtype)
        start, end = grid[which], grid[which + 1]
        first = start.view(-1, *[1] * (data.dim() - 1))
        x = (1.0 - first) * noise + first * data
        with torch.no_grad():
            steps = self.config.teacher_steps
            goal = rowwise_heun(teacher, x, start, end, steps)
        goal_velocity = (goal - x) / (end - start).view_as(first)
        velocity: Tensor = (student(x, start).float() - x) / (1.0 - first)
        return (velocity - goal_velocity).square().mean()
