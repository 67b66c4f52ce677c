r"""How many rows distinguish two samples: the AUC against the size of the training part.

A classifier that was trained on :math:`t` rows of each sample is tested on a large held-out part. With cross-fitting in K
folds a test of :math:`n` rows a side trains on :math:`t = n (K - 1) / K` of them and scores all. Under the hypothesis of
equal samples the AUC of :math:`n` against :math:`n` rows is the statistic of Wilcoxon, Mann and Whitney over
:math:`n^2`, with the mean 1/2 and the variance of their equation for equal sizes,

.. math:: \sigma_0^2 = \frac{2 n + 1}{12\, n^2}, \qquad Z(n) = \frac{\mathrm{AUC}(t) - 1/2}{\sigma_0} .

The learning curve is that of a linear discriminant of k features, whose means are estimated from :math:`t` rows a side:
:math:`\mathrm{AUC} = \Phi(d / \sqrt2)` with :math:`d = \delta / \sqrt{1 + 2 k / (\delta^2 t)}` (its mean, to leading order
for large k). Generalised to other classifiers,

.. math:: d(t) = \delta \left( 1 + (t_0 / t)^c \right)^{-1/2} ,

where :math:`\delta` is the separation that unlimited training reaches, :math:`t_0` the scale on which it learns, and the
exponent :math:`c` is 1 for the discriminant; the fit constrains it to :math:`1 \pm 0.5`.

References:
    H. B. Mann, D. R. Whitney, Annals of Mathematical Statistics 18 (1947) 50, section 3 (mean and variance); S. Raudys, A. K.
    Jain, IEEE Transactions on Pattern Analysis and Machine Intelligence 13 (1991) 252 (small training samples);
    B. Efron, Annals of Statistics 7 (1979) 1 (bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from caloforge.random import child_seed, generator
from caloforge.statistics.two_sample import Array, Candidate, Rows, Split, auc_with_error

__all__ = ["Crossing", "LearningCurve", "Point", "fit_curve", "learning_points", "significance"]

_GRID = np.geomspace(8.0, 1e9, 2000)  # rows a side at which the curve is evaluated
_PRIOR = (1.0, 0.5)  # of the exponent c
_SMALLEST = 12  # rows a side that a classifier is trained and stopped with
_MOST = 6  # trainings of one size
_WITHOUT = 1.0  # standard deviations below which smaller sizes are not measured
_FEWEST_SIZES = 4


def null_error(n: ArrayLike) -> Array:
    """Return the standard deviation of the AUC of two equal samples of ``n`` rows each."""
    x = np.asarray(n, np.float64)
    return np.asarray(np.sqrt((2.0 * x + 1.0) / 12.0) / x)


def significance(auc: ArrayLike, n: ArrayLike) -> Array:
    """Return by how many standard deviations an AUC of ``n`` against ``n`` rows is above 0.5."""
    return np.asarray((np.asarray(auc, np.float64) - 0.5) / null_error(n))


def bootstrap_auc(scores: Array, weights_reference: Array, weights_generated: Array) -> Array:
    """Return the AUC (B,) of scores (n + m,), those of the reference first, for each set of weights (B, n) and (B, m)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # equal scores count half
    n, m = weights_reference.shape[1], weights_generated.shape[1]
    a = np.concatenate([weights_reference, np.zeros((len(weights_generated), m))], axis=1)[:, order]
    b = np.concatenate([np.zeros((len(weights_reference), n)), weights_generated], axis=1)[:, order]
    a, b = np.add.reduceat(a, starts, axis=1), np.add.reduceat(b, starts, axis=1)
    below = np.cumsum(a, axis=1) - 0.5 * a
    out: Array = (b * below).sum(axis=1) / (a.sum(axis=1) * b.sum(axis=1))
    return out


@dataclass(frozen=True)
class Point:
    """Classifiers trained on as many rows, all tested on the same rows."""

    trained: int
    """Rows of each sample for training and early stopping."""
    scores: Array
    """Scores of the test rows by each classifier (R, n + m), those of the reference first."""


@dataclass(frozen=True)
class Crossing:
    """Rows a side at which the significance reaches a value."""

    value: float
    """Rows of each sample; infinity when it is never reached."""
    low: float
    high: float
    """Ends of the 68 % range."""
    extrapolated: bool
    """Whether the value is outside the sizes that were measured."""


def learning_points(candidate: Candidate, split: Split, folds: int, seed: int) -> list[Point]:
    """Train a classifier on parts of different sizes and score the same test part; return points of increasing size.

    Training and validation part of the split are divided. ``folds`` is that of the test whose significance is wanted.
    """
    pool = Rows(
        np.concatenate([split.train.reference, split.validation.reference]),
        np.concatenate([split.train.generated, split.validation.generated]),
    )
    n, m = len(pool), len(split.test.reference)
    points: list[Point] = []
    size = n
    while size >= _SMALLEST:
        scores = []
        order = generator(seed, "detectability", size).permutation(n)  # the same places of both samples
        for index in range(min(n // size, _MOST)):
            places = order[index * size : (index + 1) * size]
            validation, train = (
                Rows(np.sort(pool.reference)[some], np.sort(pool.generated)[some])
                for some in (places[: size // 5], places[size // 5 :])
            )
            features = candidate.features(train)
            score = candidate.fit(
                features.of(train),
                train.labels,
                features.of(validation),
                validation.labels,
                child_seed(seed, f"detectability {size}", index),
            )
            scores.append(score(features.of(split.test)))
        points.append(Point(size, np.stack(scores)))
        auc = float(np.mean([auc_with_error(s[:m], s[m:])[0] for s in scores]))
        total = size * folds / (folds - 1)
        if len(points) >= _FEWEST_SIZES and significance(auc, total) < _WITHOUT:
            break
        size //= 2
    return points[::-1]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A fitted learning curve with bootstrap replicas."""

    sizes: Array
    """Rows a side (S,) of the tests with cross-fitting, increasing."""
    auc: Array
    errors: Array
    """Measured AUC (S,) and errors (S,)."""
    parameters: Array
    """log of delta, log of t0, and c (3,)."""
    replicas: Array
    """The parameters of the bootstrap replicas (B, 3)."""
    folds: int

    def at(self, n: ArrayLike) -> Array:
        """Return the AUC of a test with ``n`` rows a side."""
        return _curve(self.parameters, np.asarray(n, np.float64) * (self.folds - 1) / self.folds)

    def band(self, n: ArrayLike) -> tuple[Array, Array]:
        """Return the 68 % range of the AUC of tests with ``n`` rows a side (k,)."""
        trained = np.asarray(n, np.float64) * (self.folds - 1) / self.folds
        found = [_curve(parameters, trained) for parameters in self.replicas]
        low, high = np.quantile(found, (0.16, 0.84), axis=0)
        return low, high

    def crossing(self, sigmas: float) -> Crossing:
        """Return at how many rows a side the significance reaches ``sigmas``."""
        value = _crossing(self.parameters, sigmas, self.folds)
        found = np.sort([_crossing(parameters, sigmas, self.folds) for parameters in self.replicas])
        low, high = (float(found[min(int(q * len(found)), len(found) - 1)]) for q in (0.16, 0.84))
        inside = self.sizes[0] <= value <= self.sizes[-1]
        return Crossing(value, min(low, value), max(high, value), not inside)


def _curve(parameters: Array, trained: Array) -> Array:
    from scipy.special import ndtr

    delta, scale, power = np.exp(parameters[0]), parameters[1], parameters[2]
    d = delta / np.sqrt(1.0 + np.exp(np.clip(power * (scale - np.log(trained)), -50.0, 50.0)))
    return np.asarray(ndtr(d / np.sqrt(2.0)))


def _crossing(parameters: Array, sigmas: float, folds: int) -> float:
    z = significance(_curve(parameters, _GRID * (folds - 1) / folds), _GRID)
    if not (z >= sigmas).any():
        return float("inf")
    first = int((z >= sigmas).argmax())
    if first == 0:
        return float(_GRID[0])
    x = np.interp(sigmas, z[first - 1 : first + 1], np.log(_GRID[first - 1 : first + 1]))
    return float(np.exp(x))


def fit_curve(
    points: Sequence[Point], n_reference: int, folds: int, rng: np.random.Generator, replicas: int = 100
) -> LearningCurve:
    """Fit the learning curve; its uncertainty is from a bootstrap of the test rows and the spread of the trainings.

    Arguments:
        points: At least two sizes, increasing.
        n_reference: How many of the test rows are of the reference; these come first.
        folds: K of the test with cross-fitting whose size is wanted.
        rng: Draws the bootstrap.
        replicas: Bootstrap replicas.
    """
    trained = np.array([point.trained for point in points], np.float64)
    total = points[0].scores.shape[1]
    sides = (n_reference, total - n_reference)
    weights = [np.ones((replicas + 1, size)) for size in sides]  # the first is the sample itself
    for some, size in zip(weights, sides, strict=True):
        some[1:] = rng.multinomial(size, np.full(size, 1.0 / size), size=replicas)
    values = [np.stack([bootstrap_auc(s, *weights) for s in point.scores]) for point in points]  # (R, B + 1)
    spreads = _training_spread([found[:, 0] for found in values])
    means = np.stack([found.mean(axis=0) for found in values])  # (S, B + 1)
    noise = np.array([s / np.sqrt(len(found)) for s, found in zip(spreads, values, strict=True)])
    means[:, 1:] += noise[:, None] * rng.standard_normal((len(points), replicas))
    errors = np.maximum(means[:, 1:].std(axis=1, ddof=1), 1e-4)
    best = _fit(trained, means[:, 0], errors, None)
    fitted = np.stack([_fit(trained, means[:, index], errors, best) for index in range(1, replicas + 1)])
    return LearningCurve(trained * folds / (folds - 1), means[:, 0], errors, best, fitted, folds)


def _training_spread(values: Sequence[Array]) -> Array:
    """Return the standard deviation of the AUC of trainings of each size; of smaller sizes where there are fewer than four."""
    out = np.zeros(len(values))
    known = 0.0
    for index, found in enumerate(values):
        if len(found) >= 4 or (len(found) > 1 and known == 0.0):
            known = float(found.std(ddof=1))
        out[index] = known
    return out


def _fit(trained: Array, auc: Array, errors: Array, start: Array | None) -> Array:
    """Return log of delta, log of t0, and c."""
    from scipy.optimize import least_squares
    from scipy.special import ndtri

    def residuals(parameters: Array) -> Array:
        misfit = (_curve(parameters, trained) - auc) / errors
        return np.append(misfit, (parameters[2] - _PRIOR[0]) / _PRIOR[1])

    lowest, highest = np.array([-7.0, -5.0, 0.3]), np.array([2.5, 20.0, 3.0])
    reached = max(np.sqrt(2.0) * float(ndtri(np.clip(auc.max(), 0.501, 0.99999))), 1e-2)
    starts = (
        [np.array([np.log(reached), np.log(trained[len(trained) // 2]) - shift, 1.0]) for shift in (0.0, 4.0)]
        if start is None
        else [start]
    )
    found = [
        least_squares(residuals, np.clip(x, lowest + 1e-6, highest - 1e-6), bounds=(lowest, highest))
        for x in starts
    ]
    return np.asarray(min(found, key=lambda result: float(result.cost)).x, np.float64)
