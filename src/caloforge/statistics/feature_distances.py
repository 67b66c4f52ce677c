r"""Distances between samples in a space of features: Frechet and kernel physics distance, precision, recall, density, coverage.

**Frechet physics distance.** Of two Gaussians it is

.. math::
    d^2 = |\mu_1 - \mu_2|^2 + \operatorname{tr}\bigl(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\bigr) .

Its bias is b / N for samples of N. For ten sizes equally spaced in 1/N, from 10,000 to 50,000, the mean of 20 distances of random draws
(with replacement, as published) is fitted with a + b / N, a and b not negative: a is the distance, its error that of the fit.
For smaller samples the sizes go from a fifth of the sample to all of it.

**Kernel physics distance.** The unbiased squared maximum mean discrepancy with a polynomial kernel,

.. math::
    k(x, y) = \left(\frac{x \cdot y}{d} + 1\right)^4, \qquad
    \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{m (m - 1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{n (n - 1)}
    - \frac{2 \sum_{ij} k(x_i, y_j)}{m n} ,

as the median over ten batches of 10,000 draws with replacement (as in the CaloChallenge's evaluation; fewer when there are fewer
rows); its error is half the central 68 % interval of the batches.

**Precision and recall.** With the ball :math:`B(x)` around a row :math:`x` that reaches to its k-th nearest neighbour in its own sample,
reference rows :math:`x_i` and generated ones :math:`y_j`: precision is the fraction of :math:`y_j` inside some :math:`B(x_i)`, recall the
fraction of :math:`x_i` inside some :math:`B(y_j)`, density the mean over :math:`y_j` of the number of :math:`B(x_i)` around it over k,
and coverage the fraction of :math:`x_i` whose ball contains some :math:`y_j`. Distances are Euclidean; blocks of rows bound the memory.

References:
    R. Kansal et al., Evaluating generative models in high energy physics, Phys. Rev. D 107 (2023) 076017, arXiv:2211.10295, section
    V; M. Binkowski et al., arXiv:1801.01401; C. Krause et al., CaloChallenge 2022, arXiv:2410.21611; M. F. Naeem et al.,
    Reliable fidelity and diversity metrics for generative models, arXiv:2002.09797.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator

if TYPE_CHECKING:
    import torch

__all__ = ["FEWEST_FPD", "FEWEST_KPD", "PRDC", "Neighbourhoods", "fpd", "kpd", "normalise"]

Array = NDArray[np.float64]

FEWEST_FPD, FEWEST_KPD = 100, 20
"""Fewest rows a side of the two distances."""
PRDC = ("precision", "recall", "density", "coverage")

_LARGEST, _SIZES = 50_000, 10  # of the samples of the fit over sizes
_KERNEL_ROWS, _ROWS = 1000, 1024  # rows of a matrix of pairs in memory at once
_INTERVAL = (16.275, 83.725)


def normalise(reference: Array, generated: Array) -> tuple[Array, Array]:
    """Divide both (N, d) and (M, d) by the reference's largest absolute value of each feature, if that is not zero."""
    scale = np.abs(reference).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return reference / scale, generated / scale


def frechet_distance(mean_1: Array, covariance_1: Array, mean_2: Array, covariance_2: Array) -> float:
    """Return the squared Frechet distance of two Gaussians of means (d,) and covariances (d, d).

    The trace of the root of the product is the sum of the singular values of the product of the roots, which stays real for
    singular covariances.
    """
    return _distance(mean_1, _root(covariance_1), mean_2, _root(covariance_2))


def _root(covariance: Array) -> Array:
    """Return a factor R (d, d) with ``R.T @ R`` the covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    factor: Array = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    return factor


def _distance(mean_1: Array, root_1: Array, mean_2: Array, root_2: Array) -> float:
    shift = mean_1 - mean_2
    overlap = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    return float(shift @ shift + (root_1**2).sum() + (root_2**2).sum() - 2.0 * overlap)


def _draw(x: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return mean and covariance root of ``size`` rows drawn with replacement."""
    weights = np.bincount(rng.integers(0, len(x), size), minlength=len(x)).astype(np.float64)
    mean = weights @ x / size
    drawn = np.flatnonzero(weights)
    weighted = x[drawn] * np.sqrt(weights[drawn])[:, None]
    second = weighted.T @ weighted  # of one matrix with itself: half the products
    return mean, _root((second - size * np.outer(mean, mean)) / (size - 1))


def _check_size(name: str, n: int, fewest: int) -> None:
    if n < fewest:
        msg = f"{name} needs at least {fewest} showers a side, there are {n}"
        raise TooFewShowersError(msg)


def fpd(reference: Array, generated: Array, seed: int = 0, draws: int = 20) -> tuple[float, float]:
    """Return the Frechet physics distance, of ``draws`` distances at each size, and its error.

    The features (N, d) and (M, d) are those of :func:`normalise`.

    Raises:
        TooFewShowersError: With fewer than 100 a side.
    """
    n = min(len(reference), len(generated), _LARGEST)
    _check_size("fpd", n, FEWEST_FPD)
    centre = reference.mean(axis=0)  # smaller numbers, smaller rounding errors
    a, b = reference - centre, generated - centre
    sizes = (1.0 / np.linspace(5.0 / n, 1.0 / n, _SIZES)).astype(np.int64)
    distances = []
    for index, size in enumerate(sizes):
        rng = generator(seed, "fpd", index)
        drawn = [(*_draw(a, size, rng), *_draw(b, size, rng)) for _ in range(draws)]
        distances.append(np.mean([_distance(*draw) for draw in drawn]))
    return intercept_at_zero(1.0 / sizes, np.array(distances))


def intercept_at_zero(x: Array, y: Array) -> tuple[float, float]:
    """Fit values y (K,) at x (K,) with ``a + b x``, a and b not negative, by least squares; return ``a`` and its error.

    The error is that of the unconstrained line. A closed form, because 1/N and the distances differ from one by orders of
    magnitude, which general minimisers stop early on.
    """
    centre, offset = x.mean(), x - x.mean()
    power = float(offset @ offset)
    slope = float(offset @ y) / power
    intercept = float(y.mean() - slope * centre)
    residual = float(np.sum((y - intercept - slope * x) ** 2)) / (x.size - 2)
    error = float(np.sqrt(residual * (1.0 / x.size + centre**2 / power)))
    return max(0.0, float(y.mean()) if slope < 0.0 else intercept), error


def _kernel_sum(x: Array, y: Array) -> float:
    """Return the sum of the kernel over all pairs, a block of rows at a time."""
    total = 0.0
    for start in range(0, len(x), _KERNEL_ROWS):
        block = x[start : start + _KERNEL_ROWS] @ y.T
        block /= x.shape[1]
        block += 1.0
        np.square(block, out=block)
        total += float(np.vdot(block, block))
    return total


def _own_kernel_sum(x: Array) -> float:
    """Return the sum of the kernel over all pairs of different rows, each of which is computed once."""
    total = 0.0
    for start in range(0, len(x), _KERNEL_ROWS):
        own = x[start : start + _KERNEL_ROWS]
        total += _kernel_sum(own, own) + 2.0 * _kernel_sum(own, x[start + _KERNEL_ROWS :])
    return total - float(np.sum(((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 4))


def polynomial_mmd(x: Array, y: Array) -> float:
    """Return the unbiased squared maximum mean discrepancy of x (m, d) and y (n, d)."""
    m, n = len(x), len(y)
    within = _own_kernel_sum(x) / (m * (m - 1)) + _own_kernel_sum(y) / (n * (n - 1))
    return within - 2.0 * _kernel_sum(x, y) / (m * n)


def kpd(
    reference: Array, generated: Array, seed: int = 0, batches: int = 10, batch: int = 10_000
) -> tuple[float, float]:
    """Return the kernel physics distance, from ``batches`` of at most ``batch`` draws, and its error.

    The features (N, d) and (M, d) are those of :func:`normalise`.

    Raises:
        TooFewShowersError: With fewer than 20 a side.
    """
    size = min(len(reference), len(generated), batch)
    _check_size("kpd", size, FEWEST_KPD)
    values = []
    for index in range(batches):
        rng = generator(seed, "kpd", index)
        x = reference[rng.integers(0, len(reference), size)]
        values.append(polynomial_mmd(x, generated[rng.integers(0, len(generated), size)]))
    low, high = np.percentile(values, _INTERVAL)
    return float(np.median(values)), float((high - low) / 2.0)


def _squared_distances(block: torch.Tensor, other: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Return squared distances (rows, M) of a block to all rows of a sample, whose squares are known."""
    own = (block * block).sum(dim=1, keepdim=True)
    return (own + squares - 2.0 * (block @ other.T)).clamp_(min=0.0)


class Neighbourhoods:
    """Reference rows (N, d) and their balls to the k-th neighbour, computed once for all samples compared with them.

    Raises:
        TooFewShowersError: When a sample has not more than k rows.
    """

    def __init__(self, reference: NDArray[np.floating], k: int = 5, device: str = "cpu") -> None:
        import torch

        self.k, self.device = k, device
        _check_size(f"prdc with k = {k}", len(reference), k + 1)
        real = torch.from_numpy(np.ascontiguousarray(reference)).to(device)
        self.centre = real.mean(dim=0)  # smaller numbers, smaller rounding errors of the squares
        self.features = real - self.centre
        self.radii = self._radii(self.features)

    def _radii(self, x: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of each row to its k-th neighbour in its own sample (N,)."""
        import torch

        squares = (x * x).sum(dim=1)
        out = []
        for start in range(0, len(x), _ROWS):
            distances = _squared_distances(x[start : start + _ROWS], x, squares)
            distances[:, start : start + len(distances)].fill_diagonal_(float("inf"))
            out.append(distances.topk(self.k, dim=1, largest=False).values[:, -1])
        return torch.cat(out)

    def members(self, generated: NDArray[np.floating]) -> dict[str, Array]:
        """Return, for each of the four figures, what each counted row contributes; their means are the figures.

        With generated features (M, d) precision and density are (M,), recall and coverage (N,).
        """
        import torch

        _check_size(f"prdc with k = {self.k}", len(generated), self.k + 1)
        fake = torch.from_numpy(np.ascontiguousarray(generated)).to(self.device) - self.centre
        radius_fake = self._radii(fake)
        squares = (fake * fake).sum(dim=1)
        balls = torch.zeros(len(fake), device=self.device)
        recalled, covered = [], []
        for start in range(0, len(self.features), _ROWS):
            distances = _squared_distances(self.features[start : start + _ROWS], fake, squares)
            radii = self.radii[start : start + _ROWS]
            balls += (distances < radii[:, None]).sum(dim=0)
            recalled.append((distances < radius_fake).any(dim=1))
            covered.append(distances.min(dim=1).values < radii)
        return {
            "precision": (balls > 0).double().cpu().numpy(),
            "recall": torch.cat(recalled).double().cpu().numpy(),
            "density": (balls.double() / self.k).cpu().numpy(),
            "coverage": torch.cat(covered).double().cpu().numpy(),
        }
