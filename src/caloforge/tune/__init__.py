"""``tune``: settings of a model that are accurate and fast, searched by trials that several processes share."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import caloforge
from caloforge.errors import (
    CaloforgeError,
    ConfigError,
    InputError,
    TooFewShowersError,
    UnknownNameError,
    require,
)
from caloforge.files import dump_json, ensure_output_dir, source_commit, write_json
from caloforge.generate.timing import hardware_name
from caloforge.geometry import Detector
from caloforge.models import MODELS
from caloforge.settings import assignments, torch_device
from caloforge.text_files import read_record
from caloforge.train.data import read_files, split
from caloforge.train.files import Files, data_paths
from caloforge.train.settings import Overrides, resolve
from caloforge.tune.result import TuneResult, entries, sentence, write_result
from caloforge.tune.space import search_space
from caloforge.tune.study import TunedStudy, give_up, work
from caloforge.tune.trials import FIGURES, Job

__all__ = ["FIGURES", "TuneResult", "tune"]

_LEAST = 50
"""Fewest held-out showers that judge a trial."""
_REPLACED = 3
"""Most processes that are started again after their end."""
_PATIENCE = 30.0
"""Seconds in which an interrupted process ends its epoch."""
_LOG = "log.txt"


def tune(
    model: str,
    data: Files,
    output: str | Path,
    search: Iterable[str] = (),
    space: str | Path | Mapping[str, Any] | None = None,
    only: bool = False,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    preset: str | None = None,
    trials: int = 20,
    trial_seconds: float = 0.0,
    seconds: float = 0.0,
    workers: int = 1,
    figure: str = "auc-observables",
    most_ms: float = math.inf,
    prune: bool = True,
    keep: bool = False,
    force: bool = False,
    device: str = "auto",
    seed: int = 0,
    detector: str | Path | Detector | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> TuneResult:
    """Search settings of a model: accuracy on held-out showers against the time of a shower.

    The same call repeated goes on where the study was; with more ``trials`` it adds some.

    Arguments:
        model: A registered model.
        data: File of showers, or several of one detector.
        output: Folder of the study.
        search: What is varied, beside the model's defaults: ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=a,b,c``.
        space: TOML file of the same, or a mapping; see :mod:`caloforge.tune.space`.
        only: Vary only what ``search`` and ``space`` name.
        config: Settings that stay, as :func:`~caloforge.train.train` takes them.
        overrides: Single settings that stay: a mapping, or texts ``key=value``.
        preset: Preset of the model's settings.
        trials: Trials in all, those of earlier calls included.
        trial_seconds: Most seconds of a training, which then ends after an epoch; 0 for no limit.
        seconds: Seconds after which the work ends; trials that run then are made again by the next call. 0 for no limit.
        workers: Processes. Several GPUs are shared out among them.
        figure: Figure of accuracy, a name in ``FIGURES``.
        most_ms: Most milliseconds a shower; slower trials are stopped after their first epoch.
        prune: Stop trials without hope; see :mod:`caloforge.tune.trials`.
        keep: Keep the run folders of all trials, not only of the front.
        force: Replace a study that is there.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Seed of the search and of every training.
        detector: Detector of files that do not name their own.
        say: Called with a line on each trial that ended.

    Raises:
        ConfigError: For wrong settings or ranges, or a folder with another study.
        InputError: For numbers out of range.
        TooFewShowersError: When fewer than 50 showers are held out.
        MissingExtraError: When Optuna, or what measures and draws, is not installed.
        CaloforgeError: When the first trials all failed, or no process can go on.
    """
    for module in ("optuna", "sklearn", "matplotlib", "mplhep"):  # before any work
        require(module, "tune")
    _check_numbers(trials, workers, trial_seconds, seconds, most_ms)
    if figure not in FIGURES:
        raise UnknownNameError("figure", figure, list(FIGURES))
    overrides = assignments(overrides)
    base = resolve(model, config, overrides, preset)
    fixed = [key for key, _ in overrides]
    where = torch_device(device)
    job = Job(
        Path(output).absolute(), model, data_paths(data), detector, base,
        search_space(model, base.model, search, space, fixed, only), figure, where, seed, trials,
        trial_seconds, most_ms, prune, keep, time.time() + seconds if seconds else math.inf, workers,
    )  # fmt: skip
    content = _content(job)
    _open_folder(job.folder, content, force)
    study = TunedStudy(job)
    study.release()
    talk = _Talk({trial.number for trial in study.ended()}, say)
    if len(talk.said) >= trials:
        say(f"{job.folder}: {len(talk.said)} trials have ended already; a larger number of trials adds more")
    try:
        if workers == 1:
            work(job, 0, lambda: False, talk)
        else:
            _in_processes(job, study, talk)
    finally:
        result = write_result(study, content)
    return result


@dataclass
class _Talk:
    """Says a line on each trial that ended since the last call."""

    said: set[int]  # numbers of trials
    say: Callable[[str], None]

    def __call__(self, study: TunedStudy) -> None:
        for entry in entries(study):
            if entry["number"] not in self.said:
                self.said.add(entry["number"])
                self.say(sentence(entry, study.job.figure))


def _check_numbers(trials: int, workers: int, trial_seconds: float, seconds: float, most_ms: float) -> None:
    for name, number in (("trials", trials), ("workers", workers)):
        if number < 1:
            raise InputError(f"number of {name} is {number}; expected 1 or more")
    for name, time_ in (("time of a trial", trial_seconds), ("time of the study", seconds)):
        if not 0 <= time_ < math.inf:
            raise InputError(f"{name} is {time_:g} s; expected 0 or more")
    if not most_ms > 0:
        raise InputError(f"most time of a shower is {most_ms:g} ms; expected more than 0")


def _content(job: Job) -> dict[str, Any]:
    """Check the data, and return what the study is."""
    files = read_files(job.data, job.base.train.data.bytes, detector=job.detector)
    MODELS[job.model].check_detector(files.detector)
    held_out = len(split(files.identities, job.base.train).held_out)
    if held_out < _LEAST:
        raise TooFewShowersError(
            f"{' '.join(map(str, job.data))}: {held_out} showers are held out (train.validation {job.base.train.validation:g}), "
            f"by which trials are judged; expected at least {_LEAST}"
        )
    base = job.base.as_dict()
    study = {
        "model": job.model, "data": files.facts["sha256"], "detector": files.detector.name,
        "space": {parameter.key: str(parameter) for parameter in job.space}, "figure": job.figure, "seed": job.seed,
        "trial_seconds": job.trial_seconds, "most_ms": job.most_ms if math.isfinite(job.most_ms) else None,
        "prune": job.prune, "device": job.device, "hardware": hardware_name(job.device.partition(":")[0]),
        "settings": {section: base[section] for section in ("model", "train")},
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(dump_json(study))
    return {
        "study": plain, "held_out_showers": held_out, "file": files.facts["file"], "workers": job.workers,
        "date": datetime.now(UTC).date().isoformat(), "caloforge_version": caloforge.__version__, "commit": source_commit(),
    }  # fmt: skip


def _open_folder(folder: Path, content: Mapping[str, Any], force: bool) -> None:
    """Make the folder, or go on in that of the same study.

    Raises:
        ConfigError: When it holds another study.
        OutputExistsError: When it holds something else.
    """
    known = folder / "tune.json"
    if force:
        for name in ("trials", "figures"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("tune.json", "study.db", "trials.csv", "best.toml"):
            (folder / name).unlink(missing_ok=True)
    record = read_record(known)
    if record is None:
        ensure_output_dir(folder, force=force)
        write_json(known, {**content, "trials": [], "front": [], "best": None})
        return
    before = record.get("study", {})
    for key, value in content["study"].items():
        if before.get(key) != value:
            had, has = _different(before.get(key), value)
            raise ConfigError(
                f"{folder}: is a study with another {key}: {had}, not {has}; name another folder, or replace it with --force"
            )


def _different(before: Any, now: Any) -> tuple[str, str]:
    """Return two values as texts; of tables the first entries that differ."""
    while isinstance(before, Mapping) and isinstance(now, Mapping):
        key = next(name for name in [*before, *now] if before.get(name) != now.get(name))
        before, now = before.get(key), now.get(key)
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            return f"{key} = {before}", f"{now}"
    return str(before), str(now)


def _in_processes(job: Job, study: TunedStudy, talk: _Talk) -> None:
    """Run the trials in several processes; those that a signal ended are replaced a few times."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()

    def start(worker: int) -> Any:
        process = context.Process(target=_process, args=(job, worker, stop), daemon=True)
        process.start()
        return process

    running = {worker: start(worker) for worker in range(job.workers)}
    replaced, reasons = 0, []
    try:
        while running:
            time.sleep(0.2)
            talk(study)
            for worker, process in list(running.items()):
                if process.is_alive():
                    continue
                del running[worker]
                if process.exitcode != 0:
                    reasons.append(f"process {process.pid} ended with {process.exitcode}")
                    study.release()
                    if process.exitcode < 0 and replaced < _REPLACED:
                        replaced += 1
                        running[worker] = start(job.workers + replaced)
    finally:
        stop.set()
        for process in running.values():
            process.join(_PATIENCE)
            process.terminate()
            process.join()
        study.release()
        talk(study)
    give_up(study)
    if len(study.ended()) < job.trials and reasons and time.time() < job.deadline:
        raise CaloforgeError(
            f"{job.folder}: {reasons[-1]}, {len(study.ended())} of {job.trials} trials have ended; {_LOG} says more"
        )


def _process(job: Job, worker: int, stop: Any) -> None:
    """Run trials in a process, until the parent says so or is gone; what is printed goes into a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    parent = multiprocessing.parent_process()
    sys.stdout = sys.stderr = (job.folder / _LOG).open("a", buffering=1)
    torch.set_num_threads(max(1, torch.get_num_threads() // job.workers))
    gpus = torch.cuda.device_count() if job.device == "cuda" else 0
    mine = replace(job, device=f"cuda:{worker % gpus}") if gpus > 1 else job
    try:
        work(mine, worker, lambda: stop.is_set() or parent is None or not parent.is_alive(), lambda _: None)
    except CaloforgeError as error:
        print(error)
        sys.exit(error.exit_code)


sys.modules[__name__].__class__ = caloforge.VerbPackage
