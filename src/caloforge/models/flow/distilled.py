r"""The flagship distilled to a few evaluations.

Teacher and student have the same architecture; the student begins as a copy of the teacher and learns jumps over its flow
(:mod:`~caloforge.models.flow.students`), for the networks of the summary and of the cells. At the end the student is calibrated on training
showers: the values of filled cells are mapped to the training showers' quantiles (:mod:`~caloforge.models.calibration.monotone`), so that
the spectrum of cell energies is theirs, and cells get gains by their distance from the shower's axis, if every layer is rows and columns of
equal cells (:mod:`~caloforge.models.calibration.moments`).

References:
    T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv:2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.path import time_grid
from caloforge.models.flow.students import DistilledSummary, DistilledSummaryConfig, follow_jumps
from caloforge.models.stage import Batch, Random, Stage, TrainingData
from caloforge.settings import ModelConfig

__all__ = ["FlowMatchingFast", "FlowMatchingFastConfig"]


class FlowMatchingFastConfig(DistilledSummaryConfig):
    """Settings of the flow and of its distillation."""

    search: ClassVar[Mapping[str, str]] = {
        "width": "64,96,128,192",
        "blocks": "1:4",
        "repeats": "1:3",
        "jumps": "2:6",
        "summary_jumps": "2:6",
        "batch_size": "128,256,512",
        "optimizer.lr": "3e-4:3e-3:log",
        "student.lr": "2e-4:3e-3:log",
    }

    # epochs of the teacher of the cells; 0 for teachers that were trained before (``train.initial``)
    epochs: Annotated[int, Field(ge=0)] = 400
    jumps: Annotated[int, Field(ge=1)] = 4  # evaluations of the cells' student
    # where the times of the cells' student lie, see :func:`~caloforge.models.flow.path.time_grid`
    shift: Annotated[float, Field(gt=0)] = 2.0
    student_epochs: Annotated[int, Field(ge=0)] = 100  # epochs of the cells' student


class FlowMatchingFast(DistilledSummary):
    """Flow matching in a few evaluations; see the module. Presets are those of the teacher."""

    papers: ClassVar[tuple[str, ...]] = ("flow-matching", "distillation")
    Config = FlowMatchingFastConfig
    training_only: ClassVar[tuple[str, ...]] = ("summary_net", "cell_net")
    config: FlowMatchingFastConfig

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        self.cell_times = time_grid(self.config.jumps, self.config.shift)
        self.summary_student: nn.Module = self.summary_network()
        self.cell_student = self.cell_network(self.cell_net.patches)

    @property
    def compilable(self) -> tuple[str, ...]:
        """The students, which are evaluated several times."""
        return "summary_student.forward", "cell_student.predicted"

    @property
    def low_precision(self) -> tuple[str, ...]:
        """The students of the cells; see ``FlowMatching.low_precision``."""
        return self.compilable[1:]

    @property
    def balances(self) -> bool:
        """False: jumps follow the teacher's flow as it is."""
        return False

    def shape(self, noise: Tensor, encoded: Tensor, summary: Tensor, targets: LayerTargets) -> Tensor:
        """Return the values of the cells (B, n_cells) of noise of that shape, for a summary and what it says of the layers."""
        conditions = encoded, summary, self.layer_moments(targets, summary, encoded)
        return follow_jumps(self.cell_student, noise, self.cell_times, *conditions)

    def stages(self) -> tuple[Stage, ...]:
        """Return the teacher's stages, the copy, the two distillations, and the calibration."""
        c = self.config
        return (
            *self.teacher_stages(),
            Stage("copy", fit=self._copy),
            self.summary_student_stage(),
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
        """Copy the teachers to their students."""
        self.summary_student.load_state_dict(self.summary_net.state_dict())
        self.cell_student.load_state_dict(self.cell_net.state_dict())

    def cell_distance(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the distance of the cells' student to its teacher, with a summary blurred by normal noise of that width."""
        values, summary, encoded, to = self._cell_data(batch, random, blur)
        teacher, student = self.cell_denoiser(encoded, summary, to), self.cell_student
        noise = random.normal(*values.shape)
        return self._distance(
            teacher, lambda x, t: student(x, t, encoded, summary, to), values, noise, self.cell_times
        )
