"""The duplicates of one sample at each alpha, and its closest pairs.

What the study finds in one sample: its duplicates at each alpha, and its closest pairs.

:class:`Findings` is made of plain arrays, so that it is kept under the output folder and found again. Everything
that is quick follows from it: rates, curves, support sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.showers import Showers, ShowerSource
from caloforge.showers.views import Selection
from caloforge.studies.base import Context
from caloforge.studies.support_size.birthday import Duplicates
from caloforge.studies.support_size.criteria import (
    DEFINITIONS,
    Limits,
    PairTable,
    Profiles,
    limits_of,
    pair_indices,
    profiles_of,
)
from caloforge.studies.support_size.search import (
    SimilaritySearch,
    find_duplicates,
    random_similarities,
    why_no_windows,
)
from caloforge.units import AngleSpec, EnergySpec

__all__ = [
    "ClosePair",
    "Findings",
    "Options",
    "findings_of",
    "limits_from",
    "reference_name",
    "torch_device",
    "within",
]


_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


def within(source: ShowerSource, energy: str = "", theta: str = "") -> ShowerSource:
    """Return the showers of a source within windows of energy and angle, read when they are needed.

    Arguments:
        source: The showers.
        energy: Such as ``97.5-102.5GeV``; empty: all.
        theta: Such as ``87.5-92.5``; empty: all.

    Raises:
        UnitError: When a window is not understood.
    """
    keep: NDArray[np.bool_] = np.ones(len(source), dtype=bool)
    if energy:
        wanted = EnergySpec.parse(energy)
        keep &= (source.incident_energy >= wanted.low) & (source.incident_energy <= wanted.high)
    if theta:
        angles = AngleSpec.parse(theta)
        keep &= (source.incident_theta >= angles.low) & (source.incident_theta <= angles.high)
    return source if keep.all() else Selection(source, np.flatnonzero(keep))


def reference_name(context: Context) -> str:
    """Return what tables and figures call the trusted showers."""
    return _NAMES.get(context.reference.source, context.references[0].label)


def torch_device(name: str) -> str:
    """Return the name of a torch device; ``auto`` takes a GPU when there is one."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


_SENSITIVITY_SHARE = 5  # pairs compared for another alpha, as a part of those for the chosen one


@dataclass(frozen=True)
class Options:
    """How duplicates are looked for.

    Attributes:
        alphas: Quantiles, the chosen one first.
        normalised: Compare profiles of unit sum.
        data_range: L of the structural similarity, GeV.
        limit_pairs: Random pairs behind the limit of the similarity.
        similar_pairs: Most pairs of a sample compared cell by cell.
        drawn: Closest pairs kept.
        seed: Of the random pairs.
        device: Where to compute.
    """

    alphas: tuple[float, ...]
    normalised: bool
    data_range: float
    limit_pairs: int
    similar_pairs: int
    drawn: int
    seed: int
    device: str


@dataclass(frozen=True, eq=False)
class ClosePair:
    """Two showers that lie close together.

    Attributes:
        showers: Their positions in the sample.
        closeness: Largest cheap criterion in units of its limit: at most 1 for a duplicate.
        similarity: Their structural similarity; NaN where it does not apply.
        profiles: Axis to the two profiles (2, K), MeV.
        images: (2, nx, ny) energies summed over the layers, MeV; None for detectors without a grid.
    """

    showers: tuple[int, int]
    closeness: float
    similarity: float
    profiles: Mapping[str, NDArray[np.float64]]
    images: NDArray[np.float64] | None


class Findings:
    """What was found in a sample, over plain arrays.

    Arguments:
        arrays: As :func:`findings_of` returns them.
    """

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

    def candidates(self, definition: str, alpha: int = 0) -> int:
        """Return how many pairs passed the cheap criteria among the showers used."""
        return int(self.arrays[f"{definition}-{alpha}-candidates"])

    def similarity(self, definition: str, alpha: int = 0) -> NDArray[np.float64]:
        """Return the structural similarities (T,) of the duplicates."""
        return self.arrays[f"{definition}-{alpha}-similarity"]

    @property
    def close(self) -> list[ClosePair]:
        """The closest pairs, the closest first."""
        found = []
        for k, (i, j) in enumerate(self.arrays["close"].tolist()):
            profiles = {axis: self.arrays[f"close-{axis}"][k] for axis in ("x", "y", "z")}
            images = self.arrays["close-images"][k] if "close-images" in self.arrays else None
            closeness, similarity = self.arrays["close-values"][k].tolist()
            found.append(ClosePair((i, j), closeness, similarity, profiles, images))
        return found


def findings_of(
    showers: Showers, options: Options, limits: Sequence[Limits] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sample's findings.

    Arguments:
        showers: The sample.
        options: How to look.
        limits: At each alpha; None: those of this sample itself, which are then among the arrays.
    """
    profiles = profiles_of(showers)
    table = PairTable(profiles, options.normalised, options.device)
    search = None
    if not why_no_windows(showers.detector):
        search = SimilaritySearch(showers.grid(), options.data_range, options.device)
    out: dict[str, NDArray[Any]] = {"n": np.array(len(showers))}
    if limits is None:
        similarities = (
            None if search is None else random_similarities(search, options.limit_pairs, options.seed)
        )
        limits = limits_of(table, options.alphas, similarities)
        out["limits"] = np.array([list(one.cheap.values()) for one in limits])
        if similarities is not None:
            out["limits-similarity"] = np.array([one.similarity for one in limits])
            out["similarities"] = similarities
    for k, one in enumerate(limits):
        most = options.similar_pairs if k == 0 else max(1, options.similar_pairs // _SENSITIVITY_SHARE)
        for definition in DEFINITIONS:
            if definition.similarity and search is None:
                continue
            found = find_duplicates(table, one, definition, search, most)
            key = f"{definition.name}-{k}"
            out[f"{key}-n"], out[f"{key}-pairs"] = np.array(found.duplicates.n), found.duplicates.pairs
            out[f"{key}-candidates"] = np.array(found.candidates)
            if found.similarity is not None:
                out[f"{key}-similarity"] = found.similarity
    out |= _closest(showers, profiles, table, search, limits[0], options.drawn)
    out["compared"] = np.array(0 if search is None else search.count)
    return out


def limits_from(reference: Findings, alphas: Sequence[float]) -> list[Limits]:
    """Return the limits that were found in the reference."""
    cheap = reference.arrays["limits"].tolist()
    similar = reference.arrays.get("limits-similarity")
    return [
        Limits(
            alpha,
            dict(zip(("x", "y", "z", "energy"), cheap[k], strict=True)),
            None if similar is None else float(similar[k]),
        )
        for k, alpha in enumerate(alphas)
    ]


def _closest(
    showers: Showers,
    profiles: Profiles,
    table: PairTable,
    search: SimilaritySearch | None,
    limits: Limits,
    count: int,
) -> dict[str, NDArray[Any]]:
    """Return the pairs whose largest cheap criterion is smallest, no shower in two of them."""
    closeness = table.closeness(np.arange(len(table)), limits.cheap)
    near = min(len(closeness), 50 * count)
    order = np.argpartition(closeness, near - 1)[:near]
    chosen: list[int] = []
    seen: set[int] = set()
    for position in order[np.argsort(closeness[order])].tolist():
        pair = set(pair_indices(np.array([position]), table.n)[0].tolist())
        if len(chosen) < count and not pair & seen:
            chosen.append(position)
            seen |= pair
    positions = np.array(chosen, np.int64)
    pairs = pair_indices(positions, table.n)
    similarity = np.full(len(pairs), np.nan) if search is None else search.of(positions)
    out: dict[str, NDArray[Any]] = {
        "close": pairs,
        "close-values": np.stack([closeness[positions], similarity], axis=1),
    }
    out |= {f"close-{axis}": getattr(profiles, axis)[pairs] for axis in ("x", "y", "z")}
    if showers.detector.is_grid:
        grid = showers.take(pairs.ravel()).grid().sum(axis=3, dtype=np.float64)
        out["close-images"] = grid.reshape(len(pairs), 2, *grid.shape[1:])
    return out
