"""``train``: from files of showers to a run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import InputError, UnfinishedError
from caloforge.files import atomic_path, ensure_output_dir, lock_folder, write_json
from caloforge.geometry import Detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.progress import progress
from caloforge.random import check_seed, child_seed
from caloforge.settings import assignments
from caloforge.showers.identity import seen_union
from caloforge.text_files import listed
from caloforge.train.data import Split, StreamedDataset, TrainingFiles, read_files, split
from caloforge.train.dataset import CellDataset, DetectorDatasets
from caloforge.train.devices import Devices, joined, run_on_devices, started
from caloforge.train.files import Files, own_files, path_facts
from caloforge.train.folder import (
    RunFolder,
    SeenByTraining,
    inherited_from,
    load_state,
    run_facts,
    save_state,
    save_weights,
)
from caloforge.train.loop import Data, MetricLog, StageLoop, Watch
from caloforge.train.plan import DEFAULT_SECONDS, Plan, plan_training
from caloforge.train.settings import Overrides, Resolved, Wanted, to_toml
from caloforge.train.start import (
    PART,
    PRETRAINING,
    check_resumed,
    check_several,
    check_start,
    limits_of_time,
    pretrained,
    source_model,
    take_fitting,
    with_structure,
)
from caloforge.train.stored import unfinished_text
from caloforge.units import read_seconds

__all__ = ["train"]


def train(
    model: str | None = None,
    data: Files | None = None,
    output: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    preset: str | None = None,
    device: str = "auto",
    seed: int | None = None,
    train_size: int | None = None,
    resume: bool = False,
    force: bool = False,
    detector: str | Path | Detector | None = None,
    watch: Watch | None = None,
    time_limit: str | None = None,
    report: bool = False,
    announce: Callable[[Plan], None] | None = None,
    start: str | Path | None = None,
    pretrain: str | None = None,
    devices: int | None = None,
) -> Path:
    """Train a model on showers.

    Arguments:
        model: A registered model. None: that of the settings, or of a resumed run, else the flagship with settings that are planned
            for the number of showers, the detector, the device and the time (:mod:`~caloforge.train.plan`).
        data: File of showers, showers in memory, or several of these, of one detector. A run that is resumed knows its files.
        output: Run folder.
        config: TOML file with the tables ``[model]`` and ``[train]``, or the same as a mapping.
        overrides: Single settings: a mapping such as ``{"epochs": 3, "optimizer.lr": 1e-3}``, or texts ``key=value``.
        preset: Preset of the model's settings.
        device: ``auto``, ``cpu``, ``cuda``, or one GPU such as ``cuda:1``.
        seed: Seed, by default 0; on the CPU the same seed gives the same weights.
        train_size: Showers to train on.
        resume: Go on with a run that was stopped or is unfinished, with its own files, seed and settings. Those that are given must be the same,
            but for limits of time (``time_limit``, ``max_seconds``, ``stage_seconds``) and larger numbers of epochs of stages that are not trained yet.
        force: Replace a run that is there.
        detector: Detector of files that do not name their own.
        watch: Called after each epoch; what it raises ends the training.
        time_limit: Time for everything, such as ``30min``, in which the plan makes the training of any model fit; by default 30 minutes
            for a model that is not named, and no limit for one that is. Of a run that goes on: the time that it had before included.
        report: Leave time for a measurement of the trained model.
        announce: Called with the plan before the training starts.
        start: Weights of a run or of a shipped model to start from, of the same detector or of another.
        pretrain: Engine of parametrised showers of the same detector to train on first, ``gflash``.
        devices: Processes with a device each that share every batch (:mod:`~caloforge.train.devices`); the arguments can then be pickled.

    Returns:
        The path of the run folder, which notebooks show as a table of the run.

    Raises:
        ConfigError: For wrong settings, or a resumed run with other ones.
        OutputExistsError: When the folder holds something and neither flag is set.
        UnfinishedError: When ``max_seconds`` ended before a stage was trained at all; everything is written before.
    """
    if output is None:
        raise InputError("no run folder is named; expected one to write")
    folder = RunFolder(Path(output))
    stored = folder.read() if resume and folder.info.exists() else {}
    devices = int(stored.get("devices", 1)) if devices is None else devices
    if devices < 1:
        raise InputError(f"devices is {devices}; expected 1 or more")
    if devices > 1 and not started():
        given = {name: value for name, value in locals().items() if name not in ("folder", "stored")}
        run_on_devices(devices, device, train, given)
        return folder.path
    with joined(device, devices) as group:
        began, seed = time.monotonic(), check_seed(int(stored.get("seed", 0)) if seed is None else seed)
        resume = resume and not group.agreed(folder.is_new)
        before_run = folder.read() if resume else {}
        if resume:
            data = own_files(folder.path, before_run, data)
            detector = detector or before_run.get("data_detector")
            if time_limit is not None:
                limits = limits_of_time(before_run, folder, read_seconds(time_limit))
                overrides = (*assignments(overrides), *limits)
        if data is None:
            raise InputError(
                "name a file of showers to train on; to continue a run, use --resume without files"
            )
        seconds = DEFAULT_SECONDS if time_limit is None else read_seconds(time_limit)
        if start is not None and preset is None:  # the structure is the source's unless something else is set
            config = with_structure(config, model, Path(start))
        first = None if start is None else str(start)
        wanted = Wanted(model, config, assignments(overrides), preset, train_size, first, pretrain)
        if resume:
            wanted = wanted.after(folder.config)
        settings = wanted.settings()
        check_start(settings)
        where, memory = group.device, group.agreed(lambda: settings.train.data.bytes) / group.size
        several = getattr(settings.model, "detector_conditions", False)
        files = read_files(data, memory, before_run.get("storage"), detector, several)
        for one in files.detectors or (files.detector,):
            MODELS[settings.model_name].check_detector(one)
        if files.detectors:
            check_several(settings, group.size)
        with lock_folder(output) if group.first else nullcontext():
            new = group.agreed(folder.is_new)
            plan = None
            if not resume and (wanted.model is None or time_limit is not None):
                split(files.identities, settings.train)  # enough showers
                seconds *= 1.0 - PART if settings.train.pretrain else 1.0

                def make_plan(settings: Resolved = settings) -> Plan:
                    ensure_output_dir(output, force=force or new)
                    return plan_training(
                        settings.model_name,
                        files,
                        settings.as_dict(),
                        seconds,
                        where,
                        began,
                        wanted.given(),
                        report,
                        group.size,
                    )

                plan = group.agreed(make_plan)
                settings = wanted.settings(plan.values)
                if announce is not None and group.first:
                    announce(plan)
            known = files.identities
            parts = split(known, settings.train)
            if not known[parts.train].any():
                names = listed(entry["file"] for entry in files.facts.get("files", [files.facts]))
                raise InputError(
                    f"{names}: none of the {len(parts.train)} showers to train on has any energy"
                )
            group.wait()  # every process has read what the first now replaces
            group.agreed(lambda: ensure_output_dir(output, force=force or resume or new))
            origin = settings.train.start or settings.train.initial
            before = inherited_from(Path(origin)) if origin else SeenByTraining()
            seen = replace(
                before,
                training=seen_union([known[parts.train]]),
                selection=seen_union([known[parts.held_out]]),
            )
            info = run_facts(settings, files, seed, parts, where, group.size) | {"seen": seen.facts()}
            info["paths"] = path_facts(data)
            if detector is not None:
                info["data_detector"] = detector.name if isinstance(detector, Detector) else str(detector)
            if plan is not None or before_run.get("plan"):
                info["plan"] = before_run["plan"] if plan is None else plan.as_dict()
                info["plan"] |= {"seconds": seconds} if plan is None and time_limit is not None else {}

            def begin() -> bool:
                """Write what is known before the training; whether there is anything to do."""
                if resume:
                    if check_resumed(folder, settings, info):
                        folder.tidy()
                        return False
                else:
                    folder.clear()
                    RunFolder(folder.path / PRETRAINING).clear()
                with atomic_path(folder.config, force=True) as part:
                    part.write_text(to_toml(settings.as_dict()))
                seen.write(folder.path)
                write_json(folder.info, info)  # from here on it is a run, that --resume accepts
                return True

            if not group.agreed(begin):
                return folder.path
            source = Path(settings.train.start) if settings.train.start else None
            if settings.train.pretrain:
                source = pretrained(settings, files.header[parts.train], folder, train, seed, device, group)
            _Training(settings, files, parts, folder, seed, group, watch, source).run(info)
            if group.first and info["status"] == "unfinished":
                raise UnfinishedError(
                    f"{folder.path}: {unfinished_text(info['not_trained'])} when max_seconds = {settings.train.max_seconds:g} had "
                    "passed; the weights are kept; continue with --resume and a larger train.max_seconds"
                )
            return folder.path


class _Training:
    """All trainings of one run, each with all its stages."""

    def __init__(
        self,
        settings: Resolved,
        files: TrainingFiles,
        parts: Split,
        folder: RunFolder,
        seed: int,
        group: Devices,
        watch: Watch | None,
        source: Path | None = None,
    ) -> None:
        self.settings, self.folder, self.seed, self.watch = settings, folder, seed, watch
        self.source = None if source is None else source_model(source)
        self.config = settings.train
        self.train_rows, self.held_out_rows = parts.train, parts.held_out[: files.n_sample]
        self.sample_rows = parts.train[: files.n_sample]
        if files.storage == "files":
            files = files.keep(np.concatenate([self.sample_rows, self.held_out_rows]))
        self.files, self.group, self.device = files, group, group.device
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")

    def _model(self, training: int) -> ShowerModel:
        """Return a model before its training, its constants set from the training showers."""
        torch.manual_seed(child_seed(self.seed, "weights", training))
        model = MODELS[self.settings.model_name](self.files.detector, self.settings.model)
        if self.files.detectors:
            model.fit_family([self.files.showers(rows) for rows in self.files.by_detector(self.sample_rows)])
        elif self.source is None:
            model.fit_transforms(self.files.showers(self.sample_rows))
        else:
            model.start_from(self.source, self.files.showers(self.sample_rows))
        conditions = model.condition_matrix(self.files.header)[self.train_rows]
        model.condition_low.copy_(conditions.amin(0))
        model.condition_high.copy_(conditions.amax(0))
        if self.config.initial:
            take_fitting(model, Path(self.config.initial))
        return model.to(self.device)

    def _datasets(
        self, model: ShowerModel
    ) -> tuple[Data, CellDataset | DetectorDatasets, CellDataset | DetectorDatasets | None]:
        """Return the training showers, those of them that fits read, and the held-out showers."""
        conditions = model.condition_matrix(self.files.header)

        def in_memory(rows: NDArray[np.int64]) -> CellDataset:
            cells, places = self.files.load(rows)
            return CellDataset(cells, conditions[rows], self.device, places)

        if self.files.detectors:
            parts = self.train_rows, self.sample_rows, self.held_out_rows
            each = [
                DetectorDatasets(model, list(map(in_memory, self.files.by_detector(rows)))) for rows in parts
            ]
            return each[0], each[1], each[2] if len(each[2]) else None
        held_out = in_memory(self.held_out_rows) if len(self.held_out_rows) and self.group.first else None
        if self.files.storage == "files":
            data = StreamedDataset(self.files, self.train_rows, conditions[self.train_rows], self.device)
            return data, in_memory(self.sample_rows), held_out
        dense = in_memory(self.train_rows)
        return dense, dense.subset(len(self.sample_rows)), held_out

    def run(self, info: dict[str, Any]) -> None:
        """Train, from the last checkpoint when there is one, and write the result."""
        started, cpu = time.monotonic(), time.process_time()
        state = load_state(self.folder.state, torch.device("cpu")) if self.folder.state.exists() else {}
        log = MetricLog(
            self.folder.log if self.group.first else None, state.get("rows", 0), self.config.tensorboard
        )
        results: list[float] = list(state.get("results", ()))
        stage_results: dict[str, Any] = dict(state.get("stages", {}))
        elapsed: float = state.get("elapsed", 0.0)
        budget = self.config.max_seconds * (1.0 - PART if self.config.pretrain else 1.0)
        deadline = started + budget - elapsed if budget else float("inf")
        parameters = 0
        short: dict[str, dict[str, int]] = {}
        shortened: dict[str, dict[str, int]] = dict(state.get("shortened", {}))
        untrained: list[str] = []
        for training in range(len(results), self.config.trainings):
            model = self._model(training)
            parameters = sum(p.numel() for p in model.parameters())
            data, sample, held_out = self._datasets(model)
            if state:
                model.load_weights(state["model"])
                model.to(self.device)
            value = float("inf")
            for number, stage in list(enumerate(model.stages()))[state.get("stage", 0) :]:

                def save(part: dict[str, Any], number: int = number, model: ShowerModel = model) -> None:
                    if short or untrained:
                        return  # the checkpoint of the first stage that was cut short is kept
                    part |= {"stage": number, "model": model.state_dict(), "rows": log.rows}
                    part |= {"results": results, "stages": stage_results, "shortened": shortened}
                    save_state(self.folder.state, part | {"elapsed": elapsed + time.monotonic() - started})

                with progress(
                    stage.epochs,
                    f"{self.settings.model_name} {stage.name}",
                    None if self.group.first else False,
                ) as advance:
                    loop = StageLoop(
                        model, stage, data, sample, held_out, self.config,
                        child_seed(self.seed, "training", training), training, log, save, advance,
                        self.group, deadline,
                        self.config.stage_seconds.get(stage.name, float("inf")), self.watch,
                    )  # fmt: skip
                    best = loop.run(state or None)
                state = {}
                value = best.value if best.value < float("inf") else value
                name = f"{training}/{stage.name}"
                stage_results[name] = {
                    "epoch": best.epoch,
                    "metric": best.value,
                    "epoch_seconds": best.epoch_seconds,
                }
                if best.epochs < stage.epochs:
                    shortened[name] = {"epochs": best.epochs, "of": stage.epochs}
                if 0 < best.epochs_done < best.epochs:
                    short[name] = {"epochs": best.epochs_done, "of": stage.epochs}
                elif best.epochs_done < best.epochs:
                    several = f" of training {training}" if self.config.trainings > 1 else ""
                    untrained.append(f"{stage.name}{several}")
            if self.group.first:
                save_weights(self.folder.weights(training), model.state_dict())
            results.append(value)
        log.close()
        if not self.group.first:
            return
        info |= {
            "status": "unfinished" if untrained else "finished",
            **({"not_trained": untrained} if untrained else {}),
            **({"stopped_early": short} if short else {}),
            **({"shortened": shortened} if shortened else {}),
            "parameters": parameters,
            "stages": stage_results,
            "trainings": results,
            "members": self._combine(results, final=not untrained),
            "wall_seconds": elapsed + time.monotonic() - started,
            "cpu_seconds": time.process_time() - cpu,
        }
        info |= self.folder.digests(info["members"])
        write_json(self.folder.info, info)
        if not untrained:
            self.folder.tidy()

    def _combine(self, results: list[float], final: bool) -> int:
        """Choose the best training, or all of them; return the number of members.

        Nothing is removed before ``run.json`` says that the run is finished. The model of an unfinished run is its first training.
        """
        if self.config.combine == "ensemble":
            return len(results)
        if not final:
            return 1
        best = min(range(len(results)), key=results.__getitem__)
        if best:
            with atomic_path(self.folder.weights(), force=True) as part:
                shutil.copyfile(self.folder.weights(best), part)
        return 1
