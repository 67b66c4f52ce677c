r"""What a classifier's logits say: area under the ROC curve, calibration, Jensen-Shannon divergence.

Logits z are calibrated on a validation part by :math:`\sigma(a z + b)` (Platt's scaling). On held-out showers, with
calibrated probability :math:`s` of being generated,

.. math:: \mathrm{JSD} = 1 + \frac12 \left( \langle \log_2 (1 - s) \rangle_{ref} + \langle \log_2 s \rangle_{gen} \right)

is a lower bound of the Jensen-Shannon divergence in bits (0: equal, 1: disjoint); it may come out slightly
negative for equal samples. The AUC's error is DeLong's.

References:
    E. R. DeLong et al., Biometrics 44 (1988) 837; J. Platt, Advances in large margin classifiers (1999) 61; C. Krause,
    D. Shih, CaloFlow, arXiv:2106.05285.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["auc_with_error", "calibrate", "divergence_bits", "placements"]


def auc_with_error(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the area under the ROC curve and DeLong's error.

    Arguments:
        reference: Scores (N,) of label 0.
        generated: Scores (M,) of label 1.
    """
    above, below = placements(reference, generated)
    enough = min(above.size, below.size) > 1
    variance = above.var(ddof=1) / above.size + below.var(ddof=1) / below.size if enough else np.nan
    return float(above.mean()), float(np.sqrt(variance))


def placements(reference: ArrayLike, generated: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return DeLong's placement values; the mean of either is the AUC.

    Arguments:
        reference: Scores (N,) of label 0.
        generated: Scores (M,) of label 1.

    Returns:
        The fraction of reference scores below each generated one (M,), and of generated scores above each reference
        score (N,); equal scores count half.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(reference, np.float64), np.asarray(generated, np.float64)
    ranks = rankdata(np.concatenate([a, b]))
    above: NDArray[np.float64] = (ranks[a.size :] - rankdata(b)) / a.size
    below: NDArray[np.float64] = 1.0 - (ranks[: a.size] - rankdata(a)) / b.size
    return above, below


def calibrate(logits: ArrayLike, labels: ArrayLike, steps: int = 50) -> tuple[float, float]:
    """Return slope and offset that make ``sigmoid(slope * logit + offset)`` the most likely probability.

    Newton's method on the cross entropy; Platt's smoothed targets keep it finite for separable samples.

    Arguments:
        logits: Scores (N,).
        labels: 0 or 1 (N,).
        steps: Most Newton steps.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    ones, zeros = float(y.sum()), float((1.0 - y).sum())
    target = np.where(y > 0.5, (ones + 1.0) / (ones + 2.0), 1.0 / (zeros + 2.0))
    design = np.stack([z, np.ones_like(z)], axis=1)
    theta = np.zeros(2)

    def loss(t: NDArray[np.float64]) -> float:
        u = design @ t
        return float(np.sum(np.logaddexp(0.0, u) - target * u))

    for _ in range(steps):
        p = _sigmoid(design @ theta)
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while loss(theta - size * step) > loss(theta) and size > 1e-6:
            size *= 0.5
        theta = theta - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return float(theta[0]), float(theta[1])


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * z))
    return out


def divergence_bits(reference: ArrayLike, generated: ArrayLike) -> tuple[float, float]:
    """Return the Jensen-Shannon divergence in bits and its error, from calibrated logits (N,) and (M,)."""
    a = -np.logaddexp(0.0, np.asarray(reference, np.float64)) / np.log(2.0)
    b = -np.logaddexp(0.0, -np.asarray(generated, np.float64)) / np.log(2.0)
    error = 0.5 * np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
    return float(1.0 + 0.5 * (a.mean() + b.mean())), float(error)
