"""One trial of a study: train with some settings, stop early when there is no hope, measure accuracy and speed.

Everything is measured on the showers that the training itself holds out for the selection of epochs: the figure of accuracy,
on as many generated showers of the same conditions, and the time of a shower. Test showers are never touched.

**Stopping early.** Optuna has no pruning of several objectives. Here a trial is stopped at an eighth, a quarter and a half of each stage's
epochs when its best selection figure so far is worse than the median of the earlier trials at the same place, counting
only those whose showers take no longer (and at least three of them): a trial that is faster than all others is never stopped, since it may
be on the front. With a single objective this is the median rule of Vizier. The time is measured after the first
epoch, so without what is fitted after the training, such as a calibration.

References:
    D. Golovin et al., Google Vizier: a service for black-box optimization, KDD 2017, section 3.1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from caloforge.errors import CaloforgeError
from caloforge.generate.timing import speed_of, time_call
from caloforge.geometry import Detector
from caloforge.random import child_seed
from caloforge.settings import merge
from caloforge.showers import Showers
from caloforge.statistics.two_sample import choose
from caloforge.train import RunFolder, held_out_showers, train
from caloforge.train.loop import Best, StageLoop
from caloforge.train.settings import Resolved
from caloforge.tune.space import Parameter, nested
from caloforge.validate.metrics.base import Settings as MetricSettings
from caloforge.validate.metrics.classifiers import FeatureSet, TrainedTests
from caloforge.validate.metrics.two_sample_data import pair_data
from caloforge.validate.sample import Sample
from caloforge.zoo import load

__all__ = [
    "FIGURES",
    "RUNGS",
    "FailedTrialError",
    "InterruptedTrialError",
    "Job",
    "StoppedTrialError",
    "hopeless",
    "run_trial",
]

RUNGS = (0.125, 0.25, 0.5)
"""Parts of a stage's epochs at which a trial may be stopped."""
_FEWEST = 3
"""Fewest earlier trials to be compared with."""
_SLACK = 1.05
"""Times that differ by less are equal."""
_MOST = 5000
"""Most showers a side of a figure of accuracy."""
_QUICK, _SLOW = 0.3, 1.0
"""Seconds in which the time of a shower is measured, at the beginning and at the end of a training."""

Compared = Sequence[tuple[float, float]]


class StoppedTrialError(CaloforgeError):
    """A trial that was ended since it has no hope."""


class FailedTrialError(CaloforgeError):
    """A trial without a result."""


class InterruptedTrialError(CaloforgeError):
    """A trial that was ended from outside: it is made again."""


@dataclass(frozen=True)
class Job:
    """What all trials of a study have in common."""

    folder: Path  # of the study
    model: str
    data: tuple[Path, ...]
    detector: str | Path | Detector | None  # of files that do not name their own
    base: Resolved  # the settings that are not varied
    space: tuple[Parameter, ...]
    figure: str  # name in FIGURES
    device: str
    seed: int
    trials: int  # trials in all
    trial_seconds: float = 0.0  # most seconds of a training; 0: no limit
    most_ms: float = math.inf  # most milliseconds a shower
    prune: bool = True  # stop trials without hope
    keep: bool = False  # keep the run folders of all trials
    deadline: float = math.inf  # time (``time.time``) after which the work ends
    workers: int = 1  # processes

    def run(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a training, as :func:`~caloforge.train.train` takes them, for values of the parameters."""
        base = self.base.as_dict()
        limit = {"max_seconds": self.trial_seconds} if self.trial_seconds else {}
        return {"model": merge(base["model"], nested(values)), "train": {**base["train"], **limit}}


def hopeless(figure: float, ms: float, others: Compared) -> bool:
    """Return whether a trial is to be stopped.

    Arguments:
        figure: Its selection figure; smaller is better.
        ms: Time of a shower.
        others: Figure and time of the earlier trials at the same place.
    """
    rivals = [theirs for theirs, time in others if time <= _SLACK * ms]
    return len(rivals) >= _FEWEST and figure > median(rivals)


@dataclass
class _Watch:
    """Looks at a training after each epoch: time limits, divergence, speed, and whether there is hope."""

    job: Job
    stop: Callable[[], bool]  # whether the work is to end
    others: Callable[[str], Compared]  # figure and time of the earlier trials at a place
    record: Callable[[str, float, float], None]  # keeps place, figure and time of this one
    ms: float = math.nan

    def __call__(self, loop: StageLoop, epoch: int, best: Best) -> None:
        if self.stop() or time.time() > self.job.deadline:
            raise InterruptedTrialError("interrupted")
        if math.isnan(self.ms):
            self.ms = _quick_time(loop)
            if self.ms > self.job.most_ms:
                msg = f"a shower takes {self.ms:.3g} ms, more than {self.job.most_ms:g} ms"
                raise StoppedTrialError(msg)
        passed = [
            rung for rung in RUNGS if (epoch - 1) / loop.stage.epochs < rung <= epoch / loop.stage.epochs
        ]
        if not passed or epoch == loop.stage.epochs:
            return
        if not math.isfinite(best.value):
            if epoch >= self.job.base.train.validate_every:
                raise FailedTrialError(
                    f"diverged: no finite figure in {epoch} epochs of stage '{loop.stage.name}'"
                )
            return
        place = f"{loop.training}/{loop.stage.name}/{passed[-1]:g}"
        others = self.others(place)
        self.record(place, best.value, self.ms)
        if self.job.prune and hopeless(best.value, self.ms, others):
            msg = f"without hope after {epoch} of {loop.stage.epochs} epochs of stage '{loop.stage.name}': figure {best.value:.4g}"
            raise StoppedTrialError(msg)


def _quick_time(loop: StageLoop) -> float:
    """Return the time of a shower of a model in training, ms."""
    assert loop.held_out is not None
    model, n = loop.model, min(100, len(loop.held_out))
    conditions = loop.held_out.take(torch.arange(n, device=loop.held_out.device)).conditions
    mode, threads = model.training, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)
    try:
        model.draw(conditions)
        device = conditions.device.type
        return time_call(lambda seed: model.draw(conditions, seed).cpu(), n, device, _QUICK, 10).cost_ms
    finally:
        torch.set_num_threads(threads)
        model.train(mode)


def _selection(run: Path, truth: Showers, fake: Showers) -> tuple[float, float]:
    """Return the figure by which the training kept its best epoch; it has no uncertainty."""
    values = [float(value) for value in RunFolder(run).read()["trainings"] if value is not None]
    return min(values, default=math.nan), math.nan


def _auc(which: FeatureSet, run: Path, truth: Showers, fake: Showers) -> tuple[float, float]:
    """Return the AUC of gradient boosting in two folds, and its uncertainty."""
    settings = MetricSettings(quick=True, device="cpu", n_max=_MOST)
    tests = TrainedTests(pair_data(Sample(truth, "truth"), Sample(fake, "fake"), settings), settings)
    found = choose(tests.merged((which,)))
    return found.auc, found.error


FIGURES: Mapping[str, Callable[[Path, Showers, Showers], tuple[float, float]]] = {
    "auc-observables": partial(_auc, "observables"),
    "auc-cells": partial(_auc, "cells"),
    "auc-spectrum": partial(_auc, "spectrum"),
    "selection": _selection,
}
"""Figures of accuracy; smaller is better."""


def run_trial(
    job: Job,
    number: int,
    values: Mapping[str, Any],
    stop: Callable[[], bool],
    others: Callable[[str], Compared],
    record: Callable[[str, float, float], None],
) -> dict[str, Any]:
    """Run a trial into its run folder.

    Returns:
        ``figure`` and its ``uncertainty``, ``ms`` a shower and its ``ms_uncertainty``, ``seconds`` of the training,
        ``parameters``, and ``cut`` when the time of a trial ended its training before the last epoch.

    Raises:
        StoppedTrialError: When it has no hope.
        FailedTrialError: When it diverged.
        InterruptedTrialError: When the work is to end.
        CaloforgeError: What the training raised.
    """
    run = job.run(number)
    train(
        job.model, job.data, run, config=job.settings(values), device=job.device, seed=job.seed, force=True,
        detector=job.detector, watch=_Watch(job, stop, others, record),
    )  # fmt: skip
    info = RunFolder(run).read()
    truth = held_out_showers(run, job.data)[:_MOST]
    generator = load(run, device=job.device)
    # a few held-out showers may have more energy than any of the training
    fake = generator.generate(like=truth, seed=child_seed(job.seed, "tune"), allow_extrapolation=True)
    if not np.isfinite(fake.cells).all():
        raise FailedTrialError("diverged: generated cells are not finite")
    figure, uncertainty = FIGURES[job.figure](run, truth, fake)
    if not math.isfinite(figure):
        raise FailedTrialError(f"diverged: {job.figure} is {figure}")
    speed = speed_of(generator, truth, seconds=_SLOW, allow_extrapolation=True)
    return {
        "figure": figure, "uncertainty": uncertainty, "ms": speed["ms"], "ms_uncertainty": speed["uncertainty"],
        "seconds": info["wall_seconds"], "parameters": info["parameters"], "cut": bool(info.get("stopped_early")),
    }  # fmt: skip
