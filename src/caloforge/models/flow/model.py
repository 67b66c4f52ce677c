"""The flagship: conditional flow matching of a shower's summary, then of its cells.

1. A small transformer generates the shower's summary from noise and conditions: layer energies, hits, centres and widths, with a row
   for the whole shower (:mod:`~caloforge.models.flow.summary`);
2. a transformer over patches of cells (:mod:`~caloforge.models.flow.networks`) generates the values of the cells
   from noise, conditions and that summary; in the core as residuals after a linear fit to the summary
   (:class:`~caloforge.models.flow.summary.CoreMoments`);
3. the cells are scaled to the layer energies of the summary, and their energies given to other cells for its centres and widths
   (:mod:`~caloforge.models.flow.cells`).

One architecture serves every detector: patches are boxes of a grid, or pieces of rows of anything else. Both networks learn
the flow of :mod:`~caloforge.models.flow.path`. Symmetries of the beam (:mod:`~caloforge.models.nn.conditions`) are
applied at random to the training showers.

References:
    L. Favaro et al., "CaloDREAM", arXiv:2405.09629 (layer energies first, then the shape, both by flow matching).
    W. Peebles, S. Xie, arXiv:2212.09748 (the transformer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.geometry.terms import TERMS
from caloforge.models.base import ShowerModel
from caloforge.models.calibration.moments import RingGains
from caloforge.models.flow.calibrated import LATER, CalibratedFlow
from caloforge.models.flow.cells import CellValues, LayerTargets
from caloforge.models.flow.family import DetectorFamily
from caloforge.models.flow.feedback import LayerFeedback, LayerMoments
from caloforge.models.flow.networks import CellNetwork, LocalNetwork, SummaryNetwork
from caloforge.models.flow.patches import CellPatches
from caloforge.models.flow.path import (
    EMPTY,
    CellAverages,
    LayerBalance,
    SpikeSlab,
    Time,
    flow_loss,
    follow,
    integrate,
    time_grid,
)
from caloforge.models.flow.sampling import BALANCED, CellSampler
from caloforge.models.flow.settings import PRESETS, FlowMatchingConfig, FlowSampling
from caloforge.models.flow.summary import CoreMoments, ShowerSummary
from caloforge.models.flow.transfer import STRUCTURE, start
from caloforge.models.nn.conditions import BeamSymmetry, ConditionEncoder
from caloforge.models.stage import Batch, OptimizerSpec, Random, SeededRandom, Stage, TrainingData, Updater
from caloforge.settings import ModelConfig, OptimizerSettings, Settings
from caloforge.showers import Showers

__all__ = ["FlowMatching"]

_FIT_SEED, _FIT_MOST, _CORE_MOST = 20, 20_000, 5_000
_LEAST_HELD_OUT = 2_000  # held-out showers of a loss; fewer are used several times


class FlowMatching(CalibratedFlow):
    """Flow matching of summary and cells, see the module. Presets: ``improved``; ``large``, three times as wide; ``small``, for a CPU."""

    papers: ClassVar[tuple[str, ...]] = ("flow-matching",)
    Config = FlowMatchingConfig
    Sampling: ClassVar[type[Settings]] = FlowSampling
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    structure: ClassVar[tuple[str, ...]] = STRUCTURE
    pretraining: ClassVar[Mapping[str, int]] = {"summary_epochs": 3, "epochs": 1, "calibration": 0}
    sampling: FlowSampling

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        c = self.config
        self.n_terms = len(TERMS) if c.detector_conditions else 0  # that the networks see of each layer
        self.encoder = ConditionEncoder(detector, self.columns, harmonics=3)
        continuous, width = len(self.encoder.continuous), self.encoder.width
        self.summary = ShowerSummary(detector, continuous, width, c.threshold, c.radial)
        self.values = CellValues(detector, c.cut, self.is_irregular, c.moments, c.radial)
        self.core = CoreMoments(
            torch.from_numpy(detector.cell_layer), 1.0 if c.detector_conditions else c.core
        )
        self.symmetry = BeamSymmetry(detector, self.columns)
        has_rings = detector.is_flat or detector.is_mesh
        self.rings = RingGains(detector, continuous, c.radial) if has_rings else None
        self.summary_net = self.summary_network()
        self.cell_net = self.cells_network()
        self.family = DetectorFamily(self) if c.detector_conditions else None

    @property
    def serves_others(self) -> bool:
        """Whether the weights serve other detectors of the grid, too: those of a training on several."""
        return bool(self.family)

    def caveats(self) -> list[str]:
        """Return in which terms the detector lies outside those of a training on several."""
        return self.family.outside(self.detector) if self.family else []

    def summary_network(self) -> SummaryNetwork:
        """Return a new network of the summary."""
        c, size = self.config, (self.summary.rows, self.summary.kinds, self.encoder.width)
        return SummaryNetwork(*size, c.summary_width, c.summary_blocks, c.summary_heads, self.n_terms)

    def cells_network(self) -> CellNetwork:
        """Return the network ``cell_net`` with which the model begins."""
        return self.cell_network(CellPatches(self.detector, self.config.box))

    @property
    def averages(self) -> CellAverages:
        """The cells' averages over the training showers."""
        return self.cell_net.posterior

    def cell_network(self, patches: CellPatches) -> CellNetwork:
        """Return a new network of the cells."""
        c, size = self.config, (self.summary.rows, self.summary.kinds, self.encoder.width)
        local = None
        if c.local > 0 and not self.is_irregular:
            local = LocalNetwork(self.detector.shape, c.local, SpikeSlab.outputs, self.detector.is_mesh)
        balance = LayerBalance(torch.from_numpy(self.detector.cell_layer), self.detector.n_layers)
        feedback = LayerFeedback(self.detector, self.is_irregular, c.radial) if c.feedback else None
        sizes = *size, c.width, c.blocks, c.repeats, c.heads
        return CellNetwork(
            patches, *sizes, local=local, balance=balance, feedback=feedback, terms=self.n_terms
        )

    @property
    def is_irregular(self) -> bool:
        """Whether the cells form no regular grid or mesh, so that their values are shares of their layer's energy."""
        return not (self.detector.is_grid or self.detector.is_mesh)

    @property
    def summary_size(self) -> int:
        """Numbers of a summary."""
        return self.summary.rows * self.summary.kinds

    @property
    def compilable(self) -> tuple[str, ...]:
        """The summary's network, and the steps of the cells or, where these are drawn, their network."""
        return "summary_net.forward", "cell_step", "cell_net.predicted"

    @property
    def low_precision(self) -> tuple[str, ...]:
        """The cells' network; bfloat16 in the summary's would move the visible energy by 0.9 %."""
        return ("cell_net.predicted",)

    @property
    def balances(self) -> bool:
        """Whether the numbers of filled cells are balanced in generation."""
        return self.sampling.balance and self.sampling.substeps + self.sampling.draws > 0

    @property
    def noise_size(self) -> int:
        """Normal numbers a shower: those of its summary, then those of its cells."""
        return self.summary_size + self.detector.n_cells

    def raw(self, noise: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor, LayerTargets]:
        """Return the flow's values (B, n_cells), the summary, the encoded conditions and the targets."""
        encoded = self.encoder(conditions)
        first = noise[:, : self.summary_size].view(-1, self.summary.rows, self.summary.kinds)
        summary = self.summarise(first, encoded)
        energy = self.condition(conditions, "incident_energy")[:, 0]
        targets = self.summary.decode(summary, energy, encoded)
        return self.shape(noise[:, self.summary_size :], encoded, summary, targets), summary, encoded, targets

    def summarise(self, noise: Tensor, encoded: Tensor) -> Tensor:
        """Return the summary (B, rows, kinds) of noise of that shape."""
        times = time_grid(self.sampling.summary_steps, self.sampling.shift)
        return integrate(self.summary_denoiser(encoded), noise, times)

    def shape(self, noise: Tensor, encoded: Tensor, summary: Tensor, targets: LayerTargets) -> Tensor:
        """Return the values of the cells (B, n_cells) of noise of that shape, for a summary and what it says of the layers."""
        choice = self.sampling
        times = time_grid(choice.draws or choice.steps, choice.shift)
        to = self.layer_moments(targets, summary, encoded) if self.config.feedback else None
        if not choice.draws and not choice.substeps:
            return integrate(self.cell_denoiser(encoded, summary, to), noise, times)
        filled = (targets.hits + targets.faint) * self.filled_factor if choice.balance else None
        if choice.draws:
            return CellSampler(self.cell_net, encoded, summary, to, filled).drawn(noise, times)

        def step(x: Tensor, start: Time, end: Time) -> Tensor:
            balanced = filled if isinstance(start, Tensor) or start < BALANCED else None
            return self.cell_step(x, start, end, encoded, summary, to, balanced)

        return follow(step, noise, times)

    def cell_step(
        self,
        x: Tensor,
        start: Time,
        end: Time,
        encoded: Tensor,
        summary: Tensor,
        to: LayerMoments | None,
        filled: Tensor | None,
    ) -> Tensor:
        """Return cells' values x (B, n_cells) at time ``end`` from those at ``start``, see :meth:`CellSampler.step`."""
        sampler = CellSampler(self.cell_net, encoded, summary, to, filled)
        return sampler.step(x, start, end, self.sampling.substeps)

    def layer_moments(self, targets: LayerTargets, summary: Tensor, encoded: Tensor) -> LayerMoments:
        """Return what feedback of the cells' network compares its layers with."""
        return LayerMoments.of(targets, self.core, summary, encoded)

    def _fit_feedback(self) -> None:
        """Give all feedback the present table of energies and core cells."""
        for part in self.modules():
            if isinstance(part, LayerFeedback):
                part.fit(self.values, self.core)

    def summary_denoiser(self, encoded: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the summary's network for some conditions."""
        return lambda x, t: self.summary_net(x, t, encoded)

    def cell_denoiser(
        self, encoded: Tensor, summary: Tensor, to: LayerMoments | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the cells' network for some conditions, summaries and what these say of the layers."""
        return lambda x, t: self.cell_net(x, t, encoded, summary, to)

    def start_from(self, source: ShowerModel, showers: Showers) -> None:
        """Take the weights of another flow, see :func:`~caloforge.models.flow.transfer.start`; constants follow from the showers."""
        start(self, source, showers)

    def fit_family(self, parts: Sequence[Showers]) -> None:
        """Fit the constants to the showers of several detectors; the flow is then the first one's."""
        if self.family is None:
            super().fit_family(parts)
        else:
            self.family.fit(self, parts)

    def enter(self, number: int) -> None:
        """Make the flow that of another detector of its training."""
        assert self.family is not None
        self.family.enter(self, number)

    def fit_transforms(self, showers: Showers, adapt: bool = False) -> None:
        """Fit encoder, moments and tables; find the symmetries of beam and showers.

        With ``adapt`` the encoder stays, and moments and averages are drawn to those that there are.
        """
        super().fit_transforms(showers)
        matrix = self.condition_matrix(showers)
        if not adapt:
            self.encoder.fit(matrix)
        generator = torch.Generator().manual_seed(_FIT_SEED)
        kept = torch.randperm(len(showers), generator=generator)[:_FIT_MOST].sort().values
        cells = self.clean(torch.from_numpy(showers.cells)[kept])
        energy = torch.from_numpy(showers.incident_energy)[kept].float()
        encoded = self.encoder(matrix[kept])
        self.summary.fit(cells, energy, encoded, generator, adapt)
        if not adapt or self.family is None:  # the table of a family is that of all detectors
            self.values.fit(cells, generator)
        cells, energy, encoded = (part[:_CORE_MOST] for part in (cells, energy, encoded))
        shape = (len(cells), self.summary.rows, self.summary.kinds)
        summary = self.summary(cells, energy, encoded, torch.rand(shape, generator=generator))
        values = self.values(cells)
        self.core.fit(values, EMPTY, summary, encoded, adapt)
        self.averages.fit(self.core(values, summary, encoded), values > EMPTY, self.core.cells, adapt)
        self._fit_feedback()
        self.symmetry.allow(showers.incident_theta)

    def load_weights(self, state: Mapping[str, Tensor], shipped: bool = False) -> None:
        """Load weights, see ``ShowerModel``; those of a calibration without these numbers leave them neutral."""
        neutral = {
            "filled_factor": torch.ones_like(self.filled_factor),
            "core.edge": torch.full_like(state["core.spread"], -torch.inf),
            **{name: value for name, value in self.state_dict().items() if name.startswith(LATER)},
        }
        super().load_weights({**neutral, **state}, shipped)
        if self.family is not None:
            (self.family.become if len(self.family) else self.family.show)(self, self.detector)
        self._fit_feedback()

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with a random symmetry applied to each shower."""
        return self.symmetry.augment(batch, generator) if self.config.symmetries else batch

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages: the summary, the cells, and the calibration."""
        return (*self.teacher_stages(), *self.calibration_stages())

    def calibration_stages(self) -> tuple[Stage, ...]:
        """Return the stage that fits the calibration, that of each detector where there are several, or none."""
        stages, family = super().calibration_stages(), self.family
        return (
            tuple(replace(one, fit=partial(family.calibrate, self)) for one in stages) if family else stages
        )

    def teacher_stages(self) -> tuple[Stage, ...]:
        """Return the two stages of the networks: the summary, then the cells."""
        c = self.config
        return (
            self._stage(
                "summary",
                c.summary_epochs,
                c.summary_batch_size,
                c.summary,
                self.summary_net,
                self.summary_loss,
            ),
            self._stage("cells", c.epochs, c.batch_size, c.optimizer, self.cell_net, self.cell_loss),
        )

    def _stage(
        self,
        name: str,
        epochs: int,
        batch_size: int,
        optimizer: OptimizerSettings,
        network: nn.Module,
        loss: Callable[[Batch, Random, float], Tensor],
        teacher: tuple[nn.Module, ...] = (),
    ) -> Stage:
        """Return a stage that trains one network by a loss of (batch, random numbers, blur), the teacher's networks frozen."""
        figure = f"{name.replace('-', '_')}_loss"

        def step(batch: Batch, updater: Updater) -> dict[str, Tensor]:
            value = loss(batch, updater, self.config.blur)
            updater.update(name, value)
            return {name: value}

        @torch.no_grad()
        def validate(data: TrainingData) -> dict[str, float]:
            random = SeededRandom(data.device, _FIT_SEED)
            sums, count = torch.zeros((), device=data.device), 0
            for _ in range(max(1, _LEAST_HELD_OUT // len(data))):
                for batch in data.batches(self.config.batch_size):
                    sums = sums + loss(batch, random, 0.0) * len(batch)
                    count += len(batch)
            return {figure: float(sums) / count}

        spec = {name: OptimizerSpec.of(optimizer, network)}
        stage = Stage(name, epochs, batch_size, spec, step, validate=validate, metric=figure)
        return replace(stage, frozen=teacher, compiled=(network, *teacher))

    def prepared(self, batch: Batch, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells above the cut (B, n_cells), the summary (B, rows, kinds) and the encoded conditions."""
        cells = self.clean(batch.cells)
        encoded = self.encoder(batch.conditions)
        energy = self.condition(batch.conditions, "incident_energy")[:, 0]
        with torch.autocast(cells.device.type, enabled=False):
            summary = self.summary(cells, energy, encoded, uniform)
        return cells, summary, encoded

    def times(self, normal: Tensor) -> Tensor:
        """Return training times (B,) of normal numbers (B,)."""
        return torch.sigmoid(self.config.time_mean + self.config.time_spread * normal)

    def summary_loss(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the loss of the summary's flow; ``blur`` is not used."""
        summary, encoded = self._summary_data(batch, random)
        noise, times = random.normal(*summary.shape), self.times(random.normal(len(batch)))
        return flow_loss(self.summary_denoiser(encoded), summary, noise, times)

    def cell_loss(self, batch: Batch, random: Random, blur: float) -> Tensor:
        """Return the loss of the cells' flow, with a summary blurred by normal noise of that width."""
        values, summary, encoded, to = self._cell_data(batch, random, blur)
        noise, times = random.normal(*values.shape), self.times(random.normal(len(batch)))
        x = torch.lerp(noise, values, times[:, None])
        return self.cell_net(x, times, encoded, summary, to, values)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _summary_data(self, batch: Batch, random: Random) -> tuple[Tensor, Tensor]:
        """Return the summary (B, rows, kinds) of a batch and its encoded conditions."""
        uniform = random.uniform(len(batch), self.summary.rows, self.summary.kinds)
        return self.prepared(batch, uniform)[1:]

    @torch.no_grad()
    def _cell_data(
        self, batch: Batch, random: Random, blur: float
    ) -> tuple[Tensor, Tensor, Tensor, LayerMoments | None]:
        """Return the values that the cells' flow learns (B, n_cells), the blurred summary, the encoded conditions and the layers."""
        uniform = random.uniform(len(batch), self.summary.rows, self.summary.kinds)
        cells, summary, encoded = self.prepared(batch, uniform)
        values = self.core(self.values(cells), summary, encoded)
        if blur:
            summary = summary + blur * random.normal(*summary.shape)
        if not self.config.feedback:
            return values, summary, encoded, None
        energy = self.condition(batch.conditions, "incident_energy")[:, 0]
        with torch.autocast(cells.device.type, enabled=False):
            targets = self.summary.decode(summary, energy, encoded)
            return values, summary, encoded, self.layer_moments(targets, summary, encoded)
