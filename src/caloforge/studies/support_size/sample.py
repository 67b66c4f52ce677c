"""The duplicates of one sample at each alpha and its closest pairs, as plain arrays that the cache keeps.

Everything that is quick follows from them: rates, curves, support sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.settings import torch_device
from caloforge.showers import Showers
from caloforge.statistics.birthday import Duplicates
from caloforge.statistics.pairs import pair_indices
from caloforge.studies.base import WindowSettings
from caloforge.studies.support_size.duplicates import (
    AXES,
    DEFINITIONS,
    Limits,
    PairTable,
    SimilaritySearch,
    find_duplicates,
    limits_of,
    profiles_of,
    why_no_windows,
)
from caloforge.validate.metrics.shapes import DATA_RANGE

__all__ = ["LEAST", "ClosePair", "Findings", "SupportSizeSettings", "findings_of", "limits_from"]

LEAST = 50
"""Fewest showers of a sample."""
_SENSITIVITY_SHARE = 5  # pairs compared for another alpha, as a part of those for the chosen one


class SupportSizeSettings(WindowSettings):
    """Settings of the study, beside the windows of energy and angle.

    Arguments:
        showers: Of each sample at most; all pairs are compared.
        alpha: Quantile of the limits.
        alphas: Further.
        subsets: Random subsets of each size.
        largest: Largest subset; 0: a fifth of the showers.
        normalised: Compare profiles of unit sum, shapes alone, instead of energies.
        data_range: L of the structural similarity, GeV.
        limit_pairs: Random pairs behind the limit of the similarity.
        similar_pairs: Most pairs of a sample compared cell by cell.
        drawn: Closest pairs drawn.
    """

    showers: Annotated[int, Field(ge=LEAST, le=20_000)] = 5000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.02
    alphas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.005, 0.01, 0.02, 0.05, 0.1)
    subsets: Annotated[int, Field(ge=10)] = 1000
    largest: Annotated[int, Field(ge=0)] = 0
    normalised: bool = False
    data_range: Annotated[float, Field(gt=0)] = DATA_RANGE
    limit_pairs: Annotated[int, Field(ge=100)] = 20_000
    similar_pairs: Annotated[int, Field(ge=100)] = 50_000
    drawn: Annotated[int, Field(ge=1, le=10)] = 3

    @property
    def all_alphas(self) -> tuple[float, ...]:
        """The chosen alpha first, then the others."""
        return (self.alpha, *sorted({*self.alphas} - {self.alpha}))


@dataclass(frozen=True, eq=False)
class ClosePair:
    """Two showers that lie close together."""

    showers: tuple[int, int]  # their positions in the sample
    closeness: float  # largest cheap criterion in units of its limit: at most 1 for a duplicate
    similarity: float  # their structural similarity; NaN where it does not apply
    profiles: Mapping[str, NDArray[np.float64]]  # axis to the two profiles (2, K), MeV
    images: NDArray[np.float64] | None  # (2, nx, ny) sums over layers, MeV; None without a grid


class Findings:
    """What was found in a sample, over the arrays of :func:`findings_of`."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)

    @property
    def n(self) -> int:
        """Number of showers."""
        return int(self.arrays["n"])

    @property
    def compared(self) -> int:
        """Number of pairs compared cell by cell."""
        return int(self.arrays["compared"])

    def duplicates(self, definition: str, alpha: int = 0) -> Duplicates | None:
        """Return the duplicates by a definition at the alpha of that position; None where it does not apply."""
        key = f"{definition}-{alpha}"
        if f"{key}-pairs" not in self.arrays:
            return None
        return Duplicates(int(self.arrays[f"{key}-n"]), self.arrays[f"{key}-pairs"])

    def candidates(self, definition: str) -> int:
        """Return how many pairs passed the cheap criteria among the showers used."""
        return int(self.arrays[f"{definition}-0-candidates"])

    @property
    def close(self) -> list[ClosePair]:
        """The closest pairs, the closest first."""
        found = []
        for k, (i, j) in enumerate(self.arrays["close"].tolist()):
            profiles = {axis: self.arrays[f"close-{axis}"][k] for axis in AXES}
            images = self.arrays["close-images"][k] if "close-images" in self.arrays else None
            closeness, similarity = self.arrays["close-values"][k].tolist()
            found.append(ClosePair((i, j), closeness, similarity, profiles, images))
        return found


def findings_of(
    showers: Showers, chosen: SupportSizeSettings, seed: int, limits: Sequence[Limits] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sample's findings.

    Arguments:
        seed: Of random pairs.
        limits: At each alpha; None: those of this sample itself, which are then among the arrays.
    """
    profiles, device = profiles_of(showers), torch_device(chosen.device)
    table = PairTable(profiles, chosen.normalised, device)
    search = None
    if not why_no_windows(showers.detector):
        search = SimilaritySearch(showers.grid(), chosen.data_range, device)
    out: dict[str, NDArray[Any]] = {"n": np.array(len(showers))}
    if limits is None:
        similarities = None if search is None else search.of_random_pairs(chosen.limit_pairs, seed)
        limits = limits_of(table, chosen.all_alphas, similarities)
        out["limits"] = np.array([list(one.cheap.values()) for one in limits])
        if similarities is not None:
            out["limits-similarity"] = np.array([one.similarity for one in limits])
    for k, one in enumerate(limits):
        most = chosen.similar_pairs if k == 0 else max(1, chosen.similar_pairs // _SENSITIVITY_SHARE)
        for definition in DEFINITIONS:
            if definition.similarity and search is None:
                continue
            found = find_duplicates(table, one, definition, search, most)
            key = f"{definition.name}-{k}"
            out[f"{key}-n"], out[f"{key}-pairs"] = np.array(found.duplicates.n), found.duplicates.pairs
            out[f"{key}-candidates"] = np.array(found.candidates)
    closeness = table.closeness(limits[0].cheap)
    positions = _closest(closeness, table.n, chosen.drawn)
    pairs = pair_indices(positions, table.n)
    similarity = np.full(len(pairs), np.nan) if search is None else search.of(positions)
    out |= {"close": pairs, "close-values": np.stack([closeness[positions], similarity], axis=1)}
    out |= {f"close-{axis}": profiles[axis][pairs] for axis in AXES}
    if showers.detector.is_grid:
        grid = showers.take(pairs.ravel()).grid().sum(axis=3, dtype=np.float64)
        out["close-images"] = grid.reshape(len(pairs), 2, *grid.shape[1:])
    out["compared"] = np.array(0 if search is None else search.count)
    return out


def _closest(closeness: NDArray[np.float64], n: int, count: int) -> NDArray[np.int64]:
    """Return the positions of the closest pairs of ``n`` showers, no shower in two of them."""
    near = min(len(closeness), 50 * count)
    order = np.argpartition(closeness, near - 1)[:near]
    chosen: list[int] = []
    seen: set[int] = set()
    for position in order[np.argsort(closeness[order])].tolist():
        pair = set(pair_indices(np.array([position]), n)[0].tolist())
        if len(chosen) < count and not pair & seen:
            chosen.append(position)
            seen |= pair
    return np.array(chosen, np.int64)


def limits_from(reference: Findings, alphas: Sequence[float]) -> list[Limits]:
    """Return the limits that were found in the reference."""
    cheap, similar = reference.arrays["limits"].tolist(), reference.arrays.get("limits-similarity")
    return [
        Limits(
            alpha,
            dict(zip((*AXES, "energy"), cheap[k], strict=True)),
            None if similar is None else float(similar[k]),
        )
        for k, alpha in enumerate(alphas)
    ]
