"""The showers of a generation: how many, of which energies, angles and further conditions, in which parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, InputError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel
from caloforge.showers.views import AnyShowers, open_any
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["BLOCK", "Given", "Request", "blocks", "check_range", "condition_range", "condition_slack"]

BLOCK = 100
"""Showers that one pass of the network makes on a CPU; batches are whole numbers of them. A GPU makes whole batches."""
_LAST_BLOCKS = ((100, 80), (8, 5), (1, 1))
"""Heights of the blocks of a last hundred that is not full, each with the fewest showers for which it is used."""


def blocks(n: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield the first shower and the height of each block of ``n`` showers; the last block of a height may not be full."""
    first = 0
    heights = ((block, block), *(pair for pair in _LAST_BLOCKS if pair[0] <= block))
    while first < n:
        height = next(height for height, fewest in heights if n - first >= fewest)
        yield first, height
        first += height


class Given(NamedTuple):
    """The conditions of some showers."""

    energy: NDArray[np.float64]  # (N,) MeV
    theta: NDArray[np.float64] | None  # (N,) degrees; none: all 90
    conditions: dict[str, NDArray[np.float32]]  # (N, k) each
    particle: str  # empty when not known


Take = Callable[[int, int], Given]
"""Returns the conditions of the showers from a number to another one, which may be beyond the last."""


@dataclass(frozen=True)
class Request:
    """A number of showers and their conditions; see :meth:`caloforge.generate.Generator.stream` for the arguments."""

    n: int | None = None
    energy: str | EnergySpec | None = None
    theta: str | float | AngleSpec | None = None
    like: AnyShowers | None = None
    seed: int = 0
    batch_size: int = 1000
    allow_extrapolation: bool = False

    @property
    def size(self) -> int:
        """Showers of a part: a whole number of blocks.

        Raises:
            InputError: When the batch size is below 1.
        """
        if self.batch_size < 1:
            raise InputError(f"batch size is {self.batch_size}; expected at least 1")
        return max(1, round(self.batch_size / BLOCK)) * BLOCK

    def number(self) -> int:
        """Return the number of showers: ``n``, or that of ``like``."""
        n = self.n
        if n is None and self.like is None:
            raise InputError("the number of showers is needed")
        if self.like is not None:
            with open_any(self.like) as source:
                available = len(source)
            if not available:
                raise InputError("'like' contains no showers")
            n = available if n is None else n
        if n is None or n < 1:
            raise InputError(f"number of showers is {n}; expected at least 1")
        return n

    @contextmanager
    def opened(self, detector: Detector) -> Iterator[Take]:
        """Yield a function that returns the conditions of showers of a detector.

        Raises:
            InputError: When neither an energy nor ``like`` is given, or both.
            IncompatibleError: When ``like`` is of another detector.
        """
        if self.like is None:
            if self.energy is None:
                msg = "an energy is needed, such as 50GeV, or showers whose conditions are taken ('like')"
                raise InputError(msg)
            beam = detector.beam.replace(energy=self.energy, theta=self.theta)
            straight = beam.theta == AngleSpec(90.0, 90.0)

            def drawn(start: int, stop: int) -> Given:
                found = beam.sample(self.seed, start, stop - start)
                return Given(found.energy, None if straight else found.theta, found.conditions, "")

            yield drawn
            return
        if self.energy is not None or self.theta is not None:
            raise InputError("'like' gives energies and angles; leave out energy and theta")
        with open_any(self.like) as source:
            if source.detector != detector:
                msg = f"'{source.detector.name}' showers cannot be imitated by a model of '{detector.name}'"
                raise IncompatibleError(msg)

            def taken(start: int, stop: int) -> Given:
                one = source.take(np.arange(start, stop) % len(source))
                angles = one.incident_theta if one.has_theta else None
                return Given(one.incident_energy, angles, one.conditions, one.particle)

            yield taken


_Bound = TypeVar("_Bound", float, torch.Tensor)


def condition_slack(low: _Bound, high: _Bound) -> _Bound:
    """Return by how much a condition may lie outside the training's lowest and highest value."""
    return 0.02 * (high - low) + 1e-3 * abs(high)


def condition_range(model: ShowerModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest conditions (C,) that a model takes: a little more than those of its training."""
    low, high = model.condition_low, model.condition_high
    slack = condition_slack(low, high)
    return low - slack, high + slack


def check_range(model: ShowerModel, matrix: torch.Tensor) -> None:
    """Raise IncompatibleError when a condition (N, C) lies outside those that a model takes."""
    low, high = model.condition_low.cpu(), model.condition_high.cpu()
    least, most = (bound.cpu() for bound in condition_range(model))
    for name, columns in model.columns.items():
        values, a, b = matrix[:, columns], low[columns], high[columns]
        if bool(((values < least[columns]) | (values > most[columns])).any()):
            raise IncompatibleError(
                f"condition '{name}' from {values.min().item():g} to {values.max().item():g} is outside the "
                f"training's {a.min().item():g} to {b.max().item():g}; use --allow-extrapolation to go on"
            )
