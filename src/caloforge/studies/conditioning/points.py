"""Test points in energy and angle, the showers around each, and generated against reference showers there.

A file made at the points has showers exactly there. In a file of continuous energies and angles a window around the
point is taken, as narrow as the wanted number of showers allows, and never so wide that more than a quarter of the
point's energy, or ten degrees, lies between a shower and the point: within a window a quantity is extrapolated
to the point itself by a straight line (:mod:`caloforge.statistics.moments`).

At a point, each quantity of each sample has a mean and a width. The comparison is

- for the energy response: generated over reference mean, minus 1;
- for every other quantity: generated minus reference mean, in the quantity's unit and in reference widths;
- for all: generated over reference width, minus 1, and the Kolmogorov-Smirnov probability of the values moved to the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.distances import ks_test
from caloforge.statistics.moments import FEWEST, LocalMoments, local_moments
from caloforge.studies.conditioning.measure import STAGES, Measured

__all__ = [
    "Comparison",
    "PointResult",
    "TestPoint",
    "Window",
    "compare",
    "points_with_showers",
    "window_around",
]

Array = NDArray[np.float64]

_LADDER = ((0.02, 1.0), (0.05, 2.0), (0.1, 4.0), (0.15, 6.0), (0.2, 8.0), (0.25, 10.0))
"""Half widths that are tried in turn: part of the energy, degrees."""
_EXACT = (1e-3, 0.05)
_SLACK = (0.02, 1.0)  # part of the energy, degrees


@dataclass(frozen=True)
class TestPoint:
    """One energy (MeV) and angle (degrees)."""

    __test__ = False  # not a test for pytest

    energy: float
    theta: float

    @property
    def name(self) -> str:
        """Short name for people: ``50 GeV, 60 deg``."""
        return f"{self.energy / 1000:g} GeV, {self.theta:g} deg"

    @property
    def key(self) -> str:
        """Name for files: ``50gev-60deg``."""
        return f"{self.energy / 1000:g}gev-{self.theta:g}deg"


@dataclass(frozen=True)
class Window:
    """Half widths around a point in energy (MeV) and angle (degrees)."""

    energy: float
    theta: float

    def select(self, energy: Array, theta: Array, point: TestPoint) -> NDArray[np.int64]:
        """Return the indices (K,), ascending, of the showers of energies (N,) MeV and angles (N,) degrees inside."""
        near = np.abs(energy - point.energy) <= self.energy * (1 + 1e-9)
        near &= np.abs(theta - point.theta) <= self.theta * (1 + 1e-9)
        return np.flatnonzero(near)


def window_around(
    energy: Array,
    theta: Array,
    point: TestPoint,
    wanted: int,
    energy_width: float | None = None,
    theta_width: float | None = None,
) -> Window:
    """Return the narrowest window with the wanted number of showers, or else the widest; widths may be fixed.

    Showers that lie exactly at the point come first: a file made at the points needs no width. Energies (N,) and
    ``energy_width`` are in MeV, angles (N,) and ``theta_width`` in degrees.
    """

    def window(step: tuple[float, float]) -> Window:
        return Window(
            step[0] * point.energy if energy_width is None else energy_width,
            step[1] if theta_width is None else theta_width,
        )

    # a point that was simulated on purpose has at least half of the showers around it
    widest = Window(_LADDER[-1][0] * point.energy, _LADDER[-1][1])
    most = max(2, len(widest.select(energy, theta, point)) // 2)
    exact = window(_EXACT)
    if len(exact.select(energy, theta, point)) >= min(wanted, most):
        return exact
    tried = (window(step) for step in _LADDER)
    return next(
        (one for one in tried if len(one.select(energy, theta, point)) >= wanted), window(_LADDER[-1])
    )


def points_with_showers(
    energy: Array,
    theta: Array,
    points: Sequence[TestPoint],
    wanted: int,
    energy_width: float | None = None,
    theta_width: float | None = None,
) -> list[tuple[TestPoint, Window]]:
    """Return the points, with their windows, that have enough reference showers at them or on both sides of them.

    Arguments as of :func:`window_around`.
    """
    found = []
    for point in points:
        window = window_around(energy, theta, point, wanted, energy_width, theta_width)
        rows = window.select(energy, theta, point)
        sides = (
            (energy[rows], point.energy, _SLACK[0] * point.energy),
            (theta[rows], point.theta, _SLACK[1]),
        )
        if len(rows) >= FEWEST and all(
            values.min() <= where + slack and values.max() >= where - slack for values, where, slack in sides
        ):
            found.append((point, window))
    return found


@dataclass(frozen=True)
class Comparison:
    """One quantity of one generated sample at one point; errors are one standard deviation."""

    shift: float  # generated minus reference mean, in the quantity's unit
    shift_error: float
    relative: float  # generated over reference mean, minus 1
    relative_error: float
    pull: float  # shift in reference widths
    pull_error: float
    width: float  # generated over reference width, minus 1
    width_error: float
    ks: float  # Kolmogorov-Smirnov statistic, with its probability ``p``
    p: float


@dataclass(frozen=True, eq=False)
class PointResult:
    """Everything at one point; of the samples the reference is first."""

    point: TestPoint
    window: Window
    n: tuple[int, ...]  # showers of each sample
    local: dict[str, dict[str, list[LocalMoments]]]  # by stage and quantity, of all samples
    compared: dict[str, dict[str, list[Comparison]]]  # by stage and quantity, of generated ones

    def to_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return plain numbers, by stage, quantity and sample."""
        out: dict[str, Any] = {
            "energy_mev": self.point.energy,
            "theta_deg": self.point.theta,
            "half_width_energy_mev": self.window.energy,
            "half_width_theta_deg": self.window.theta,
            "n": dict(zip(labels, self.n, strict=True)),
        }
        for stage in STAGES:
            out[stage] = {}
            for name, samples in self.local[stage].items():
                entry = {
                    label: {
                        "n": found.n,
                        "missing": found.missing,
                        "mean": [found.mean, found.mean_error],
                        "width": [found.width, found.width_error],
                    }
                    for label, found in zip(labels, samples, strict=True)
                }
                for label, one in zip(labels[1:], self.compared[stage][name], strict=True):
                    entry[label]["against_reference"] = asdict(one)
                out[stage][name] = entry
        return out


def compare(samples: Sequence[Measured], point: TestPoint, window: Window) -> PointResult:
    """Compare generated samples with the reference, which comes first, at a point."""
    rows = [window.select(sample.energy, sample.theta, point) for sample in samples]
    local: dict[str, dict[str, list[LocalMoments]]] = {stage: {} for stage in STAGES}
    compared: dict[str, dict[str, list[Comparison]]] = {stage: {} for stage in STAGES}
    for stage in STAGES:
        for name in samples[0].values[stage]:
            found = [
                local_moments(
                    sample.values[stage][name][chosen],
                    (sample.energy[chosen], sample.theta[chosen]),
                    (point.energy, point.theta),
                )
                for sample, chosen in zip(samples, rows, strict=True)
            ]
            local[stage][name] = found
            compared[stage][name] = [_against(found[0], other) for other in found[1:]]
    return PointResult(point, window, tuple(len(chosen) for chosen in rows), local, compared)


def _against(a: LocalMoments, b: LocalMoments) -> Comparison:
    """Return how a generated sample's quantity differs from the reference's."""
    shift, error = b.mean - a.mean, float(np.hypot(a.mean_error, b.mean_error))
    scale = a.width if a.width > 0 else np.nan
    enough = min(len(a.moved), len(b.moved)) >= FEWEST
    return Comparison(
        shift,
        error,
        *_ratio(b.mean, b.mean_error, a.mean, a.mean_error),
        shift / scale,
        error / scale,
        *_ratio(b.width, b.width_error, a.width, a.width_error),
        *(ks_test(a.moved, b.moved) if enough else (np.nan, np.nan)),
    )


def _ratio(g: float, g_error: float, r: float, r_error: float) -> tuple[float, float]:
    """Return g / r - 1 and its error; NaN where r is zero or unknown."""
    if not abs(r) > 0:
        return np.nan, np.nan
    return g / r - 1.0, float(np.hypot(g_error, g / r * r_error) / abs(r))
