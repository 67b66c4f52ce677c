"""The flow for one core of a CPU: a summary distilled from the flagship's, and cells that small networks draw in a few turns.

1. The summary is that of the flagship, :mod:`~caloforge.models.flow.model`, made by small perceptrons in a few jumps, which learned them
   from the flagship's network (:mod:`~caloforge.models.flow.students`).
2. The values of the cells are drawn by networks of columns (:mod:`~caloforge.models.flow.columns`), which learn from training showers
   and need no teacher.
3. Cells are decoded and calibrated as the flagship's.

Usually the summary's teacher was trained before: ``summary_epochs=0`` and ``train.initial`` with the weights of a ``flow-matching``
for the same detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.columns import ColumnNetworks, Context, FaintCells, is_columns
from caloforge.models.flow.fixed_time import learns
from caloforge.models.flow.path import CellAverages
from caloforge.models.flow.settings import ADAMW
from caloforge.models.flow.students import (
    DistilledSummary,
    DistilledSummaryConfig,
    JumpNetworks,
    SummaryPerceptron,
)
from caloforge.models.stage import Batch, Random, Stage
from caloforge.settings import ModelConfig, OptimizerSettings

__all__ = ["FlowMatchingCpu", "FlowMatchingCpuConfig"]


class FlowMatchingCpuConfig(DistilledSummaryConfig):
    """Settings of the small flow; ``width`` and ``blocks`` are those of the columns."""

    search: ClassVar[Mapping[str, str]] = {
        "width": "24,32,48,64,96",
        "blocks": "1:3",
        "kernel": "3,5,7",
        "times": "[0.0],[0.0, 0.5],[0.0, 0.35, 0.7],[0.0, 0.25, 0.5, 0.75]",
        "student_width": "128,192,256,384",
        "summary_jumps": "2:6",
        "student.lr": "5e-4:5e-3:log",
        "optimizer.lr": "1e-3:1e-2:log",
    }

    width: Annotated[int, Field(ge=8)] = 48  # channels of a column
    blocks: Annotated[int, Field(ge=1)] = 1  # blocks of each network of columns
    kernel: Annotated[int, Field(ge=1)] = 5  # columns along the side of their convolutions, odd
    times: tuple[float, ...] = (0.0, 0.35, 0.7)  # when the turns begin
    student_width: Annotated[int, Field(ge=8)] = 256  # width of the summary's perceptrons
    student_blocks: Annotated[int, Field(ge=1)] = 2  # their blocks
    summary_student_epochs: Annotated[int, Field(ge=0)] = 400
    student: OptimizerSettings = OptimizerSettings(**ADAMW, lr=2e-3, warmup=300)
    optimizer: OptimizerSettings = OptimizerSettings(**ADAMW, lr=3e-3, warmup=500)

    @field_validator("box", "repeats", "heads", "local", "feedback")
    @classmethod
    def _unused(cls, value: Any, info: ValidationInfo) -> Any:
        if value != DistilledSummaryConfig.model_fields[str(info.field_name)].default:
            msg = "belongs to the transformer of flow-matching; the small networks have width, blocks and kernel"
            raise ValueError(msg)
        return value

    @field_validator("times")
    @classmethod
    def _rising(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if not times or times[0] != 0 or any(b <= a for a, b in pairwise(times)) or times[-1] >= 1:
            msg = "expected rising times from 0 on, all below 1"
            raise ValueError(msg)
        return times

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            msg = "expected an odd number of columns"
            raise ValueError(msg)
        return kernel


class FlowMatchingCpu(DistilledSummary):
    """Flow matching for one core of a CPU; see the module. Detectors of flat layers of equal cells only."""

    papers: ClassVar[tuple[str, ...]] = ("flow-matching", "distillation")
    Config = FlowMatchingCpuConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"improved": {}}
    training_only: ClassVar[tuple[str, ...]] = ("summary_net",)
    config: FlowMatchingCpuConfig
    cell_net: ColumnNetworks  # type: ignore[assignment]

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        c = self.config
        size = self.summary.rows, self.summary.kinds, self.encoder.width
        self.summary_student: nn.Module = JumpNetworks(
            [SummaryPerceptron(*size, c.student_width, c.student_blocks) for _ in range(c.summary_jumps)]
        )

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Raise IncompatibleError when the layers are not the same rows and columns of cells."""
        if not is_columns(detector):
            msg = f"'flow-matching-cpu' needs layers with the same rows and columns of cells; those of '{detector.name}' differ"
            raise IncompatibleError(msg)

    def cells_network(self) -> ColumnNetworks:  # type: ignore[override]
        """Return new networks of the cells."""
        c, size = self.config, (self.summary.rows, self.summary.kinds, self.encoder.width)
        return ColumnNetworks(self.detector, c.times, *size, c.width, c.blocks, c.kernel)

    @property
    def compilable(self) -> tuple[str, ...]:
        """None: it is made for a CPU."""
        return ()

    @property
    def low_precision(self) -> tuple[str, ...]:
        """None; see ``compilable``."""
        return ()

    @property
    def balances(self) -> bool:
        """False: layers have exactly as many filled cells as the summary says."""
        return False

    def shape(self, noise: Tensor, encoded: Tensor, summary: Tensor, targets: LayerTargets) -> Tensor:
        """Return the values of the cells (B, n_cells) of noise of that shape, for a summary and what it says of the layers."""
        filled = targets.hits + targets.faint
        filled = torch.where(targets.sums > self.config.cut, filled.clamp_min(1.0), filled)
        value = partial(self.values.faint, below=self.config.threshold)
        faint = FaintCells(torch.minimum(targets.faint, filled), self._threshold(), value)
        return self.cell_net.draw(noise, Context.of(encoded, summary, targets), filled, faint)

    def _threshold(self) -> Tensor:
        """Return the value (n_cells,) of the threshold of a hit; core cells, whose values are other ones, are never faint."""
        edge = self.values.edge(self.config.threshold).expand(self.detector.n_cells).clone()
        edge[self.core.cells] = -torch.inf
        return edge

    def shipped_state(self) -> dict[str, Tensor]:
        """Return the weights that sampling needs; of the numbers of single cells those of cells that learn."""
        state = super().shipped_state()
        kept = learns(self.cell_net.posterior).cpu()
        for name, axis, _ in self.cell_net.by_cell():
            flat = state[f"cell_net.{name}"].flatten(axis, axis + 1)
            state[f"cell_net.{name}"] = flat.index_select(axis, torch.nonzero(kept)[:, 0]).contiguous()
        return state

    def load_weights(self, state: Mapping[str, Tensor], shipped: bool = False) -> None:
        """Load weights, those of :meth:`shipped_state` too."""
        found, logit = dict(state), state.get("cell_net.posterior.logit")
        if logit is not None and logit.shape == self.cell_net.posterior.logit.shape:
            averages = CellAverages(len(logit))
            averages.logit.copy_(logit)
            kept = torch.nonzero(learns(averages))[:, 0]
            for name, axis, parameter in self.cell_net.by_cell():
                packed = found.get(f"cell_net.{name}")
                if (
                    packed is not None
                    and packed.dim() == parameter.dim() - 1
                    and packed.shape[axis] == len(kept)
                ):
                    full = packed.new_zeros(parameter.flatten(axis, axis + 1).shape)
                    full.index_copy_(axis, kept, packed)
                    found[f"cell_net.{name}"] = full.view(parameter.shape)
        super().load_weights(found, shipped)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages: the summary's teacher, its student, the cells, and the calibration."""
        summary, cells = self.teacher_stages()
        return (summary, self.summary_student_stage(), cells, *self.calibration_stages())

    def cell_loss(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the loss of the cells, with a summary blurred by normal noise of that width."""
        values, summary, encoded, _ = self._cell_data(batch, random, blur)
        with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
            energy = self.condition(batch.conditions, "incident_energy")[:, 0]
            context = Context.of(encoded, summary, self.summary.decode(summary, energy, encoded))
        noise = random.normal(*values.shape)
        return self.cell_net(values, noise, context)  # type: ignore[no-any-return]
