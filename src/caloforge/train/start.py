"""Where a training starts: the weights of another one, or a training on parametrised showers of the same detector.

**Weights of a source** (``train.start``) are those of a run folder or of a shipped model, whose card or ``run.json`` lies beside them and says
of which family, settings and detector they are. The model takes its structure from the source; its constants follow from the showers
at hand (:meth:`~caloforge.models.base.ShowerModel.start_from`).

**Pre-training** (``train.pretrain``): showers of the parametrisation under conditions like those of the training showers are written into
``pretraining`` of the run folder and trained on there; the run then starts from that one. The energies are drawn by the rule (one value, uniform, uniform in the
logarithm, powers of two) that comes nearest to the training showers' in the sense of Kolmogorov and Smirnov.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import ConfigError, FileFormatError, IncompatibleError
from caloforge.geometry import Beam, get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.showers import Showers
from caloforge.simulate import ENGINES, simulate
from caloforge.text_files import listed
from caloforge.train.devices import Devices
from caloforge.train.folder import RunFolder, load_state, load_weights
from caloforge.train.settings import FLAGSHIP, Resolved, read_settings
from caloforge.train.stored import RUN_FILE, described
from caloforge.units import AngleSpec, EnergySpec

__all__ = [
    "PART",
    "PRETRAINING",
    "beam_of",
    "check_resumed",
    "check_several",
    "check_start",
    "limits_of_time",
    "pretrained",
    "source_config",
    "source_model",
    "take_fitting",
    "with_structure",
]

PRETRAINING = "pretraining"
"""Folder of the pre-training within a run folder."""
_SEED = 1
_MEMBER = re.compile(r"-(\d+)$")
_SAME = 1e-6  # relative difference of equal energies
PART = 1.0 / 3.0
"""Part of ``max_seconds`` for the pre-training."""


def _content(weights: Path) -> tuple[dict[str, Any], int]:
    """Return what is known of weights (``model``, ``config``, and ``run`` or ``detector``), and the number of the ensemble's member.

    Raises:
        FileFormatError: When the weights are missing, or nothing lies beside them that says what they are.
    """
    found = _MEMBER.search(weights.stem)
    member, stem = (int(found[1]), weights.stem[: found.start()]) if found else (0, weights.stem)
    if not weights.is_file():
        raise FileFormatError(
            weights, "", "is missing; expected weights of a run or of a shipped model to start from"
        )
    if (weights.parent / RUN_FILE).is_file():
        folder = RunFolder(weights.parent)
        content = folder.read()
        return {
            "model": content["model"],
            "config": read_settings(folder.config).get("model", {}),
            "run": folder,
        }, member
    card = weights.with_name(f"{stem}.json")
    if not card.is_file():
        raise FileFormatError(
            weights,
            "",
            f"cannot be started from: neither {RUN_FILE} nor {card.name} lies beside it, which say what it is",
        )
    return described(card), member


def source_model(weights: Path) -> ShowerModel:
    """Return the model of weights of a run or of a shipped model, on the CPU.

    Raises:
        FileFormatError: When something is missing or broken.
    """
    content, _ = _content(weights)
    kind = MODELS[content["model"]]
    run = content.get("run")
    detector = run.detector() if run else get_detector(content["detector"])
    model = kind(detector, kind.resolve(content.get("config", {}), str(weights)))
    state = {name: w.float() if w.is_floating_point() else w for name, w in load_weights(weights).items()}
    model.load_weights(state, shipped=True)
    return model.eval()


def source_config(model: str, weights: Path) -> dict[str, Any]:
    """Return the settings that a model which starts from these weights has in common with theirs.

    Raises:
        ConfigError: When the source is of another family, or the family cannot start from a source.
    """
    content, _ = _content(weights)
    if content["model"] != model:
        raise ConfigError(
            f"cannot start from {weights}: it is a '{content['model']}', the model to train a '{model}'"
        )
    names = MODELS[model].structure
    if not names:
        raise ConfigError(f"a '{model}' cannot start from another training; models that can: {_able()}")
    config = MODELS[model].resolve(content.get("config", {}), str(weights))
    return {name: getattr(config, name) for name in names}


def with_structure(
    config: str | Path | Mapping[str, Any] | None, model: str | None, weights: Path
) -> dict[str, Any]:
    """Return the settings of a TOML file or mapping, with what :func:`source_config` gives where they set nothing else."""
    content = read_settings(config) if isinstance(config, str | Path) else dict(config or {})
    common = source_config(model or str(content.get("name", FLAGSHIP)), weights)
    return content | {"model": {**common, **content.get("model", {})}}


def _able() -> str:
    """Return the names of the models that can start from another training."""
    return ", ".join(name for name in MODELS.names() if MODELS[name].structure)


def check_start(settings: Resolved) -> None:
    """Check that a training can start where its settings say.

    Raises:
        ConfigError: For settings that exclude one another or differ from the source's, or a family that cannot start elsewhere.
    """
    train = settings.train
    given = [name for name in ("start", "pretrain", "initial") if getattr(train, name)]
    if len(given) > 1:
        raise ConfigError(
            f"train.{given[0]} and train.{given[1]} are both set; a training starts in one place"
        )
    if train.pretrain and not MODELS[settings.model_name].structure:
        raise ConfigError(
            f"a '{settings.model_name}' cannot start from a pre-training; models that can: {_able()}"
        )
    if train.pretrain and train.pretrain not in ENGINES:
        raise ConfigError(f"train.pretrain = {train.pretrain} is not known; expected gflash")
    if train.start:
        for name, value in source_config(settings.model_name, Path(train.start)).items():
            mine = getattr(settings.model, name)
            if mine != value:
                raise ConfigError(
                    f"cannot start from {train.start}: its {name} is {value}, here it is {mine}"
                )


def check_resumed(folder: RunFolder, settings: Resolved, info: dict[str, Any]) -> bool:
    """Check that a resumed run is the one that was stopped; return whether it is finished already.

    Raises:
        ConfigError: When model, seed, detector, data or settings differ.
    """
    before = folder.read()
    for key in ("model", "seed", "detector"):
        if before.get(key) != info[key]:
            raise ConfigError(
                f"{folder.path}: cannot resume with {key} {info[key]}; the run has {before.get(key)}"
            )
    if (data := info["data"])["sha256"] != before["data"]["sha256"]:
        names = listed(entry["file"] for entry in data.get("files", [data]))
        raise ConfigError(f"{folder.path}: cannot resume with {names}; the run's data have another hash")
    old, new = read_settings(folder.config), settings.as_dict()
    used, limit = before.get("wall_seconds", 0.0), settings.train.max_seconds
    if before.get("status") == "unfinished" and 0 < limit <= used:
        raise ConfigError(
            f"{folder.path}: cannot resume with train.max_seconds = {limit:g}; the run has used {used:.0f} s, "
            "expected more than that, or 0 for no limit"
        )
    finished, longer = before.get("status") == "finished", []
    for section in ("model", "train"):
        for key, value in new[section].items():
            known = old[section].get(key)
            if key in ("max_seconds", "stage_seconds", "data") or known == value:
                continue
            if (
                section == "train"
                or not key.endswith("epochs")
                or not isinstance(known, int)
                or value < known
            ):
                raise ConfigError(
                    f"{folder.path}: cannot resume with {section}.{key} = {value}; the run has {known}"
                )
            longer.append(f"{section}.{key} = {value}")
    if longer and (finished or not _all_open(folder, settings, old)):
        what = "the run is finished" if finished else "a stage with fewer epochs is trained already"
        raise ConfigError(
            f"{folder.path}: cannot resume with {listed(longer)}: {what}; train another run that starts from it (--from)"
        )
    return finished


def _all_open(folder: RunFolder, settings: Resolved, old: Mapping[str, Any]) -> bool:
    """Return whether the stages whose numbers of epochs differ from those of the old settings have not ended."""
    if not folder.state.exists():
        return True
    done = int(load_state(folder.state, torch.device("cpu")).get("stage", 0))
    kind, detector = MODELS[settings.model_name], folder.detector()
    now, then = (
        kind(detector, config).stages() for config in (settings.model, kind.resolve(old["model"], "run"))
    )
    return all(one.epochs == two.epochs for one, two in zip(now[:done], then[:done], strict=True))


def limits_of_time(before: Mapping[str, Any], folder: RunFolder, seconds: float) -> list[tuple[str, Any]]:
    """Return settings with which a run that goes on takes so many seconds in all, those that it has used included.

    The limits of the stages of a planned run are scaled; another run gets ``max_seconds``.
    """
    plan = before.get("plan")
    if not plan:
        return [("train.max_seconds", seconds)]
    stages = read_settings(folder.config).get("train", {}).get("stage_seconds", {})
    factor = seconds / float(plan["seconds"])
    return [("train.stage_seconds", {name: round(factor * one, 1) for name, one in stages.items()})]


def check_several(settings: Resolved, devices: int = 1) -> None:
    """Check that a training on several detectors starts from nothing, on one device.

    Raises:
        ConfigError: When it is to start elsewhere, or on several devices.
    """
    if devices > 1:
        raise ConfigError(f"the files are of several detectors; expected one device, not {devices}")
    for name in ("start", "pretrain", "initial"):
        if getattr(settings.train, name):
            raise ConfigError(
                f"train.{name} is set and the files are of several detectors; expected files of one to start elsewhere"
            )


def beam_of(showers: Showers) -> Beam:
    """Return a beam of the detector with the particle, the energies and the angles of showers."""
    energy, theta = np.asarray(showers.incident_energy), np.asarray(showers.incident_theta)
    low, high = float(energy.min()), float(energy.max())
    level = np.sort(energy)
    if high <= low * (1.0 + _SAME):
        spec = EnergySpec(low, low)
    else:
        kinds = [EnergySpec(low, high, kind) for kind in ("uniform", "log", "log2")]
        spec = min(kinds, key=lambda one: _distance(level, one.values))
    angles = AngleSpec(float(theta.min()), float(theta.max()))
    beam = showers.detector.beam
    return dataclasses.replace(beam, particle=showers.particle or beam.particle, energy=spec, theta=angles)


def _distance(
    ordered: NDArray[np.float64], values: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> float:
    """Return the largest difference of the distribution of ordered numbers from that of a rule."""
    wanted = np.sort(values((np.arange(4096) + 0.5) / 4096))
    at = ordered * (1.0 + _SAME)
    return float(
        np.abs(
            np.searchsorted(wanted, at, side="right") / len(wanted)
            - np.searchsorted(ordered, at, side="right") / len(ordered)
        ).max()
    )


def pretrained(
    settings: Resolved,
    header: Showers,
    folder: RunFolder,
    run: Callable[..., Path],
    seed: int,
    device: str,
    group: Devices,
) -> Path:
    """Return weights trained on parametrised showers of the detector of ``header``, under conditions like its.

    Arguments:
        settings: Those of the training that follows.
        header: The training showers; their cells are not used.
        folder: Run folder of that training; the pre-training lies within it, and is not repeated when it is finished.
        run: The function :func:`~caloforge.train.run.train`.
        seed: Seed of the showers and of the pre-training.
        device: Where to train.
        group: The devices; the first process simulates.

    Raises:
        IncompatibleError: When the parametrisation makes no showers of that detector or particle.
    """
    inner = RunFolder(folder.path / PRETRAINING)
    file = inner.path / "showers.h5"
    if group.agreed(lambda: inner.info.is_file() and inner.read().get("status") == "finished"):
        if group.first:
            file.unlink(missing_ok=True)
        return inner.weights()
    train, beam = settings.train, beam_of(header)

    def make() -> bool:
        """Simulate; whether a training on such showers was begun before."""
        inner.path.mkdir(exist_ok=True)
        try:
            simulate(
                header.detector,
                train.pretrain_showers,
                beam.energy,
                beam.theta,
                beam.particle,
                engine=train.pretrain,
                seed=seed + _SEED,
                output=file,
                force=True,
                layout="sparse",
            )
        except IncompatibleError as error:
            raise IncompatibleError(f"no pre-training on {train.pretrain}: {error}") from error
        return inner.state.is_file()

    begun = group.agreed(make)
    kind = MODELS[settings.model_name]
    changed = {name: times * train.pretrain_epochs for name, times in kind.pretraining.items()}
    stages = {name: PART / (1.0 - PART) * seconds for name, seconds in train.stage_seconds.items()}
    config: Mapping[str, Any] = {
        "model": settings.model.model_dump() | changed,
        "train": train.model_dump()
        | {
            "pretrain": "",
            "train_size": 0,
            "train_offset": 0,
            "validation": 0.05,
            "trainings": 1,
            "validate_every": 1,
        }
        | {"max_seconds": PART * train.max_seconds, "stage_seconds": stages},
    }
    run(
        settings.model_name,
        file,
        inner.path,
        config=config,
        device=device,
        seed=seed,
        resume=begun,
        force=True,
    )
    group.agreed(file.unlink)
    return inner.weights()


_OF_THE_SHOWERS = ("condition_low", "condition_high")
"""Buffers with the range of conditions that a model was trained for."""


def take_fitting(model: ShowerModel, path: Path) -> None:
    """Start from the weights of a file whose names and shapes fit; the range of conditions stays that of the showers."""
    own, stored = model.state_dict(), load_weights(path)
    fitting = {
        name: value
        for name, value in stored.items()
        if name in own and own[name].shape == value.shape and name not in _OF_THE_SHOWERS
    }
    if not fitting:
        raise FileFormatError(path, "", "has no weights that fit the model")
    model.load_weights({**own, **fitting})
