"""The steps of a comparison: check, read each sample once, measure, draw, report, apply limits.

The consumers of the one pass over each sample (:func:`~caloforge.validate.observables.streaming.stream`) are the hash of the
file, the identities of the reference's showers, the observables and statistics of every cell, the histograms of the cells, the
cells that classifiers and distances need, and the reconstruction. Memory is that of two chunks, of the table of observables and of
the cells kept, sparse where that is smaller. Two reads of a few showers are left: the first thousand of the reference where a MIP
peak has to be found before the pass, and the event display's shower in a sample larger than what is kept.

Layout of the output folder::

    metrics.json     every number, see below
    report.html      the page for people
    figures/         the same figures as PNG and PDF
    .cache/          the finished metrics of each sample, by the hash of its inputs and settings

``metrics.json`` holds ``caloforge_version``, ``command``, ``settings``, ``reference`` (its provenance) and
``samples``: label to that sample's metrics, each ``{"value", "uncertainty", "floor", ...}``, with ``provenance``,
``skipped`` (metric to the reason) and, where it is known what the model has seen, ``seen``: ``n`` of ``of`` reference showers
were used to train or select it. With exactly one generated sample its metrics stand at the top level as well, so
that ``metrics["auc_high"]["value"]`` is found without knowing the label. Limits always name a path inside a sample.

An interrupted comparison that is started again with the same inputs and settings takes the finished samples from
``.cache`` and goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.cluster import Cluster, connected
from caloforge.errors import OutputError, OutputExistsError
from caloforge.files import dump_json, ensure_output_dir, is_empty, lock_folder, source_digest, write_json
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.settings import validated
from caloforge.showers.hdf5 import SEEN_SEEDS
from caloforge.showers.identity import hash_showers
from caloforge.showers.seen import SeenCheck, SeenCount, warnings_of
from caloforge.showers.views import JoinedShowers
from caloforge.text_files import read_record
from caloforge.validate.inputs import (
    Input,
    ShowersLike,
    check_conditions,
    check_detectors,
    command_line,
    match_conditions,
    open_inputs,
)
from caloforge.validate.limits import Row, check_limits, check_names, raise_if_failed, read_limits
from caloforge.validate.metrics.base import METRICS, Settings
from caloforge.validate.metrics.features import histograms_key
from caloforge.validate.observables.batch import ShowerBatch
from caloforge.validate.observables.spectrum import CellCounter
from caloforge.validate.observables.streaming import Consumer, ObservableColumns, stream
from caloforge.validate.reconstruction.sample import AfterColumns, why_not
from caloforge.validate.report.build import require_report
from caloforge.validate.sample import Sample

if TYPE_CHECKING:
    from rich.table import Table

    from caloforge.validate.sample import Sample

__all__ = ["Report", "read_samples", "validate"]


_BLOCK = 1 << 20


class _FileDigest:
    """Consumer that hashes files in step with the reading of their showers, so that both find them in the system's cache."""

    def __init__(self, paths: Sequence[Path], n: int) -> None:
        self._files = [path.open("rb") for path in paths]
        self._size, self._n, self._rows, self._done = sum(path.stat().st_size for path in paths), n, 0, 0
        self._digest = hashlib.sha256()

    def add(self, batch: ShowerBatch) -> None:
        self._rows += batch.n
        self._hash(self._size * self._rows // self._n)

    def hexdigest(self) -> str:
        self._hash(self._size)
        for file in self._files:
            file.close()
        return self._digest.hexdigest()

    def _hash(self, end: int) -> None:
        for file in self._files:  # of those before, nothing is left
            while self._done < end and (block := file.read(_BLOCK)):
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

    Returns:
        How many reference showers each model has seen, by label, where it is known.

    Raises:
        SeenShowersError: See :func:`validate`.
        InputError: When a cell is NaN, infinite or negative.
    """
    reference, *generated = samples
    identities = _Identities()
    models = [sample.source for sample in generated]
    asked = any(len(model.seen) or model.attributes.get(SEEN_SEEDS) for model in models)
    _read(inputs[0], reference, reference, settings, [identities] if asked else [])
    source = reference.source
    parts = source.parts if isinstance(source, JoinedShowers) else (source,)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    known = np.split(np.concatenate(identities.parts), ends) if asked else ()
    labelled = [(sample.label, sample.source) for sample in generated]
    seen = SeenCheck(parts, known).require_unseen(labelled, allow_seen)
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
    digest = _FileDigest(entry.paths, sample.n) if entry.paths else None
    consumers += [consumer for consumer in (after, digest) if consumer is not None]
    with progress(sample.n, sample.label) as advance:
        stream(sample, consumers, sample.threshold, sample.cut, advance=advance)
    sample.observables = observables.table()
    sample.memo |= {key: counter.result() for key, counter in counters.items()}
    if after is not None:
        after.finish()
    if digest is not None:
        entry.sha256 = digest.hexdigest()


_OWN = ("provenance", "seen", "skipped")
_CODE = ("validate", "statistics", "geometry", "showers", "random.py")
_STATE = ".cache/inputs.json"
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


@dataclass(repr=False)
class Report:
    """The outcome of a comparison."""

    metrics: dict[str, Any]  # the content of ``metrics.json``
    path: Path | None = None  # the page; None without an output folder
    limits: list[Row] = field(default_factory=list)  # the outcome of each limit

    def __repr__(self) -> str:
        where = "" if self.path is None else f", {self.path}"
        return f"Report({', '.join(self.metrics['samples'])}{where})"

    def _repr_html_(self) -> str:
        """Return the summary as a table for notebooks."""
        table = self.summary()
        cells = [[str(cell) for cell in column.cells] for column in table.columns]
        head = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in zip(*cells, strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    @property
    def folder(self) -> Path | None:
        """The output folder."""
        return None if self.path is None else self.path.parent

    def warnings(self) -> list[str]:
        """Return a line for each thing that is wrong with a model; see :func:`caloforge.showers.seen.warnings_of`."""
        return [
            line
            for label, sample in self.metrics["samples"].items()
            for line in warnings_of(label, sample["provenance"]["attributes"], sample.get("seen"))
        ]

    def summary(self) -> Table:
        """Return the summary as a table for a terminal: the nearest sample first."""
        from caloforge.validate.report.summary import summary_for_terminal

        return summary_for_terminal(self.metrics)


def validate(
    reference: ShowersLike,
    *generated: ShowersLike,
    output: str | Path | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    limits: str | Path | Mapping[str, Any] | None = None,
    match_conditions: bool = False,
    force: bool = False,
    detector: str | Path | Detector | None = None,
    labels: Sequence[str] | None = None,
    command: str | None = None,
    allow_seen: bool = False,
    scheduler: str | None = None,
) -> Report:
    """Compare generated samples with a reference.

    Arguments:
        reference: Showers to trust: a file, showers in memory or an open file, or a list of these that is one sample.
        generated: Any number of samples to judge.
        output: Folder for ``metrics.json``, ``report.html`` and ``figures``; nothing is written without it.
        settings: Options of the metrics.
        limits: A TOML file of limits, or its table; see :mod:`caloforge.validate.limits`.
        match_conditions: Compare only the common range of the conditions, with the same distribution.
        force: Write into a folder with other content.
        detector: Detector of files that do not name their own.
        labels: Names of the samples, the reference's first.
        command: The command to show in the report; by default the equivalent one of the command line.
        allow_seen: Accept reference showers that were used to train or select a model; ``seen`` counts them.
        scheduler: Address of a Dask scheduler (:mod:`caloforge.cluster`) whose workers, which find the files under the same paths, compute the metrics.

    Returns:
        The metrics and where the page is.

    Raises:
        SeenShowersError: When a model was trained or selected on reference showers, unless ``allow_seen``; before
            the generated samples are read.
        IncompatibleError: When detectors, cell orders or the conditions' ranges differ.
        ConfigError: When a limit names no metric.
        InputError: When there is no such device; before any work.
        MissingExtraError: When the report cannot be written; before any work.
        GateError: When a limit does not hold; everything is written before.
    """
    chosen = settings if isinstance(settings, Settings) else validated(Settings, settings or {}, "settings")
    wanted = [] if limits is None else read_limits(limits)
    check_names(wanted, _known_keys())
    chosen.torch_device()
    if output is not None:
        require_report()
    folder = None if output is None else Path(output)
    with ExitStack() as stack:
        cluster = stack.enter_context(connected(scheduler))
        inputs = open_inputs(stack, [reference, *generated], detector, labels)
        sources = _compatible(inputs, match_conditions, chosen.seed)
        outline = _key([entry.outline for entry in inputs], chosen, match_conditions)
        if folder is not None:
            _check_folder(folder, force, outline=outline)
            stack.enter_context(lock_folder(folder))
        from caloforge.validate.sample import Sample

        samples = [Sample(x, entry.label, chosen.threshold) for entry, x in zip(inputs, sources, strict=True)]
        seen = read_samples(inputs, samples, chosen, allow_seen)
        line = command or command_line(
            inputs, chosen, folder, limits, match_conditions, labels, detector, allow_seen
        )
        figures = None
        if folder is not None:
            from caloforge.validate.report.build import begin_figures, write_report

            key = _key([entry.sha256 for entry in inputs], chosen, match_conditions)
            _check_folder(folder, force, key=key)
            ensure_output_dir(folder, force=True)
            (folder / ".cache").mkdir(exist_ok=True)
            write_json(folder / _STATE, {"outline": outline, "key": key})
            figures = stack.enter_context(begin_figures(folder, samples, chosen))
        metrics = _measure(inputs, samples, chosen, folder, line, match_conditions, seen, cluster)
        rows = check_limits(wanted, metrics["samples"])
        report = Report(metrics, limits=rows)
        if folder is not None and figures is not None:
            write_json(folder / "metrics.json", metrics)
            report.path = write_report(folder, samples, metrics, rows, chosen, figures)
    raise_if_failed(rows)
    return report


def _known_keys() -> list[str]:
    keys = [key.top for _, metric in METRICS.items() for key in metric.keys]
    return [*keys, "n_reference", "n_generated"]


def _compatible(inputs: Sequence[Input], match: bool, seed: int) -> list[Any]:
    """Check that the samples go together; return what of each is compared."""
    sources = {entry.label: entry.source for entry in inputs[1:]}
    check_detectors(inputs[0].source, sources)
    if not match:
        check_conditions(inputs[0].source, sources)
        return [entry.source for entry in inputs]
    parts = match_conditions(inputs[0].source, sources, seed)
    for entry, part in zip(inputs, parts, strict=True):
        entry.kept = len(part)
    return parts


def _measure(
    inputs: Sequence[Input], samples: Sequence[Sample], settings: Settings, folder: Path | None, command: str,
    match: bool, seen: Mapping[str, SeenCount], cluster: Cluster | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of ``metrics.json``, with finished samples taken from the cache."""
    from caloforge.validate.metrics import compute_metrics

    by_label: dict[str, Any] = {}
    with progress(len(samples) - 1, "measuring") as advance:
        for entry, sample in zip(inputs[1:], samples[1:], strict=True):
            key = _key([inputs[0].sha256, entry.sha256], settings, match)
            cached = None if folder is None else folder / ".cache" / f"{key}.json"
            result = None if cached is None else read_record(cached)
            if result is None:
                result = json.loads(dump_json(compute_metrics(samples[0], sample, settings, cluster=cluster)))
                if cached is not None:
                    write_json(cached, result)
            by_label[entry.label] = result | {"provenance": entry.provenance()}
            if entry.label in seen:
                by_label[entry.label]["seen"] = seen[entry.label].as_dict()
            advance(1)
    metrics: dict[str, Any] = {
        "caloforge_version": __version__,
        "command": command,
        "match_conditions": match,
        "settings": settings.model_dump(),
        "reference": inputs[0].provenance(),
    }
    if len(by_label) == 1:
        only = next(iter(by_label.values()))
        metrics |= {name: entry for name, entry in only.items() if name not in _OWN}
    return json.loads(dump_json(metrics | {"samples": by_label}))  # type: ignore[no-any-return]


def _key(samples: Sequence[str], settings: Settings, match: bool) -> str:
    """Return a short hash of everything that a result depends on: the samples, the settings and the code."""
    code = source_digest(*_CODE), *(version(name) for name in _LIBRARIES)
    parts = [code, list(samples), settings.model_dump(), match]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _check_folder(folder: Path, force: bool, **known: str) -> None:
    """Refuse an output folder that has something else than the same comparison, which goes on.

    Raises:
        OutputExistsError: When it is not empty and its state differs from what is known of this comparison.
        OutputError: When it cannot be written to.
    """
    if folder.is_file():
        raise OutputExistsError(folder)
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        msg = f"{folder}: {above} is not writable"
        raise OutputError(msg)
    if force or not folder.exists():
        return
    if is_empty(folder, [Path(_STATE).name]):
        return
    state = read_record(folder / _STATE) or {}
    if any(state.get(name) != value for name, value in known.items()):
        raise OutputExistsError(folder)
