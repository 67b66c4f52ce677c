"""Generated against reference showers at each test point: shift of the mean and ratio of the widths.

At a point, each quantity of each sample has a mean and a width (:mod:`caloforge.studies.conditioning.local`). Given are

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

from caloforge.studies.conditioning.local import FEWEST, Local, at_point
from caloforge.studies.conditioning.measure import STAGES, Measured
from caloforge.studies.conditioning.points import TestPoint, Window, select, window_around
from caloforge.validate.metrics.distances import ks_test

__all__ = ["Comparison", "PointResult", "compare", "points_with_showers"]


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
