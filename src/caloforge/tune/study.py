"""The study: Optuna's trials in an SQLite file, which several processes share, and the loop of one process.

A process that runs a trial holds a lock file of it. A trial that Optuna has as running and whose lock is free was interrupted: it
ends as failed, without a reason, does not count, and its settings are put into the queue; those that end their process twice are recorded as
failed. So whatever ends a process, at most the running trials are lost.
Choosing the next trial is done under a lock of the study, so that there are never more trials than wanted.

The sampler is Optuna's tree-structured Parzen estimator for several objectives, seeded anew for each trial by the seed, the worker
and the number of trials so far; with one worker a study is reproducible as far as its times are.

References:
    J. Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011.
    Y. Ozaki et al., Multiobjective tree-structured Parzen estimator, JAIR 73 (2022) 1209.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from caloforge.errors import CaloforgeError, UnfinishedError, require
from caloforge.random import child_seed
from caloforge.tune.space import value_at
from caloforge.tune.trials import (
    FailedTrialError,
    InterruptedTrialError,
    Job,
    StoppedTrialError,
    run_trial,
)

__all__ = ["TunedStudy", "give_up", "work"]

_NAME = "caloforge"
_FAILURES = 5
"""Failures, with nothing else before, that end the study."""
_ENDED_TWICE = "its process was ended twice, by a signal or for lack of memory"


class TunedStudy:
    """The trials of a job."""

    def __init__(self, job: Job, worker: int = 0) -> None:
        self.job, self.worker = job, worker
        self._optuna = optuna = require("optuna", "tune")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._lock = FileLock(job.folder / ".study.lock")
        with self._lock:
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{job.folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )

    def trials(self) -> list[Any]:
        """Return Optuna's trials."""
        return list(self.study.get_trials(deepcopy=False))

    def ended(self) -> list[Any]:
        """Return the trials that ended, but for those that were interrupted, in order of their numbers."""
        return [
            trial
            for trial in self.trials()
            if trial.state.name in ("COMPLETE", "PRUNED")
            or (trial.state.name == "FAIL" and "reason" in trial.user_attrs)
        ]

    def complete(self) -> list[Any]:
        """Return the trials with a result."""
        return [trial for trial in self.ended() if trial.values is not None]

    def front(self) -> list[Any]:
        """Return the trials than which no other is both more accurate and faster, the fastest first."""
        found: list[Any] = []
        for trial in sorted(self.complete(), key=lambda trial: (trial.values[1], trial.values[0])):
            if not found or trial.values[0] < found[-1].values[0]:
                found.append(trial)
        return found

    def values(self, trial: Any) -> dict[str, Any]:
        """Return the values of the parameters of a trial, by their keys."""
        return {p.key: p.decoded(trial.params[p.key]) for p in self.job.space if p.key in trial.params}

    def next(self) -> tuple[Any, FileLock] | None:
        """Return a new trial with its lock, or None when there are as many as wanted."""
        with self._lock:
            self._release()
            running = self._states("RUNNING")
            if len(self.ended()) + len(running) >= self.job.trials:
                return None
            trials = self.trials()
            if not trials:
                self._enqueue_preset()
            seed = child_seed(self.job.seed, f"tune/{self.worker}", len(trials))
            startup = max(4, min(10, self.job.trials // 3))
            self.study.sampler = self._optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, constant_liar=self.job.workers > 1
            )
            trial = self.study.ask()
            lock = self._trial_lock(trial.number)
            lock.acquire(timeout=0)
            return trial, lock

    def release(self) -> None:
        """Record trials as interrupted whose process is gone, and put their settings into the queue."""
        with self._lock:
            self._release()

    def tell(
        self, trial: Any, state: str, facts: Mapping[str, Any], values: tuple[float, float] | None = None
    ) -> None:
        """Record the end of a trial: ``COMPLETE``, ``PRUNED`` or ``FAIL``, and delete run folders that are not on the front."""
        with self._lock:
            for name, value in facts.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, values=values, state=self._optuna.trial.TrialState[state])
            if not self.job.keep:
                kept = {trial.number for trial in self.front()} | {t.number for t in self._states("RUNNING")}
                for done in self.ended():
                    if done.number not in kept:
                        shutil.rmtree(self.job.run(done.number), ignore_errors=True)

    def interrupt(self, trial: Any) -> None:
        """Record that a trial was interrupted, which has no reason, and put its settings into the queue."""
        with self._lock:
            self._requeue(trial.number, trial.params)

    def others(self, number: int) -> Callable[[str], list[tuple[float, float]]]:
        """Return a function that returns the figures and times of the earlier trials at a place."""

        def at(place: str) -> list[tuple[float, float]]:
            known = [trial.user_attrs.get(place) for trial in self.trials() if trial.number != number]
            return [(float(one[0]), float(one[1])) for one in known if one is not None]

        return at

    def _states(self, name: str) -> list[Any]:
        state = self._optuna.trial.TrialState[name]
        return list(self.study.get_trials(deepcopy=False, states=(state,)))

    def _trial_lock(self, number: int) -> FileLock:
        (self.job.folder / "trials").mkdir(exist_ok=True)
        return FileLock(self.job.folder / "trials" / f".{number:04d}.lock")

    def _release(self) -> None:
        for trial in self._states("RUNNING"):
            lock = self._trial_lock(trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            if "again" in trial.user_attrs:
                self._storage.set_trial_user_attr(trial._trial_id, "reason", _ENDED_TWICE)
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                shutil.rmtree(self.job.run(trial.number), ignore_errors=True)
            else:
                self._requeue(trial.number, trial.params, again=trial.number)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def _requeue(self, number: int, params: Mapping[str, Any], **attributes: Any) -> None:
        self.study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        shutil.rmtree(self.job.run(number), ignore_errors=True)
        if params:
            self.study.enqueue_trial(dict(params), user_attrs=attributes)

    def _enqueue_preset(self) -> None:
        """Let the first trial have the settings that were not varied, as far as they are among the values."""
        base = self.job.base.as_dict()["model"]
        stored = {p.key: p.encoded(value_at(base, p.key)) for p in self.job.space}
        self.study.enqueue_trial({key: value for key, value in stored.items() if value is not None})


def work(job: Job, worker: int, stop: Callable[[], bool], say: Callable[[TunedStudy], None]) -> None:
    """Run trials until there are as many as wanted, or the time is over.

    Arguments:
        worker: Number of this process.
        stop: Whether the work is to end, looked at after every epoch.
        say: Called after each trial.

    Raises:
        CaloforgeError: When the first trials failed, all of them.
    """
    study = TunedStudy(job, worker)
    while not stop() and time.time() < job.deadline:
        give_up(study)
        started = study.next()
        if started is None:
            return
        trial, lock = started
        try:
            _one(study, trial, stop)
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
        say(study)
    study.release()


def _one(study: TunedStudy, trial: Any, stop: Callable[[], bool]) -> None:
    """Run one trial and record how it ended."""
    job, began = study.job, time.monotonic()
    values = {parameter.key: parameter.suggest(trial) for parameter in job.space}

    def record(place: str, figure: float, ms: float) -> None:
        trial.set_user_attr(place, [figure, ms])

    def end(state: str, reason: str) -> None:
        study.tell(trial, state, {"reason": reason, "seconds": time.monotonic() - began})

    try:
        facts = run_trial(job, trial.number, values, stop, study.others(trial.number), record)
    except (InterruptedTrialError, KeyboardInterrupt) as error:
        study.interrupt(trial)
        if isinstance(error, KeyboardInterrupt):
            raise
    except StoppedTrialError as error:
        end("PRUNED", str(error))
    except (FailedTrialError, UnfinishedError) as error:
        end("FAIL", str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        end("FAIL", f"out of memory: {' '.join(str(error).split())[:200]}")
    except Exception as error:  # whatever a trial's settings lead to must not end the study
        name = "" if isinstance(error, CaloforgeError) else f"{type(error).__name__}: "
        end("FAIL", f"{name}{' '.join(str(error).split())[:300]}")
    else:
        figure, ms = facts.pop("figure"), facts.pop("ms")
        study.tell(trial, "COMPLETE", {k: v for k, v in facts.items() if not _undefined(v)}, (figure, ms))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def give_up(study: TunedStudy) -> None:
    """End the study when its first trials all failed.

    Raises:
        CaloforgeError: With the reason of the last one.
    """
    ended = study.ended()
    if len(ended) >= _FAILURES and all(trial.state.name == "FAIL" for trial in ended):
        raise CaloforgeError(
            f"{study.job.folder}: all of the first {len(ended)} trials failed, the last one: {ended[-1].user_attrs['reason']}"
        )
