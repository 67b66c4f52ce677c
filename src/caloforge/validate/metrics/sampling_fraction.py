"""Sampling fraction: visible over incident energy, as a whole and against the energy.

The mean over showers of the sum of the cells over the incident energy; with its standard error. Against
the energy: by value when there are few, else in ten bins with equally many reference showers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import visible_fraction
from caloforge.validate.metrics.floors import floor_at
from caloforge.validate.metrics.resampling import halves

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["SamplingFraction", "energy_bins", "mean_with_error", "ratio_with_error"]

_VALUES = 20  # up to so many different energies are taken one by one
_BINS = 10


def mean_with_error(x: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of values (N,) and its standard error; NaN where there are too few."""
    if x.size == 0:
        return float("nan"), float("nan")
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else float("nan")


def ratio_with_error(generated: tuple[float, float], reference: tuple[float, float]) -> tuple[float, float]:
    """Return generated over reference, each (value, error), with the error; NaN for a zero reference."""
    (g, eg), (r, er) = generated, reference
    if r == 0.0:
        return float("nan"), float("nan")
    return g / r, float(np.hypot(eg, g / r * er) / abs(r))


def energy_bins(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges (K + 1,) of energy bins: around each value when there are few, else by quantiles."""
    values = np.unique(np.round(energy, 6))
    if values.size <= _VALUES:
        middle = 0.5 * (values[1:] + values[:-1])
        return np.concatenate([[-np.inf], middle, [np.inf]])
    inner = np.quantile(energy, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.concatenate([[-np.inf], np.unique(inner), [np.inf]])


class SamplingFraction(Metric):
    """Mean visible over incident energy of both samples and their ratio."""

    name: ClassVar[str] = "sampling_fraction"
    keys: ClassVar[tuple[Key, ...]] = (Key("sampling_fraction", "Sampling fraction", 1.0, by="sample"),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``reference``, ``generated`` and their ``ratio``, whose detail holds the energy bins."""
        (x, ex, bad_x), (y, ey, bad_y) = visible_fraction(reference), visible_fraction(generated)
        of_reference, of_generated = mean_with_error(x), mean_with_error(y)
        edges = energy_bins(ex)
        bins: list[dict[str, Any]] = []
        for low, high in pairwise(edges):
            in_x, in_y = (ex >= low) & (ex < high), (ey >= low) & (ey < high)
            a, b = mean_with_error(x[in_x]), mean_with_error(y[in_y])
            ratio = ratio_with_error(b, a)
            bins.append(
                {
                    "energy": float(ex[in_x].mean()) if in_x.any() else None,
                    "n_reference": int(in_x.sum()),
                    "n_generated": int(in_y.sum()),
                    "reference": a[0],
                    "reference_uncertainty": a[1],
                    "generated": b[0],
                    "generated_uncertainty": b[1],
                    "ratio": ratio[0],
                    "ratio_uncertainty": ratio[1],
                }
            )
        first, second = halves(x.size, 0, settings.seed)
        floor, error = ratio_with_error(mean_with_error(x[second]), mean_with_error(x[first]))
        below = floor_at(np.array([floor]), x.size, max(y.size, 1), degree=1, ideal=1.0, uncertainty=error)
        ratio = ratio_with_error(of_generated, of_reference)
        detail = {"bins": bins, "not_finite_reference": bad_x, "not_finite_generated": bad_y, **below.detail}
        out = {
            "reference": Value(*of_reference),
            "generated": Value(*of_generated),
            "ratio": Value(*ratio, below.value, below.uncertainty, detail),
        }
        return {"sampling_fraction": out}
