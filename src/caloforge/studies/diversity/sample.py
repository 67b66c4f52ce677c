"""What the study measures in one sample, as plain arrays that the cache keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.errors import TooFewShowersError
from caloforge.settings import torch_device
from caloforge.showers import Showers
from caloforge.statistics.feature_distances import PRDC
from caloforge.statistics.pairs import Neighbours
from caloforge.studies.base import WindowSettings
from caloforge.studies.diversity.distances import (
    Memory,
    Similarities,
    fingerprints,
    memory_of,
    similarities_between,
    similarities_within,
)
from caloforge.studies.support_size.duplicates import why_no_windows
from caloforge.validate.metrics.base import Settings, Value
from caloforge.validate.metrics.distances import PrecisionRecall
from caloforge.validate.metrics.shapes import DATA_RANGE
from caloforge.validate.sample import Sample

__all__ = ["LEAST", "DiversitySettings", "Known", "Measured", "known_showers", "measure"]

LEAST = 20
"""Fewest showers of a sample, and of each part when memory is measured."""
_FIELDS = ("value", "uncertainty", "floor", "floor_uncertainty")


class DiversitySettings(WindowSettings):
    """Settings of the study, beside the windows of energy and angle.

    Arguments:
        showers: Showers of each sample at most; they are kept in memory.
        training: File of the showers that the generators were trained on; empty: memory is not measured.
        pairs: Pairs of showers behind each mean similarity.
        data_range: L of the numbers in the table, GeV.
        data_ranges: Further L, for the figures, GeV.
        threshold: Cells below it are taken as equal by distances, MeV.
        neighbours: k of precision, recall, density and coverage.
        drawn: Showers nearest to the training set that are drawn.
    """

    showers: Annotated[int, Field(ge=LEAST)] = 2000
    training: str = ""
    pairs: Annotated[int, Field(ge=2)] = 1000
    data_range: Annotated[float, Field(gt=0)] = DATA_RANGE
    data_ranges: tuple[Annotated[float, Field(gt=0)], ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    threshold: Annotated[float, Field(gt=0)] = 0.1
    neighbours: Annotated[int, Field(ge=1)] = 5
    drawn: Annotated[int, Field(ge=1, le=8)] = 5


@dataclass(frozen=True, eq=False)
class Known:
    """Training showers, as many held-out ones, and further held-out ones to be judged beside the generator.

    Attributes:
        training: (m, n_cells) MeV.
        held_out: (m, n_cells) MeV.
        others: (m, n_cells) MeV, in neither.
        marks: Fingerprints of the whole training set.
        shared: Reference showers that were left out since they are training showers.
    """

    training: NDArray[np.float32]
    held_out: NDArray[np.float32]
    others: NDArray[np.float32]
    marks: Collection[bytes]
    shared: int


def known_showers(training: Showers, marks: Collection[bytes], reference: Showers) -> Known:
    """Return the sets that memory is measured with.

    Reference showers that are training showers, cell by cell, are left out; the others are divided into two halves.

    Arguments:
        training: Training showers, as many as are to be compared at most.
        marks: Fingerprints of the whole training set.
        reference: Reference showers.

    Raises:
        TooFewShowersError: When too few reference showers are left.
    """
    fresh = np.array([mark not in marks for mark in fingerprints(reference.cells)], dtype=bool)
    left = np.flatnonzero(fresh)
    size = min(len(training), len(left) // 2)
    if size < LEAST:
        msg = (
            f"memory: of {len(reference)} reference showers {len(left)} are not training showers, and there are "
            f"{len(training)} training showers; expected at least {2 * LEAST} and {LEAST}"
        )
        raise TooFewShowersError(msg)
    first, second = (reference.cells[left[k : 2 * size : 2]] for k in (0, 1))
    return Known(training.cells[:size], first, second, marks, len(fresh) - len(left))


class Measured:
    """What was measured of a sample, over plain arrays.

    Arguments:
        arrays: As :func:`measure` returns them.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.n = int(arrays["n"])
        self.shared = int(arrays.get("shared", 0))  # reference showers that are training showers
        self.drawn = arrays.get("drawn")  # nearest to the training set, with neighbours (K, 2, nx, ny), MeV

    def similarities(self, name: str) -> Similarities | None:
        """Return the similarities of pairs "within" the sample or "between" it and the reference, if known."""
        if f"likeness-{name}" not in self.arrays:
            return None
        return Similarities(tuple(self.arrays["data_ranges"].tolist()), self.arrays[f"likeness-{name}"])

    @property
    def memory(self) -> Memory | None:
        """Distances to training and held-out showers, where the training set is known."""
        found = self.arrays
        if "copies" not in found:
            return None
        parts = [
            Neighbours(found[f"{name}-distance"], found[f"{name}-index"]) for name in ("training", "held")
        ]
        return Memory(parts[0], parts[1], int(found["known"]), int(found["copies"]))

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
            for name, (value, error, floor, spread) in zip(PRDC, rows, strict=True)
        }


def measure(
    showers: Showers, reference: Showers | None, chosen: DiversitySettings, seed: int, known: Known | None
) -> dict[str, NDArray[Any]]:
    """Measure a sample.

    Arguments:
        showers: The sample.
        reference: Reference showers; None when the sample is the reference itself.
        chosen: How to measure.
        seed: Of random pairs and bootstrap samples.
        known: Training and held-out showers, where the training set is known.

    Returns:
        Plain arrays for :class:`Measured`.
    """
    ranges, device = tuple(sorted({*chosen.data_ranges, chosen.data_range})), torch_device(chosen.device)
    out: dict[str, NDArray[Any]] = {"n": np.array(len(showers)), "data_ranges": np.array(ranges)}
    pairs = (chosen.pairs, ranges, seed, device)
    if not why_no_windows(showers.detector):
        out["likeness-within"] = similarities_within(showers, *pairs).values
        if reference is not None:
            out["likeness-between"] = similarities_between(reference, showers, *pairs).values
    if reference is not None and min(len(showers), len(reference)) > PrecisionRecall.minimum:
        settings = Settings(
            seed=seed,
            threshold=chosen.threshold,
            neighbours=chosen.neighbours,
            device=device,
            n_max=max(len(showers), len(reference)),
            max_bytes=1 << 40,
        )
        samples = Sample(reference, "reference"), Sample(showers, "generated")
        values = PrecisionRecall().compute(*samples, settings)
        numbers = [[getattr(values[name], field) for field in _FIELDS] for name in PRDC]
        out["prdc"] = np.array(numbers, np.float64)  # None becomes NaN
    if known is not None:
        judged = known.others if reference is None else showers.cells
        threshold = chosen.threshold
        memory = memory_of(judged, known.training, known.held_out, known.marks, threshold, device)
        out |= {
            "copies": np.array(memory.copies),
            "known": np.array(memory.known),
            "shared": np.array(known.shared),
            "training-distance": memory.to_training.distance,
            "training-index": memory.to_training.index,
            "held-distance": memory.to_held_out.distance,
            "held-index": memory.to_held_out.index,
        }
        if reference is not None and showers.detector.is_grid:
            rows = np.argsort(memory.to_training.distance, kind="stable")[: chosen.drawn]
            images = np.stack([judged[rows], known.training[memory.to_training.index[rows]]], axis=1)
            grid = images.reshape(len(rows), 2, *showers.detector.shape)
            out["drawn"] = np.asarray(grid.sum(axis=4, dtype=np.float64))
    return out
