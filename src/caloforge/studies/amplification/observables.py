r"""The observables of the amplification study, collected in one stream: only they are kept, no cells.

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

from caloforge.geometry import Detector, get_detector, project
from caloforge.progress import progress
from caloforge.random import child_seed
from caloforge.showers import Showers, ShowerSource
from caloforge.studies.base import Context
from caloforge.studies.page import paper
from caloforge.studies.sources import SIMULATIONS, Source
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.streaming import batches

__all__ = [
    "QUANTITIES",
    "Observed",
    "Quantity",
    "collect",
    "collect_truth",
    "count_text",
    "image_detector",
    "observe_chunks",
    "truth_name",
]

_THRESHOLD = 0.1  # cells at or below it are empty, MeV
_PIXEL_THRESHOLD = 5.0  # cells above it are entries of E_pixel, MeV
BLOCK = 20_000
"""Generated showers that are observed at a time and kept in the cache together."""
_COLUMNS = ("visible_energy", "peak_energy", "centre_x", "centre_y")


@dataclass(frozen=True)
class Quantity:
    """An observable, or several together.

    Arguments:
        name: Name in ``study.json`` and, after ``factor_``, in ``papers.toml``.
        label: What figures call it.
        columns: Columns of :class:`Observed` that it is made of; none for the energies of single cells.
    """

    name: str
    label: str
    columns: tuple[int, ...]

    def of(self, observed: Observed) -> NDArray[np.float64]:
        """Return its values (n,) or (n, d), or for single cells (pixels,)."""
        return observed.values[:, self.columns] if self.columns else observed.pixels.astype(np.float64)

    @property
    def text(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ")


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


@dataclass(frozen=True, eq=False)
class Observed:
    """The observables of n showers.

    Arguments:
        values: (n, 4) visible and peak energy (MeV), centres in x and y (mm).
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
        order, counts = rng.permutation(len(self)), self.counts
        begins = np.cumsum(np.append(0, counts[order]))[:-1]
        places = np.repeat(self.starts[order] - begins, counts[order]) + np.arange(len(self.pixels))
        return Observed(self.values[order], self.pixels[places], counts[order])

    @classmethod
    def join(cls, parts: Sequence[Observed]) -> Observed:
        """Return all showers, in order."""
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )


def image_detector(detector: Detector) -> Detector:
    """Return the detector in which showers are compared: the 10 x 10 images for ``ild-ecal``, else their own."""
    return get_detector("ild-ecal-10x10") if detector.name == "ild-ecal" else detector


def observe_chunks(chunks: Iterable[Showers]) -> Observed:
    """Observe showers, projected to images where there are some, one chunk at a time."""
    parts = [Observed(np.zeros((0, len(_COLUMNS))), np.zeros(0, np.float32), np.zeros(0, np.int64))]
    columns = [OBSERVABLES[name] for name in _COLUMNS]
    for batch in batches((_projected(chunk) for chunk in chunks), _THRESHOLD, _THRESHOLD):
        values = np.stack([np.nan_to_num(np.asarray(entry.compute(batch))) for entry in columns], axis=1)
        high = batch.energy > _PIXEL_THRESHOLD
        counts = np.bincount(batch.shower[high], minlength=batch.n)
        parts.append(Observed(values, batch.energy[high].astype(np.float32), counts))
    return Observed.join(parts)


def _projected(chunk: Showers) -> Showers:
    image = image_detector(chunk.detector)
    if chunk.detector == image:
        return chunk
    return chunk.replace(detector=image, cells=project(chunk.cells, chunk.detector, image))


def collect(context: Context, source: Source, n: int, like: ShowerSource | None = None) -> Observed:
    """Return the observables of the first ``n`` showers of a source, a block at a time from the cache.

    Every block of a model has its own seed, so that an interrupted study continues with the first block that is missing.

    Arguments:
        context: The study's context.
        source: A file or a model.
        n: How many showers at most.
        like: Showers whose conditions a model takes; by default those of the first reference file.
    """
    total = source.size(n)
    block = BLOCK if source.generator is not None else total
    like = context.reference_parts[0] if like is None else like
    parts = []
    with progress(total, f"observe {source.label}") as advance:
        for number, first in enumerate(range(0, total, block)):
            size = min(block, total - first)

            def compute(size: int = size, number: int = number) -> dict[str, NDArray[np.generic]]:
                chunks = source.chunks(size, like, child_seed(context.seed, "amplification", number))
                seen = observe_chunks(chunks)
                return {"values": seen.values, "pixels": seen.pixels, "counts": seen.counts.astype(np.uint16)}

            name = f"observed-{source.sha256[:12]}-{number}"
            arrays = context.cache.get(name, compute, source.sha256, size, number)
            parts.append(Observed(arrays["values"], arrays["pixels"], arrays["counts"].astype(np.int64)))
            advance(size)
    return Observed.join(parts)


def collect_truth(context: Context) -> Observed:
    """Return the observables of all reference showers, file after file."""
    files = zip(context.references, context.reference_parts, strict=True)
    return Observed.join([collect(context, source, len(showers), showers) for source, showers in files])


def truth_name(context: Context) -> str:
    """Return the simulation that made the reference showers, for figures; "truth" where files disagree or do not say it."""
    names = {showers.source for showers in context.reference_parts if showers.source}
    return SIMULATIONS.get(names.pop(), "truth") if len(names) == 1 else "truth"


def count_text(context: Context) -> str:
    """Return how many reference showers there are, beside the paper's number."""
    published = paper("amplification.truth").value
    return f"{context.n_reference:,} {truth_name(context)} showers (paper: {published:,.0f})"
