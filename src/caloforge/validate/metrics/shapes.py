r"""Shower shapes: mean profiles, layer fractions, sampling fraction.

Mean squared error of the shower shapes: the mean x, y and z profiles.

With the mean profile of the reference :math:`p_i` and of the generated sample :math:`g_i` over the ``K`` bins of
one axis,

.. math:: \mathrm{MSE} = \frac1K \sum_i \left( \frac{g_i - p_i}{\bar p} \right)^2, \qquad \bar p = \frac1K \sum_i p_i ,

averaged over the axes. The published figures (0.044 and 0.065) come without their normalisation: neither
the paper nor the public code of its authors that could be read states it; that code's own validation uses
relative errors bin by bin, :math:`(g_i - p_i) / p_i`. The mean square of those is given as ``relative`` in the
detail (bins empty in the reference counted and left out); the figure itself is divided by the mean bin, so
that no nearly empty edge bin decides it. Both are free of units.

References:
    F. Rehm et al., Physics validation of novel convolutional 2D architectures for speeding up high energy
    physics simulations, arXiv:2103.13698.

Mean fraction of the visible energy in each layer, and how far the generated ones are off.

The figure is the largest absolute difference over the layers, in percentage points; the detail holds the
mean fractions of both samples. Showers without energy have no fractions and are counted.

Sampling fraction: visible over incident energy, as a whole and against the energy.

The mean over showers of the sum of the cells over the incident energy; with its standard error. Against
the energy: by value when there are few, else in ten bins with equally many reference showers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.statistics.resampling import bootstrap_counts, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import layer_energies, profiles, visible_fraction

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = [
    "LayerFractions",
    "SamplingFraction",
    "ShapeMSE",
    "energy_bins",
    "fractions",
    "mean_with_error",
    "ratio_with_error",
    "relative_mse",
    "shape_mse",
]


def shape_mse(reference: ArrayLike, generated: ArrayLike) -> float:
    """Return the mean squared difference of two mean profiles (K,) in units of the reference's mean bin."""
    p, g = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    scale = p.mean()
    return float(np.mean(((g - p) / scale) ** 2)) if scale > 0 else float("nan")


def relative_mse(reference: ArrayLike, generated: ArrayLike) -> tuple[float, int]:
    """Return the mean squared relative difference over bins filled in the reference, and how many are not."""
    p, g = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    filled = p > 0
    if not filled.any():
        return float("nan"), int(p.size)
    return float(np.mean((g[filled] / p[filled] - 1.0) ** 2)), int(p.size - filled.sum())


def _over_axes(a: dict[str, NDArray[np.float64]], b: dict[str, NDArray[np.float64]]) -> float:
    return float(np.mean([shape_mse(a[axis], b[axis]) for axis in a]))


def _means(x: dict[str, NDArray[np.float64]], rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return {axis: profile[rows].mean(axis=0) for axis, profile in x.items()}


class ShapeMSE(Metric):
    """Mean squared error of the mean x, y and z profiles."""

    name: ClassVar[str] = "shape_mse"
    keys: ClassVar[tuple[Key, ...]] = (Key("shape_mse", "Shower-shape MSE", 0.0),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the error averaged over the axes; each axis is in the detail."""
        a, b = profiles(reference), profiles(generated)
        bad = {
            f"not_finite_{side}": int((~np.isfinite(next(iter(x.values())).sum(axis=1))).sum())
            for side, x in (("reference", a), ("generated", b))
        }
        a, b = ({axis: np.nan_to_num(p, posinf=0.0, neginf=0.0) for axis, p in x.items()} for x in (a, b))
        n, m = len(next(iter(a.values()))), len(next(iter(b.values())))
        mean_a, mean_b = _means(a, np.arange(n)), _means(b, np.arange(m))
        weights_a = bootstrap_counts(n, settings.n_bootstrap, settings.seed, "reference")
        weights_b = bootstrap_counts(m, settings.n_bootstrap, settings.seed, "generated")
        resampled_a = {axis: weights_a @ p / n for axis, p in a.items()}
        resampled_b = {axis: weights_b @ p / m for axis, p in b.items()}
        boot = [
            _over_axes(
                {axis: p[i] for axis, p in resampled_a.items()},
                {axis: p[i] for axis, p in resampled_b.items()},
            )
            for i in range(settings.n_bootstrap)
        ]
        floor = []
        for index in range(settings.n_halves if n > 3 else 0):
            first, second = halves(n, index, settings.seed)
            floor.append(_over_axes(_means(a, first), _means(a, second)))
        below = floor_at(np.array(floor), n, m, degree=2)
        detail: dict[str, Any] = {axis: shape_mse(mean_a[axis], mean_b[axis]) for axis in a}
        relative = {axis: relative_mse(mean_a[axis], mean_b[axis]) for axis in a}
        detail["relative"] = {axis: figure for axis, (figure, _) in relative.items()}
        detail["empty_bins"] = {axis: empty for axis, (_, empty) in relative.items()}
        detail.update(bad, **below.detail)
        value = _over_axes(mean_a, mean_b)
        if not np.isfinite(value):
            detail["reason"] = "the reference has no energy along one of the axes"
        return {"shape_mse": Value(value, spread(np.array(boot)), below.value, below.uncertainty, detail)}


_PERCENT = 100.0


def fractions(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return layer energies (N, L) as fractions of their sums, without the showers that have none."""
    total = energies.sum(axis=1)
    good = np.isfinite(total) & (total > 0)
    out: NDArray[np.float64] = energies[good] / total[good, None]
    return out


def _largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max() * _PERCENT)


class LayerFractions(Metric):
    """Largest difference of a layer's mean energy fraction, percentage points."""

    name: ClassVar[str] = "layer_fractions"
    keys: ClassVar[tuple[Key, ...]] = (Key("layer_fractions", "Largest layer fraction difference (%)", 0.0),)

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        detector = reference.detector
        return None if detector.n_layers > 1 else f"needs several layers; '{detector.name}' has one"

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the largest difference, bootstrapped over showers; the floor is that of two halves."""
        ref, gen = layer_energies(reference), layer_energies(generated)
        a, b = fractions(ref), fractions(gen)
        counts = {
            "without_energy_reference": len(ref) - len(a),
            "without_energy_generated": len(gen) - len(b),
        }
        if len(a) < 2 or len(b) < 2:
            reason = "fewer than two showers of one of the samples have visible energy"
            return {"layer_fractions": Value(float("nan"), detail={"reason": reason, **counts})}
        weights_a = bootstrap_counts(len(a), settings.n_bootstrap, settings.seed, "reference")
        weights_b = bootstrap_counts(len(b), settings.n_bootstrap, settings.seed, "generated")
        means_a, means_b = weights_a @ a / len(a), weights_b @ b / len(b)
        boot = np.array([_largest(x, y) for x, y in zip(means_a, means_b, strict=True)])
        floor = []
        for index in range(settings.n_halves if len(a) > 3 else 0):
            first, second = halves(len(a), index, settings.seed)
            floor.append(_largest(a[first].mean(axis=0), a[second].mean(axis=0)))
        below = floor_at(np.array(floor), len(a), len(b), degree=1)
        detail = {
            "reference": a.mean(axis=0),
            "reference_uncertainty": a.std(axis=0, ddof=1) / np.sqrt(len(a)),
            "generated": b.mean(axis=0),
            "generated_uncertainty": b.std(axis=0, ddof=1) / np.sqrt(len(b)),
            **below.detail,
            **counts,
        }
        value = _largest(a.mean(axis=0), b.mean(axis=0))
        return {"layer_fractions": Value(value, spread(boot), below.value, below.uncertainty, detail)}


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
