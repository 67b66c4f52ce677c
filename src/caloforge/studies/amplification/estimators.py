r"""Effective sample size from a quantile divergence, in two ways.

By formula. A sample of n showers from the truth, compared in K quantiles of N further showers of the truth, has

.. math:: E[D] = \frac{K - 1}{8} \left( \frac1n + \frac1N \right) \quad\Rightarrow\quad
          \frac{1}{n_{eff}} = \frac{8 D}{K - 1} - \frac1N .

8D is a sum of K - 1 squared normal numbers. With the bias :math:`b = \max(0, 8 D - (K-1)(1/n + 1/N))` that is left, and D
the mean over r independent truths,

.. math:: \sigma^2(8D) = 2 (K-1) \left( \frac{1}{n^2} + \frac{2}{r n N} + \frac{1}{r N^2} \right)
          + 4 b \left( \frac1n + \frac{1}{r N} \right) .

By comparison. :math:`n_{eff}` is the size of the truth's own samples that has the same divergence, interpolated between
the sizes at hand, linearly in ln n and ln D. Beyond the largest size there is only a lower limit.

Where a shower gives k entries (single cells) that go together, both variances change by one factor c, which the truth's own
samples tell: D = c (K-1)/(8k) (1/n + 1/N).

References:
    S. Bieringer et al., arXiv:2202.07352; A. Butter et al., arXiv:2008.06545.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EffectiveSize", "by_comparison", "by_formula", "divergence_error"]


@dataclass(frozen=True)
class EffectiveSize:
    """How many showers of the truth a sample is worth.

    Arguments:
        value: The number; None when the divergence is not told from zero, or lies outside the sizes at hand.
        low: Lower end of the interval: one standard deviation below, or the limit (two) when there is no value.
        high: Upper end; None when there is none.
        error: Standard deviation; None without a value.
    """

    value: float | None
    low: float
    high: float | None
    error: float | None

    def over(self, size: float) -> EffectiveSize:
        """Return it in units of another size: the amplification factor."""
        return EffectiveSize(
            None if self.value is None else self.value / size,
            self.low / size,
            None if self.high is None else self.high / size,
            None if self.error is None else self.error / size,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "error": self.error}


def divergence_error(
    divergence: float, n_quant: int, n: float, n_truth: float, truths: int = 1, scale: float = 1.0
) -> float:
    """Return the standard deviation of a divergence.

    Arguments:
        divergence: D, mean over the truths.
        n_quant: Number of quantiles K.
        n: Size of the sample.
        n_truth: Size of each truth.
        truths: Number r of independent truths that it was averaged over.
        scale: c/k, the factor by which entries differ from independent showers.
    """
    k, a, b = n_quant - 1, scale / n, scale / n_truth
    bias = max(0.0, 8.0 * divergence - k * (a + b))
    variance = 2.0 * k * (a * a + 2.0 * a * b / truths + b * b / truths) + 4.0 * bias * (a + b / truths)
    return float(np.sqrt(variance)) / 8.0


def by_formula(
    divergence: float, error: float, n_quant: int, n_truth: float, scale: float = 1.0
) -> EffectiveSize:
    """Return the effective size by formula.

    Arguments:
        divergence: D.
        error: Its standard deviation.
        n_quant: Number of quantiles.
        n_truth: Size of the truth whose quantiles they are.
        scale: c/k, see the module.
    """
    slope = 8.0 / ((n_quant - 1) * scale)
    inverse, spread = slope * divergence - 1.0 / n_truth, slope * error
    if inverse <= spread:
        return EffectiveSize(None, 1.0 / (max(inverse, 0.0) + 2.0 * spread), None, None)
    value = 1.0 / inverse
    return EffectiveSize(value, 1.0 / (inverse + spread), 1.0 / (inverse - spread), spread * value**2)


def by_comparison(
    divergence: float, error: float, sizes: ArrayLike, curve: ArrayLike, curve_error: ArrayLike
) -> EffectiveSize | None:
    """Return the effective size by comparison with samples of the truth.

    Arguments:
        divergence: D of the sample.
        error: Its standard deviation.
        sizes: (S,) increasing sizes of the truth's samples.
        curve: (S,) their mean divergences.
        curve_error: (S,) errors of these means.

    Returns:
        None when there is no sample of the truth, or the sample is worse than the smallest of them.
    """
    n, d, e = (np.asarray(values, np.float64) for values in (sizes, curve, curve_error))
    known = np.isfinite(d) & (d > 0)
    n, d, e = n[known], np.minimum.accumulate(d[known]), e[known]
    if len(n) == 0 or divergence > d[0]:
        return None
    if divergence < d[-1]:
        return EffectiveSize(None, float(n[-1]), None, None)
    value = _size_at(divergence, n, d)
    relative = float(np.hypot(error / divergence, np.interp(np.log(value), np.log(n), e / d)))
    low, high = (_size_at(divergence * np.exp(sign * relative), n, d) for sign in (1.0, -1.0))
    beyond = divergence * np.exp(-relative) < d[-1]
    return EffectiveSize(value, low, None if beyond else high, relative * value)


def _size_at(divergence: float, n: NDArray[np.float64], d: NDArray[np.float64]) -> float:
    """Return the size at which the truth's samples have a divergence, within the sizes at hand."""
    return float(np.exp(np.interp(-np.log(divergence), -np.log(d), np.log(n))))
