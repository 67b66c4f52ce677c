r"""The observables of the amplification study, collected in one stream.

The observables of the amplification study, collected in one stream: only they are kept, no cells.

Of a shower with cells e_i > 0.1 MeV at (x_i, y_i): visible energy E_vis = sum e_i, peak energy E_peak = max e_i, the
energies E_pixel of single cells above 5 MeV, and the centres of gravity CG_x = sum x_i e_i / sum e_i and CG_y. A
shower without such cells counts with zeros. ``ild-ecal`` showers are summed along the beam and pooled to 10 x 10.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, get_detector
from caloforge.geometry.projection import project
from caloforge.progress import progress
from caloforge.random import child_seed
from caloforge.showers import Showers, ShowerSource
from caloforge.studies.base import Cache, Context
from caloforge.studies.papers import paper
from caloforge.studies.sources import Source
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.streaming import batches

__all__ = [
    "COLUMNS",
    "QUANTITIES",
    "Observed",
    "Quantity",
    "collect",
    "collect_truth",
    "common_detector",
    "counted",
    "made_by",
    "observe_chunks",
]


THRESHOLD = 0.1
"""Cells at or below it are empty, MeV."""
PIXEL_THRESHOLD = 5.0
"""Cells above it are entries of E_pixel, MeV."""
BLOCK = 20_000
"""Generated showers that are observed at a time and kept in the cache together."""

COLUMNS = ("visible_energy", "peak_energy", "centre_x", "centre_y")


@dataclass(frozen=True)
class Quantity:
    """An observable, or several that are looked at together.

    Arguments:
        name: Name in ``study.json`` and, after ``factor_``, in ``papers.toml``.
        label: What figures call it.
        columns: Which of :data:`COLUMNS` it is made of; none for the energies of single cells.
    """

    name: str
    label: str
    columns: tuple[int, ...]

    def of(self, observed: Observed) -> NDArray[np.float64]:
        """Return its values (n,) or (n, d), or for single cells (pixels,)."""
        return observed.values[:, self.columns] if self.columns else observed.pixels.astype(np.float64)


QUANTITIES = (
    Quantity("visible_energy", "$E_{vis}$", (0,)),
    Quantity("peak_energy", "$E_{peak}$", (1,)),
    Quantity("pixel_energy", "$E_{pixel}$", ()),
    Quantity("centre_x", "$CG_x$", (2,)),
    Quantity("centre_y", "$CG_y$", (3,)),
    Quantity("energies", "($E_{vis}$, $E_{peak}$)", (0, 1)),
    Quantity("centres", "($CG_x$, $CG_y$)", (2, 3)),
    Quantity("all", "($E_{vis}$, $E_{peak}$, $CG_x$, $CG_y$)", (0, 1, 2, 3)),
)


@dataclass(frozen=True)
class Observed:
    """The observables of n showers.

    Arguments:
        values: (n, 4) in the order of :data:`COLUMNS`; MeV, MeV, mm, mm.
        pixels: Energies of all cells above 5 MeV, shower after shower, MeV, float32.
        counts: (n,) number of such cells of each shower.
    """

    values: NDArray[np.float64]
    pixels: NDArray[np.float32]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each shower's cells begin in :attr:`pixels`, (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def part(self, first: int, last: int) -> Observed:
        """Return the showers from ``first`` up to and without ``last``."""
        starts = self.starts
        pixels = self.pixels[starts[first] : starts[min(last, len(self))]]
        return Observed(self.values[first:last], pixels, self.counts[first:last])

    def shuffled(self, rng: np.random.Generator) -> Observed:
        """Return the showers in random order."""
        order, starts = rng.permutation(len(self)), self.starts
        places = np.repeat(
            starts[order] - np.cumsum(np.append(0, self.counts[order]))[:-1], self.counts[order]
        )
        return Observed(
            self.values[order], self.pixels[places + np.arange(len(self.pixels))], self.counts[order]
        )

    @classmethod
    def join(cls, parts: Sequence[Observed]) -> Observed:
        """Return all showers, in order."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )


def common_detector(detectors: Sequence[Detector]) -> Detector:
    """Return the detector in which samples are compared: the 10 x 10 images where there are ``ild-ecal`` showers.

    Raises:
        IncompatibleError: When the samples have different detectors that do not project to one.
    """
    image = get_detector("ild-ecal-10x10")
    if all(detector.name in ("ild-ecal", image.name) for detector in detectors):
        return image
    for detector in detectors[1:]:
        if detector != detectors[0]:
            msg = f"'{detector.name}' and '{detectors[0].name}' showers cannot be compared; expected one detector"
            raise IncompatibleError(msg)
    return detectors[0]


def observe_chunks(chunks: Iterable[Showers], detector: Detector) -> Observed:
    """Observe showers as they come.

    Arguments:
        chunks: Showers of the detector, or ones that are projected to it.
        detector: The detector in which they are compared.
    """
    parts = [Observed(np.zeros((0, len(COLUMNS))), np.zeros(0, np.float32), np.zeros(0, np.int64))]
    columns = [OBSERVABLES[name] for name in COLUMNS]
    for batch in batches((_projected(chunk, detector) for chunk in chunks), THRESHOLD, THRESHOLD):
        values = np.stack([np.nan_to_num(np.asarray(entry.compute(batch))) for entry in columns], axis=1)
        high = batch.energy > PIXEL_THRESHOLD
        counts = np.bincount(batch.shower[high], minlength=batch.n)
        parts.append(Observed(values, batch.energy[high].astype(np.float32), counts))
    return Observed.join(parts)


def _projected(chunk: Showers, detector: Detector) -> Showers:
    if chunk.detector == detector:
        return chunk
    return chunk.replace(detector=detector, cells=project(chunk.cells, chunk.detector, detector))


def collect(
    source: Source, n: int, like: ShowerSource, detector: Detector, seed: int, cache: Cache
) -> Observed:
    """Return the observables of the first ``n`` showers of a source, a block at a time from the cache.

    Every block of a model has a seed of its own, so that a stopped study goes on with the first block that is
    missing.

    Arguments:
        source: A file or a model.
        n: How many showers at most.
        like: Whose conditions a model takes.
        detector: The detector in which samples are compared.
        seed: Seed of a model.
        cache: Where blocks are kept.
    """
    total = source.size(n)
    block = BLOCK if source.generator is not None else total
    parts = []
    with progress(total, f"observe {source.label}") as advance:
        for number, first in enumerate(range(0, total, block)):
            size = min(block, total - first)

            def compute(size: int = size, number: int = number) -> dict[str, NDArray[np.generic]]:
                chunks = source.chunks(size, like, child_seed(seed, "amplification", number))
                seen = observe_chunks(chunks, detector)
                return {"values": seen.values, "pixels": seen.pixels, "counts": seen.counts.astype(np.uint16)}

            key = [source.sha256, detector.name, size, number]
            arrays = cache.get(f"observed-{source.sha256[:12]}-{number}", compute, *key)
            parts.append(Observed(arrays["values"], arrays["pixels"], arrays["counts"].astype(np.int64)))
            advance(size)
    return Observed.join(parts)


_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


def collect_truth(context: Context) -> Observed:
    """Return the observables of all trusted showers, file after file."""
    detector = common_detector([source.detector for source in (*context.references, *context.generated)])
    parts = [
        collect(source, source.n or 0, showers, detector, context.seed, context.cache)
        for source, showers in zip(context.references, context.trusted, strict=True)
    ]
    return Observed.join(parts)


def made_by(context: Context) -> str:
    """Return what made the trusted showers, for figures; "truth" where no file says or they disagree."""
    made = {showers.source for showers in context.trusted if showers.source}
    return _NAMES.get(made.pop(), "truth") if len(made) == 1 else "truth"


def counted(context: Context) -> str:
    """Return how many trusted showers there are, beside the paper's number."""
    total = sum(source.n or 0 for source in context.references)
    return f"{total:,} {made_by(context)} showers (paper: {paper('amplification.truth').value:,.0f})"
