r"""Precision, recall, density and coverage.

With the ball :math:`B(x)` around a shower :math:`x` that reaches to its k-th nearest neighbour in its own
sample, reference showers :math:`x_i` and generated ones :math:`y_j`:

- precision: the fraction of :math:`y_j` that lie in some :math:`B(x_i)`;
- recall: the fraction of :math:`x_i` that lie in some :math:`B(y_j)`;
- density: the mean over :math:`y_j` of the number of balls :math:`B(x_i)` around it, over k;
- coverage: the fraction of :math:`x_i` whose ball :math:`B(x_i)` holds some :math:`y_j`.

Distances are Euclidean in log10 of the cell energies, cut below at the threshold. A block of rows is held at
a time, so that memory does not grow with the square of the samples. The error is the spread over a bootstrap
of the showers that are counted, the balls fixed, and at least one shower (no spread is left where all or none count).
All four depend on the samples' sizes in a way of their own, so that value and floor take the same ones: h showers of the
reference against h generated ones, and against h other ones of the reference, where h is at most half of the
reference, the generated sample, or 5,000 (``size`` in the detail).

References:
    M. F. Naeem et al., Reliable fidelity and diversity metrics for generative models, arXiv:2002.09797.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.random import generator
from caloforge.statistics.resampling import spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Cells, cell_pair

if TYPE_CHECKING:
    import torch

    from caloforge.validate.sample import Sample

__all__ = ["NAMES", "PrecisionRecall", "log_cells", "prdc", "prdc_members"]

NAMES = ("precision", "recall", "density", "coverage")
_ROWS = 1024
_N_MAX = 5000  # showers a side: distances between all pairs


def log_cells(cells: Cells, threshold: float) -> NDArray[np.float32]:
    """Return log10 of cell energies (N, n_cells) in units of the threshold, 0 for cells below it."""
    energies: NDArray[np.float32] = np.maximum(cells, np.float32(threshold))
    energies /= np.float32(threshold)
    return np.log10(energies, out=energies)


def _ever_above(cells: Cells, threshold: float) -> NDArray[np.bool_]:
    """Return which cells (n_cells,) are above the threshold in at least one shower."""
    above: NDArray[np.bool_] = cells.max(axis=0, initial=0.0) > threshold
    return above


def _distances(block: torch.Tensor, other: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Return squared distances (rows, M) of a block to all of the other sample."""
    own = (block * block).sum(dim=1, keepdim=True)
    return (own + squares - 2.0 * (block @ other.T)).clamp_(min=0.0)


def _radii(x: torch.Tensor, k: int) -> torch.Tensor:
    """Return the squared distance of each row to its k-th neighbour in its own sample (N,)."""
    import torch

    squares = (x * x).sum(dim=1)
    out = []
    for start in range(0, len(x), _ROWS):
        distances = _distances(x[start : start + _ROWS], x, squares)
        distances[:, start : start + len(distances)].fill_diagonal_(float("inf"))
        out.append(distances.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(out)


def prdc_members(
    reference: NDArray[np.floating], generated: NDArray[np.floating], k: int = 5, device: str = "cpu"
) -> dict[str, NDArray[np.float64]]:
    """Return, for each of the four, what each counted shower contributes; their means are the figures.

    Arguments:
        reference: Features (N, d).
        generated: Features (M, d).
        k: Neighbours.
        device: Where to compute.

    Raises:
        TooFewShowersError: When a sample has not more than k showers.
    """
    return _Reference(reference, k, device).members(generated)


class _Reference:
    """Reference showers and the radii of their balls, which are computed once for all samples compared with them.

    Arguments:
        features: Features (N, d).
        k: Neighbours.
        device: Where to compute.
    """

    def __init__(self, features: NDArray[np.floating], k: int, device: str) -> None:
        import torch

        self.k, self.device = k, device
        _check_size(features, k)
        real = torch.from_numpy(np.ascontiguousarray(features)).to(device)
        self.centre = real.mean(dim=0)  # smaller numbers, smaller rounding errors of the squares
        self.features = real - self.centre
        self.radii = _radii(self.features, k)

    def members(self, generated: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Return what each counted shower contributes, see :func:`prdc_members`."""
        import torch

        _check_size(generated, self.k)
        fake = torch.from_numpy(np.ascontiguousarray(generated)).to(self.device) - self.centre
        real, k, device = self.features, self.k, self.device
        radius_real, radius_fake = self.radii, _radii(fake, k)
        squares = (fake * fake).sum(dim=1)
        balls = torch.zeros(len(fake), device=device)
        recalled, covered = [], []
        for start in range(0, len(real), _ROWS):
            distances = _distances(real[start : start + _ROWS], fake, squares)
            balls += (distances < radius_real[start : start + _ROWS, None]).sum(dim=0)
            recalled.append((distances < radius_fake).any(dim=1))
            covered.append(distances.min(dim=1).values < radius_real[start : start + _ROWS])
        return {
            "precision": (balls > 0).double().cpu().numpy(),
            "recall": torch.cat(recalled).double().cpu().numpy(),
            "density": (balls.double() / k).cpu().numpy(),
            "coverage": torch.cat(covered).double().cpu().numpy(),
        }


def _check_size(features: NDArray[np.floating], k: int) -> None:
    if len(features) <= k:
        msg = f"prdc with k = {k} needs more than {k} showers a side, there are {len(features)}"
        raise TooFewShowersError(msg)


def prdc(
    reference: NDArray[np.floating], generated: NDArray[np.floating], k: int = 5, device: str = "cpu"
) -> dict[str, float]:
    """Return precision, recall, density and coverage of features (N, d) and (M, d)."""
    return {name: float(x.mean()) for name, x in prdc_members(reference, generated, k, device).items()}


class PrecisionRecall(Metric):
    """Precision, recall, density and coverage of log10 cell energies."""

    name: ClassVar[str] = "prdc"
    keys: ClassVar[tuple[Key, ...]] = tuple(Key(name, name.capitalize(), 1.0) for name in NAMES)
    minimum: ClassVar[int] = 12

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the four figures."""
        pair = cell_pair(reference, generated, settings, n_max=2 * _N_MAX)
        device, k = settings.torch_device(), settings.neighbours
        n, m = len(pair.reference), len(pair.generated)
        size = min(n // 2, m, _N_MAX)
        rng = generator(settings.seed, "prdc")
        rows, chosen = rng.permutation(n), rng.permutation(m)[:size]
        hit = _ever_above(pair.reference, settings.threshold) | _ever_above(
            pair.generated, settings.threshold
        )
        used = np.flatnonzero(hit)  # the others are 0 in every shower
        first, second = (
            log_cells(pair.reference[np.ix_(part, used)], settings.threshold)
            for part in (rows[:size], rows[size : 2 * size])
        )
        balls = _Reference(first, k, device)
        members = balls.members(log_cells(pair.generated[np.ix_(chosen, used)], settings.threshold))
        floor = balls.members(second)
        out: dict[str, Entry] = {}
        for name in NAMES:
            rng = generator(settings.seed, f"prdc/{name}")
            draws = rng.integers(0, size, (settings.n_bootstrap, size))
            found, below = (
                (float(x.mean()), max(spread(x[draws].mean(axis=1)), 1.0 / size))
                for x in (members[name], floor[name])
            )
            out[name] = Value(*found, *below, {"k": k, "size": size})
        return out
