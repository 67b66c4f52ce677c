"""Two Gaussian samples and classifiers of known power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.two_sample import Candidate, Features, Rows


def gaussians(n: int, d: int, shift: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return n rows of d standard normal columns, and others whose first column is shifted."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n, d)).astype(np.float32)
    b[:, 0] += shift
    return a, b


def candidate(a, b, fit, name: str = "classifier") -> Candidate:
    """Return a classifier on all columns."""

    def features(rows: Rows) -> Features:
        return Features(a, b, tuple(f"x{k}" for k in range(a.shape[1])))

    return Candidate(name, features, fit)


def discriminant(x, labels, x_validation, labels_validation, seed):
    """Project on the difference of the means: the linear discriminant of a known unit covariance."""
    w = x[labels > 0.5].mean(axis=0) - x[labels < 0.5].mean(axis=0)
    return lambda rows: (rows @ w).astype(np.float64)
