r"""Frechet and kernel physics distances.

Frechet physics distance.

Features are divided by the largest absolute value of each in the reference. The Frechet distance of two
Gaussians,

.. math::
    d^2 = |\mu_1 - \mu_2|^2 + \operatorname{tr}\bigl(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\bigr),

is biased by the sample size ``N`` as ``a + b / N``. For ten sizes equally spaced in ``1/N``, from 10,000 to
50,000, the mean of 20 distances of random draws (with replacement, as published) is fitted with ``a + b / N``,
``a, b >= 0``: ``a`` is the distance, its error that of the fit. For smaller samples the sizes go from a fifth
of what is there up to all of it. Drawing with replacement leaves a bias of ``b / n`` for a sample of ``n``
showers, which the floor shows. Features that are zero in the whole reference are left as they are.

References:
    R. Kansal et al., Evaluating generative models in high energy physics, Phys. Rev. D 107 (2023) 076017,
    arXiv:2211.10295, section V.

Kernel physics distance: unbiased squared maximum mean discrepancy with a polynomial kernel.

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
from caloforge.statistics.resampling import Floor, floor_at, halves
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import high_level_pair

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = [
    "FrechetPhysicsDistance",
    "KernelPhysicsDistance",
    "fpd",
    "frechet_distance",
    "intercept_at_zero",
    "kpd",
    "normalise",
    "polynomial_mmd",
]


_LARGEST = 50_000
_SIZES = 10
_DRAWS = 20
_FLOORS, _FLOOR_DRAWS = 3, 7  # pairs of halves and draws of each: together as much work as one value
_FEWEST = 100


def normalise(
    reference: NDArray[np.float64], generated: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide both (N, d) and (M, d) by the reference's largest absolute value of each feature."""
    scale = np.abs(reference).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return reference / scale, generated / scale


def frechet_distance(
    mean_1: NDArray[np.float64],
    covariance_1: NDArray[np.float64],
    mean_2: NDArray[np.float64],
    covariance_2: NDArray[np.float64],
) -> float:
    """Return the squared Frechet distance of two Gaussians of means (d,) and covariances (d, d).

    The trace of the root of the product is the sum of the singular values of the product of the roots,
    which stays real for singular covariances.
    """
    return _distance(mean_1, _root(covariance_1), mean_2, _root(covariance_2))


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a factor R (d, d) with ``R.T @ R`` the covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    factor: NDArray[np.float64] = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    return factor


def _distance(
    mean_1: NDArray[np.float64],
    root_1: NDArray[np.float64],
    mean_2: NDArray[np.float64],
    root_2: NDArray[np.float64],
) -> float:
    shift = mean_1 - mean_2
    overlap = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    return float(shift @ shift + (root_1**2).sum() + (root_2**2).sum() - 2.0 * overlap)


def _draw(x: NDArray[np.float64], size: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Return mean and covariance root of ``size`` rows drawn with replacement."""
    weights = np.bincount(rng.integers(0, len(x), size), minlength=len(x)).astype(np.float64)
    mean = weights @ x / size
    drawn = np.flatnonzero(weights)
    weighted = x[drawn] * np.sqrt(weights[drawn])[:, None]
    second = weighted.T @ weighted  # of one matrix with itself: half the products
    return mean, _root((second - size * np.outer(mean, mean)) / (size - 1))


def fpd(
    reference: NDArray[np.float64],
    generated: NDArray[np.float64],
    seed: int = 0,
    normalised: bool = True,
    draws: int = _DRAWS,
) -> tuple[float, float]:
    """Return the Frechet physics distance and its error.

    Arguments:
        reference: Features (N, d), in any unit.
        generated: Features (M, d).
        seed: Seed of the draws.
        normalised: Divide by the reference's largest absolute values first.
        draws: Distances averaged at each size.

    Raises:
        TooFewShowersError: With fewer than 100 a side.
    """
    n = min(len(reference), len(generated), _LARGEST)
    if n < _FEWEST:
        msg = f"fpd needs at least {_FEWEST} showers a side, there are {n}"
        raise TooFewShowersError(msg)
    a, b = normalise(reference, generated) if normalised else (reference, generated)
    centre = a.mean(axis=0)  # the distance is that of shifted features
    a, b = a - centre, b - centre
    sizes = (1.0 / np.linspace(5.0 / n, 1.0 / n, _SIZES)).astype(np.int64)
    distances = []
    for index, size in enumerate(sizes):
        rng = generator(seed, "fpd", index)
        drawn = [(*_draw(a, size, rng), *_draw(b, size, rng)) for _ in range(draws)]
        distances.append(np.mean([_distance(*draw) for draw in drawn]))
    return intercept_at_zero(1.0 / sizes, np.array(distances))


def intercept_at_zero(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Fit ``y = a + b x`` with ``a, b >= 0`` by least squares; return ``a`` and its error.

    The error is that of the unconstrained line. A closed form, because 1/N and the distances differ from one by
    orders of magnitude, which general minimisers stop early on.

    Arguments:
        x: Positions (K,).
        y: Values (K,).
    """
    centre, spread = x.mean(), x - x.mean()
    power = float(spread @ spread)
    slope = float(spread @ y) / power
    intercept = float(y.mean() - slope * centre)
    residual = float(np.sum((y - intercept - slope * x) ** 2)) / (x.size - 2)
    error = float(np.sqrt(residual * (1.0 / x.size + centre**2 / power)))
    if slope < 0.0:
        return max(0.0, float(y.mean())), error
    return max(0.0, intercept), error


class FrechetPhysicsDistance(Metric):
    """Frechet physics distance of the high-level features."""

    name: ClassVar[str] = "fpd"
    keys: ClassVar[tuple[Key, ...]] = (Key("fpd", "Frechet physics distance", 0.0),)
    minimum: ClassVar[int] = _FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance of equally many showers; the floor is that of sets of the reference.

        The fit over sizes depends on the smaller sample, so that the larger one is cut to it. Sets of the reference are
        as large, or its halves where it has not twice as many. These are brought to the size by the law of floors.
        """
        pair = high_level_pair(reference, generated)
        size = min(len(pair.reference), len(pair.generated))
        of_reference, of_generated = normalise(pair.reference, pair.generated)
        a, b = (_some(x, size, settings.seed) for x in (of_reference, of_generated))
        value, error = fpd(a, b, settings.seed, normalised=False)
        part, below = min(len(of_reference) // 2, size), Floor()
        if part >= _FEWEST:
            found, alone = _between_parts(of_reference, part, settings)
            below = floor_at(found, size, size, degree=2, size=part, uncertainty=alone)
        detail = {"features": a.shape[1], "size": size, **below.detail, **pair.counts}
        return {"fpd": Value(value, error, below.value, below.uncertainty, detail)}


def _some(x: NDArray[np.float64], size: int, seed: int) -> NDArray[np.float64]:
    """Return rows of (N, d), all or picked at random."""
    return x if len(x) == size else x[generator(seed, "fpd subset").permutation(len(x))[:size]]


def _between_parts(
    x: NDArray[np.float64], size: int, settings: Settings
) -> tuple[NDArray[np.float64], float | None]:
    """Return the distance between disjoint sets of ``size`` rows of (N, d), repeatedly, and its error when once."""
    found = []
    for index in range(min(_FLOORS, settings.n_halves)):
        first, second = (rows[:size] for rows in _parts(len(x), index, settings.seed))
        found.append(fpd(x[first], x[second], settings.seed, False, _FLOOR_DRAWS))
    return np.array([value for value, _ in found]), found[0][1] if len(found) == 1 else None


def _parts(n: int, index: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two halves of ``n`` rows in random order, so that their beginnings are random sets."""
    order = generator(seed, "fpd parts", index).permutation(n)
    return order[: n // 2], order[n // 2 :]


_BATCHES = 10
_BATCH = 10_000
_FLOOR_BATCHES = 2  # for each pair of halves
_ROWS = 1000  # rows of the kernel matrix held at once
_FEWEST_kpd = 20
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
    if size < _FEWEST_kpd:
        msg = f"kpd needs at least {_FEWEST_kpd} showers a side, there are {size}"
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
    minimum: ClassVar[int] = _FEWEST_kpd

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance; the floor is that of halves of the reference, at the samples' sizes."""
        pair = high_level_pair(reference, generated)
        a, b = normalise(pair.reference, pair.generated)
        value, error = kpd(a, b, settings.seed, normalised=False)
        below = Floor()
        if len(a) >= 2 * _FEWEST_kpd:
            splits = [halves(len(a), index, settings.seed) for index in range(settings.n_halves)]
            found = [kpd(a[x], a[y], settings.seed, False, _FLOOR_BATCHES) for x, y in splits]
            alone = found[0][1] if len(found) == 1 else None
            below = floor_at(np.array([x for x, _ in found]), len(a), len(b), degree=2, uncertainty=alone)
        detail = {"features": a.shape[1], **below.detail, **pair.counts}
        return {"kpd": Value(value, error, below.value, below.uncertainty, detail)}
