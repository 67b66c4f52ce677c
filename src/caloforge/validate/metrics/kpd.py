r"""Kernel physics distance: unbiased squared maximum mean discrepancy with a polynomial kernel.

.. math::
    k(x, y) = \left(\frac{x \cdot y}{d} + 1\right)^4, \qquad
    \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{m (m - 1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{n (n - 1)}
    - \frac{2 \sum_{ij} k(x_i, y_j)}{m n} .

Features are divided by the largest absolute value of each in the reference. The distance is the median
over ten batches of 10,000 draws with replacement, as in the CaloChallenge's evaluation (fewer when there are fewer
showers); its error is half the central 68 % interval of the batches. Draws from finite samples know these samples, so that equal distributions
have a distance of the order of 1/n, which the floor shows.

References:
    R. Kansal et al., arXiv:2211.10295, section V; M. Binkowski et al., arXiv:1801.01401; O. Amram et al.,
    CaloChallenge 2022, arXiv:2410.21611.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import high_level_pair
from caloforge.validate.metrics.floors import Floor, floor_at
from caloforge.validate.metrics.fpd import normalise
from caloforge.validate.metrics.resampling import halves

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["KernelPhysicsDistance", "kpd", "polynomial_mmd"]

_BATCHES = 10
_BATCH = 10_000
_FLOOR_BATCHES = 2  # for each pair of halves
_ROWS = 1000  # rows of the kernel matrix held at once
_FEWEST = 20
_INTERVAL = (16.275, 83.725)


def _kernel_sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the sum of the kernel over all pairs, a block of rows at a time."""
    total = 0.0
    for start in range(0, len(x), _ROWS):
        block = x[start : start + _ROWS] @ y.T
        block /= x.shape[1]
        block += 1.0
        np.square(block, out=block)
        total += float(np.vdot(block, block))
    return total


def _own_kernel_sum(x: NDArray[np.float64]) -> float:
    """Return the sum of the kernel over all pairs of different rows, each of which is computed once."""
    total = 0.0
    for start in range(0, len(x), _ROWS):
        own = x[start : start + _ROWS]
        total += _kernel_sum(own, own) + 2.0 * _kernel_sum(own, x[start + _ROWS :])
    return total - float(np.sum(((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 4))


def polynomial_mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy of x (m, d) and y (n, d)."""
    m, n = len(x), len(y)
    within_x = _own_kernel_sum(x) / (m * (m - 1))
    within_y = _own_kernel_sum(y) / (n * (n - 1))
    return within_x + within_y - 2.0 * _kernel_sum(x, y) / (m * n)


def kpd(
    reference: NDArray[np.float64],
    generated: NDArray[np.float64],
    seed: int = 0,
    normalised: bool = True,
    batches: int = _BATCHES,
    batch: int = _BATCH,
) -> tuple[float, float]:
    """Return the kernel physics distance and its error.

    Arguments:
        reference: Features (N, d), in any unit.
        generated: Features (M, d).
        seed: Seed of the batches.
        normalised: Divide by the reference's largest absolute values first.
        batches: How many.
        batch: Draws of each, at most as many as there are showers.

    Raises:
        TooFewShowersError: With fewer than 20 a side.
    """
    size = min(len(reference), len(generated), batch)
    if size < _FEWEST:
        msg = f"kpd needs at least {_FEWEST} showers a side, there are {size}"
        raise TooFewShowersError(msg)
    a, b = normalise(reference, generated) if normalised else (reference, generated)
    values = []
    for index in range(batches):
        rng = generator(seed, "kpd", index)
        batch_a = a[rng.integers(0, len(a), size)]
        values.append(polynomial_mmd(batch_a, b[rng.integers(0, len(b), size)]))
    low, high = np.percentile(values, _INTERVAL)
    return float(np.median(values)), float((high - low) / 2.0)


class KernelPhysicsDistance(Metric):
    """Kernel physics distance of the high-level features."""

    name: ClassVar[str] = "kpd"
    keys: ClassVar[tuple[Key, ...]] = (Key("kpd", "Kernel physics distance", 0.0),)
    minimum: ClassVar[int] = _FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance; the floor is that of halves of the reference, at the samples' sizes."""
        pair = high_level_pair(reference, generated)
        a, b = normalise(pair.reference, pair.generated)
        value, error = kpd(a, b, settings.seed, normalised=False)
        below = Floor()
        if len(a) >= 2 * _FEWEST:
            splits = [halves(len(a), index, settings.seed) for index in range(settings.n_halves)]
            found = [kpd(a[x], a[y], settings.seed, False, _FLOOR_BATCHES) for x, y in splits]
            alone = found[0][1] if len(found) == 1 else None
            below = floor_at(np.array([x for x, _ in found]), len(a), len(b), degree=2, uncertainty=alone)
        detail = {"features": a.shape[1], **below.detail, **pair.counts}
        return {"kpd": Value(value, error, below.value, below.uncertainty, detail)}
