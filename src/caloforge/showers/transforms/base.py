"""What every transform is: an invertible map of rows, with constants that travel in the state dict.

A row x holds the cells of one shower, MeV, on the way in. Transforms may append columns (layer energies, the total)
that the inverse needs; :meth:`Transform.features` says how many columns come out. For all x that the transform is
made for, ``inverse(forward(x, E), E) = x``, up to rounding and to what a threshold removes.

A transform is made of its options, which are the keyword arguments of its constructor and its configuration, and of
what it must know of the detector, which are the positional ones (:meth:`Transform.layout`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.showers.source import ShowerSource
from caloforge.showers.transforms.registry import TRANSFORMS

__all__ = ["Batch", "Transform", "energy_column"]

Batch: TypeAlias = tuple[Tensor, Tensor | None]
"""Rows (B, n) and incident energies (B,), MeV."""


class Transform(nn.Module):
    """Base of all transforms.

    Arguments:
        options: The options, as they go into the configuration.
    """

    name: ClassVar[str]
    """Name in the registry."""
    needs_data: ClassVar[bool] = False
    """Whether constants come from data. They are NaN, and so is all that is computed from them, before a fit."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    @property
    def needs_fit(self) -> bool:
        """Whether a fit does anything."""
        return self.needs_data

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Transform rows.

        Arguments:
            x: Rows (B, n).
            energy: Incident energies (B,) or (B, 1), MeV, for those transforms that need them.

        Returns:
            Rows (B, features(n)).
        """
        raise NotImplementedError

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo :meth:`forward`: rows (B, features(n)) to rows (B, n)."""
        raise NotImplementedError

    def features(self, n: int) -> int:
        """Return how many columns ``n`` columns become."""
        return n

    def fit(self, x: Tensor, energy: Tensor | None = None, batch_size: int = 256) -> Self:
        """Take the constants from rows (N, n), and return the transform itself."""

        def batches() -> Iterator[Batch]:
            for start in range(0, len(x), batch_size):
                part = slice(start, start + batch_size)
                yield x[part], None if energy is None else energy[part]

        return self.fit_batches(batches)

    def fit_source(self, source: ShowerSource, size: int | None = None) -> Self:
        """Take the constants from showers in memory or in a file, in bounded memory."""

        def batches() -> Iterator[Batch]:
            for part in source.chunks(size):
                yield torch.from_numpy(part.cells), torch.from_numpy(part.incident_energy).float()

        return self.fit_batches(batches)

    @torch.no_grad()
    def fit_batches(self, batches: Callable[[], Iterable[Batch]]) -> Self:
        """Take the constants from batches, which may be asked for more than once."""
        if self.needs_data:
            self.begin_fit()
            for x, energy in batches():
                self.observe(x, energy)
            self.end_fit()
        return self

    def begin_fit(self) -> None:
        """Forget what was observed."""

    def observe(self, x: Tensor, energy: Tensor | None = None) -> None:
        """Look at rows (B, n)."""

    def end_fit(self) -> None:
        """Turn what was observed into constants."""

    def check_fitted(self) -> None:
        """Check that the constants are there.

        Raises:
            ConfigError: When the transform was neither fitted nor loaded.
        """
        for name, value in self.named_buffers():
            if not torch.isfinite(value).all():
                msg = f"transform '{self.name}': constant '{name}' is not set; fit it to showers first"
                raise ConfigError(msg)

    def to_config(self) -> dict[str, Any]:
        """Return name and options; with the state dict, it is all that rebuilds the transform."""
        return {"name": self.name, **self._options}

    @staticmethod
    def from_config(config: Mapping[str, Any], detector: Detector, width: int | None = None) -> Transform:
        """Build a transform from its configuration.

        Arguments:
            config: ``name`` and options.
            detector: Detector whose cells come in.
            width: Number of columns that come in; by default the detector's cells.

        Raises:
            UnknownNameError: When no transform has that name.
            ConfigError: When an option is missing, unknown or wrong; says which.
        """
        options = dict(config)
        name = options.pop("name", None)
        if not isinstance(name, str):
            msg = f"transform {dict(config)}: 'name' is missing; known: {', '.join(TRANSFORMS.names())}"
            raise ConfigError(msg)
        kind = TRANSFORMS[name]
        kind.check_options(options)
        try:
            layout = kind.layout(detector, detector.n_cells if width is None else width, options)
            return kind(*layout, **options)
        except TypeError as error:
            msg = f"transform '{name}': an option has the wrong type: {error}"
            raise ConfigError(msg) from error

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the constructor's positional arguments: what the transform must know of its input."""
        return ()

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check the names of options against the constructor's keyword arguments.

        Raises:
            ConfigError: When one is missing or unknown.
        """
        parameters = inspect.signature(cls).parameters.values()
        known = {one.name: one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        for key in options:
            if key not in known:
                msg = f"transform '{cls.name}': unknown option '{key}'; known: {', '.join(known) or 'none'}"
                raise ConfigError(msg)
        for key, one in known.items():
            if one.default is inspect.Parameter.empty and key not in options:
                msg = f"transform '{cls.name}': option '{key}' is missing"
                raise ConfigError(msg)

    def constant(self, name: str, value: float | Tensor, persistent: bool = True) -> None:
        """Register a constant as a buffer; one that the detector gives need not be stored."""
        self.register_buffer(name, torch.as_tensor(value), persistent=persistent)

    def require(self, good: bool, option: str, expected: str) -> None:
        """Raise ConfigError about one of the options unless ``good``."""
        if not good:
            msg = f"transform '{self.name}': {option} is {self._options.get(option)!r}; expected {expected}"
            raise ConfigError(msg)

    def extra_repr(self) -> str:
        """Return the options for the module's printed form."""
        return ", ".join(f"{key}={value!r}" for key, value in self._options.items())


def energy_column(energy: Tensor | None, name: str) -> Tensor:
    """Return incident energies as a column (B, 1).

    Raises:
        ConfigError: When there are none; ``name`` is the transform that needs them.
    """
    if energy is None:
        msg = f"transform '{name}' needs the incident energies"
        raise ConfigError(msg)
    return energy.reshape(-1, 1)
