r"""A toy whose amplification is known: a Gaussian fitted to n values.

The truth is N(0, 1) in K quantiles with edges z_i. A fit to n values has the variances 1/n of its mean and 1/(2n) of its
standard deviation, and what it generates differs in bin i by dp_i = a_i dmu + b_i dsigma with
a_i = phi(z_i) - phi(z_{i+1}), b_i = z_i phi(z_i) - z_{i+1} phi(z_{i+1}). To first order in 1/n, 8D is the sum of
dp_i^2 K, so

.. math:: E[8D] = \frac{I_\mu + I_\sigma / 2}{n}, \quad I_\mu = K \sum a_i^2, \quad I_\sigma = K \sum b_i^2
          \quad\Rightarrow\quad \frac{n_{eff}}{n} = \frac{K - 1}{I_\mu + I_\sigma / 2} \to \frac{K - 1}{2} :

two numbers are learnt where a histogram learns K - 1. A sample of m generated values adds 1/m to 1/n_eff.

References:
    A. Butter et al., GANplifying event samples, arXiv:2008.06545, section 2, has a fit as its best case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, xlogy

from caloforge.random import generator
from caloforge.studies.amplification.dyadic import DyadicBins, deepest
from caloforge.studies.amplification.estimators import by_formula, divergence_error

__all__ = ["ToyResult", "fit_amplification", "normal_divergence", "run_toy"]


def _edges(n_quant: int) -> NDArray[np.float64]:
    """Return the inner edges (K - 1,) of the quantiles of N(0, 1)."""
    return np.asarray(ndtri(np.arange(1, n_quant) / n_quant))


def fit_amplification(n_quant: int) -> float:
    """Return the amplification factor of a Gaussian fit in K quantiles.

    >>> round(fit_amplification(2), 3), round(fit_amplification(1024) / 1023, 1)
    (1.571, 0.5)
    """
    z = _edges(n_quant)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    a = np.diff(density, prepend=0.0, append=0.0)
    b = np.diff(z * density, prepend=0.0, append=0.0)
    return float((n_quant - 1) / (n_quant * ((a**2).sum() + (b**2).sum() / 2)))


def normal_divergence(mean: float, deviation: float, n_quant: int) -> float:
    """Return the exact divergence of N(mean, deviation^2) from N(0, 1) in K quantiles of the latter."""
    p = np.full(n_quant, 1.0 / n_quant)
    g = np.diff(ndtr((_edges(n_quant) - mean) / deviation), prepend=0.0, append=1.0)
    return float(0.5 * (xlogy(g, 2 * g / (g + p)) + xlogy(p, 2 * p / (g + p))).sum())


@dataclass(frozen=True)
class ToyResult:
    """The estimator against what is known.

    Arguments:
        quantiles: (L,) numbers of quantiles.
        known: (L,) amplification factor in closed form, for the size of the generated samples.
        found: (L,) amplification factor by formula, from the mean divergence of the fits.
        error: (L,) its standard deviation.
        sample: Effective size found for a sample of the truth.
        sample_size: Its true size.
        sample_error: Standard deviation of ``sample``.
    """

    quantiles: NDArray[np.int64]
    known: NDArray[np.float64]
    found: NDArray[np.float64]
    error: NDArray[np.float64]
    sample: float
    sample_size: int
    sample_error: float


def run_toy(n_truth: int, n_train: int, fits: int = 40, n: int = 200_000, seed: int = 0) -> ToyResult:
    """Measure the amplification of Gaussian fits with the estimator of the study.

    Arguments:
        n_truth: Values of the truth.
        n_train: Values that a fit sees; also the size of a sample of the truth that must give itself back.
        fits: Number of fits, whose divergences are averaged; each has a truth of its own.
        n: Values that each fit generates.
        seed: Seed.
    """
    depth = deepest(n_truth)
    found, samples = [], []
    for number in range(fits):
        rng = generator(seed, "toy", number)
        bins = DyadicBins(rng.normal(size=n_truth), depth)
        train = rng.normal(size=n_train)
        found.append(bins.compare(rng.normal(train.mean(), train.std(), size=n)))
        samples.append(bins.compare(train))
    quantiles, factors, errors = bins.quantiles, [], []
    divergence = np.mean(found, axis=0)
    spread = np.std(found, axis=0, ddof=1) / np.sqrt(fits)
    for level, n_quant in enumerate(quantiles):
        size = by_formula(divergence[level], spread[level], int(n_quant), n_truth)
        known = size.value is not None and size.error is not None
        factors.append((size.value or np.nan) / n_train if known else np.nan)
        errors.append((size.error or np.nan) / n_train if known else np.nan)
    level = min(deepest(n_train), depth) - 1
    own = float(np.mean(samples, axis=0)[level])
    error = divergence_error(own, int(quantiles[level]), n_train, n_truth) / np.sqrt(fits)
    back = by_formula(own, error, int(quantiles[level]), n_truth)
    endless = np.array([fit_amplification(int(n_quant)) for n_quant in quantiles])
    known_factors = 1.0 / (1.0 / endless + n_train / n)
    return ToyResult(
        quantiles,
        known_factors,
        np.array(factors),
        np.array(errors),
        back.value or np.nan,
        n_train,
        back.error or np.nan,
    )
