r"""Figures of each training on test showers, and the differences between them.

All generators are measured with the same showers, seeds and splits, so that differences between them can be taken network by
network. What is measured already, with the same weights and settings, is not measured again.

A choice is compared with the mean of the M trainings of the baseline (one for each seed), network by network: classifiers of the
same number have the same split of the same showers. With the K differences :math:`d_i` the uncertainty is

.. math:: \sigma^2 = \Bigl(\frac1K + \frac{n_\mathrm{test}}{n_\mathrm{rest}}\Bigr) s_d^2 + \Bigl(1 + \frac1M\Bigr) s_\mathrm{seed}^2,

the first term for splits that overlap, the second for one training against M with the scatter s_seed of the baseline's AUC
between seeds, which is left out when there is one seed.

References:
    C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52 (2003) 239, section 4.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from caloforge import __version__
from caloforge.errors import CaloforgeError, InputError
from caloforge.files import dump_json, sha256_file, write_json
from caloforge.generate.timing import count_parameters, speed_of
from caloforge.showers import ShowerSource, open_showers
from caloforge.studies.flagship.plan import BASELINE, GROUPS, Task, facts_of_model
from caloforge.text_files import read_record
from caloforge.validate.metrics import compute_metrics
from caloforge.validate.metrics.base import Settings
from caloforge.validate.sample import Sample
from caloforge.zoo.cards import TestShowers, open_test_showers

__all__ = [
    "AUCS", "METRICS", "Difference", "Measurement", "ablations", "by_group", "by_series", "difference",
    "losses", "losses_of_students", "measure_all", "measure_one", "repeats", "seed_scatter",
]  # fmt: skip


Entry = Mapping[str, Any]
AUCS = ("auc_high", "auc_low")
_TEST_TO_REST = 0.25  # classifiers are tested on a fifth of the showers


@dataclass(frozen=True)
class Difference:
    """A difference of AUC with one standard deviation."""

    value: float
    uncertainty: float

    @property
    def significant(self) -> bool:
        """Whether it is more than two standard deviations."""
        return abs(self.value) > 2.0 * self.uncertainty


def by_group(entries: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """Return the entries of each group."""
    return {group: {n: entry for n, entry in entries.items() if group in entry["figure"]} for group in GROUPS}


def by_series(entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each series, teachers by their steps, then students."""
    series: dict[str, list[Entry]] = {}
    for entry in entries.values():
        series.setdefault(entry["series"], []).append(entry)
    for group in series.values():
        group.sort(key=lambda entry: (entry["kind"] != "teacher", entry["steps"]))
    return series


def repeats(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the baseline and its trainings with other seeds: ablations that change no setting."""
    return {name: entry for name, entry in entries.items() if name == BASELINE or not entry["set"]}


def seed_scatter(baselines: Sequence[Entry], auc: str) -> float | None:
    """Return the standard deviation of an AUC between seeds; None for one seed."""
    values = [entry["figures"][auc]["value"] for entry in baselines]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(entry: Entry, baselines: Sequence[Entry], auc: str) -> Difference:
    """Return the difference of an AUC to the mean of the baselines.

    Where the measurements do not have the same two or more networks, the uncertainties are added as if independent.
    """
    ours = entry["figures"][auc].get("networks", [])
    theirs = [base["figures"][auc].get("networks", []) for base in baselines]
    scatter = seed_scatter(baselines, auc) or 0.0
    of_seeds = scatter**2 * (1.0 + 1.0 / len(baselines))
    if len(ours) > 1 and all(len(one) == len(ours) for one in theirs):
        d = np.array(ours) - np.mean(theirs, axis=0)
        variance = (1.0 / len(d) + _TEST_TO_REST) * float(d.var(ddof=1))
        return Difference(float(d.mean()), float(np.sqrt(variance + of_seeds)))
    figures = [one["figures"][auc] for one in (entry, *baselines)]
    values, errors = ([one.get(key) or 0.0 for one in figures] for key in ("value", "uncertainty"))
    variance = errors[0] ** 2 + float(np.mean(np.square(errors[1:]))) / len(baselines)
    return Difference(values[0] - float(np.mean(values[1:])), float(np.sqrt(variance + of_seeds)))


def losses(entries: Mapping[str, Entry]) -> dict[str, tuple[Difference, ...]]:
    """Return, by student, by how much each AUC is above that of its teacher with most steps."""
    found = {}
    for group in by_series(entries).values():
        teachers = [entry for entry in group if entry["kind"] == "teacher"]
        for entry in group:
            if teachers and entry["kind"] == "student":
                found[entry["title"]] = tuple(difference(entry, teachers[-1:], auc) for auc in AUCS)
    return found


def ablations(entries: Mapping[str, Entry]) -> dict[str, tuple[Difference, ...]]:
    """Return, by name, the difference in each AUC of every choice; nothing when the baseline is not there."""
    if BASELINE not in entries:
        return {}
    baselines = list(repeats(entries).values())
    changed = {name: entry for name, entry in entries.items() if entry["set"]}
    return {name: tuple(difference(entry, baselines, auc) for auc in AUCS) for name, entry in changed.items()}


METRICS = ("classifier_high", "classifier_low", "fpd")
_FIGURES = ("auc_high", "auc_low", "fpd")
_KEPT = ("value", "uncertainty", "floor", "floor_uncertainty")
_LARGE = 10_000  # showers at once when a GPU is timed


@dataclass(frozen=True)
class Measurement:
    """Settings of the measurements."""

    files: tuple[Path, ...]  # Geant4 showers that nothing was trained on
    settings: Settings  # of the metrics
    n: int | None = None  # showers at most, drawn at random; None for all
    device: str = "auto"  # where to generate
    seconds: float = 2.0  # how long each is timed

    def key(self, task: Task) -> str:
        """Return a hash of everything that the figures of a task depend on."""
        settings = self.settings.model_dump(exclude={"device"})
        parts = [task.source.weights, dict(task.options), task.teacher, settings]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def reference(self) -> dict[str, Any]:
        """Return a description of the test showers."""
        with ExitStack() as stack:
            test = self.test_showers(stack)
            n = len(test.showers) if self.n is None else min(self.n, len(test.showers))
            found = {"files": list(test.described), "detector": test.showers.detector.name, "n": n}
            return json.loads(dump_json(found))  # type: ignore[no-any-return]

    def test_showers(self, stack: ExitStack) -> TestShowers:
        """Open the showers."""
        with open_showers(self.files[0]) as first:
            detector = first.detector.name
        return open_test_showers(stack, detector, self.files)

    def showers(self, stack: ExitStack) -> ShowerSource:
        """Return those that are compared with."""
        source = self.test_showers(stack).showers
        if self.n is None or self.n >= len(source):
            return source
        return Sample(source, "Geant4").take(self.n, self.settings.seed)


def measure_one(task: Task, how: Measurement) -> dict[str, Any]:
    """Generate with the conditions of the reference, and compare.

    Raises:
        InputError: When the model was trained on a file of the reference.
    """
    seen = [path for path in how.files if sha256_file(path) in task.source.data]
    if seen:
        msg = f"{task.name}: was trained on {seen[0].name}; expected showers that it has not seen"
        raise InputError(msg)
    model = task.generator(how.device)
    with ExitStack() as stack:
        source = how.showers(stack)
        fake = model.generate(like=source, seed=how.settings.seed)
        samples = Sample(source, "Geant4"), Sample(fake, task.name)
        found = compute_metrics(*samples, how.settings, METRICS)
    facts = {"model": task.source.model, "parameters": count_parameters(model), **task.source.facts}
    figures = {name: _slim(found[name]) for name in _FIGURES}
    when = {"date": date.today().isoformat(), "key": how.key(task)}
    return {**task.facts, **facts_of_model(model.model), **facts, "figures": figures, **when}


def _slim(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return value, errors and floor, and the AUC of each network."""
    kept = {key: float(f"{entry[key]:.5g}") for key in _KEPT if entry.get(key) is not None}
    networks = [float(f"{one['auc']:.5g}") for one in entry.get("detail", {}).get("networks", [])]
    return kept | ({"networks": networks} if networks else {})


def measure_all(
    tasks: Sequence[Task], how: Measurement, output: Path, command: str = "", jobs: int = 1,
    gpus: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """Measure the missing entries of a file of results, writing it after each; return the names of what failed.

    Results of other reference showers are dropped. Times are taken last, one after the other.

    Arguments:
        output: The file.
        command: The command that asks for it.
        jobs: Processes.
        gpus: GPUs that they are spread over.
    """
    reference = how.reference()
    old = read_record(output) or {}
    entries: dict[str, Any] = old.get("entries", {}) if old.get("reference") == reference else {}
    known = {task.name: task for task in tasks}
    missing = [task for task in tasks if entries.get(task.name, {}).get("key") != how.key(task)]
    for name in known.keys() & entries.keys():
        entries[name] |= known[name].facts

    settings = how.settings.model_dump(exclude={"device"})
    header = {
        "caloforge_version": __version__,
        "command": command,
        "settings": settings,
        "reference": reference,
    }

    def keep() -> None:
        write_json(output, {**header, "entries": entries})

    keep()
    failed = []
    for name, result in _results(missing, how, jobs, gpus):
        if isinstance(result, str):
            print(f"{name}: {result}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        entries[name] = result
        keep()
        auc = result["figures"]["auc_high"]["value"], result["figures"]["auc_low"]["value"]
        print(f"{name}: AUC {auc[0]:.3f} on observables, {auc[1]:.3f} on cells", flush=True)
    for task in tasks:
        if task.name in entries and "time" not in entries[task.name]:
            with ExitStack() as stack:
                model = task.generator(how.device)
                batch = 100 if model.device.type == "cpu" else _LARGE
                entries[task.name]["time"] = speed_of(model, how.showers(stack), batch, how.seconds)
            keep()
    for line in losses_of_students(entries):
        print(line, flush=True)
    return failed


def losses_of_students(entries: Mapping[str, Any]) -> list[str]:
    """Return a line for each student: its AUC above that of its teacher with most steps."""
    return [
        f"{name} above its teacher: AUC {high.value:+.3f} ± {high.uncertainty:.3f} on observables, "
        f"{low.value:+.3f} ± {low.uncertainty:.3f} on cells"
        for name, (high, low) in losses(entries).items()
    ]


Result = tuple[str, "dict[str, Any] | str"]
"""Name, and the result or the reason why there is none."""


def _results(tasks: Sequence[Task], how: Measurement, jobs: int, gpus: Sequence[str]) -> Iterator[Result]:
    if jobs <= 1 or len(tasks) <= 1:
        yield from (_try(task, how) for task in tasks)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    for number in range(jobs):
        places.put(gpus[number % len(gpus)] if gpus else "")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _take_place, (places,)) as work:
        futures = [work.submit(_try, task, how) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            work.shutdown(wait=False, cancel_futures=True)
            raise


def _try(task: Task, how: Measurement) -> Result:
    try:
        return task.name, measure_one(task, how)
    except CaloforgeError as error:
        return task.name, str(error)


def _take_place(places: Any) -> None:
    gpu = places.get()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
