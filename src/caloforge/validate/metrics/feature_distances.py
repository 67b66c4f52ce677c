"""Frechet and kernel physics distance of the high-level features; precision, recall, density and coverage of the cells.

See :mod:`caloforge.statistics.feature_distances`. Features are divided by the largest absolute value of each in the reference. Draws
with replacement from finite samples leave a bias of the order of 1/n in both distances, which the floor shows.

Precision, recall, density and coverage are of log10 of the cell energies, cut below at the threshold. The error is the standard deviation
over a bootstrap of the showers that are counted, the balls fixed, and at least one shower (no variation is left where all or none
count). All four depend on the samples' sizes, so that value and floor have the same ones: h showers of the reference against h
generated ones, and against h other ones of the reference, where h is at most half of the reference, the generated sample, or
5,000 (``size`` in the detail).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.feature_distances import (
    FEWEST_FPD,
    FEWEST_KPD,
    PRDC,
    Neighbourhoods,
    fpd,
    kpd,
    normalise,
)
from caloforge.statistics.resampling import Floor, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import cell_pair, high_level_pair, log_cells

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["FrechetPhysicsDistance", "KernelPhysicsDistance", "PrecisionRecall"]

_FPD_FLOORS, _FPD_FLOOR_DRAWS = 3, 7  # pairs of halves and draws of each: together as much work as one value
_KPD_FLOOR_BATCHES = 2  # for each pair of halves
_PRDC_MOST = 5000  # showers a side: distances between all pairs


def _floor(found: list[tuple[float, float]], n: int, m: int, size: int) -> Floor:
    """Return the floor from repeated (distance, error) between sets of ``size`` showers; the error counts when there is one."""
    alone = found[0][1] if len(found) == 1 else None
    return floor_at(np.array([value for value, _ in found]), n, m, degree=2, size=size, uncertainty=alone)


class FrechetPhysicsDistance(Metric):
    """Frechet physics distance of the high-level features."""

    name: ClassVar[str] = "fpd"
    keys: ClassVar[tuple[Key, ...]] = (Key("fpd", "Frechet physics distance", 0.0),)
    minimum: ClassVar[int] = FEWEST_FPD

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance of equally many showers; the floor is that of sets of the reference.

        The fit over sizes depends on the smaller sample, so that the larger one is cut to it. Sets of the reference are
        as large, or its halves where it has not twice as many, and then scaled to the size.
        """
        pair = high_level_pair(reference, generated, seed=settings.seed)
        whole = normalise(pair.reference, pair.generated)
        size = min(map(len, whole))
        a, b = (
            x if len(x) == size else x[generator(settings.seed, "fpd subset").permutation(len(x))[:size]]
            for x in whole
        )
        value, error = fpd(a, b, settings.seed)
        x, below = whole[0], Floor()
        n, part = len(x), min(len(x) // 2, size)
        if part >= FEWEST_FPD:
            found = []
            for index in range(min(_FPD_FLOORS, settings.n_halves)):
                order = generator(settings.seed, "fpd parts", index).permutation(n)
                sets = x[order[:part]], x[order[n // 2 :][:part]]
                found.append(fpd(*sets, settings.seed, _FPD_FLOOR_DRAWS))
            below = _floor(found, size, size, part)
        return {"fpd": Value.with_floor(value, error, below, features=a.shape[1], size=size, **pair.counts)}


class KernelPhysicsDistance(Metric):
    """Kernel physics distance of the high-level features."""

    name: ClassVar[str] = "kpd"
    keys: ClassVar[tuple[Key, ...]] = (Key("kpd", "Kernel physics distance", 0.0),)
    minimum: ClassVar[int] = FEWEST_KPD

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance; the floor is that of halves of the reference, at the samples' sizes."""
        pair = high_level_pair(reference, generated, seed=settings.seed)
        a, b = normalise(pair.reference, pair.generated)
        value, error = kpd(a, b, settings.seed)
        below = Floor()
        if len(a) >= 2 * FEWEST_KPD:
            splits = [halves(len(a), index, settings.seed) for index in range(settings.n_halves)]
            found = [kpd(a[x], a[y], settings.seed, _KPD_FLOOR_BATCHES) for x, y in splits]
            below = _floor(found, len(a), len(b), len(a) // 2)
        return {"kpd": Value.with_floor(value, error, below, features=a.shape[1], **pair.counts)}


class PrecisionRecall(Metric):
    """Precision, recall, density and coverage of log10 cell energies."""

    name: ClassVar[str] = "prdc"
    keys: ClassVar[tuple[Key, ...]] = tuple(Key(name, name.capitalize(), 1.0) for name in PRDC)
    minimum: ClassVar[int] = 12

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the four figures."""
        pair = cell_pair(reference, generated, settings, n_max=2 * _PRDC_MOST)
        n, m = len(pair.reference), len(pair.generated)
        size = min(n // 2, m, _PRDC_MOST)
        rng = generator(settings.seed, "prdc")
        rows, chosen = rng.permutation(n), rng.permutation(m)[:size]
        largest = [cells.max(axis=0, initial=0.0) for cells in (pair.reference, pair.generated)]
        used = np.flatnonzero(np.maximum(*largest) > settings.threshold)  # the others are 0 in every shower

        def logs(cells: NDArray[np.float32], some: NDArray[np.int64]) -> NDArray[np.float32]:
            return log_cells(cells[np.ix_(some, used)], settings.threshold)

        first, second = (logs(pair.reference, part) for part in (rows[:size], rows[size : 2 * size]))
        balls = Neighbourhoods(first, settings.neighbours, settings.torch_device())
        members = balls.members(logs(pair.generated, chosen)), balls.members(second)
        out: dict[str, Entry] = {}
        for name in PRDC:
            rng = generator(settings.seed, f"prdc/{name}")
            draws = rng.integers(0, size, (settings.n_bootstrap, size))
            found, below = (
                (float(x.mean()), max(spread(x[draws].mean(axis=1)), 1.0 / size))
                for x in (side[name] for side in members)
            )
            out[name] = Value(*found, *below, {"k": settings.neighbours, "size": size})
        return out
