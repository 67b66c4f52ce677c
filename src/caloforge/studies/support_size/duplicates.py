r"""The duplicates of a sample: cheap criteria for all pairs, structural similarity for those that pass.

Three definitions of a duplicate, each stricter than the one before it:

- profiles: the Jensen-Shannon divergences of the x, y and z profiles are each at most their limits;
- with energy: the total energies, too, differ by at most their limit;
- with similarity: the structural similarity, too, is at least its limit.

The limits are quantiles over all pairs of reference showers: the :math:`\alpha` quantile of each divergence and of
the difference of energies, and the :math:`1 - \alpha` quantile of the similarity, the latter over a random
sample of the pairs. The same limits judge every sample. With four independent criteria two reference showers would be
duplicates with probability :math:`\alpha^4`, so that supports compare samples at one :math:`\alpha`, and are not numbers of
showers that exist.

Where more pairs pass than may be compared cell by cell, only the first showers of the sample are used, as many as
give no more than that number of pairs: so the duplicates found are still all those of a random sample of showers,
and many duplicates among few showers say as much about the support.

References:
    G. R. Khattak, S. Vallecorsa et al., the support size of the 3DGAN by the birthday paradox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import ShowerSource
from caloforge.statistics.birthday import Duplicates
from caloforge.statistics.pairs import (
    WINDOW,
    condensed_size,
    pair_differences,
    pair_divergences,
    pair_indices,
    structural_similarity,
)
from caloforge.validate.observables import observe

__all__ = [
    "AXES",
    "DEFINITIONS",
    "Definition",
    "Found",
    "Limits",
    "PairTable",
    "SimilaritySearch",
    "find_duplicates",
    "limits_of",
    "profiles_of",
    "why_no_windows",
]

_MEV_A_GEV = 1000.0
AXES = {"x": "x_profile", "y": "y_profile", "z": "layer_energy"}
"""Axis to the observable that is its profile."""

Profiles = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Definition:
    """One definition of a duplicate: cheap criteria that a pair must pass, and whether it must be similar in structure, too.

    ``name`` is that of ``study.json`` and ``papers.toml``, ``label`` that of tables and figures.
    """

    name: str
    label: str
    criteria: tuple[str, ...]
    similarity: bool = False


DEFINITIONS = (
    Definition("profiles", "profiles", ("x", "y", "z")),
    Definition("energy", "profiles + energy", ("x", "y", "z", "energy")),
    Definition("similarity", "profiles + energy + SSIM", ("x", "y", "z", "energy"), similarity=True),
)


def why_no_windows(detector: Detector) -> str:
    """Return why structural similarity makes no sense for a detector; empty when it does."""
    if not detector.is_grid or len(detector.shape) != 3:
        return (
            f"structural similarity needs a regular x-y grid of cells; '{detector.name}' is {detector.order}"
        )
    nx, ny = detector.shape[:2]
    if min(nx, ny) < WINDOW:
        return f"structural similarity needs {WINDOW} x {WINDOW} cells a layer; '{detector.name}' has {nx} x {ny}"
    return ""


def profiles_of(showers: ShowerSource) -> dict[str, NDArray[np.float64]]:
    """Return the profiles "x", "y", "z" (N, K) and the total "energy" (N,) of showers, MeV, in one pass.

    The z profile of a single layer is the total energy.
    """
    table = observe(showers, [*AXES.values(), "visible_energy"], label="")
    total = table["visible_energy"]
    profiles = {axis: table[name] if name in table else total[:, None] for axis, name in AXES.items()}
    return profiles | {"energy": total}


class PairTable:
    """The cheap criteria of every pair of a sample, in condensed order: 16 bytes a pair.

    Arguments:
        profiles: Of N showers, at least two, see :func:`profiles_of`.
        normalised: Compare profiles of unit sum, shapes alone, instead of energies; empty showers stay empty.
        device: Where to compute.
    """

    def __init__(self, profiles: Profiles, normalised: bool = False, device: str = "cpu") -> None:
        self.n = len(profiles["energy"])
        if self.n < 2:
            raise TooFewShowersError(f"pairs of showers: at least 2 are needed, there are {self.n}")
        self.values: dict[str, NDArray[np.float32]] = {}
        for axis in AXES:
            values = profiles[axis]
            if normalised:
                total = values.sum(axis=1, keepdims=True)
                values = values / np.where(total > 0, total, 1.0)
            self.values[axis] = pair_divergences(values, device)
        self.values["energy"] = pair_differences(profiles["energy"])

    def __len__(self) -> int:
        return condensed_size(self.n)

    def passing(self, limits: Mapping[str, float], criteria: Iterable[str]) -> NDArray[np.int64]:
        """Return the positions (K,) of the pairs that are at or below every limit."""
        first, *rest = criteria
        found = np.flatnonzero(self.values[first] <= np.float32(limits[first]))
        for name in rest:
            found = found[self.values[name][found] <= np.float32(limits[name])]
        return found

    def closeness(self, limits: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the largest criterion of each pair in units of its limit: 0 for equal profiles, 1 for a bare duplicate."""
        parts = [values / max(limits[name], 1e-30) for name, values in self.values.items()]
        return np.asarray(np.max(parts, axis=0), np.float64)


@dataclass(frozen=True)
class Limits:
    """The limits at the quantile alpha."""

    alpha: float
    cheap: Mapping[str, float]  # upper, of x, y, z and energy; MeV, or pure for normalised profiles
    similarity: float | None  # lower limit of the structural similarity; None where it does not apply


def limits_of(
    table: PairTable, alphas: Sequence[float], similarities: NDArray[np.float64] | None = None
) -> list[Limits]:
    """Return the limits at each alpha; ``similarities`` (K,) are those of random pairs of reference showers."""
    cheap = {name: np.quantile(values, alphas) for name, values in table.values.items()}
    return [
        Limits(
            alpha,
            {name: float(values[k]) for name, values in cheap.items()},
            None if similarities is None else float(np.quantile(similarities, 1.0 - alpha)),
        )
        for k, alpha in enumerate(alphas)
    ]


class SimilaritySearch:
    """Structural similarities at L = ``data_range`` GeV of pairs of images (N, nx, ny, n_layers), MeV, each computed once."""

    def __init__(self, images: NDArray[np.float32], data_range: float, device: str = "cpu") -> None:
        self.images, self.data_range, self.device = images, data_range, device
        self._known = np.empty(0, np.int64)
        self._values = np.empty(0)

    @property
    def count(self) -> int:
        """Number of pairs compared until now."""
        return len(self._known)

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the similarity (K,) of the pairs at these positions in condensed order."""
        new = np.setdiff1d(positions, self._known)
        if len(new):
            i, j = pair_indices(new, len(self.images)).T
            limits = (_MEV_A_GEV * self.data_range,)
            values = structural_similarity(self.images, i, self.images, j, limits, self.device)[:, 0]
            known, values = np.concatenate([self._known, new]), np.concatenate([self._values, values])
            order = np.argsort(known)
            self._known, self._values = known[order], values[order]
        return self._values[np.searchsorted(self._known, positions)]

    def of_random_pairs(self, pairs: int, seed: int) -> NDArray[np.float64]:
        """Return the similarities (K,) of random pairs, at most so many; all of them when there are not more."""
        possible = condensed_size(len(self.images))
        if pairs >= possible:
            return self.of(np.arange(possible))
        rng = generator(seed, "similarity limit")
        return self.of(np.sort(rng.choice(possible, size=pairs, replace=False)))


@dataclass(frozen=True, eq=False)
class Found:
    """The duplicates of a sample by one definition."""

    duplicates: Duplicates
    similarity: NDArray[np.float64] | None  # structural (T,); None for a definition without it
    candidates: int  # pairs that passed the cheap criteria, among the showers used


def find_duplicates(
    table: PairTable,
    limits: Limits,
    definition: Definition,
    search: SimilaritySearch | None = None,
    most: int = 50_000,
) -> Found:
    """Return the duplicates of a sample.

    Arguments:
        search: Compares cells; needed by the definition with similarity.
        most: Most pairs to compare cell by cell.
    """
    positions = table.passing(limits.cheap, definition.criteria)
    pairs = pair_indices(positions, table.n)
    if not definition.similarity:
        return Found(Duplicates(table.n, pairs), None, len(pairs))
    assert search is not None
    assert limits.similarity is not None
    n = _first_showers(pairs, table.n, most)
    used = pairs[:, 1] < n
    similarity = search.of(positions[used])
    similar = similarity >= limits.similarity
    return Found(Duplicates(n, pairs[used][similar]), similarity[similar], int(used.sum()))


def _first_showers(pairs: NDArray[np.int64], n: int, most: int) -> int:
    """Return the largest number of first showers, at most ``n``, with not more than ``most`` of the pairs (K, 2)."""
    if len(pairs) <= most:
        return n
    return max(2, int(np.partition(pairs[:, 1], most)[most]))
