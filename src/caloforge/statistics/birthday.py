r"""Support size from the rate of colliding pairs, and by the birthday paradox.

**Collisions.** Of :math:`n` showers, :math:`T` of the :math:`\binom n2` pairs are duplicates. The rate

.. math:: \hat p = T / \binom n2

is unbiased for the probability :math:`p` that two independent showers are duplicates, whatever the distribution.
For draws from :math:`N` equally likely showers :math:`p = 1/N`; otherwise :math:`1/p` is the number of equally
likely showers that would collide as often, a lower bound of the true support. Since :math:`1/\hat p` is too
large on average, the estimate of :math:`N = 1/p` is

.. math:: \hat N = \frac{1}{\hat p}\,\frac{k}{k + 1}, \qquad k = \hat p^2 / \hat V,

which for Poisson counts is :math:`\binom n2 / (T + 1)`, of expectation :math:`N (1 - e^{-E[T]})`.

The variance of :math:`\hat p` takes into account that pairs share showers. With :math:`W` the number of couples
of duplicates that share one shower, :math:`D = \binom T2 - W` couples share none, and

.. math:: \hat V = \hat p^2 - \frac{2 D}{\binom n2 \binom{n-2}2}

is unbiased, since the last term is unbiased for :math:`p^2`. It is not taken below that of independent pairs,
:math:`\hat p (1 - \hat p) / \binom n2`. Intervals are those of a gamma variable of :math:`k` counts, which are
the exact Poisson ones where the showers' sharing does not matter; with no duplicates they give a lower bound.

**Birthday paradox.** For each size s, subsets are drawn at random without replacement and those with at least one duplicate
are counted. One draw is a random order of all showers, whose first s are the subset of size s: each size has as many
subsets as there are orders, each uniform, and an order needs only the size at which its first duplicate comes,

.. math:: S = 1 + \min_{(i, j)} \max(r_i, r_j)

over the duplicate pairs, with ranks r from 0. The bands are Clopper and Pearson's for the number of subsets. Support size:

- the paper's rule: :math:`s^2` at the first s where the probability is above one half. Of N equally likely
  showers :math:`P(s) \approx 1 - e^{-s (s - 1) / 2N}`, so that the rule gives about :math:`2 \ln 2\, N = 1.39 N`;
- the fit, which gives N: that of the exact :math:`P(s) = 1 - \prod_{i < s} (1 - i / N)`, by maximum likelihood of the sizes S,
  those beyond the size where the probability reaches 0.9, or beyond the largest size, only known to be larger.

Subsets of one set of showers share showers, so that both errors have two parts: that of the finite number of subsets, and that
of the showers themselves, from the collision rate.

References:
    W. Hoeffding, Ann. Math. Statist. 19 (1948) 293 (U-statistics). F. Garwood, Biometrika 28 (1936) 437.
    S. Arora, Y. Zhang, Do GANs actually learn the distribution? An empirical study, arXiv:1706.08224.
    C. Clopper, E. Pearson, Biometrika 26 (1934) 404.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv, gammaincinv, ndtri

from caloforge.errors import InputError
from caloforge.random import generator
from caloforge.statistics.pairs import condensed_size

__all__ = ["BirthdayCurve", "CollisionRate", "Duplicates", "Interval", "birthday_curve", "collision_rate"]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which pairs (T, 2), indices i < j, of ``n`` showers are duplicates."""

    n: int
    pairs: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.n < 2 or self.pairs.ndim != 2 or self.pairs.shape[1] != 2:
            msg = f"duplicates: {self.n} showers, pairs of shape {self.pairs.shape}; expected (T, 2) of at least 2"
            raise InputError(msg)

    @property
    def count(self) -> int:
        """Number of duplicates T."""
        return len(self.pairs)


@dataclass(frozen=True)
class Interval:
    """A number with an interval.

    Attributes:
        value: NaN where only a bound is known.
        low: Lower end; a lower bound when the value is NaN.
        high: Upper end; infinite when there is none.
    """

    value: float
    low: float
    high: float

    def widened(self, other: Interval) -> Interval:
        """Return this number with the relative errors of another one added in quadrature (logarithms)."""
        low = math.hypot(_log_ratio(self.value, self.low), _log_ratio(other.value, other.low))
        high = math.hypot(_log_ratio(self.high, self.value), _log_ratio(other.high, other.value))
        return Interval(self.value, self.value * math.exp(-low), self.value * math.exp(high))

    def over(self, other: Interval) -> Interval:
        """Return the ratio of two independent numbers."""
        highest = 1.0 / other.low if other.low else math.inf
        if math.isnan(self.value) or math.isnan(other.value):
            return Interval(math.nan, self.low / other.high, self.high * highest)
        ratio = Interval(self.value / other.value, self.low / other.value, self.high / other.value)
        return ratio.widened(Interval(1.0 / other.value, 1.0 / other.high, highest))


def _log_ratio(above: float, below: float) -> float:
    """Return ln(above / below), infinite where it has no end."""
    return math.log(above / below) if below > 0 and math.isfinite(above) else math.inf


@dataclass(frozen=True)
class CollisionRate:
    """The rate p of duplicates among pairs of ``n`` showers, and the support size from it.

    Attributes:
        count: Number of duplicates T.
        rate: Unbiased estimate of p, with its standard deviation ``error`` and its interval from ``low`` to ``high``.
        effective: k, the number of independent duplicates of the same precision.
        support: Support size with its interval.
    """

    n: int
    count: int
    rate: float
    error: float
    effective: float
    low: float
    high: float
    support: Interval


def collision_rate(duplicates: Duplicates, level: float = 0.95) -> CollisionRate:
    """Return the rate of duplicates of independent showers and the support size from it, with intervals of content ``level``."""
    n, count, possible = duplicates.n, duplicates.count, condensed_size(duplicates.n)
    tail = (1.0 - level) / 2.0
    if count == 0:
        high = min(1.0, -math.log(tail) / possible)
        bound = Interval(math.nan, 1.0 / high, math.inf)
        return CollisionRate(n, 0, 0.0, math.nan, 0.0, 0.0, high, bound)
    rate = count / possible
    degrees = np.bincount(duplicates.pairs.ravel()).astype(np.float64)  # duplicates of each shower
    sharing = float((degrees * (degrees - 1)).sum()) / 2.0  # W
    variance = rate * (1.0 - rate) / possible
    if n >= 4:
        apart = count * (count - 1) / 2.0 - sharing  # D
        slots = possible * ((n - 2) * (n - 3) / 2.0)
        variance = max(variance, rate * rate - 2.0 * apart / slots)
    effective = rate * rate / variance if variance > 0 else math.inf
    if math.isinf(effective):  # every pair is a duplicate
        return CollisionRate(n, count, rate, 0.0, effective, rate, rate, Interval(1.0, 1.0, 1.0))
    low = rate * float(gammaincinv(effective, tail)) / effective
    high = min(1.0, rate * float(gammaincinv(effective + 1.0, 1.0 - tail)) / effective)
    value = effective / (effective + 1.0) / rate
    support = Interval(max(1.0, value), 1.0 / high, 1.0 / low if low > 0 else math.inf)
    return CollisionRate(n, count, rate, math.sqrt(variance), effective, low, high, support)


_FIT_UP_TO = 0.9
_NEVER = np.iinfo(np.int64).max


def clopper_pearson(
    hits: NDArray[np.int64], trials: int, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends (K,), (K,) of the exact binomial intervals of ``hits`` (K,) out of ``trials``."""
    tail = (1.0 - level) / 2.0
    k = np.asarray(hits, np.float64)
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), trials - k + 1.0, tail), 0.0)
    high = np.where(k < trials, betaincinv(k + 1.0, np.maximum(trials - k, 1.0), 1.0 - tail), 1.0)
    return low, high


def no_duplicate(support: float, largest: int) -> NDArray[np.float64]:
    """Return the logarithm of the probability that s of N = ``support`` equally likely showers all differ.

    It is (largest + 1,) for s = 0 to ``largest``.
    """
    i = np.arange(largest, dtype=np.float64)
    with np.errstate(divide="ignore"):
        steps = np.log1p(-np.minimum(i / support, 1.0))
    return np.concatenate([[0.0], np.cumsum(steps)])


@dataclass(frozen=True, eq=False)
class BirthdayCurve:
    """Probability of a duplicate against the size of the subset.

    Attributes:
        sizes: (K,) 2 to the largest.
        probability: (K,), with its band from ``low`` to ``high``, (K,) each.
        subsets: Number of subsets of each size.
        rule: The paper's support size; its value is NaN where the probability never passes one half.
        fit: The fitted support size.
    """

    sizes: NDArray[np.int64]
    probability: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    subsets: int
    rule: Interval
    fit: Interval

    def expected(self) -> NDArray[np.float64]:
        """Return the fitted probability (K,); zero where there is no fit."""
        if math.isnan(self.fit.value):
            return np.zeros(len(self.sizes))
        return 1.0 - np.exp(no_duplicate(self.fit.value, int(self.sizes[-1]))[2:])


def _first_sizes(duplicates: Duplicates, subsets: int, seed: int) -> NDArray[np.int64]:
    """Return the size at which each random order has its first duplicate (subsets,)."""
    first = np.full(subsets, _NEVER)
    if duplicates.count == 0:
        return first
    left, right = np.ascontiguousarray(duplicates.pairs.T)
    rank = np.empty(duplicates.n, np.int64)
    for index in range(subsets):
        rank[generator(seed, "birthday", index).permutation(duplicates.n)] = np.arange(duplicates.n)
        first[index] = np.maximum(rank[left], rank[right]).min() + 1
    return first


def birthday_curve(
    duplicates: Duplicates, largest: int, subsets: int = 1000, seed: int = 0, level: float = 0.95
) -> BirthdayCurve:
    """Return the curve up to subsets of ``largest`` showers and both support sizes.

    Each size has ``subsets`` random subsets; bands and intervals have the probability content ``level``.

    Raises:
        InputError: When the largest subset is smaller than 2 or larger than the sample.
    """
    if not 2 <= largest <= duplicates.n:
        msg = (
            f"birthday test: subsets up to {largest} of {duplicates.n} showers; expected 2 to {duplicates.n}"
        )
        raise InputError(msg)
    first = _first_sizes(duplicates, subsets, seed)
    sizes = np.arange(2, largest + 1)
    hits = np.searchsorted(np.sort(first), sizes, side="right")
    low, high = clopper_pearson(hits, subsets, level)
    probability = hits / subsets
    showers = collision_rate(duplicates, level).support
    found = (_rule(sizes, probability, low, high), _fit(first, sizes, probability, level))
    rule, fit = (one if math.isnan(one.value) else one.widened(showers) for one in found)
    return BirthdayCurve(sizes, probability, low, high, subsets, rule, fit)


def _crossing(sizes: NDArray[np.int64], curve: NDArray[np.float64]) -> float:
    """Return s * s of the first size where a curve is above one half; infinite where it never is."""
    above = np.flatnonzero(curve > 0.5)
    return float(sizes[above[0]]) ** 2 if len(above) else math.inf


def _rule(
    sizes: NDArray[np.int64],
    probability: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> Interval:
    value = _crossing(sizes, probability)
    if math.isinf(value):
        return Interval(math.nan, float(sizes[-1]) ** 2, math.inf)
    return Interval(value, min(value, _crossing(sizes, high)), _crossing(sizes, low))


def _fit(
    first: NDArray[np.int64], sizes: NDArray[np.int64], probability: NDArray[np.float64], level: float
) -> Interval:
    """Maximise the likelihood of the sizes of first duplicates, in ln N."""
    reached = np.flatnonzero(probability >= _FIT_UP_TO)
    last = int(sizes[reached[0]]) if len(reached) else int(sizes[-1])
    known = np.bincount(first[first <= last], minlength=last + 1)
    beyond, events = int((first > last).sum()), int(known.sum())
    if events == 0:
        return Interval(math.nan, math.nan, math.inf)
    size = np.flatnonzero(known)
    weights = known[size].astype(np.float64)

    def cost(log_support: float) -> float:
        none = no_duplicate(math.exp(log_support), last)
        steps = none[size - 1] + np.log(size - 1.0) - log_support
        return -float(weights @ steps + beyond * none[last]) if np.isfinite(steps).all() else math.inf

    bottom = math.log(max(1.0, (last if beyond else size[-1]) - 1.0)) + 1e-9
    top = math.log(last * (last - 1.0) / 2.0 * len(first) * 4.0)
    best = minimize_scalar(cost, bounds=(bottom, max(top, bottom + 1.0)), method="bounded")
    value = math.exp(float(best.x))
    # each first duplicate is one event in ln N
    half_width = float(ndtri(0.5 + level / 2.0)) / math.sqrt(events)
    return Interval(value, value * math.exp(-half_width), value * math.exp(half_width))
