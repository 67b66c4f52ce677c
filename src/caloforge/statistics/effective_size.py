r"""Quantile divergences for 2, 4, 8, ... bins at once, effective sample sizes from them, and a toy of known amplification.

A bin of 2^m quantiles is two bins of 2^(m+1) quantiles, since both come from splitting at medians. So the finest bins
are counted once and neighbours added up. See :mod:`caloforge.statistics.distances` for the divergence itself.

**Effective size by formula.** A sample of n showers from the truth, compared in K quantiles of N further showers of the
truth, has

.. math:: E[D] = \frac{K - 1}{8} \left( \frac1n + \frac1N \right) \quad\Rightarrow\quad
          \frac{1}{n_{eff}} = \frac{8 D}{K - 1} - \frac1N .

8D is a sum of K - 1 squared normal numbers. With the bias :math:`b = \max(0, 8 D - (K-1)(1/n + 1/N))` that is left, and D
the mean over r independent truths,

.. math:: \sigma^2(8D) = 2 (K-1) \left( \frac{1}{n^2} + \frac{2}{r n N} + \frac{1}{r N^2} \right)
          + 4 b \left( \frac1n + \frac{1}{r N} \right) .

**By comparison.** :math:`n_{eff}` is the size of the truth's own samples that has the same divergence, interpolated between
the sizes at hand, linearly in ln n and ln D. Beyond the largest size there is only a lower limit.

Where a shower gives k correlated entries (single cells), both variances change by one factor c, measured with the truth's own
samples: D = c (K-1)/(8k) (1/n + 1/N).

**Toy.** The truth is N(0, 1) in K quantiles with edges z_i. A Gaussian fitted to n values has the variances 1/n of its mean
and 1/(2n) of its standard deviation, and what it generates differs in bin i by dp_i = a_i dmu + b_i dsigma with
a_i = phi(z_i) - phi(z_{i+1}), b_i = z_i phi(z_i) - z_{i+1} phi(z_{i+1}). To first order in 1/n, 8D is the sum of
dp_i^2 K, so

.. math:: E[8D] = \frac{I_\mu + I_\sigma / 2}{n}, \quad I_\mu = K \sum a_i^2, \quad I_\sigma = K \sum b_i^2
          \quad\Rightarrow\quad \frac{n_{eff}}{n} = \frac{K - 1}{I_\mu + I_\sigma / 2} \to \frac{K - 1}{2} :

the fit determines two numbers where a histogram determines K - 1. A sample of m generated values adds 1/m to 1/n_eff.

References:
    S. Bieringer et al., arXiv:2202.07352; A. Butter et al., GANplifying event samples, arXiv:2008.06545, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.statistics.distances import QuantileBins, jensen_shannon

__all__ = [
    "SHOWERS_A_BIN",
    "DyadicBins",
    "EffectiveSize",
    "ToyResult",
    "by_comparison",
    "by_formula",
    "deepest",
    "divergence_error",
    "run_toy",
]

SHOWERS_A_BIN = 10
"""Only n_quant <= n / 10 counts for a set of n showers."""


def deepest(n: int) -> int:
    """Return the largest m with 2^m <= n / 10.

    Raises:
        TooFewShowersError: When not even two bins have ten showers each.
    """
    if n < 2 * SHOWERS_A_BIN:
        msg = f"{n} showers are too few for quantiles; expected at least {2 * SHOWERS_A_BIN}"
        raise TooFewShowersError(msg)
    return (n // SHOWERS_A_BIN).bit_length() - 1


class DyadicBins:
    """Quantiles of a reference, (N,) or (N, d), all powers of two up to 2^depth.

    Attributes:
        quantiles: (depth,) numbers of bins: 2, 4, ..., 2^depth.
    """

    def __init__(self, reference: ArrayLike, depth: int) -> None:
        self._bins = QuantileBins(reference, 2**depth)
        self.depth = depth
        self.quantiles: NDArray[np.int64] = 2 ** np.arange(1, depth + 1)

    def count(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return how many values (M,) or (M, d) fall into each of the finest bins (2^depth,)."""
        return self._bins.count(values)

    def divergences(self, counts: ArrayLike) -> NDArray[np.float64]:
        """Return the divergence at every number of quantiles (depth,), from counts of the finest bins (2^depth,)."""
        p, g = self._bins.counts, np.asarray(counts)
        found = []
        for level in range(1, self.depth + 1):
            shape = (2**level, -1)
            found.append(jensen_shannon(p.reshape(shape).sum(axis=1), g.reshape(shape).sum(axis=1)))
        return np.array(found)

    def compare(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the divergences of values (M,) or (M, d) at every number of quantiles (depth,)."""
        return self.divergences(self.count(values))


@dataclass(frozen=True)
class EffectiveSize:
    """Number of showers of the truth with the statistical power of a sample.

    Arguments:
        value: The number; None when the divergence is compatible with zero, or lies outside the sizes at hand.
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
        numbers = (self.value, self.low, self.high, self.error)
        return EffectiveSize(*(None if number is None else number / size for number in numbers))  # type: ignore[arg-type]


def divergence_error(
    divergence: float, n_quant: int, n: float, n_truth: float, truths: int = 1, scale: float = 1.0
) -> float:
    """Return the standard deviation of a divergence D of n showers, the mean over ``truths`` truths of ``n_truth`` showers each.

    ``n_quant`` is K, and ``scale`` is c/k, the factor by which entries differ from independent showers.
    """
    k, a, b = n_quant - 1, scale / n, scale / n_truth
    bias = max(0.0, 8.0 * divergence - k * (a + b))
    variance = 2.0 * k * (a * a + 2.0 * a * b / truths + b * b / truths) + 4.0 * bias * (a + b / truths)
    return float(np.sqrt(variance)) / 8.0


def by_formula(
    divergence: float, error: float, n_quant: int, n_truth: float, scale: float = 1.0
) -> EffectiveSize:
    """Return the effective size by formula, from D and its standard deviation in K quantiles of a truth of ``n_truth`` showers.

    ``scale`` is c/k, the factor by which entries differ from independent showers.
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
    """Return the effective size of a sample of divergence D and its standard deviation by comparison with samples of the truth.

    These have increasing sizes (S,), mean divergences (S,), and errors of these means (S,). It is None when there is no sample of
    the truth, or the sample is worse than the smallest of them.
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


def fit_amplification(n_quant: int) -> float:
    """Return the amplification factor of a Gaussian fit in K quantiles.

    >>> round(fit_amplification(2), 3), round(fit_amplification(1024) / 1023, 1)
    (1.571, 0.5)
    """
    z = np.asarray(ndtri(np.arange(1, n_quant) / n_quant))  # inner edges of the quantiles of N(0, 1)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    a = np.diff(density, prepend=0.0, append=0.0)
    b = np.diff(z * density, prepend=0.0, append=0.0)
    return float((n_quant - 1) / (n_quant * ((a**2).sum() + (b**2).sum() / 2)))


@dataclass(frozen=True)
class ToyResult:
    """The estimator against closed forms.

    Attributes:
        quantiles: (L,) numbers of quantiles.
        known: (L,) amplification factor in closed form, for the size of the generated samples.
        found: (L,) amplification factor by formula, from the mean divergence of the fits, with its ``uncertainty`` (L,).
        sample: Effective size found for a sample of the truth of ``sample_size`` values, with ``sample_uncertainty``.
    """

    quantiles: NDArray[np.int64]
    known: NDArray[np.float64]
    found: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    sample: float
    sample_size: int
    sample_uncertainty: float


def run_toy(n_truth: int, n_train: int, fits: int = 40, n: int = 200_000, seed: int = 0) -> ToyResult:
    """Measure the amplification of Gaussian fits with the estimator of the study.

    Arguments:
        n_truth: Values of the truth; each fit has its own sample of the truth.
        n_train: Values that a fit sees; also the size of a sample of the truth whose effective size must be its size.
        fits: Number of fits, whose divergences are averaged.
        n: Values that each fit generates.
        seed: Seed of all values.
    """
    depth = deepest(n_truth)
    found, samples = [], []
    for number in range(fits):
        rng = generator(seed, "toy", number)
        bins = DyadicBins(rng.normal(size=n_truth), depth)
        train = rng.normal(size=n_train)
        found.append(bins.compare(rng.normal(train.mean(), train.std(), size=n)))
        samples.append(bins.compare(train))
    quantiles = bins.quantiles
    spread = np.std(found, axis=0, ddof=1) / np.sqrt(fits)
    sizes = [
        by_formula(divergence, error, int(n_quant), n_truth).over(n_train)
        for divergence, error, n_quant in zip(np.mean(found, axis=0), spread, quantiles, strict=True)
    ]
    level = min(deepest(n_train), depth) - 1
    n_quant, own = int(quantiles[level]), float(np.mean(samples, axis=0)[level])
    error = divergence_error(own, n_quant, n_train, n_truth) / np.sqrt(fits)
    sample = by_formula(own, error, n_quant, n_truth)
    endless = np.array([fit_amplification(int(n_quant)) for n_quant in quantiles])
    return ToyResult(
        quantiles,
        1.0 / (1.0 / endless + n_train / n),
        np.array([np.nan if size.value is None else size.value for size in sizes]),
        np.array([np.nan if size.error is None else size.error for size in sizes]),
        sample.value or np.nan,
        n_train,
        sample.error or np.nan,
    )
