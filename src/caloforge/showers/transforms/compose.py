"""Transforms one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError
from caloforge.geometry import Detector
from caloforge.showers.transforms.base import Batch, Transform

__all__ = ["Compose"]


class Compose(Transform):
    """Apply transforms in order, and their inverses in reverse order.

    Arguments:
        steps: The transforms.
        transforms: Their configurations.
    """

    name: ClassVar[str] = "compose"

    def __init__(
        self, steps: Sequence[Transform], /, *, transforms: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    @classmethod
    def layout(cls, detector: Detector, width: int, options: dict[str, Any]) -> tuple[Any, ...]:
        """Return the transforms, each built for the columns that the one before gives."""
        steps: list[Transform] = []
        configs = options.get("transforms", ())
        if isinstance(configs, str | Mapping) or not isinstance(configs, Sequence):
            msg = f"transform 'compose': 'transforms' is {configs!r}; expected a list of tables"
            raise ConfigError(msg)
        for config in configs:
            steps.append(Transform.from_config(config, detector, width))
            width = steps[-1].features(width)
        return (steps,)

    @property
    def needs_fit(self) -> bool:
        """Whether any step takes constants from data."""
        return any(step.needs_fit for step in self)

    def __iter__(self) -> Iterator[Transform]:
        for step in self.steps:
            assert isinstance(step, Transform)
            yield step

    def __len__(self) -> int:
        return len(self.steps)

    def features(self, n: int) -> int:
        """Return how many columns come out of the last step."""
        for step in self:
            n = step.features(n)
        return n

    def forward(self, x: Tensor, energy: Tensor | None = None) -> Tensor:
        """Apply all to rows (B, n)."""
        for step in self:
            x = step(x, energy)
        return x

    def inverse(self, y: Tensor, energy: Tensor | None = None) -> Tensor:
        """Undo all on rows (B, features(n))."""
        for step in reversed(list(self)):
            y = step.inverse(y, energy)
        return y

    @torch.no_grad()
    def fit_batches(self, batches: Callable[[], Iterable[Batch]]) -> Self:
        """Fit each step that needs it to what the steps before make of the data: one pass for each."""
        before: list[Transform] = []
        for step in self:
            if step.needs_fit:
                step.fit_batches(lambda done=tuple(before): self._after(done, batches()))  # type: ignore[misc]
            before.append(step)
        return self

    def to_config(self) -> dict[str, Any]:
        """Return name and configurations of all steps."""
        return {"name": self.name, "transforms": [step.to_config() for step in self]}

    @staticmethod
    def _after(steps: Sequence[Transform], batches: Iterable[Batch]) -> Iterator[Batch]:
        for x, energy in batches:
            for step in steps:
                x = step(x, energy)
            yield x, energy
