"""Generated against reference showers at test points in energy and angle.

Test points in energy and angle, and the showers around each.

A file made at the points has showers exactly there. In a file of continuous energies and angles a window around the
point is taken, wide enough for the number of showers asked for, and never so wide that more than a quarter of the
point's energy, or ten degrees, lies between a shower and the point: within a window a quantity is then followed
to the point itself by a straight line (:mod:`caloforge.studies.conditioning.curves`).

Generated against reference showers at each test point: shift of the mean and ratio of the widths.

At a point, each quantity of each sample has a mean and a width (:mod:`caloforge.studies.conditioning.curves`). Given are

- for the energy response: generated over reference mean, minus 1;
- for every other quantity: generated minus reference mean, in the quantity's unit and in reference widths;
- for all: generated over reference width, minus 1, and the Kolmogorov-Smirnov probability of the showers moved to the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caloforge.studies.conditioning.curves import FEWEST, Local, at_point
from caloforge.studies.conditioning.measure import STAGES, Measured
from caloforge.validate.metrics.distances import ks_test

__all__ = [
    "Comparison",
    "PointResult",
    "TestPoint",
    "Window",
    "compare",
    "grid_of_points",
    "points_with_showers",
    "select",
    "window_around",
]


_LADDER = ((0.02, 1.0), (0.05, 2.0), (0.1, 4.0), (0.15, 6.0), (0.2, 8.0), (0.25, 10.0))
"""Half widths that are tried in turn: part of the energy, degrees."""
_EXACT = (1e-3, 0.05)


@dataclass(frozen=True)
class TestPoint:
    """One energy and angle.

    Attributes:
        energy: MeV.
        theta: Degrees.
    """

    __test__ = False  # not a test for pytest

    energy: float
    theta: float

    @property
    def name(self) -> str:
        """Short name, for people and for keys: ``50 GeV, 60 deg``."""
        return f"{self.energy / 1000:g} GeV, {self.theta:g} deg"

    @property
    def key(self) -> str:
        """Name for files: ``50gev-60deg``."""
        return f"{self.energy / 1000:g}gev-{self.theta:g}deg"


@dataclass(frozen=True)
class Window:
    """Half widths around a point.

    Attributes:
        energy: MeV.
        theta: Degrees.
    """

    energy: float
    theta: float


def grid_of_points(energies: Sequence[float], thetas: Sequence[float]) -> tuple[TestPoint, ...]:
    """Return every combination of energies (MeV) and angles (degrees), energy by energy."""
    return tuple(TestPoint(float(energy), float(theta)) for energy in energies for theta in thetas)


def select(
    energy: NDArray[np.float64], theta: NDArray[np.float64], point: TestPoint, window: Window
) -> NDArray[np.int64]:
    """Return the indices (K,), ascending, of the showers inside a window.

    Arguments:
        energy: (N,) MeV.
        theta: (N,) degrees.
        point: Middle of the window.
        window: Half widths.
    """
    near = np.abs(energy - point.energy) <= window.energy * (1 + 1e-9)
    near &= np.abs(theta - point.theta) <= window.theta * (1 + 1e-9)
    return np.flatnonzero(near)


def window_around(
    energy: NDArray[np.float64],
    theta: NDArray[np.float64],
    point: TestPoint,
    wanted: int,
    energy_width: float | None = None,
    theta_width: float | None = None,
) -> Window:
    """Return the narrowest window that holds the wanted number of showers, or else the widest.

    Showers that lie exactly at the point come first: a file made at the points needs no width.

    Arguments:
        energy: (N,) MeV.
        theta: (N,) degrees.
        point: Its middle.
        wanted: Number of showers.
        energy_width: Half width in energy, MeV, when it is given.
        theta_width: Half width in angle, degrees, when it is given.
    """
    window = _window(point, _EXACT, energy_width, theta_width)
    if len(select(energy, theta, point, window)) >= min(wanted, _mostly(energy, theta, point)):
        return window
    for step in _LADDER:
        window = _window(point, step, energy_width, theta_width)
        if len(select(energy, theta, point, window)) >= wanted:
            break
    return window


def _window(
    point: TestPoint, step: tuple[float, float], energy_width: float | None, theta_width: float | None
) -> Window:
    return Window(
        step[0] * point.energy if energy_width is None else energy_width,
        step[1] if theta_width is None else theta_width,
    )


def _mostly(energy: NDArray[np.float64], theta: NDArray[np.float64], point: TestPoint) -> int:
    """Return the showers of which a point that was simulated on purpose has its share: half of the widest window's."""
    widest = select(energy, theta, point, _window(point, _LADDER[-1], None, None))
    return max(2, len(widest) // 2)


_SLACK = (0.02, 1.0)  # part of the energy, degrees


@dataclass(frozen=True)
class Comparison:
    """One quantity of one generated sample at one point.

    Attributes:
        shift: Generated minus reference mean, in the quantity's unit.
        relative: Generated over reference mean, minus 1.
        relative_error: One standard deviation.
        pull: Shift in reference widths.
        pull_error: One standard deviation.
        width: Generated over reference width, minus 1.
        width_error: One standard deviation.
        ks: Kolmogorov-Smirnov statistic.
        p: Its probability.
    """

    shift: float
    relative: float
    relative_error: float
    pull: float
    pull_error: float
    width: float
    width_error: float
    ks: float
    p: float


@dataclass(frozen=True, eq=False)
class PointResult:
    """Everything at one point.

    Attributes:
        point: Energy and angle.
        window: Half widths around it.
        n: Showers of each sample, the reference first.
        local: Stage, then quantity, to the samples' means and widths, the reference first.
        compared: Stage, then quantity, to the comparison of each generated sample.
    """

    point: TestPoint
    window: Window
    n: tuple[int, ...]
    local: dict[str, dict[str, tuple[Local, ...]]]
    compared: dict[str, dict[str, tuple[Comparison, ...]]]

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
            out[stage] = {
                name: {
                    label: {
                        "n": found.n,
                        "missing": found.missing,
                        "mean": [found.mean, found.mean_error],
                        "width": [found.width, found.width_error],
                    }
                    | (
                        {}
                        if role == 0
                        else {"against_reference": asdict(self.compared[stage][name][role - 1])}
                    )
                    for role, (label, found) in enumerate(zip(labels, samples, strict=True))
                }
                for name, samples in self.local[stage].items()
            }
        return out


class _Conditions(Protocol):
    """Energies (N,) MeV and angles (N,) degrees of showers."""

    @property
    def energy(self) -> NDArray[np.float64]: ...

    @property
    def theta(self) -> NDArray[np.float64]: ...


def points_with_showers(
    reference: _Conditions,
    points: Sequence[TestPoint],
    wanted: int,
    energy_width: float | None = None,
    theta_width: float | None = None,
) -> list[tuple[TestPoint, Window]]:
    """Return the points, with their windows, that have enough reference showers at them or on both sides of them.

    Arguments:
        reference: The reference's energies and angles.
        points: Where to look.
        wanted: Showers in a window.
        energy_width: See :func:`window_around`.
        theta_width: See :func:`window_around`.
    """
    found = []
    for point in points:
        window = window_around(reference.energy, reference.theta, point, wanted, energy_width, theta_width)
        rows = select(reference.energy, reference.theta, point, window)
        if len(rows) >= FEWEST and _around(reference.energy[rows], reference.theta[rows], point):
            found.append((point, window))
    return found


def _around(energy: NDArray[np.float64], theta: NDArray[np.float64], point: TestPoint) -> bool:
    """Return whether showers lie at or on both sides of a point: beyond them nothing is said."""
    slack = (_SLACK[0] * point.energy, _SLACK[1])
    return all(
        float(values.min()) <= where + margin and float(values.max()) >= where - margin
        for values, where, margin in zip((energy, theta), (point.energy, point.theta), slack, strict=True)
    )


def compare(samples: Sequence[Measured], point: TestPoint, window: Window) -> PointResult:
    """Compare generated samples with the reference, which comes first, at a point."""
    rows = [select(sample.energy, sample.theta, point, window) for sample in samples]
    local: dict[str, dict[str, tuple[Local, ...]]] = {}
    compared: dict[str, dict[str, tuple[Comparison, ...]]] = {}
    for stage in STAGES:
        local[stage], compared[stage] = {}, {}
        for name in samples[0].values[stage]:
            found = tuple(
                at_point(
                    sample.values[stage][name][chosen],
                    (sample.energy[chosen], sample.theta[chosen]),
                    (point.energy, point.theta),
                )
                for sample, chosen in zip(samples, rows, strict=True)
            )
            local[stage][name] = found
            compared[stage][name] = tuple(_against(found[0], other) for other in found[1:])
    return PointResult(point, window, tuple(len(chosen) for chosen in rows), local, compared)


def _against(a: Local, b: Local) -> Comparison:
    """Return how a generated sample's quantity differs from the reference's."""
    relative = _ratio(b.mean, b.mean_error, a.mean, a.mean_error)
    width = _ratio(b.width, b.width_error, a.width, a.width_error)
    shift, error = b.mean - a.mean, float(np.hypot(a.mean_error, b.mean_error))
    scale = a.width if a.width > 0 else float("nan")
    ks, p = _ks(a.moved, b.moved)
    return Comparison(shift, *relative, shift / scale, error / scale, *width, ks, p)


def _ratio(g: float, g_error: float, r: float, r_error: float) -> tuple[float, float]:
    """Return g / r - 1 and its error; NaN where r is zero or unknown."""
    if not abs(r) > 0:
        return float("nan"), float("nan")
    return g / r - 1.0, float(np.hypot(g_error, g / r * r_error) / abs(r))


def _ks(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    if len(a) < FEWEST or len(b) < FEWEST:
        return float("nan"), float("nan")
    return ks_test(a, b)
