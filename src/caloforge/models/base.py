"""Base class of all shower generators.

A model is built from (detector, config) alone. ``fit_transforms`` sets constants from the training showers; they are
buffers, so that the weights file is enough to rebuild the model. ``sample`` is a pure function of noise and conditions, so that
random numbers can be counted per shower and the model exported.

A complete example is in ``docs/extending.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError, IncompatibleError, did_you_mean
from caloforge.geometry import Detector
from caloforge.models.noise import counted_noise
from caloforge.models.selection import compare
from caloforge.models.stage import Batch, Stage, TrainingData
from caloforge.settings import ModelConfig, Settings, merge, validated
from caloforge.showers import Showers

__all__ = ["ShowerModel", "condition_sizes", "counted_noise", "in_chunks"]

_SELECTION = "selection"  # random stream of epoch selection, apart from the stream of generation
_RANGE = ("condition_low", "condition_high")
_MOST_CELLS = 60_000_000  # most held-out cells that are compared; half a gigabyte for both samples


def condition_sizes(detector: Detector) -> dict[str, int]:
    """Return the columns that each condition of a detector takes."""
    return {"incident_energy": 1, "incident_theta": 1, **detector.condition_sizes}


def in_chunks(size: int, *parts: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Iterate over tensors (B, ...), ``size`` rows at a time; all rows at once where a graph is traced for export."""
    if torch.compiler.is_exporting():
        return (parts,)
    return zip(*(torch.split(part, size) for part in parts), strict=True)


class ShowerModel(nn.Module, ABC):
    """Base of all models.

    Attributes:
        Config: Class of its settings.
        Sampling: Class of what may be chosen at generation (steps, source of latents), all with defaults.
        presets: Named settings; ``improved`` is the default, ``paper`` is as published.
        training_only: Names of submodules that sampling does not need; shipped weights leave them out.
        pretraining: Settings of a pre-training, in epochs of ``train.pretrain_epochs``.
        papers: Papers that describe it: keys (``abbreviation``) in ``CITATION.cff``.
        structure: Settings that decide what a weight is; those of a model that starts from another are the same. Empty: it cannot.
        detector: The detector.
        config: The resolved settings.
        conditions: Names of the conditions, in the order of the columns.
        columns: Name of a condition to its columns in the condition matrix.
        sampling: What was chosen for generation.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    Sampling: ClassVar[type[Settings]] = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"improved": {}}
    training_only: ClassVar[tuple[str, ...]] = ()
    papers: ClassVar[tuple[str, ...]] = ()
    structure: ClassVar[tuple[str, ...]] = ()
    pretraining: ClassVar[Mapping[str, int]] = {}

    condition_low: Tensor
    condition_high: Tensor

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__()
        self.check_detector(detector)
        self.detector = detector
        self.config = config
        self.sampling: Settings = self.Sampling()
        sizes = condition_sizes(detector)
        self.conditions: tuple[str, ...] = config.conditions or detector.model_conditions
        unknown = [name for name in self.conditions if name not in sizes]
        if unknown:
            msg = f"detector '{detector.name}' has no condition '{unknown[0]}'; {did_you_mean(unknown[0], list(sizes))}"
            raise ConfigError(msg)
        ends = np.cumsum([sizes[name] for name in self.conditions])
        self.columns: dict[str, slice] = {
            name: slice(int(end) - sizes[name], int(end))
            for name, end in zip(self.conditions, ends, strict=True)
        }
        self.n_conditions: int = int(ends[-1])
        self.register_buffer("condition_low", torch.zeros(self.n_conditions))
        self.register_buffer("condition_high", torch.zeros(self.n_conditions))

    @property
    def serves_others(self) -> bool:
        """Whether the weights serve other detectors, too; by default they do not."""
        return False

    def caveats(self) -> list[str]:
        """Return a line on each reason to doubt the showers of its detector; by default none."""
        return []

    @property
    def compilable(self) -> tuple[str, ...]:
        """Methods worth compiling for generation, such as "cell_net.predicted", functions of tensors and numbers; by default none."""
        return ()

    @property
    def low_precision(self) -> tuple[str, ...]:
        """Methods of networks that may compute in less than float32 without moving the showers; by default none."""
        return ()

    @property
    @abstractmethod
    def noise_size(self) -> int:
        """Normal numbers a shower."""

    @abstractmethod
    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        """Turn noise into showers: a pure function, row by row.

        Arguments:
            noise: (B, noise_size) standard normal numbers.
            conditions: (B, C) in raw units.

        Returns:
            Cells (B, n_cells), MeV, finite and not negative.
        """

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the training, in order."""

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Raise IncompatibleError when the model cannot describe a detector; by default it can any."""

    def fit_transforms(self, showers: Showers) -> None:
        """Set the constants that follow from the training showers; a subclass calls ``super()`` first."""
        matrix = self.condition_matrix(showers)
        self.condition_low.copy_(matrix.amin(0))
        self.condition_high.copy_(matrix.amax(0))

    def fit_family(self, parts: Sequence[Showers]) -> None:
        """Set the constants of a training on several detectors from the showers of each, in place of :meth:`fit_transforms`.

        Raises:
            IncompatibleError: When the family of models cannot.
        """
        raise IncompatibleError(
            f"a {type(self).__name__} is trained on one detector; give files of one, or set detector_conditions of a flow"
        )

    def enter(self, number: int) -> None:
        """Make the model that of another detector of a training on several."""
        raise NotImplementedError

    def start_from(self, source: ShowerModel, showers: Showers) -> None:
        """Take the weights of a model of the same family and ``structure``, in place of :meth:`fit_transforms`.

        Raises:
            IncompatibleError: When the family cannot start from another training.
        """
        raise IncompatibleError(f"a {type(self).__name__} cannot start from another model's training")

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a batch changed by a symmetry of the detector; by default itself."""
        return batch

    def validate(self, data: TrainingData) -> dict[str, float]:
        """Return figures of generated against held-out showers; see :mod:`caloforge.models.selection`."""
        layer = torch.as_tensor(self.detector.cell_layer, device=data.device)
        return compare(*self.imitate(data), layer)

    def settle(self, data: TrainingData) -> None:
        """Recompute, from training showers, what depends on averaged weights (batch norms); called before they are used or saved."""

    def imitate(self, data: TrainingData, n_max: int = 2000) -> tuple[Tensor, Tensor, Tensor]:
        """Generate showers under at most ``n_max`` held-out conditions, with the same noise at every call, which generation never uses.

        Returns:
            Held-out and generated cells, (N, n_cells) MeV each, and incident energies (N,), MeV.
        """
        n = min(n_max, len(data), max(1, _MOST_CELLS // self.detector.n_cells))
        batch = data.take(torch.arange(n, device=data.device))
        fake = self.draw(batch.conditions, batch_size=256, stream=_SELECTION).to(batch.cells.dtype)
        if "incident_energy" in self.columns:
            return batch.cells, fake, self.condition(batch.conditions, "incident_energy")[:, 0]
        return batch.cells, fake, torch.ones(n, device=data.device)

    @classmethod
    def resolve(cls, values: Mapping[str, Any] | None = None, where: str = "model settings") -> ModelConfig:
        """Build settings: the preset's, updated with ``values``, also within a group such as an optimiser's.

        Raises:
            ConfigError: For an unknown preset or key, or a wrong value.
        """
        values = dict(values or {})
        preset = values.get("preset", "improved" if "improved" in cls.presets else next(iter(cls.presets)))
        if preset not in cls.presets:
            msg = f"{where}: key 'preset': unknown preset '{preset}'; {did_you_mean(str(preset), list(cls.presets))}"
            raise ConfigError(msg)
        base = validated(cls.Config, cls.presets[preset], f"preset '{preset}'").model_dump()
        return validated(cls.Config, merge(base, {**values, "preset": preset}), where)

    def choose(self, options: Mapping[str, Any] | None) -> Self:
        """Set what may be chosen at generation (``Sampling``) and return the model."""
        self.sampling = validated(self.Sampling, dict(options or {}), "sampling options")
        return self

    def condition_matrix(self, showers: Showers) -> Tensor:
        """Return the conditions (N, C) of showers, float32, raw units.

        Raises:
            IncompatibleError: When the showers lack one, or have it in another number of columns.
        """
        columns = []
        for name in self.conditions:
            if name not in ("incident_energy", "incident_theta", *showers.conditions):
                msg = f"the showers have no condition '{name}', which the model needs"
                raise IncompatibleError(msg)
            values, size = (
                np.asarray(showers.condition(name), np.float32),
                condition_sizes(self.detector)[name],
            )
            if values.shape[1] != size:
                msg = f"condition '{name}' of the showers has {values.shape[1]} numbers a shower; the model needs {size}"
                raise IncompatibleError(msg)
            columns.append(values)
        return torch.from_numpy(np.concatenate(columns, axis=1))

    def condition(self, conditions: Tensor, name: str) -> Tensor:
        """Return one condition (B, k) of the condition matrix."""
        return conditions[:, self.columns[name]]

    @torch.no_grad()
    def draw(
        self,
        conditions: Tensor,
        seed: int = 0,
        start: int = 0,
        batch_size: int = 1024,
        stream: str = "noise",
    ) -> Tensor:
        """Return showers (N, n_cells), MeV, with counted noise for a condition matrix (N, C), on its device.

        Whether the model is in training or evaluation mode is left to the caller.
        """
        parts = []
        for first in range(0, len(conditions), batch_size):
            rows = conditions[first : first + batch_size]
            noise = counted_noise(seed, start + first, len(rows), self.noise_size, rows.device, stream)
            parts.append(self.sample(noise, rows))
        return torch.cat(parts) if parts else conditions.new_zeros(0, self.detector.n_cells)

    def load_weights(self, state: Mapping[str, Tensor], shipped: bool = False) -> None:
        """Load weights; constants (buffers) take the stored shape, which depends on the fit.

        Arguments:
            state: Names to tensors of any floating type.
            shipped: Accept that ``training_only`` parts are missing.

        Raises:
            IncompatibleError: When names, shapes or kinds of numbers do not fit, or a number is not finite.
        """
        self._check_numbers(state)
        for name, buffer in list(self.named_buffers()):
            if name in state and state[name].shape != buffer.shape:
                owner = self.get_submodule(name.rpartition(".")[0])
                setattr(owner, name.rpartition(".")[2], torch.empty_like(state[name], device=buffer.device))
        try:
            missing, unexpected = self.load_state_dict(dict(state), strict=False)
        except RuntimeError as error:
            msg = f"weights do not fit the model: {' '.join(str(error).split())}"
            raise IncompatibleError(msg) from error
        if shipped:
            missing = [name for name in missing if name.partition(".")[0] not in self.training_only]
        if missing or unexpected:
            msg = f"weights do not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}"
            raise IncompatibleError(msg)

    def _check_numbers(self, state: Mapping[str, Tensor]) -> None:
        """Refuse integers in the place of other numbers, and what is no number; constants may be infinite, such as the end of a range."""
        parameters = {name for name, _ in self.named_parameters()}
        for name, own in self.state_dict(keep_vars=True).items():
            value = state.get(name)
            if value is None:
                continue
            if value.is_floating_point() != own.is_floating_point() or (value.dtype == torch.bool) != (
                own.dtype == torch.bool
            ):
                raise IncompatibleError(
                    f"weights do not fit the model: '{name}' is {value.dtype}, expected {own.dtype}"
                )
            finite = name in parameters or name in _RANGE
            if value.is_floating_point() and bool(
                (~torch.isfinite(value) if finite else torch.isnan(value)).any()
            ):
                raise IncompatibleError(
                    f"weights do not fit the model: '{name}' has a number that is not finite"
                )
            if name in _RANGE and value.shape != own.shape:
                raise IncompatibleError(
                    f"weights do not fit the model: '{name}' has shape {tuple(value.shape)}, expected {tuple(own.shape)}"
                )
        if all(name in state for name in _RANGE) and bool((state[_RANGE[0]] > state[_RANGE[1]]).any()):
            raise IncompatibleError("weights do not fit the model: the range of a condition runs backwards")

    def shipped_state(self) -> dict[str, Tensor]:
        """Return the weights that sampling needs, parameters as float16, constants as they are."""
        parameters = {name for name, _ in self.named_parameters()}
        return {
            name: (value.detach().cpu().half() if name in parameters else value.detach().cpu()).contiguous()
            for name, value in self.state_dict().items()
            if name.partition(".")[0] not in self.training_only
        }
