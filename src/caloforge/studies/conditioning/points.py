"""Test points in energy and angle, and the showers around each.

A file made at the points has showers exactly there. In a file of continuous energies and angles a window around the
point is taken, wide enough for the number of showers asked for, and never so wide that more than a quarter of the
point's energy, or ten degrees, lies between a shower and the point: within a window a quantity is then followed
to the point itself by a straight line (:mod:`caloforge.studies.conditioning.local`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TestPoint", "Window", "grid_of_points", "select", "window_around"]

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
