"""What the study measures in one generated sample, as plain arrays that are kept under the output folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.showers import Showers
from caloforge.statistics.feature_distances import PRDC as NAMES
from caloforge.studies.diversity.distances import (
    Likeness,
    Memory,
    Nearest,
    fingerprints,
    likeness_between,
    likeness_within,
    memory_of,
)
from caloforge.studies.support_size.search import why_no_windows
from caloforge.validate.metrics.base import Settings, Value
from caloforge.validate.metrics.feature_distances import PrecisionRecall
from caloforge.validate.sample import Sample

__all__ = ["Known", "Measured", "Options", "known_showers", "measure_generated", "measure_reference"]

_LEAST = 20  # showers of each part when memory is measured


@dataclass(frozen=True)
class Options:
    """How diversity is measured.

    Attributes:
        pairs: Pairs of showers behind each mean similarity.
        data_ranges: L, GeV.
        threshold: Cells below it are taken as equal by distances, MeV.
        neighbours: k of precision, recall, density and coverage.
        drawn: Showers nearest to the training set that are kept.
        seed: Of all random choices.
        device: Where to compute.
    """

    pairs: int
    data_ranges: tuple[float, ...]
    threshold: float
    neighbours: int
    drawn: int
    seed: int
    device: str


@dataclass(frozen=True, eq=False)
class Known:
    """Training showers, as many held-out ones, and further held-out ones to be judged beside the generator.

    Attributes:
        training: (m, n_cells) MeV.
        held_out: (m, n_cells) MeV.
        others: (m, n_cells) MeV, in neither.
        marks: Fingerprints of the whole training set.
        shared: Trusted showers that were left out since they are training showers.
    """

    training: NDArray[np.float32]
    held_out: NDArray[np.float32]
    others: NDArray[np.float32]
    marks: Collection[bytes]
    shared: int


def known_showers(training: Showers, marks: Collection[bytes], trusted: Showers) -> Known:
    """Return the sets that memory is measured with.

    Trusted showers that are training showers, cell by cell, are left out; the others are parted in two halves.

    Arguments:
        training: Training showers, as many as are to be compared at most.
        marks: Fingerprints of the whole training set.
        trusted: Reference showers.

    Raises:
        TooFewShowersError: When too few trusted showers are left.
    """
    fresh = np.array([mark not in marks for mark in fingerprints(trusted.cells)], dtype=bool)
    left = np.flatnonzero(fresh)
    size = min(len(training), len(left) // 2)
    if size < _LEAST:
        msg = (
            f"memory: of {len(trusted)} reference showers {len(left)} are not training showers, and there are "
            f"{len(training)} training showers; expected at least {2 * _LEAST} and {_LEAST}"
        )
        raise TooFewShowersError(msg)
    first, second = left[0 : 2 * size : 2], left[1 : 2 * size : 2]
    shared = len(fresh) - len(left)
    return Known(training.cells[:size], trusted.cells[first], trusted.cells[second], marks, shared)


class Measured:
    """What was measured of a sample, over plain arrays.

    Arguments:
        arrays: As the functions below return them.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)

    @property
    def n(self) -> int:
        """Number of showers."""
        return int(self.arrays["n"])

    def likeness(self, name: str) -> Likeness | None:
        """Return the similarities of pairs "within" the sample or "between" it and the reference, if known."""
        if f"likeness-{name}" not in self.arrays:
            return None
        return Likeness(tuple(self.arrays["data_ranges"].tolist()), self.arrays[f"likeness-{name}"])

    @property
    def memory(self) -> Memory | None:
        """Distances to training and held-out showers, if a training set was given."""
        if "copies" not in self.arrays:
            return None
        parts = [
            Nearest(self.arrays[f"{name}-distance"], self.arrays[f"{name}-index"])
            for name in ("training", "held")
        ]
        return Memory(parts[0], parts[1], int(self.arrays["known"]), int(self.arrays["copies"]))

    @property
    def shared(self) -> int:
        """Trusted showers that were training showers."""
        return int(self.arrays.get("shared", 0))

    @property
    def drawn(self) -> NDArray[np.float64] | None:
        """Showers nearest to the training set beside their neighbours (K, 2, nx, ny), MeV, summed over layers."""
        return self.arrays.get("drawn")

    @property
    def quality(self) -> dict[str, Value]:
        """Precision, recall, density and coverage with errors and floors; empty for the reference."""
        if "prdc" not in self.arrays:
            return {}
        rows = self.arrays["prdc"].tolist()
        return {
            name: Value(
                value, error, None if np.isnan(floor) else floor, None if np.isnan(spread) else spread
            )
            for name, (value, error, floor, spread) in zip(NAMES, rows, strict=True)
        }


def _memory(
    cells: NDArray[np.float32], known: Known, options: Options
) -> tuple[Memory, dict[str, NDArray[Any]]]:
    found = memory_of(cells, known.training, known.held_out, known.marks, options.threshold, options.device)
    return found, {
        "copies": np.array(found.copies),
        "known": np.array(found.known),
        "shared": np.array(known.shared),
        "training-distance": found.to_training.distance,
        "training-index": found.to_training.index,
        "held-distance": found.to_held_out.distance,
        "held-index": found.to_held_out.index,
    }


def measure_reference(showers: Showers, options: Options, known: Known | None) -> dict[str, NDArray[Any]]:
    """Return what trusted showers say of themselves: pairs of them, and their distances when there is a training set."""
    out: dict[str, NDArray[Any]] = {"n": np.array(len(showers)), "data_ranges": np.array(options.data_ranges)}
    if not why_no_windows(showers.detector):
        found = likeness_within(showers, options.pairs, options.data_ranges, options.seed, options.device)
        out["likeness-within"] = found.values
    if known is not None:
        out |= _memory(known.others, known, options)[1]
    return out


def measure_generated(
    showers: Showers, trusted: Showers, options: Options, known: Known | None
) -> dict[str, NDArray[Any]]:
    """Return what is measured of generated showers beside trusted ones."""
    out = measure_reference(showers, options, None)
    if "likeness-within" in out:
        found = likeness_between(
            trusted, showers, options.pairs, options.data_ranges, options.seed, options.device
        )
        out["likeness-between"] = found.values
    settings = Settings(
        seed=options.seed, threshold=options.threshold, neighbours=options.neighbours, device=options.device,
        n_max=max(len(showers), len(trusted)), max_bytes=1 << 40,
    )  # fmt: skip
    if min(len(showers), len(trusted)) > PrecisionRecall.minimum:
        values = PrecisionRecall().compute(
            Sample(trusted, "reference"), Sample(showers, "generated"), settings
        )
        numbers = [[getattr(values[name], field) for field in _FIELDS] for name in NAMES]
        out["prdc"] = np.array(numbers, np.float64)  # None becomes NaN
    if known is not None:
        memory, arrays = _memory(showers.cells, known, options)
        out |= arrays
        if showers.detector.is_grid:
            out["drawn"] = _nearest_images(showers, memory, known, options.drawn)
    return out


_FIELDS = ("value", "uncertainty", "floor", "floor_uncertainty")


def _nearest_images(showers: Showers, memory: Memory, known: Known, count: int) -> NDArray[np.float64]:
    """Return the showers nearest to the training set and their neighbours, summed over layers (K, 2, nx, ny)."""
    rows = np.argsort(memory.to_training.distance, kind="stable")[:count]
    neighbours = known.training[memory.to_training.index[rows]]
    pairs = np.stack([showers.cells[rows], neighbours], axis=1)
    grid = pairs.reshape(len(rows), 2, *showers.detector.shape)
    return np.asarray(grid.sum(axis=4, dtype=np.float64))
