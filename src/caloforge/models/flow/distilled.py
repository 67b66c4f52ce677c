r"""The flagship distilled to a few evaluations.

Teacher and student have the same architecture unless ``small`` is set; the student begins as a copy of the teacher. The time from noise to
data is cut at 0 = t_0 < ... < t_K = 1; the student's one evaluation at t_k replaces several Heun steps of the teacher. With x_k on the
straight path between noise and a training shower, and x' the teacher's result at t_{k+1}, the student's estimate D of the data is compared with

.. math:: \hat D = x_k + \frac{1 - t_k}{t_{k+1} - t_k} (x' - x_k),

the estimate with which one Euler step ends at x' (progressive distillation with all steps learned at once), for the networks of the
summary and of the cells. At the end the student is calibrated on training showers: the values of filled cells are mapped
to the training showers' quantiles (:mod:`~caloforge.models.calibration.monotone`), so that the spectrum of cell energies is theirs, and
cells get gains by their distance from the shower's axis, if every layer is rows and columns of equal cells
(:mod:`~caloforge.models.calibration.moments`). Smaller students (:mod:`~caloforge.models.flow.students`) learn in the same way from
random weights.

References:
    T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv:2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.base import CalibratedSampling
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.path import Denoiser, jump, rowwise_heun, time_grid
from caloforge.models.flow.settings import ADAMW, FlowMatchingConfig
from caloforge.models.flow.students import JumpNetworks, StudentSettings, SummaryPerceptron, cell_jumps
from caloforge.models.stage import Batch, Random, Stage, TrainingData
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["FlowMatchingFast", "FlowMatchingFastConfig"]


class FlowMatchingFastConfig(FlowMatchingConfig):
    """Settings of the flow and of its distillation."""

    # epochs of the teacher of the cells; 0 for teachers that were trained before (``train.initial``)
    epochs: Annotated[int, Field(ge=0)] = 400
    summary_jumps: Annotated[int, Field(ge=1)] = 4  # evaluations of the summary's student
    jumps: Annotated[int, Field(ge=1)] = 4  # evaluations of the cells' student
    # where the times of the cells' student lie, see :func:`~caloforge.models.flow.path.time_grid`
    shift: Annotated[float, Field(gt=0)] = 2.0
    # Heun steps of the teacher for one evaluation of the student
    teacher_steps: Annotated[int, Field(ge=1)] = 3
    summary_student_epochs: Annotated[int, Field(ge=0)] = 200  # epochs of the summary's student
    student_epochs: Annotated[int, Field(ge=0)] = 100  # epochs of the cells' student
    student: OptimizerSettings = OptimizerSettings(**ADAMW, lr=5e-4, warmup=100)  # optimiser of both
    # sizes of students smaller than their teachers; none for copies of the teachers
    small: StudentSettings | None = None


class FlowMatchingFast(FlowMatching):
    """Flow matching in a few evaluations; see the module.

    Presets: those of the teacher, and ``cpu``: small students of the teacher of ``improved``, for one core of a CPU.
    """

    Config = FlowMatchingFastConfig
    Sampling: ClassVar[type[Settings]] = CalibratedSampling
    sampling: CalibratedSampling  # type: ignore[assignment]
    training_only: ClassVar[tuple[str, ...]] = ("summary_net", "cell_net")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **FlowMatching.presets,
        "cpu": {
            "summary_jumps": 4,
            "jumps": 2,
            "small": {},
            "summary_student_epochs": 400,
            "student_epochs": 400,
            "student": {**ADAMW, "lr": 2e-3, "warmup": 300},
        },
    }
    config: FlowMatchingFastConfig

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        c = self.config
        rows, kinds, width = self.summary.rows, self.summary.kinds, self.encoder.width
        self.summary_times = time_grid(c.summary_jumps)
        self.cell_times = time_grid(c.jumps, c.shift)
        self.summary_student: nn.Module
        self.cell_student: nn.Module
        if c.small is not None:
            self.summary_student = JumpNetworks(
                [
                    SummaryPerceptron(rows, kinds, width, c.small.summary_width, c.small.summary_blocks)
                    for _ in range(c.summary_jumps)
                ]
            )
            self.cell_student = cell_jumps(c.small, detector, rows, kinds, width, self.cell_times)
            return
        self.summary_student = self.summary_network()
        self.cell_student = self.cell_network(self.cell_net.patches)

    @property
    def compilable(self) -> tuple[str, ...]:
        """The students: a network that is evaluated several times, or the jumps of small ones."""
        if isinstance(self.cell_student, JumpNetworks):
            return "summary_student.jumps", "cell_student.jumps"
        return "summary_student.forward", "cell_student.predicted"

    @property
    def low_precision(self) -> tuple[str, ...]:
        """The students of the cells; see ``FlowMatching.low_precision``."""
        return self.compilable[1:]

    @property
    def balances(self) -> bool:
        """False: jumps follow the teacher's flow as it is."""
        return False

    def summarise(self, noise: Tensor, encoded: Tensor) -> Tensor:
        """Return the summary (B, rows, kinds) of noise of that shape."""
        return _jumps(self.summary_student, noise, self.summary_times, encoded)

    def shape(self, noise: Tensor, encoded: Tensor, summary: Tensor, targets: LayerTargets) -> Tensor:
        """Return the values of the cells (B, n_cells) of noise of that shape, for a summary and what it says of the layers."""
        if isinstance(self.cell_student, JumpNetworks):
            return self.cell_student.jumps(noise, self.cell_times, encoded, summary)
        conditions = encoded, summary, self.layer_moments(targets, summary, encoded)
        return _jumps(self.cell_student, noise, self.cell_times, *conditions)

    def stages(self) -> tuple[Stage, ...]:
        """Return the teacher's stages, the copy, the two distillations, and the calibration."""
        c = self.config
        return (
            *self.teacher_stages(),
            Stage("copy", fit=self._copy),
            self._stage(
                "summary-student",
                c.summary_student_epochs,
                c.summary_batch_size,
                c.student,
                self.summary_student,
                self.summary_distance,
                (self.summary_net,),
            ),
            self._stage(
                "cell-student",
                c.student_epochs,
                c.batch_size,
                c.student,
                self.cell_student,
                self.cell_distance,
                (self.cell_net,),
            ),
            *self.calibration_stages(),
        )

    def _copy(self, data: TrainingData, generator: torch.Generator) -> None:
        """Copy the teachers to their students, or to small students their constants."""
        pairs = ((self.summary_net, self.summary_student), (self.cell_net, self.cell_student))
        for teacher, student in pairs:
            if isinstance(student, JumpNetworks):
                student.take_constants(teacher)
            else:
                student.load_state_dict(teacher.state_dict())

    def summary_distance(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the distance of the summary's student to its teacher; ``blur`` is not used."""
        summary, encoded = self._summary_data(batch, random)
        teacher, student = self.summary_denoiser(encoded), self.summary_student
        noise = random.normal(*summary.shape)
        return self._distance(
            teacher, lambda x, t: student(x, t, encoded), summary, noise, self.summary_times
        )

    def cell_distance(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the distance of the cells' student to its teacher, with a summary blurred by normal noise of that width."""
        values, summary, encoded, to = self._cell_data(batch, random, blur)
        teacher, student = self.cell_denoiser(encoded, summary, to), self.cell_student
        conditions = (encoded, summary) if isinstance(student, JumpNetworks) else (encoded, summary, to)
        noise = random.normal(*values.shape)
        return self._distance(
            teacher, lambda x, t: student(x, t, *conditions), values, noise, self.cell_times
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


def _jumps(student: nn.Module, x: Tensor, times: tuple[float, ...], *conditions: Any) -> Tensor:
    """Return the result of one evaluation a step from x (B, ...)."""
    if isinstance(student, JumpNetworks):
        return student.jumps(x, times, *conditions)
    for start, end in pairwise(times):
        x = jump(lambda x, t: student(x, t[:1], *conditions), x, start, end)
    return x
