r"""``benchmark``: the time of a shower of trained models, of Geant4 and of gflash in one run, with the models' accuracy beside it.

The protocol is the CaloChallenge's (C. Krause et al., arXiv:2410.21611): batches of 1, 100 and 10,000 showers on one
thread and on all of them, and on a GPU. All that simulates one detector has the same energies and angles: the first
showers of a seed have the same primary particles. Every measurement runs in a separate process (:mod:`caloforge.benchmark.measure`).
On a CPU the cost of a shower is processor time, which hardly depends on what else the machine does; on a GPU it is the time of the clock.

Geant4's time is proportional to the energy, and few showers scatter in their mean energy. So with times t and energies E of
its showers, and the mean energy of the beam, its time of a shower is

.. math:: \bar t = \frac{\sum t}{\sum E} \langle E \rangle_\text{beam} .

Layout of the output folder::

    benchmark.json   machine, versions, every measurement
    report.html      the page for people
    figures/         PNG and PDF
    cache/           finished measurements, so that an interrupted run goes on
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import caloforge
from caloforge.benchmark.measure import FailedMeasurementError, showers_within
from caloforge.benchmark.measure import measure as in_new_process
from caloforge.benchmark.page import headline, where_of, write_page
from caloforge.benchmark.subjects import Subject, beams_of, card_time, subject_of
from caloforge.errors import CaloforgeError, InputError, require
from caloforge.files import ensure_output_dir, is_empty, lock_folder, source_commit, source_digest, write_json
from caloforge.generate.timing import count_parameters, hardware_name
from caloforge.geometry import Beam
from caloforge.progress import progress
from caloforge.settings import torch_device
from caloforge.text_files import read_record
from caloforge.units import AngleSpec, EnergySpec
from caloforge.zoo.store import shipped_models

__all__ = ["BATCHES", "BenchmarkResult", "benchmark"]

BATCHES = (1, 100, 10_000)
"""Showers at once of the CaloChallenge's protocol."""
GEANT4 = 20
"""Showers of each detector that Geant4 makes by default."""
_ACCURACY = ("auc_strongest", "auc_cells", "auc_observables", "auc_spectrum", "detectability")
_KEPT = ("value", "uncertainty", "floor", "n_used", "classifier", "lower_limit", "extrapolated")
_CODE = (
    "geometry", "showers", "models", "generate", "simulate", "zoo/store.py", "benchmark/measure.py", "random.py",
)  # fmt: skip
"""Parts of the package that the times depend on."""


@dataclass
class BenchmarkResult:
    """All that was measured."""

    content: dict[str, Any]  # what ``benchmark.json`` holds
    path: Path | None = None  # the page

    def __repr__(self) -> str:
        return f"BenchmarkResult({len(self.content['models'])} models{'' if self.path is None else f', {self.path}'})"


@dataclass
class _Run:
    """The measurements of one run, those in the cache and new ones."""

    folder: Path  # of the cache
    common: Mapping[str, Any]  # what all measurements depend on
    notes: list[str] = field(default_factory=list)  # what could not be measured

    def get(self, request: Mapping[str, Any], digest: str = "") -> dict[str, Any]:
        """Return a measurement, made when it is not in the cache; one that failed says so and is not kept."""
        key = json.dumps([dict(request), digest, dict(self.common)], sort_keys=True)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        if (known := read_record(path)) is not None:
            return known
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            found: dict[str, Any] = _rounded(in_new_process(request, Path(scratch)))
        write_json(path, found)
        return found


def benchmark(
    sources: str | Path | Sequence[str | Path] = (),
    output: str | Path | None = None,
    energy: str | EnergySpec | None = None,
    theta: str | float | AngleSpec | None = None,
    batch: Sequence[int] = BATCHES,
    threads: Sequence[int | str] = (1, "all"),
    device: str = "auto",
    geant4: int = GEANT4,
    seconds: float = 10.0,
    seed: int = 0,
    force: bool = False,
) -> BenchmarkResult:
    """Time models, Geant4 and gflash on the same energies and angles.

    Arguments:
        sources: Shipped models and run folders; by default all shipped models.
        output: Folder for ``benchmark.json``, ``report.html`` and ``figures``; nothing is written without it.
        energy: Incident energies such as ``50GeV``; by default those of the detector's beam on which its models were trained.
        theta: Angles, degrees; likewise.
        batch: Showers at once.
        threads: Numbers of threads on a CPU, ``"all"`` for one a core.
        device: ``cpu``, ``cuda``, or ``auto``: the CPU, and the GPU where there is one.
        geant4: Showers of each detector that Geant4 makes; 0 takes its time from the card.
        seconds: Time for one measurement, to memory and again to file; a batch of up to 100 is made once whatever it takes.
        seed: Seed of the first showers; each repeat has the next one.
        force: Measure again, or write into a folder with something else in it.

    Raises:
        InputError: When an argument is out of range, or a source is unknown.
        IncompatibleError: When a model was not trained for the energies or angles, or models of a detector have none in common.
        OutputExistsError: When something else is in the folder and ``force`` is not set.
        MissingExtraError: When what draws the page is not installed.
    """
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    sizes, devices = _sizes(batch), _devices(device)
    counts = _thread_counts(threads)
    if geant4 < 0:
        raise InputError(f"number of Geant4's showers is {geant4}; expected 0 or more")
    if not seconds > 0:
        raise InputError(f"time of a measurement is {seconds:g} s; expected more than 0")
    if output is not None:
        for needed in ("mplhep", "jinja2"):  # before any work, since the page comes last
            require(needed, extra="report")
    subjects = [subject_of(source) for source in dict.fromkeys(listed or shipped_models())]
    beams = beams_of(subjects, energy, theta)
    command = _command(listed, output, energy, theta, sizes, threads, device, geant4, seconds, seed)
    settings = {
        "batch": sizes,
        "threads": counts,
        "devices": devices,
        "geant4": geant4,
        "seconds": seconds,
        "seed": seed,
    }
    with ExitStack() as stack:
        if output is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = stack.enter_context(lock_folder(output))
            _open_folder(folder, command, force)
        (folder / "cache").mkdir(exist_ok=True)
        machine = _machine(devices)
        run = _Run(
            folder / "cache",
            {"code": source_digest(*_CODE), "machine": machine, "seconds": seconds, "seed": seed},
        )
        steps = len(subjects) * len(sizes) * len(list(_places(devices, counts))) + 2 * len(beams)
        with progress(steps, "benchmark") as advance:
            scenes = {}
            for name, beam in beams.items():
                scenes[name] = _simulations(run, name, beam, [s for s in subjects if s.place == name], geant4)
                advance(2)
            models = []
            for subject in subjects:
                beam, done = beams[subject.place], []
                for where, number in _places(devices, counts):
                    done += _measurements(run, subject, beam, where, number, sizes, advance)
                models.append(_entry(subject, done))
        content: dict[str, Any] = {
            "command": command, "date": datetime.now(UTC).date().isoformat(), "caloforge_version": caloforge.__version__,
            "commit": source_commit(), "machine": machine, "settings": settings, "notes": run.notes,
            "beams": scenes, "models": models,
        }  # fmt: skip
        result = BenchmarkResult(content)
        if output is not None:
            write_json(folder / "benchmark.json", content)
            result.path = write_page(folder, content)
    return result


def _sizes(batch: Sequence[int]) -> list[int]:
    sizes = sorted(set(batch))
    if not sizes or sizes[0] < 1:
        raise InputError(
            f"batch is {', '.join(map(str, batch)) or 'empty'}; expected numbers of showers such as 1,100,10000"
        )
    return sizes


def _devices(device: str) -> list[str]:
    if device == "auto":
        return ["cpu", "cuda"] if torch_device("auto") == "cuda" else ["cpu"]
    if ":" in device:
        raise InputError(
            f"device '{device}': the benchmark measures the first GPU; choose it with CUDA_VISIBLE_DEVICES"
        )
    return [torch_device(device)]


def _thread_counts(threads: Sequence[int | str]) -> list[int]:
    """Return numbers of threads, each once."""
    counts = []
    for count in threads:
        number = _cores() if count == "all" else int(count) if str(count).isdecimal() else 0
        if number < 1:
            raise InputError(f"threads '{count}' is not understood; expected numbers such as 1,4 or all")
        counts.append(number)
    if not counts:
        raise InputError("threads is empty; expected numbers such as 1,4 or all")
    return list(dict.fromkeys(counts))


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _places(devices: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield device and threads of every series of measurements; a GPU has one series."""
    for device in devices:
        yield from ((device, count) for count in (counts if device == "cpu" else (_cores(),)))


def _machine(devices: Sequence[str]) -> dict[str, Any]:
    return {
        "cpu": hardware_name("cpu"), "cores": _cores(), "gpu": hardware_name("cuda") if "cuda" in devices else None,
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "torch": torch.__version__, "numpy": np.__version__,
    }  # fmt: skip


def _open_folder(folder: Path, command: str, force: bool) -> None:
    """Make the output folder, or go on in that of the same command."""
    state, finished = folder / "cache" / "command.json", folder / "benchmark.json"
    same = (read_record(state) or {}).get("command") == command
    ensure_output_dir(folder, force=force or same or is_empty(folder, [state.name]))
    if force and finished.exists():
        shutil.rmtree(folder / "cache", ignore_errors=True)
        finished.unlink()
    state.parent.mkdir(exist_ok=True)
    write_json(state, {"command": command})


def _command(
    sources: Sequence[str | Path], output: str | Path | None, energy: object, theta: object, sizes: Sequence[int],
    threads: Sequence[int | str], device: str, geant4: int, seconds: float, seed: int,
) -> str:  # fmt: skip
    """Return the command; of the output folder the last part of its path."""
    words = ["caloforge", "benchmark", *map(str, sources)]
    options = {
        "--energy": (energy, None), "--theta": (theta, None), "--batch": (",".join(map(str, sizes)), ",".join(map(str, BATCHES))),
        "--threads": (",".join(map(str, threads)), "1,all"), "--device": (device, "auto"), "--geant4": (geant4, GEANT4),
        "--seconds": (seconds, 10.0), "--seed": (seed, 0),
    }  # fmt: skip
    for option, (value, default) in options.items():
        if value != default:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, *([] if output is None else ["-o", Path(output).name])])


def _simulations(
    run: _Run, name: str, beam: Beam, subjects: Sequence[Subject], number: int
) -> dict[str, Any]:
    """Time Geant4 and gflash in a detector."""
    detector = subjects[0].simulated
    scene: dict[str, Any] = {
        "detector": name, "particle": beam.particle, "energy": str(beam.energy), "theta": str(beam.theta),
    }  # fmt: skip
    known = card_time(subjects)
    if detector is None:
        run.notes.append(f"{name}: a mesh that cannot be simulated; Geant4 and gflash were not timed")
        return scene | {"geant4": known, "gflash": None}
    request = {**scene, "definition": detector.definition, "threads": 1}
    request |= {"seed": run.common["seed"], "seconds": run.common["seconds"]}
    for engine, showers in (("gflash", 100), ("geant4", number)):
        scene[engine] = known if engine == "geant4" else None
        if not showers:
            continue
        try:
            scene[engine] = run.get({"kind": engine, "showers": showers, **request}) | {"origin": "this run"}
        except CaloforgeError as error:
            run.notes.append(
                f"{name}: {engine} was not timed: {error}"
                + ("; its time is the card's" if scene[engine] else "")
            )
    return scene


def _measurements(
    run: _Run, subject: Subject, beam: Beam, device: str, threads: int, sizes: Sequence[int], advance: Any
) -> list[dict[str, Any]]:
    """Time a model on one device with one number of threads, from the smallest batch to the largest."""
    done = []
    known = 0.0
    for batch in sizes:
        series = {"device": device, "threads": threads, "batch": batch}
        request = {
            "kind": "model", "source": subject.source, "energy": str(beam.energy), "theta": str(beam.theta), **series,
            "seed": run.common["seed"], "seconds": run.common["seconds"],
        }  # fmt: skip
        label = f"{subject.name}, {where_of(series)}"
        entry: dict[str, Any]
        if device == "cpu" and known and not showers_within(batch, known, run.common["seconds"]):
            entry = {"skipped": f"a call takes about {batch * known / 1e3:.0f} s"}
        else:
            try:
                entry = run.get(request, subject.digest)
            except FailedMeasurementError as error:
                entry = {"skipped": str(error)}
        if "skipped" in entry:
            run.notes.append(f"{label}: not measured: {entry['skipped']}")
        elif entry["showers"] < batch:
            run.notes.append(f"{label}: measured with {entry['showers']:,} showers")
        known = entry["memory"]["wall_ms"] if "memory" in entry else known
        done.append({**series, **entry})
        advance(1)
    return done


def _entry(subject: Subject, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a model's part of the content."""
    figures = subject.facts.get("metrics", {}).get("figures", {})
    accuracy = {
        name: {key: figures[name][key] for key in _KEPT if key in figures[name]}
        for name in _ACCURACY
        if name in figures
    }
    generator = subject.generator
    out: dict[str, Any] = {
        "name": subject.name, "beam": subject.place, "detector": generator.detector.name, "parameters": count_parameters(generator),
        "accuracy": accuracy, "measurements": done,
    }  # fmt: skip
    return out | {"headline": headline(done)}


def _rounded(value: Any) -> Any:
    """Return plain values with numbers of four digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


sys.modules[__name__].__class__ = caloforge.VerbPackage
