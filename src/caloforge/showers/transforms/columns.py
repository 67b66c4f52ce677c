"""A transform of some columns only, for example of the layer energies behind the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Batch, Transform

__all__ = ["Columns"]


class Columns(Transform):
    """Apply a transform, which must keep the number of columns, to the columns [start, stop).

    Arguments:
        inner: The transform.
        width: Number of columns that come in.
        start: First column; below 0 it counts from the end.
        stop: End of the columns; None: to the last.
        transform: Configuration of the inner transform.
    """

    name: ClassVar[str] = "columns"

    def __init__(
        self,
        inner: Transform,
        width: int,
        /,
        *,
        start: int = 0,
        stop: int | None = None,
        transform: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(start=start, stop=stop)
        self.start, self.stop, _ = slice(start, stop).indices(width)
        self.require(
            self.stop > self.start, "stop", f"some of the {width} columns between 'start' and 'stop'"
        )
        self.inner = inner
        if inner.features(self.stop - self.start) != self.stop - self.start:
            msg = f"transform 'columns': '{inner.name}' changes the number of columns; expected one that does not"
            raise ConfigError(msg)

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the inner transform and the number of columns."""
        inner = options.get("transform")
        if not isinstance(inner, Mapping):
            msg = (
                "transform 'columns': option 'transform' is missing; expected a table with 'name' and options"
            )
            raise ConfigError(msg)
        start, stop, _ = slice(options.get("start", 0), options.get("stop")).indices(width)
        return Transform.from_config(inner, detector, stop - start), width

    @property
    def needs_fit(self) -> bool:
        """Whether the inner transform takes constants from data."""
        return self.inner.needs_fit

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Transform the columns of rows (B, n)."""
        return self._replaced(x, self.inner(x[:, self.start : self.stop], energy))

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo it on rows (B, n)."""
        return self._replaced(y, self.inner.inverse(y[:, self.start : self.stop], energy))

    def fit_batches(self, batches: Callable[[], Iterable[Batch]]) -> Self:
        """Fit the inner transform to the columns."""
        self.inner.fit_batches(lambda: ((x[:, self.start : self.stop], energy) for x, energy in batches()))
        return self

    def to_config(self) -> dict[str, Any]:
        """Return name, columns and the inner transform's configuration."""
        return {**super().to_config(), "transform": self.inner.to_config()}

    def _replaced(self, rows: Tensor, part: Tensor) -> Tensor:
        return torch.cat([rows[:, : self.start], part, rows[:, self.stop :]], dim=-1)
