"""The request of a generation: number of showers, energies, angles and further conditions, and the parts in which they are generated.

Generated showers are stored with the conditions that they have: a model without an angle makes showers of the angles that it was trained
at, whatever the request says, and of one particle. What a model cannot make is refused (:func:`admitted`); what is assumed, or left out, is said (:func:`notes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, InputError
from caloforge.geometry import Detector
from caloforge.geometry.beam import Beam
from caloforge.models.base import ShowerModel
from caloforge.random import check_seed
from caloforge.showers.hdf5 import PERPENDICULAR
from caloforge.showers.ranges import check_first, range_facts
from caloforge.showers.views import AnyShowers, open_any
from caloforge.units import AngleSpec, Values

__all__ = [
    "BLOCK",
    "Given",
    "Request",
    "accepted_range",
    "admitted",
    "blocks",
    "check_range",
    "condition_range",
    "default_angles",
    "known_conditions",
    "notes",
    "ranges",
    "trained_angles",
    "unconditioned",
]

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
    conditions: dict[str, NDArray[Any]]  # (N, k) each
    particle: str  # empty when not known

    def angles(self) -> NDArray[np.float64]:
        """Return the angles (N,), degrees."""
        return np.full(len(self.energy), PERPENDICULAR) if self.theta is None else self.theta


Take = Callable[[int, int], Given]
"""Returns the conditions of the showers from a number to another one, which may be beyond the last."""


@dataclass(frozen=True)
class Request:
    """A number of showers and their conditions; see :meth:`caloforge.generate.Generator.stream` for the arguments."""

    n: int | None = None
    energy: Any = None  # :data:`~caloforge.units.Energies`
    theta: Any = None  # :data:`~caloforge.units.Angles`
    like: AnyShowers | None = None
    seed: int = 0
    batch_size: int = 1000
    allow_extrapolation: bool = False
    first: int = 0  # number of the first shower

    @property
    def size(self) -> int:
        """Showers of a part: a whole number of blocks.

        Raises:
            InputError: When the batch size is below 1.
        """
        if self.batch_size < 1:
            raise InputError(f"batch size is {self.batch_size}; expected at least 1")
        return max(1, round(self.batch_size / BLOCK)) * BLOCK

    def __post_init__(self) -> None:
        check_seed(self.seed)
        object.__setattr__(self, "energy", Values.of(self.energy, "energies", "MeV"))
        object.__setattr__(self, "theta", Values.of(self.theta, "angles", "degrees"))

    @property
    def _given(self) -> list[Values]:
        """What is given for each shower."""
        return [one for one in (self.energy, self.theta) if isinstance(one, Values)]

    def number(self) -> int:
        """Return the number of showers: ``n``, or that of ``like``."""
        check_first(self.first)
        sizes = {len(one.array) for one in self._given} | (
            {self.n} if self.n is not None and self._given else set()
        )
        if len(sizes) > 1:
            raise InputError(
                f"energies, angles and number of showers differ: {', '.join(map(str, sorted(sizes)))}; expected one number"
            )
        n = self.n if not sizes else sizes.pop()
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

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the first shower of each part and that behind its last; parts begin at multiples of :attr:`size`, but for the first one."""
        size, start, stop = self.size, self.first, self.first + self.number()
        while start < stop:
            end = min(start - start % size + size, stop)
            yield start, end
            start = end

    def facts(self, beam: Beam, theta: AngleSpec) -> dict[str, Any]:
        """Return the attributes of a file that say which showers it has, under which conditions."""
        drawn = {}
        if self.like is None and self.energy is not None and not self._given:
            beam = beam.replace(self.energy, theta if self.theta is None else self.theta)
            drawn = {"beam_energy": str(beam.energy), "beam_theta": str(beam.theta)}
        return drawn | range_facts(self.first, self.number())

    @contextmanager
    def opened(self, detector: Detector, theta: AngleSpec) -> Iterator[Take]:
        """Yield a function that returns the conditions of showers of a detector; ``theta`` are their angles where none are wanted.

        Raises:
            InputError: When neither an energy nor ``like`` is given, or both.
            IncompatibleError: When ``like`` is of another detector.
        """
        if self.like is None:
            if self.energy is None:
                msg = "an energy is needed, such as 50GeV, or showers whose conditions are taken ('like')"
                raise InputError(msg)
            e, t = (one if isinstance(one, Values) else None for one in (self.energy, self.theta))
            angles = theta if self.theta is None or t else self.theta
            beam = detector.beam.replace(None if e else self.energy, angles)
            straight = t is None and beam.theta == AngleSpec(90.0, 90.0)

            def drawn(start: int, stop: int) -> Given:
                found = beam.sample(self.seed, start, stop - start)
                first, last = start - self.first, stop - self.first
                energy = found.energy if e is None else e.take(first, last)
                direction = found.theta if t is None else t.take(first, last)
                return Given(energy, None if straight else direction, found.conditions, "")

            yield drawn
            return
        if self.energy is not None or self.theta is not None:
            raise InputError("'like' gives energies and angles; leave out energy and theta")
        with open_any(self.like) as source:
            if source.detector != detector:
                msg = f"a model of '{detector.name}' cannot take its conditions from showers of '{source.detector.name}'; expected showers of the same detector"
                raise IncompatibleError(msg)

            def taken(start: int, stop: int) -> Given:
                one = source.take(np.arange(start, stop) % len(source))
                angles = one.incident_theta if one.has_theta else None
                return Given(one.incident_energy, angles, one.conditions, one.particle)

            yield taken


_SLACK = 0.02
"""How far beyond an end of the training a condition may lie: of energies in ratio, else of the width of the training's range."""
_NEAR = 1.25  # largest ratio of the lowest or highest energy of some showers to the end of the beam that they are a sample of
_ANGLE = 0.1  # degrees that an angle may be off in addition
_RELATIVE = 1e-3  # likewise of another condition, of its largest value


def _energies(low: float, high: float, beam: Beam) -> tuple[float, float]:
    near = _SLACK * (high - low)
    if beam.energy.low < low <= _NEAR * beam.energy.low and low - beam.energy.low <= near:
        low = beam.energy.low
    if high < beam.energy.high <= _NEAR * high and beam.energy.high - high <= near:
        high = beam.energy.high
    return low / (1 + _SLACK), high * (1 + _SLACK)


def _angles(low: float, high: float, beam: Beam) -> tuple[float, float]:
    slack = _SLACK * (high - low) + _ANGLE
    return low - slack, high + slack


def _numbers(low: float, high: float, beam: Beam) -> tuple[float, float]:
    slack = _SLACK * (high - low) + _RELATIVE * max(abs(low), abs(high))
    return low - slack, high + slack


_SCALES: Mapping[str, tuple[Callable[[float, float, Beam], tuple[float, float]], str]] = {
    "incident_energy": (_energies, " MeV"),
    "incident_theta": (_angles, " degrees"),
}
"""How the ends of a condition are compared, and its unit; other conditions are compared by difference."""


def accepted_range(name: str, low: float, high: float, beam: Beam) -> tuple[float, float]:
    """Return the lowest and highest value of a condition that a model takes, from those of its training.

    Energies may lie 2 % beyond an end, which is the end of the detector's beam where the training's showers are a sample of that: they come within 2 % of
    the range, and a quarter of the energy, of it. Angles and other conditions may lie beyond by 2 % of the range and 0.1 degrees, or a thousandth of
    the largest value; whole numbers may not.
    """
    if name in dict(beam.alignments):
        return low, high
    return _SCALES.get(name, (_numbers, ""))[0](low, high, beam)


def condition_range(model: ShowerModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest conditions (C,) that a model takes; see :func:`accepted_range`."""
    least, most = model.condition_low.clone(), model.condition_high.clone()
    for name, columns in model.columns.items():
        for column in range(columns.start, columns.stop):
            ends = float(model.condition_low[column]), float(model.condition_high[column])
            least[column], most[column] = accepted_range(name, *ends, model.detector.beam)
    return least, most


def check_range(model: ShowerModel, matrix: torch.Tensor) -> None:
    """Raise IncompatibleError when a condition (N, C) lies outside those that a model takes, or is not the whole number that it should be."""
    low, high = model.condition_low.cpu(), model.condition_high.cpu()
    least, most = (bound.cpu() for bound in condition_range(model))
    whole = dict(model.detector.beam.alignments)
    for name, columns in model.columns.items():
        values, a, b = matrix[:, columns], low[columns], high[columns]
        if not bool(((values >= least[columns]) & (values <= most[columns])).all()):  # nor is NaN
            raise IncompatibleError(
                f"condition '{name}' from {values.min().item():.6g} to {values.max().item():.6g} is outside the "
                f"training's {a.min().item():.6g} to {b.max().item():.6g}{_SCALES.get(name, (None, ''))[1]}; "
                "use --allow-extrapolation to accept it"
            )
        if name in whole and bool((values != values.round()).any()):
            wrong = float(values[values != values.round()][0])
            raise IncompatibleError(f"condition '{name}' is {wrong:g}; expected a whole number")


_ENERGY, _THETA = "incident_energy", "incident_theta"


def known_conditions(model: ShowerModel) -> tuple[str, ...]:
    """Return the named conditions that generated showers have: those that shape them, and those that place their cells."""
    readout = model.detector.readout
    names = (*model.columns, *(() if readout is None else readout.alignment_names))
    return tuple(name for name in dict.fromkeys(names) if name not in (_ENERGY, _THETA))


def unconditioned(model: ShowerModel, trained: AngleSpec) -> tuple[str, ...]:
    """Return the conditions that generated showers have, and that varied in the training, although the model does not depend on them."""
    angle = (_THETA,) if _THETA not in model.columns and trained.low < trained.high else ()
    return (*angle, *(name for name in known_conditions(model) if name not in model.columns))


def default_angles(model: ShowerModel, trained: AngleSpec) -> AngleSpec:
    """Return the angles of showers where none are wanted: those of the detector's beam that the model takes, or those of its training.

    Arguments:
        trained: Angles of the training's showers, of a model that has no angle as a condition.
    """
    if _THETA not in model.columns:
        return trained
    beam, column = model.detector.beam, model.columns[_THETA].start
    low, high = float(model.condition_low[column]), float(model.condition_high[column])
    if not 0.0 < low <= high < 180.0:  # never fitted
        return beam.theta
    least, most = accepted_range(_THETA, low, high, beam)
    if least <= beam.theta.low <= most:
        low = beam.theta.low
    if least <= beam.theta.high <= most:
        high = beam.theta.high
    return AngleSpec(low, high)


def trained_angles(theta: AngleSpec | None, beam: Beam) -> AngleSpec:
    """Return the angles of a training: the beam's where none are known, or where its showers are a sample of it."""
    if theta is None:
        return beam.theta
    least, most = accepted_range(_THETA, theta.low, theta.high, beam)
    sample = theta.low < theta.high and least <= beam.theta.low < beam.theta.high <= most
    return beam.theta if sample else theta


def admitted(model: ShowerModel, particle: str, trained: AngleSpec, given: Given, request: Request) -> Given:
    """Return the conditions of the showers that a model makes when it is given some, with those alone that it knows.

    Arguments:
        particle: The one that the model was trained on.
        trained: Angles of the training's showers, of a model that has no angle as a condition.

    Raises:
        IncompatibleError: When the showers would have another particle or angle, and ``request`` does not allow it.
    """
    go_on = request.allow_extrapolation
    if given.particle and given.particle != particle and not go_on:
        raise IncompatibleError(
            f"'like' has showers of '{given.particle}', the model makes those of '{particle}'; "
            f"use --allow-extrapolation to make showers of '{particle}'"
        )
    theta = given.theta
    if _THETA not in model.columns:
        low, high = trained.low, trained.high
        least, most = accepted_range(_THETA, low, high, model.detector.beam)
        angles = given.angles()
        wanted = AngleSpec(low, high) if request.theta is None else AngleSpec.parse(request.theta)
        outside = bool(((angles < least) | (angles > most)).any())
        if not go_on and (outside or (low < high and wanted != trained)):
            found = wanted if request.theta is not None else f"{angles.min():.6g} to {angles.max():.6g}"
            only = "only" if low == high else "together"
            raise IncompatibleError(
                f"the model has no condition '{_THETA}', it was trained at {trained} degrees {only}, not at {found}; "
                f"use --allow-extrapolation to make showers of {trained} degrees"
            )
        if not (theta is None and low == high == PERPENDICULAR):
            theta = angles.clip(low, high)
    known = known_conditions(model)
    named = {name: values for name, values in given.conditions.items() if name in known}
    return Given(given.energy, theta, named, particle)


def ranges(model: ShowerModel, trained: AngleSpec) -> list[tuple[str, str]]:
    """Return what a model makes and for which conditions, as names and texts."""
    detector = model.detector
    rows = [
        ("detector", f"{detector.name}, {detector.n_cells:,} cells"),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
    ]
    for name, columns in model.columns.items():
        low, high = float(model.condition_low[columns].min()), float(model.condition_high[columns].max())
        rows.append((name.replace("_", " "), f"{low:.6g} to {high:.6g}{_SCALES.get(name, (None, ''))[1]}"))
    if _THETA not in model.columns:
        rows.append(("incident theta", f"{trained} degrees, no condition of the model"))
    return rows


def notes(model: ShowerModel, trained: AngleSpec, request: Request) -> list[str]:
    """Return a line on each thing that is assumed about the showers of a request, or left out."""
    lines = []
    if request.like is not None:
        with open_any(request.like) as source:
            left = [name for name in source.condition_names if name not in known_conditions(model)]
        if left:
            lines.append(f"not taken from 'like', since the model does not know it: {', '.join(left)}")
    elif request.theta is None:
        angles = default_angles(model, trained)
        if angles.low < angles.high or angles.low != PERPENDICULAR:
            lines.append(f"no angle is given (--theta); drawn are {angles} degrees")
    elif (
        request.allow_extrapolation
        and _THETA not in model.columns
        and AngleSpec.parse(request.theta) != trained
    ):
        lines.append(f"the model has no angle: its showers are those of {trained} degrees")
    for name in unconditioned(model, trained):
        lines.append(f"the showers do not depend on '{name}', which the model does not know")
    return lines
