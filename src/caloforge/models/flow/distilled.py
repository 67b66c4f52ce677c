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

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.geometry import Detector, ReadoutLayer
from caloforge.models.calibration.base import STAGE, CalibratedSampling
from caloforge.models.calibration.moments import Gains
from caloforge.models.flow.cells import Gain, LayerTargets
from caloforge.models.flow.model import ADAMW, FlowMatching, FlowMatchingConfig
from caloforge.models.flow.path import jump, rowwise_heun, time_grid
from caloforge.models.flow.students import JumpNetworks, StudentSettings, SummaryPerceptron, cell_jumps
from caloforge.models.nn.cell_networks import LayerView
from caloforge.models.stage import Batch, Random, Stage, TrainingData
from caloforge.settings import ModelConfig, OptimizerSettings, Settings

__all__ = ["FlowMatchingFast", "FlowMatchingFastConfig", "RingGains"]

_ROUNDS = 4
"""Fits of map and gains: the layers are scaled to their energies after them, which changes both a little."""


_TINY = 1e-12
_EDGES = (0.6, 1.2, 1.8, 2.4, 3.2, 4.2, 5.5, 7.5, 10.5)
"""Distances between rings, in cells; none is that of a cell from an axis through a cell's centre or corner."""


class RingGains(nn.Module):
    r"""Gains of cells by layer and by distance from the shower axis, so that the mean lateral profile is that of the training showers.

    The axis begins where the beam enters and points along theta, so it passes layer l at :math:`x_0` and
    :math:`y_0 + z_l / \tan \theta`.

    Arguments:
        detector: A detector whose layers are rows and columns of equal cells.
        width: Continuous encoded conditions.
    """

    edges: Tensor
    slope: Tensor  # (2, n_layers) cells, along x and y, to one unit of a layer's positions (half its width)
    origin: Tensor  # (2, n_layers) of the layer's middle, in cells from where the beam enters
    depth: Tensor  # (n_layers,) of the layers, in cells along y
    rings = len(_EDGES) + 1  # rings of a layer

    def __init__(self, detector: Detector, width: int) -> None:
        super().__init__()
        self.n_layers, beam = detector.n_layers, detector.beam
        layers = [layer for layer in detector.layers if isinstance(layer, ReadoutLayer)]
        slope, origin = [], []
        for layer in layers:
            ends = [
                (layer.x.min(), layer.x.max(), beam.x, layer.pitch_x),
                (layer.y.min(), layer.y.max(), beam.y, layer.pitch_y),
            ]
            slope.append([max(0.5 * (high - low), 1e-6) / pitch for low, high, _, pitch in ends])
            origin.append([(0.5 * (high + low) - start) / pitch for low, high, start, pitch in ends])
        tables = {
            "edges": torch.tensor(_EDGES).square(),
            "slope": torch.tensor(slope, dtype=torch.float32).T.contiguous(),
            "origin": torch.tensor(origin, dtype=torch.float32).T.contiguous(),
            "depth": torch.tensor([layer.z / layer.pitch_y for layer in layers], dtype=torch.float32),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.gains = Gains(width, self.n_layers * self.rings)

    def ring(self, x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        """Return the rings (B, n_layers, K) of positions (B, n_layers, K) in half widths of the layer, for theta (B,), degrees."""
        angle = torch.deg2rad(theta.clamp(5.0, 175.0))[:, None]
        axis = (self.depth * torch.cos(angle) / torch.sin(angle))[:, :, None]
        dx = x * self.slope[0, :, None] + self.origin[0, :, None]
        dy = y * self.slope[1, :, None] + self.origin[1, :, None] - axis
        return torch.bucketize(dx.square() + dy.square(), self.edges)

    def forward(self, x: Tensor, y: Tensor, theta: Tensor, encoded: Tensor) -> Tensor:
        """Return the gains (B, n_layers, K) of cells at x and y (B, n_layers, K), in half widths of the layer.

        The angles theta (B,) are in degrees; encoded are continuous conditions (B, width).
        """
        gains: Tensor = self.gains(encoded).view(-1, self.n_layers, self.rings)
        return gains.gather(2, self.ring(x, y, theta))

    def shares(self, cells: Tensor, view: LayerView, theta: Tensor) -> Tensor:
        """Return the shares (B, n_layers * rings) of the showers' energies in each ring, of cells (B, n_cells), MeV."""
        energy = view(cells)
        x, y = (table.expand_as(energy) for table in (view.x, view.y))
        sums = energy.new_zeros(len(energy), self.n_layers, self.rings)
        sums.scatter_add_(2, self.ring(x, y, theta), energy)
        shares: Tensor = sums.flatten(1) / energy.sum((1, 2))[:, None].clamp_min(_TINY)
        return shares


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
    calibration: Annotated[int, Field(ge=0)] = 2000  # training showers of the calibration; 0 for none
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
        self.rings = RingGains(detector, len(self.encoder.continuous)) if detector.is_flat else None
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

    def summarise(self, noise: Tensor, encoded: Tensor) -> Tensor:
        """Return the summary (B, rows, kinds) of noise of that shape."""
        return _jumps(self.summary_student, noise, self.summary_times, encoded)

    def shape(self, noise: Tensor, encoded: Tensor, summary: Tensor) -> Tensor:
        """Return the values of the cells (B, n_cells) of noise of that shape."""
        return _jumps(self.cell_student, noise, self.cell_times, encoded, summary)

    def stages(self) -> tuple[Stage, ...]:
        """Return the teacher's stages, the copy, the two distillations, and the calibration."""
        c = self.config
        return (
            *super().stages(),
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
            *((Stage(STAGE, fit=self._calibrate),) if c.calibration else ()),
        )

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        if self.sampling.calibrated:
            return super().sample(noise, conditions)
        return self.values.decode(*self.drawn(noise, conditions), calibrated=False)

    def gain(self, conditions: Tensor) -> Gain | None:
        """Return the gains of cells by their distance from the axis, under conditions (B, C)."""
        rings = self.rings
        if rings is None:
            return None
        theta, encoded = self._theta(conditions), self.encoder.standardised(conditions)
        return lambda x, y: rings(x, y, theta, encoded)

    def _theta(self, conditions: Tensor) -> Tensor:
        if "incident_theta" in self.columns:
            return self.condition(conditions, "incident_theta")[:, 0]
        return conditions.new_full((len(conditions),), 90.0)

    @torch.no_grad()
    def _calibrate(self, data: TrainingData, generator: torch.Generator) -> None:
        """Map the values of filled cells to the training showers' quantiles; fit the gains; repeat with both in effect."""
        if self.rings is not None:
            self.rings.gains.weights.zero_()
        indices = torch.arange(min(self.config.calibration, len(data)), device=data.device)
        batches = [data.take(part) for part in torch.split(indices, self.config.batch_size)]
        drawn = []
        for batch in batches:
            noise = torch.randn((len(batch), self.noise_size), generator=generator, device=generator.device)
            drawn.append(self.drawn(noise.to(data.device), batch.conditions))
        cells = self.clean(torch.cat([batch.cells for batch in batches]))
        conditions = torch.cat([batch.conditions for batch in batches])
        theta, view = self._theta(conditions), self.values.view
        true = None if self.rings is None else self.rings.shares(cells, view, theta)
        self.values.calibrate(((values, targets.hits + targets.faint) for values, targets in drawn), cells)
        for number in range(_ROUNDS):
            if number:
                self.values.refine(self._decoded(drawn, batches), cells)
            if self.rings is not None and true is not None:
                found = self.rings.shares(self._decoded(drawn, batches), view, theta)
                self.rings.gains.fit(true, found, self.encoder.standardised(conditions))

    def _decoded(self, drawn: Sequence[tuple[Tensor, LayerTargets]], batches: Sequence[Batch]) -> Tensor:
        """Return the cells (N, n_cells), MeV, of values and layer targets with the present map and gains."""
        pairs = zip(drawn, batches, strict=True)
        return torch.cat([self.values.decode(*pair, self.gain(batch.conditions)) for pair, batch in pairs])

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
        nets = self.summary_net, self.summary_student
        return self._distance(nets, (encoded,), summary, random.normal(*summary.shape), self.summary_times)

    def cell_distance(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the distance of the cells' student to its teacher, with a summary blurred by normal noise of that width."""
        values, summary, encoded = self._cell_data(batch, random, blur)
        nets = self.cell_net, self.cell_student
        return self._distance(nets, (encoded, summary), values, random.normal(*values.shape), self.cell_times)

    def _distance(
        self,
        networks: tuple[nn.Module, nn.Module],
        conditions: tuple[Tensor, ...],
        data: Tensor,
        noise: Tensor,
        times: tuple[float, ...],
    ) -> Tensor:
        """Return the mean squared distance of the velocities of teacher and student; the rows of a batch take the jumps in turn.

        Data x_1 and noise x_0 are (B, ...); conditions are the further inputs of both networks beside x and time.
        """
        teacher, student = networks
        which = torch.arange(len(data), device=data.device) % (len(times) - 1)
        grid = torch.tensor(times, device=data.device, dtype=data.dtype)
        start, end = grid[which], grid[which + 1]
        first = start.view(-1, *[1] * (data.dim() - 1))
        x = (1.0 - first) * noise + first * data
        with torch.no_grad():
            steps = self.config.teacher_steps
            goal = rowwise_heun(lambda x, t: teacher(x, t, *conditions), x, start, end, steps)
        goal_velocity = (goal - x) / (end - start).view_as(first)
        velocity: Tensor = (student(x, start, *conditions).float() - x) / (1.0 - first)
        return (velocity - goal_velocity).square().mean()


def _jumps(student: nn.Module, x: Tensor, times: tuple[float, ...], *conditions: Tensor) -> Tensor:
    """Return the result of one evaluation a step from x (B, ...)."""
    if isinstance(student, JumpNetworks):
        return student.jumps(x, times, *conditions)
    for start, end in pairwise(times):
        x = jump(lambda x, t: student(x, t[:1], *conditions), x, start, end)
    return x
