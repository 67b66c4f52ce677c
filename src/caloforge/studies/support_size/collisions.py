r"""Support size from the rate at which pairs collide, without bias.

Of :math:`n` showers, :math:`T` of the :math:`\binom n2` pairs are duplicates. The rate

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

References:
    W. Hoeffding, Ann. Math. Statist. 19 (1948) 293 (U-statistics). F. Garwood, Biometrika 28 (1936) 437.
    S. Arora, Y. Zhang, Do GANs actually learn the distribution?, arXiv:1706.08224.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError

__all__ = ["CollisionRate", "Duplicates", "Interval", "collision_rate"]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which pairs of ``n`` showers are duplicates.

    Arguments:
        n: Number of showers.
        pairs: (T, 2) indices i < j of the duplicates.
    """

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

    @property
    def possible(self) -> int:
        """Number of pairs in all."""
        return self.n * (self.n - 1) // 2

    @property
    def degrees(self) -> NDArray[np.int64]:
        """Number of duplicates (n,) of each shower."""
        return np.bincount(self.pairs.ravel(), minlength=self.n)


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
        if math.isnan(self.value) or math.isnan(other.value):
            return Interval(math.nan, self.low / other.high, self.high / other.low if other.low else math.inf)
        turned = Interval(1.0 / other.value, 1.0 / other.high, 1.0 / other.low if other.low else math.inf)
        return Interval(self.value / other.value, self.low / other.value, self.high / other.value).widened(
            turned
        )


def _log_ratio(above: float, below: float) -> float:
    """Return ln(above / below), infinite where it has no end."""
    return math.log(above / below) if below > 0 and math.isfinite(above) else math.inf


@dataclass(frozen=True)
class CollisionRate:
    """The rate of duplicates among pairs, and the support size that it means.

    Attributes:
        n: Number of showers.
        count: Number of duplicates T.
        rate: Unbiased estimate of p.
        error: Its standard deviation.
        effective: k, the number of independent duplicates that would be known as well.
        low: Lower end of p.
        high: Upper end of p.
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
    """Return the rate of duplicates and the support size from it.

    Arguments:
        duplicates: The duplicates of a sample of independent showers.
        level: Probability content of the intervals.
    """
    from scipy.special import gammaincinv

    n, count, possible = duplicates.n, duplicates.count, duplicates.possible
    tail = (1.0 - level) / 2.0
    if count == 0:
        high = min(1.0, -math.log(tail) / possible)
        bound = Interval(math.nan, 1.0 / high, math.inf)
        return CollisionRate(n, 0, 0.0, math.nan, 0.0, 0.0, high, bound)
    rate = count / possible
    degrees = duplicates.degrees.astype(np.float64)
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
