r"""Mean and standard deviation of a sample with their errors.

Errors of means are :math:`\sigma / \sqrt N`, those of standard deviations follow from the fourth central moment,
:math:`\mathrm{var}(\sigma) = (m_4 - \sigma^4) / (4 N \sigma^2)`, which holds for any distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_and_std"]


def mean_and_std(x: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the mean of values (N,), its error, their standard deviation, its error."""
    n, mean = len(x), float(x.mean())
    variance = float(x.var(ddof=1))
    fourth = float(((x - mean) ** 4).mean())
    error = np.sqrt(max(fourth - variance**2, 0.0) / (4 * n * variance)) if variance > 0 else 0.0
    return mean, float(np.sqrt(variance / n)), float(np.sqrt(variance)), float(error)
