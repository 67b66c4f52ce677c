"""Post-training calibration of any model: steps that are fitted to showers generated under the conditions of the training showers.

After training, a model generates several showers for each training shower, under its conditions. Each step compares
them with the training showers, sets its constants, and changes them before the next step sees them. In later rounds the steps
correct what the others change. At generation the fitted steps follow the network. A model derives from :class:`CalibratedModel`,
sets ``calibration``, defines ``make``, and ends its stages with ``calibration_stages()``.

A trained model is measured without its calibration by ``model.choose({"calibrated": False})``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from caloforge.models.base import ShowerModel, counted_noise
from caloforge.models.stage import Stage, TrainingData
from caloforge.settings import Settings

__all__ = ["STAGE", "CalibratedModel", "CalibratedSampling", "Calibration", "Sample", "Step", "generate_like"]

STAGE = "calibrate"
"""Name of the stage that fits the calibration and trains no weight."""
_CELLS = 4_000_000  # cells that are generated at a time
_MOST_CELLS = 150_000_000  # generated cells that are kept in memory


class Sample(NamedTuple):
    """Showers and their conditions."""

    cells: Tensor  # (N, n_cells), MeV
    conditions: Tensor  # (N, C), raw units
    energy: Tensor  # (N,), MeV
    encoded: Tensor  # (N, width), encoded conditions


class Step(nn.Module):
    """One step of a calibration: constants and a change of showers.

    A calibration may hand its steps another view of the showers than a :class:`Sample`, see ``Calibration.begin``.
    """

    def fit(self, reference: Any, generated: Any, turn: int) -> None:
        """Set constants from training showers and from generated ones as the steps before leave them, in each round."""

    def refine(self, reference: Any, finished: Any, turn: int) -> None:
        """Correct constants by generated showers as all steps leave them in this round."""

    @abstractmethod
    def forward(self, showers: Any) -> Any:
        """Return changed showers."""


class Calibration(nn.Module):
    """Steps in their order, and a ``last`` one, which sees the cells that the others have finished (a :class:`Sample`)."""

    known: Tensor
    rounds: ClassVar[int] = 1  # rounds of the fit
    copies: ClassVar[int] = 4  # showers generated for each training shower, at most
    fewest: ClassVar[int] = 0  # showers to generate where fewer copies make as many; 0: always all copies

    def __init__(self, *steps: Step, last: Step | None = None) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.last = last
        self.register_buffer("known", torch.zeros(1))

    @property
    def fitted(self) -> bool:
        """Whether the constants follow from showers."""
        return bool(self.known > 0)

    def begin(self, sample: Sample) -> Any:
        """Return showers as the steps see them."""
        return sample

    def end(self, sample: Sample, showers: Any) -> Tensor:
        """Return the cells (B, n_cells), MeV, of showers that the steps have changed, from what they were before."""
        cells: Tensor = showers.cells
        return cells

    def forward(self, sample: Sample) -> Tensor:
        """Return calibrated cells (B, n_cells), MeV, of generated showers."""
        showers = self.begin(sample)
        for step in self.steps:
            showers = step(showers)
        cells = self.end(sample, showers)
        return cells if self.last is None else self.last(sample._replace(cells=cells)).cells

    @torch.no_grad()
    def fit(self, reference: Sample, generated: Sample) -> None:
        """Set all constants from training showers (N, ...) and generated ones (K N, ...), K times the same conditions in order."""
        true, start = self.begin(reference), self.begin(generated)
        steps = [step for step in self.steps if isinstance(step, Step)]
        for turn in range(self.rounds):
            showers = start
            for step in steps:
                step.fit(true, showers, turn)
                showers = step(showers)
            for step in steps:
                step.refine(true, showers, turn)
        if self.last is not None:
            showers = start
            for step in steps:
                showers = step(showers)
            self.last.fit(reference, generated._replace(cells=self.end(generated, showers)), 0)
        self.known.fill_(1.0)


def generate_like(
    data: TrainingData, make: Callable[[Tensor, Tensor], Tensor], noise: int, copies: int, fewest: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Generate showers under the conditions of training showers.

    Arguments:
        data: Training showers (N).
        make: Noise (B, noise) and conditions (B, C) to cells (B, n_cells), MeV.
        noise: Normal numbers a shower.
        copies: Showers for each training shower, fewer where memory needs it.
        fewest: Showers that are enough; 0: all copies.

    Returns:
        Training cells (N, n_cells) and conditions (N, C), generated ones (K N, ...), K times in the order of the training showers.
    """
    batches = list(data.batches(1024))
    cells, conditions = (torch.cat([getattr(b, k) for b in batches]) for k in ("cells", "conditions"))
    enough = -(-fewest // len(cells)) if fewest else copies
    copies = max(1, min(copies, enough, _MOST_CELLS // max(1, cells.numel())))
    many = conditions.repeat(copies, 1)
    made = cells.new_empty(len(many), cells.shape[1])
    chunk = max(1, min(1024, _CELLS // cells.shape[1]))
    for first in range(0, len(many), chunk):
        rows = many[first : first + chunk]
        numbers = counted_noise(0, first, len(rows), noise, rows.device, stream=STAGE)
        made[first : first + chunk] = make(numbers, rows)
    return cells, conditions, made, many


class CalibratedSampling(Settings):
    """What may be chosen at generation: whether the calibration is applied."""

    calibrated: bool = True


class CalibratedModel(ShowerModel):
    """A model with a calibration, or None for one without."""

    Sampling: ClassVar[type[Settings]] = CalibratedSampling
    calibration: Calibration | None
    sampling: CalibratedSampling

    @abstractmethod
    def make(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return the network's cells (B, n_cells), MeV, without calibration, see ``sample``."""

    def make_for_calibration(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Return the network's cells (B, n_cells), MeV, as the calibration takes them; by default ``make``."""
        return self.make(noise, conditions)

    def encode(self, conditions: Tensor) -> Tensor:
        """Return the conditions (B, width) that the calibration's constants depend on; by default as they are."""
        return conditions

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Turn noise (B, noise_size) and conditions (B, C) into cells (B, n_cells), MeV."""
        calibration = self.calibration
        if calibration is None or not self.sampling.calibrated or not calibration.fitted:
            return self.make(noise, conditions)
        cells: Tensor = calibration(self._sample(self.make_for_calibration(noise, conditions), conditions))
        return cells

    def calibration_stages(self) -> tuple[Stage, ...]:
        """Return the stage that fits the calibration, the last of a training, or none."""
        return () if self.calibration is None else (Stage(STAGE, fit=self.fit_calibration),)

    def fit_calibration(self, data: TrainingData, generator: torch.Generator) -> None:
        """Compare generated with training showers and set the calibration."""
        calibration = self.calibration
        assert calibration is not None
        self.eval()
        with torch.no_grad():
            cells, conditions, made, many = generate_like(
                data, self.make_for_calibration, self.noise_size, calibration.copies, calibration.fewest
            )
            calibration.fit(self._sample(cells, conditions), self._sample(made, many))

    def load_weights(self, state: Mapping[str, Tensor], shipped: bool = False) -> None:
        """Load weights, see ``ShowerModel``; those of a run without calibration, or without its last step, leave it unfitted."""
        for part in ("calibration.", "calibration.last."):
            if self.calibration is not None and not any(name.startswith(part) for name in state):
                constants = self.calibration.state_dict(prefix="calibration.")
                unfitted = {name: value for name, value in constants.items() if name.startswith(part)}
                state = {**unfitted, **({f"{part}known": torch.zeros(1)} if unfitted else {}), **state}
        super().load_weights(state, shipped)

    def _sample(self, cells: Tensor, conditions: Tensor) -> Sample:
        energy = self.condition(conditions, "incident_energy")[:, 0]
        return Sample(cells, conditions, energy, self.encode(conditions))
