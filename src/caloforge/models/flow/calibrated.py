"""The calibration of a flow on training showers, which trains no weight, and the showers that it ends with.

Fitted are, in this order, the numbers of filled cells of a layer, the edges of the core cells, and in turns the map of values
(:class:`~caloforge.models.flow.cells.CellValues`) and the gains by distance from the axis (:class:`~caloforge.models.calibration.moments.RingGains`).
These tables have few knots, and layers are scaled to their energies after them, which smears what is sharp in the spectrum of cells:
the edge of the peak of minimum ionising particles, and the step at 0.33 MeV. So the energies of the finished cells go through a last
map in steps of 2.5 % (:class:`~caloforge.models.calibration.distributions.CellSpectrum`), for groups of showers of like incident
energy. It changes the energies of layers by some per mille.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.models.calibration.base import STAGE, CalibratedSampling
from caloforge.models.calibration.distributions import CellSpectrum
from caloforge.models.calibration.moments import RingGains
from caloforge.models.flow.cells import CellValues, Gain, LayerTargets
from caloforge.models.flow.settings import FlowMatchingConfig
from caloforge.models.flow.summary import CoreMoments
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.models.stage import Batch, Stage, TrainingData
from caloforge.settings import ModelConfig

__all__ = ["FITTED", "LATER", "CalibratedFlow"]

LATER = ("values.absolute.", "spectrum.")
"""Beginnings of the names of what earlier calibrations did not fit."""
FITTED = ("values.calibrated.", *LATER, "rings.", "filled_factor", "core.edge")
"""Beginnings of the names of what the calibration fits."""
_ROUNDS = 4  # fits of map and gains: the layers are scaled to their energies after them, which changes both a little
_SPECTRUM, _STEP = (1e-4, 1e3), 0.025  # ends (MeV) and step in ln e of the last map of energies
_GROUPS, _GROUP_HITS = 4, 150_000  # its groups in incident energy, and the fewest hits of one
_MOST_FACTOR = 0.2  # largest change of a number of filled cells
_TINY = 1e-6


class CalibratedFlow(ShowerModel):
    """A flow's calibration and decoding; a subclass sets ``encoder``, ``values`` and ``core`` and makes the values of the cells."""

    filled_factor: Tensor  # (n_layers,) of the numbers of filled cells that the probabilities are balanced to
    config: FlowMatchingConfig
    sampling: CalibratedSampling
    encoder: ConditionEncoder
    values: CellValues
    core: CoreMoments
    rings: RingGains | None

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        self.register_buffer("filled_factor", torch.ones(detector.n_layers))
        self.forget_spectrum()

    def forget_spectrum(self) -> None:
        """Let the last map of energies leave them as they are."""
        spectrum = CellSpectrum(_SPECTRUM, None, _GROUPS, _GROUP_HITS, _STEP)
        self.spectrum = spectrum.to(self.filled_factor.device)

    @property
    @abstractmethod
    def balances(self) -> bool:
        """Whether the numbers of filled cells are balanced in generation."""

    @abstractmethod
    def raw(self, noise: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor, LayerTargets]:
        """Return the flow's values (B, n_cells), the summary, the encoded conditions and the targets."""

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        drawn = self.drawn(noise, conditions)
        if not self.sampling.calibrated:
            return self.values.decode(*drawn, calibrated=False)
        by = torch.log(self.condition(conditions, "incident_energy")[:, 0])
        return self.values.decode(*drawn, self.gain(conditions), last=lambda e: self.spectrum.dense(e, by))

    def gain(self, conditions: Tensor) -> Gain | None:
        """Return the gains of cells by their distance from the axis, under conditions (B, C), where all layers are rows and columns."""
        if (rings := self.rings) is None:
            return None
        theta, encoded = self._theta(conditions), self.encoder.standardised(conditions)
        return lambda x, y: rings(x, y, theta, encoded)

    def _theta(self, conditions: Tensor) -> Tensor:
        if "incident_theta" in self.columns:
            return self.condition(conditions, "incident_theta")[:, 0]
        return conditions.new_full((conditions.shape[0],), 90.0)

    @torch.no_grad()
    def calibrate(self, data: TrainingData, generator: torch.Generator) -> None:
        """Map the values of filled cells to the training showers' quantiles; fit the gains; repeat with both; fit the spectrum."""
        if self.rings is not None:
            self.rings.gains.weights.zero_()
        indices = torch.arange(min(self.config.calibration, len(data)), device=data.device)
        batches = [data.take(part) for part in torch.split(indices, self.config.batch_size)]
        cells = self.clean(torch.cat([batch.cells for batch in batches]))
        conditions = torch.cat([batch.conditions for batch in batches])
        drawn = self._draw(batches, cells, generator)
        theta, view = self._theta(conditions), self.values.view
        true = None if self.rings is None else self.rings.shares(view(cells), view.x, view.y, theta)
        self.values.calibrate(
            ((values, self.values.number(values, targets)) for values, targets in drawn), cells
        )
        for turn in range(_ROUNDS):
            if turn:
                self.values.refine(self._decoded(drawn, batches), cells)
            if self.rings is not None and true is not None:
                made = view(self._decoded(drawn, batches))
                found = self.rings.shares(made, view.x, view.y, theta)
                self.rings.gains.fit(true, found, self.encoder.standardised(conditions))
        by = torch.log(self.condition(conditions, "incident_energy")[:, 0])
        self.spectrum.fit(
            *((x[x > 0], by[x.nonzero()[:, 0]]) for x in (cells, self._decoded(drawn, batches)))
        )

    def _draw(
        self, batches: Sequence[Batch], cells: Tensor, generator: torch.Generator
    ) -> list[tuple[Tensor, LayerTargets]]:
        """Return values and targets under the conditions of batches, of cells (N, n_cells); first set how many cells are filled.

        The factors of the numbers of filled cells come from showers without them, the edges of the core cells from those with them.
        """
        self.filled_factor.fill_(1.0)
        filled = (self.values.view(cells) > 0).sum(2).float().mean(0)
        raw: list[tuple[Tensor, Tensor, Tensor, LayerTargets]] = []
        for last in (False, True) if self.balances else (True,):
            raw = []
            for batch in batches:
                size = len(batch), self.noise_size
                noise = torch.randn(size, generator=generator, device=generator.device).to(batch.cells.device)
                raw.append(self.raw(noise, batch.conditions))
            self.core.edge.fill_(-torch.inf)
            if len(self.core.cells):
                x = torch.cat([self.core.inverse(v, s, e)[:, self.core.cells] for v, s, e, _ in raw])
                self.core.fit_edge(x, (cells[:, self.core.cells] <= 0).double().mean(0))
            if not last:
                made = [self.values.number(self.core.inverse(v, s, e), t) for v, s, e, t in raw]
                found = torch.cat(made).mean(0).clamp_min(_TINY)
                self.filled_factor.copy_((filled / found).clamp(1.0 - _MOST_FACTOR, 1.0 + _MOST_FACTOR))
        return [(self.core.inverse(v, s, e), t) for v, s, e, t in raw]

    def _decoded(self, drawn: Sequence[tuple[Tensor, LayerTargets]], batches: Sequence[Batch]) -> Tensor:
        """Return the cells (N, n_cells), MeV, of values and layer targets with the present map and gains."""
        pairs = zip(drawn, batches, strict=True)
        return torch.cat([self.values.decode(*pair, self.gain(batch.conditions)) for pair, batch in pairs])

    def drawn(self, noise: Tensor, conditions: Tensor) -> tuple[Tensor, LayerTargets]:
        """Return the values of the cells (B, n_cells) and the targets of their layers."""
        values, summary, encoded, targets = self.raw(noise, conditions)
        return self.core.inverse(values, summary, encoded), targets

    def clean(self, cells: Tensor) -> Tensor:
        """Return cells (B, n_cells) with those below the cut empty."""
        return torch.where(cells > self.config.cut, cells, 0.0)

    def calibration_stages(self) -> tuple[Stage, ...]:
        """Return the stage that fits the calibration, or none."""
        return (Stage(STAGE, fit=self.calibrate),) if self.config.calibration else ()
