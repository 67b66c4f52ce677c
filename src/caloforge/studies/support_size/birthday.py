r"""The birthday-paradox test: how likely a subset of s showers holds a duplicate.

For each size s, subsets are drawn at random without replacement and those with at least one duplicate are
counted. One draw is a random order of all showers, whose first s are the subset of size s: each size has as many
subsets as there are orders, each uniform, and an order needs only the size at which its first duplicate comes,

.. math:: S = 1 + \min_{(i, j)} \max(r_i, r_j)

over the duplicate pairs, with ranks r from 0. The bands are Clopper and Pearson's for the number of subsets.

Support size:

- the paper's rule: :math:`s^2` at the first s where the probability is above one half. Of N equally likely
  showers :math:`P(s) \approx 1 - e^{-s (s - 1) / 2N}`, so that the rule gives about :math:`2 \ln 2\, N = 1.39 N`;
- the fit: N of the exact :math:`P(s) = 1 - \prod_{i < s} (1 - i / N)`, by maximum likelihood of the sizes S,
  those beyond the size where the probability reaches 0.9, or beyond the largest size, only known to be larger.
  It gives back N.

Subsets of one set of showers hold the same showers over and over, so that both errors hold two parts: that of
the finite number of subsets, and that of the showers themselves, from the collision rate.

References:
    S. Arora, Y. Zhang, Do GANs actually learn the distribution? An empirical study, arXiv:1706.08224.
    C. Clopper, E. Pearson, Biometrika 26 (1934) 404.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.random import generator
from caloforge.studies.support_size.collisions import Duplicates, Interval, collision_rate

__all__ = ["BirthdayCurve", "birthday_curve", "clopper_pearson", "no_duplicate"]

_HALF = 0.5
_FIT_UP_TO = 0.9
_NEVER = np.iinfo(np.int64).max


def clopper_pearson(
    hits: NDArray[np.int64], trials: int, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends (K,), (K,) of the exact binomial intervals of ``hits`` (K,) out of ``trials``."""
    from scipy.special import betaincinv

    tail = (1.0 - level) / 2.0
    k = np.asarray(hits, np.float64)
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), trials - k + 1.0, tail), 0.0)
    high = np.where(k < trials, betaincinv(k + 1.0, np.maximum(trials - k, 1.0), 1.0 - tail), 1.0)
    return low, high


def no_duplicate(support: float, largest: int) -> NDArray[np.float64]:
    """Return the logarithm of the probability that s of N equally likely showers all differ.

    Arguments:
        support: N, at least 1.
        largest: Largest s.

    Returns:
        (largest + 1,) for s = 0 to largest.
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
        probability: (K,).
        low: (K,) lower end of the band.
        high: (K,) upper end of the band.
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
    """Return the size at which each random order holds its first duplicate (subsets,)."""
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
    """Return the curve and both support sizes.

    Arguments:
        duplicates: The duplicates of a sample of independent showers.
        largest: Largest subset, at most the sample.
        subsets: Subsets of each size.
        seed: Which subsets.
        level: Probability content of bands and intervals.

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
    rule = _rule(sizes, probability, low, high)
    fit = _fit(first, sizes, probability, level)
    if not math.isnan(rule.value):
        rule = rule.widened(showers)
    if not math.isnan(fit.value):
        fit = fit.widened(showers)
    return BirthdayCurve(sizes, probability, low, high, subsets, rule, fit)


def _crossing(sizes: NDArray[np.int64], curve: NDArray[np.float64]) -> float:
    """Return s * s of the first size where a curve is above one half; infinite where it never is."""
    above = np.flatnonzero(curve > _HALF)
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
    from scipy.optimize import minimize_scalar
    from scipy.special import ndtri

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

    bottom = math.log(max(1.0, last - 1.0)) + 1e-9 if beyond else math.log(max(1.0, size[-1] - 1.0)) + 1e-9
    top = math.log(last * (last - 1.0) / 2.0 * len(first) * 4.0)
    best = minimize_scalar(cost, bounds=(bottom, max(top, bottom + 1.0)), method="bounded")
    value = math.exp(float(best.x))
    half_width = float(ndtri(0.5 + level / 2.0)) / math.sqrt(
        events
    )  # each first duplicate is one event in ln N
    return Interval(value, value * math.exp(-half_width), value * math.exp(half_width))
