"""One read of each sample of a comparison: everything that needs cells is computed while the chunks pass by.

The consumers of the pass (:func:`~caloforge.validate.observables.streaming.stream`) are the hash of the file, the identities
of the reference's showers, the observables and statistics of every cell, the histograms of the cells, the cells that
classifiers and distances need, and the reconstruction. Memory is that of two chunks, of the table of observables and of the
cells kept, sparse where that is smaller. Two reads of a few showers are left: the first thousand of the reference where a MIP
peak has to be found before the pass, and the event display's shower in a sample larger than what is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.progress import progress
from caloforge.showers.hdf5 import SEEN_SEEDS
from caloforge.showers.identity import hash_showers
from caloforge.showers.seen import SeenCheck, SeenCount
from caloforge.validate.inputs import Input
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.features import histograms_key
from caloforge.validate.observables.batch import ShowerBatch
from caloforge.validate.observables.spectrum import CellCounter
from caloforge.validate.observables.streaming import Consumer, ObservableColumns, stream
from caloforge.validate.reconstruction.sample import AfterColumns, why_not
from caloforge.validate.sample import Sample

__all__ = ["read_samples"]


_BLOCK = 1 << 20


class _FileDigest:
    """Consumer that hashes a file in step with the reading of its showers, so that both find it in the system's cache."""

    def __init__(self, path: Path, n: int) -> None:
        self._file = path.open("rb")
        self._size, self._n, self._rows, self._done = path.stat().st_size, n, 0, 0
        self._digest = hashlib.sha256()

    def add(self, batch: ShowerBatch) -> None:
        self._rows += batch.n
        self._hash(self._size * self._rows // self._n)

    def hexdigest(self) -> str:
        with self._file:
            self._hash(self._size)
        return self._digest.hexdigest()

    def _hash(self, end: int) -> None:
        while self._done < end and (block := self._file.read(_BLOCK)):
            self._digest.update(block)
            self._done += len(block)


class _Identities:
    """Consumer that computes the identities of the showers."""

    def __init__(self) -> None:
        self.parts: list[NDArray[np.uint64]] = []

    def add(self, batch: ShowerBatch) -> None:
        self.parts.append(hash_showers(batch.showers.cells, batch.showers.incident_energy))


def read_samples(
    inputs: Sequence[Input], samples: Sequence[Sample], settings: Settings, allow_seen: bool = False
) -> dict[str, SeenCount]:
    """Read every sample once, so that its metrics and figures need its file no more; fill in the hashes of the inputs.

    Arguments:
        inputs: The reference first.
        samples: The showers of each that are compared.
        settings: Sizes, seed and threshold.
        allow_seen: Accept reference showers that were used to train or select a model.

    Returns:
        How many reference showers each model has seen, by label, where it is known.

    Raises:
        SeenShowersError: When a model was trained or selected on reference showers, unless ``allow_seen``; before
            the generated samples are read.
        InputError: When a cell is NaN, infinite or negative.
    """
    reference, *generated = samples
    identities = _Identities()
    models = [sample.source for sample in generated]
    asked = any(len(model.seen) or model.attributes.get(SEEN_SEEDS) for model in models)
    _read(inputs[0], reference, reference, settings, [identities] if asked else [])
    known = [np.concatenate(identities.parts)] if asked else ()
    labelled = [(sample.label, sample.source) for sample in generated]
    seen = SeenCheck([reference.source], known).require_unseen(labelled, allow_seen)
    for entry, sample in zip(inputs[1:], generated, strict=True):
        _read(entry, reference, sample, settings)
    return seen


def _read(
    entry: Input, reference: Sample, sample: Sample, settings: Settings, more: Sequence[Consumer] = ()
) -> None:
    """Read one sample once, and keep the results where metrics and figures look for them."""
    observables = ObservableColumns(sample.detector, sample.n, threshold=sample.threshold, cut=sample.cut)
    kept = sample.keep(min(sample.n, settings.showers_a_side(sample.detector.n_cells)), settings.seed)
    counters = {}
    for n_max, seed in ((10_000, 0), (settings.n_max, settings.seed)):  # of the figures and of the metrics
        rows = None if sample.n <= n_max else sample.choose(n_max, seed)
        counters[histograms_key(sample, n_max, seed)] = CellCounter(sample.detector, sample.threshold, rows)
    consumers: list[Consumer] = [observables, kept, *counters.values(), *more]
    after = None
    if not why_not(sample.detector, settings.reconstruction):
        after = AfterColumns.of(reference, sample)
    digest = None if entry.path is None else _FileDigest(entry.path, sample.n)
    consumers += [consumer for consumer in (after, digest) if consumer is not None]
    with progress(sample.n, sample.label) as advance:
        stream(sample, consumers, sample.threshold, sample.cut, advance=advance)
    sample.observables = observables.table()
    sample.memo |= {key: counter.result() for key, counter in counters.items()}
    if after is not None:
        after.finish()
    if digest is not None:
        entry.sha256 = digest.hexdigest()
