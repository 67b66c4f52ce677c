"""Energies, angles and times as people write them: ``50GeV``, ``10-100GeV``, ``1-1000GeV:log``, ``1-262GeV:log2``, ``30-90``, ``30min``.

Inside, everything is MeV, degrees and seconds. A bare energy is refused, since MeV and GeV are both plausible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError, UnitError

__all__ = [
    "AngleSpec",
    "Angles",
    "Energies",
    "EnergySpec",
    "Values",
    "plain_number",
    "read_seconds",
    "say_seconds",
]

_UNITS = {"keV": 1e-3, "MeV": 1.0, "GeV": 1e3, "TeV": 1e6}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_ENERGY = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z]*)\s*(?:-\s*({_NUMBER})\s*([A-Za-z]*)\s*)?(?::(\w+))?\s*")
_TIME = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z]+)\s*")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_ANGLE = re.compile(rf"\s*({_NUMBER})\s*(?:-\s*({_NUMBER})\s*)?(?:deg)?\s*")
_RULES: dict[str | None, Literal["uniform", "log", "log2"]] = {None: "uniform", "log": "log", "log2": "log2"}
_MAX_ENERGY = 1e8  # MeV; Geant4's electromagnetic models end at 100 TeV


@dataclass(frozen=True)
class EnergySpec:
    """Incident energies: one value, a range with a uniform energy or logarithm, or powers of two times the lower end."""

    low: float  # lower end, MeV
    high: float  # upper end, MeV; equal to ``low`` for one value
    # ``fixed``, ``uniform``, ``log`` (uniform in the logarithm) or ``log2`` (low x 2**k up to high, in equal parts)
    kind: Literal["fixed", "uniform", "log", "log2"] = "fixed"

    def __post_init__(self) -> None:
        if not 0.0 < self.low <= self.high <= _MAX_ENERGY:
            msg = f"energy {self.low:g} to {self.high:g} MeV is out of range: expected 0 < low <= high <= 100 TeV"
            raise UnitError(msg)

    @classmethod
    def parse(cls, text: str | EnergySpec) -> EnergySpec:
        """Read ``50GeV``, ``500MeV``, ``10-100GeV``, ``500MeV-2GeV``, ``1-1000GeV:log`` or ``1-262GeV:log2``.

        Raises:
            UnitError: For a bare number, an unknown unit or rule, or a range that runs backwards.
        """
        if isinstance(text, EnergySpec):
            return text
        match = _ENERGY.fullmatch(str(text))
        if match is None:
            msg = f"energy '{text}' is not understood: expected such as 50GeV, 10-100GeV or 1-262GeV:log2"
            raise UnitError(msg)
        first, unit1, last, unit2, rule = match.groups()
        unit = unit2 or unit1
        if not unit:
            raise UnitError(f"energy '{text}' has no unit: write {text}GeV or {text}MeV")
        for name in (unit1, unit2):
            if name and name not in _UNITS:
                msg = f"energy '{text}' has the unknown unit '{name}': expected one of {', '.join(_UNITS)}"
                raise UnitError(msg)
        low = float(first) * _UNITS[unit1 or unit]
        if last is None:
            if rule is not None:
                raise UnitError(
                    f"energy '{text}' has the rule ':{rule}' without a range: expected such as 1-262GeV:log2"
                )
            return cls(low, low, "fixed")
        high = float(last) * _UNITS[unit]
        if rule not in _RULES:
            raise UnitError(f"energy '{text}' has the unknown rule ':{rule}': expected :log, :log2 or none")
        return cls(low, high, _RULES[rule])

    @property
    def levels(self) -> int:
        """Number of energies of a ``log2`` spec; 1 for a fixed one."""
        return int(np.floor(np.log2(self.high / self.low) + 1e-9)) + 1 if self.kind == "log2" else 1

    @property
    def mean(self) -> float:
        """Mean energy, MeV."""
        if self.kind == "log" and self.high > self.low:
            return float((self.high - self.low) / np.log(self.high / self.low))
        return float(self.values((np.arange(self.levels) + 0.5) / self.levels).mean())

    def values(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn uniform numbers (N,) in [0, 1) into energies (N,) in MeV."""
        u = np.asarray(u, np.float64)
        if self.kind == "log2":
            return self.low * np.exp2(np.minimum(np.floor(u * self.levels), self.levels - 1))
        if self.kind == "log":
            return np.asarray(self.low * (self.high / self.low) ** u)
        return self.low + (self.high - self.low) * u

    def __str__(self) -> str:
        unit = "GeV" if self.high >= 1e3 else "MeV"
        scale = _UNITS[unit]
        low, high = f"{self.low / scale:.12g}", f"{self.high / scale:.12g}"
        if self.kind == "fixed":
            return f"{low}{unit}"
        return f"{low}-{high}{unit}" + (f":{self.kind}" if self.kind in _RULES else "")


@dataclass(frozen=True)
class AngleSpec:
    """Polar angles in degrees: one value or a uniform range; 90 is perpendicular to the front face."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0.0 < self.low <= self.high < 180.0:
            raise UnitError(
                f"angle {self.low:g} to {self.high:g} degrees is out of range: expected 0 < low <= high < 180"
            )

    @classmethod
    def parse(cls, text: str | float | AngleSpec | Values) -> AngleSpec:
        """Read ``90``, ``30-90`` or a number, in degrees; of the values of showers return the range.

        Raises:
            UnitError: When the text is neither.
        """
        if isinstance(text, AngleSpec):
            return text
        if isinstance(text, Values):
            return cls(float(text.array.min()), float(text.array.max()))
        match = _ANGLE.fullmatch(str(text))
        if match is None:
            raise UnitError(f"angle '{text}' is not understood: expected degrees such as 90 or 30-90")
        low = float(match.group(1))
        return cls(low, low if match.group(2) is None else float(match.group(2)))

    def values(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn uniform numbers (N,) into angles (N,) in degrees."""
        return self.low + (self.high - self.low) * np.asarray(u, np.float64)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


@dataclass(frozen=True, eq=False)
class Values:
    """A number for each shower (N,)."""

    array: NDArray[np.float64]

    @classmethod
    def of(cls, given: Any, what: str, unit: str) -> Any:
        """Return the values of an array or list; anything else as it is.

        Raises:
            InputError: When they are not one finite positive number for each shower.
        """
        if not isinstance(given, list | tuple | np.ndarray):
            return given
        array = np.asarray(given)
        numbers = array.dtype.kind in "fiu"
        shaped = numbers and array.ndim == 1 and len(array) > 0
        if shaped and len(wrong := array[~(np.isfinite(array) & (array > 0))]):
            raise InputError(
                f"{what} of the showers: {wrong[0]:g} is among them; expected finite numbers above 0, in {unit}"
            )
        if not shaped:
            found = f"of shape {array.shape}" if numbers else f"of type {array.dtype}"
            raise InputError(
                f"{what} of the showers are an array {found}; expected one number for each, in {unit}"
            )
        return cls(array.astype(np.float64))

    def take(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the values of a range of showers; behind the last one they begin again."""
        return self.array[np.arange(start, stop) % len(self.array)]


Energies: TypeAlias = "str | EnergySpec | Sequence[float] | NDArray[Any]"
"""Energies with their unit, such as ``50GeV``, or of each shower, MeV."""
Angles: TypeAlias = "str | float | AngleSpec | Sequence[float] | NDArray[Any]"
"""Angles, or of each shower, degrees."""


def read_seconds(text: str) -> float:
    """Return the seconds of a time with its unit: ``900s``, ``30min``, ``1.5h``, ``2d``.

    Raises:
        UnitError: For a bare number, an unknown unit, or no time at all.
    """
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _SECONDS or not 0.0 < float(match[1]) * _SECONDS[match[2]] < np.inf:
        raise UnitError(f"time '{text}' is not understood: expected such as 900s, 30min or 2h, above 0")
    return float(match[1]) * _SECONDS[match[2]]


def say_seconds(seconds: float) -> str:
    """Return a time for people: ms below 0.1 s, seconds up to two minutes, minutes up to two hours, or hours."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.995 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    if seconds < 0.1:
        return f"{plain_number(1e3 * seconds, 2)} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def plain_number(value: float, digits: int = 3, sign: str = "") -> str:
    """Return a number rounded to so many digits, without an exponent below 1e5: 20, 1230; ``sign`` ``+`` shows that of positive ones."""
    text = f"{value:{sign}.{digits}g}"
    if "e" in text and 1.0 <= abs(rounded := float(text)) < 1e5:
        return f"{rounded:{sign}.0f}"
    return text
