"""From a finished run to a shipped model: weights in half precision, and the card that says where they come from.

Figures on test showers are added to the card later, by :func:`add_to_card`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caloforge.errors import ConfigError, FileFormatError, IncompatibleError, InputError, UnfinishedError
from caloforge.files import sha256_file, write_json
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.showers import ShowerFile
from caloforge.showers.identity import seen_union
from caloforge.showers.reading import open_with_default
from caloforge.showers.seen import identities
from caloforge.text_files import read_json
from caloforge.train.files import Files, data_paths, describe_files
from caloforge.train.folder import (
    RunFolder,
    SeenByTraining,
    save_weights,
    shipped_identities,
    write_identities,
)
from caloforge.train.settings import Resolved, read_settings, resolve, to_toml
from caloforge.zoo.store import ZOO, Card, find_card, shipped_models

__all__ = [
    "UNITS", "add_to_card", "images_name", "made", "settings_of_command", "ship", "train_command",
    "write_seen", "write_weights",
]  # fmt: skip


_IDLE = ("checkpoint_epochs", "checkpoint_seconds", "log_every", "tensorboard")
"""Settings of the training that change no weight."""


def train_command(run: RunFolder, data: Sequence[str], output: str, initial: str = "") -> str:
    """Return the command line that trains a finished run again.

    Arguments:
        data: Files of showers, as the command is to name them.
        output: Run folder that it is to name.
        initial: Weights file that it is to begin from, where the run began from one.

    Raises:
        ConfigError: When a setting cannot be written on a command line.
    """
    content, info = read_settings(run.config), run.read()
    chosen = resolve(content["name"], content)
    preset = str(chosen.model.preset)
    default = resolve(chosen.model_name, preset=preset)
    words = ["caloforge", "train", chosen.model_name, *data, "-o", output]
    if preset != MODELS[chosen.model_name].resolve().preset:
        words += ["--preset", preset]
    train = _changes(chosen.train.model_dump(mode="json"), default.train.model_dump(mode="json"))
    changes = dict(_changes(chosen.model.model_dump(mode="json"), default.model.model_dump(mode="json")))
    changes |= {f"train.{key}": value for key, value in train if _matters(key, value, info)}
    if initial and "train.initial" in changes:
        changes["train.initial"] = initial
    for key, value in changes.items():
        if value is None:
            msg = f"{run.config}: key '{key}': is None, which cannot be expressed on the command line"
            raise ConfigError(msg)
        words += ["--set", f"{key}={_in_one_line(value)}"]
    if info.get("data_detector"):
        words += ["--detector", str(info["data_detector"])]
    words += ["--device", str(info["device"]), "--seed", str(info["seed"])]
    return shlex.join(words)


def settings_of_command(command: str) -> Resolved:
    """Return the settings that a command of :func:`train_command` asks for."""
    words = shlex.split(command)
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    preset = words[words.index("--preset") + 1] if "--preset" in words else None
    return resolve(words[2], overrides=overrides, preset=preset)


def _in_one_line(value: Any) -> str:
    """Return a setting as TOML without line breaks, as ``--set`` takes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_in_one_line, value))}]"
    return to_toml({"x": value}).partition("=")[2].strip()


def _matters(key: str, value: Any, info: Mapping[str, Any]) -> bool:
    """Return whether a changed setting of the training had an effect on the weights."""
    if key == "max_seconds":
        return bool(info.get("wall_seconds", float("inf")) >= value)
    if key.startswith("stage_seconds."):
        return "shortened" in info
    return key not in _IDLE


def _changes(
    chosen: Mapping[str, Any], default: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values in which nested settings differ from the default."""
    for key, value in chosen.items():
        other = default.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _changes(value, other, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}", value


UNITS = {"incident_energy": "MeV", "incident_theta": "degrees", "impact": "mm"}
"""Units of the conditions that have one."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*")
_MADE = ("geant4_version", "physics_list", "production_cut_mm", "cpu_seconds_per_shower", "seed", "seeds")
"""Facts about the making of showers that a card repeats."""


def ship(
    run: str | Path,
    name: str,
    data: Files,
    zoo: str | Path = ZOO,
    best: bool = False,
    eight_bits: bool = False,
) -> Card:
    """Write the weights and the card of a finished run.

    Arguments:
        name: ``DATASET/MODEL``.
        data: The files that it was trained on, in their order; or those of which its images are projections.
        zoo: Folder of all shipped models.
        best: Whether ``DATASET`` alone shall mean this model; no other of the data set is then meant.
        eight_bits: Whether large tensors of parameters are stored in 8 bits.

    Returns:
        The card, without earlier measurements.

    Raises:
        InputError: When the name is not of that form, or weights overflow in half precision.
        FileFormatError: When the run has not ended, its files are broken or it has no identities of its showers.
        IncompatibleError: When the files cannot be those of the run.
        UnfinishedError: When a stage of the run was not trained.
    """
    if not _NAME.fullmatch(name):
        msg = f"'{name}' names no shipped model; expected DATASET/MODEL in small letters, digits and hyphens"
        raise InputError(msg)
    folder = RunFolder(Path(run))
    members, info, settings = folder.models(), folder.read(), read_settings(folder.config)
    if folder.unfinished():
        msg = f"{folder.path}: is {folder.unfinished()}; only finished runs are shipped"
        raise UnfinishedError(msg)
    if info.get("detector_definition"):
        msg = f"{folder.path}: was trained for the user's detector '{info['detector']}'; only built-in ones are shipped"
        raise InputError(msg)
    if not folder.identities.is_file():
        msg = "is missing; a run without identities of its showers cannot be shipped"
        raise FileFormatError(folder.identities, "", msg)
    facts = _data(folder, members[0], data)
    names = [str(entry["file"]) for entry in facts["files"]]
    images = [images_name(file, info["detector"]) for file in names] if facts["projected"] else names
    path = Path(zoo) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    resolved = resolve(settings["name"], settings).as_dict()
    commands, from_nothing = _commands(folder, images, f"runs/{name}")
    if resolved["train"]["initial"]:
        resolved["train"]["initial"] = _begun(f"runs/{name}", resolved["train"]["initial"])
    content = {
        "name": name, "model": info["model"],
        "description": f"{info['model']}, preset {resolved['model']['preset']}, for {info['detector']}",
        "detector": info["detector"], "particle": info["particle"], "best": best,
        "conditions": _conditions(members[0]), "members": len(members),
        "parameters": {"all": info["parameters"], "shipped": _parameters(members[0])}, "data": facts,
        "train_showers": info["train_showers"], "held_out_showers": info["held_out_showers"],
        "prepare": [
            f"caloforge project {file} --to {info['detector']} -o {image}"
            for file, image in zip(names, images, strict=True) if image != file
        ],
        "command": commands[-1], "commands": commands, "from_nothing": from_nothing,
        "commit": info.get("commit"), "seed": info["seed"],
        "hardware": {
            "device": info["device"], "name": info["hardware"],
            "wall_seconds": round(info["wall_seconds"], 3), "cpu_seconds": round(info["cpu_seconds"], 1),
        },
        "versions": info["versions"], "stages": info["stages"],
        "config": resolved["model"], "train": resolved["train"],
        "weights": write_weights(members, path, eight_bits), "seen": write_seen(path, folder.seen()),
    }  # fmt: skip
    beam = members[0].detector.beam.theta
    if "incident_theta" not in members[0].columns and info.get("incident_theta", [beam.low, beam.high]) != [
        beam.low,
        beam.high,
    ]:
        content["incident_theta"] = info["incident_theta"]  # of its showers, where that is not the beam's
    write_json(path, content)
    if best:
        _only_best(name, Path(zoo))
    return find_card(name, Path(zoo))


def images_name(file: str, detector: str) -> str:
    """Return the name of a file of showers projected to a detector of images."""
    return f"{Path(file).stem}-{detector}.h5"


def write_seen(card: Path, seen: SeenByTraining) -> dict[str, Any]:
    """Write the identities of the showers that a model has seen beside its card (a path); return their entry of the card.

    Returns:
        ``file``, ``showers`` (how many), ``sha256``, ``seeds`` of simulations whose files are lost, and ``missing`` when more
        may have been seen than is known.
    """
    path = shipped_identities(card)
    found = write_identities(path, [seen.all])
    facts = {"file": path.name, "showers": len(found), "sha256": sha256_file(path), "seeds": list(seen.seeds)}
    return facts | ({"missing": seen.missing} if seen.missing else {})


def add_to_card(card: Card, parts: Mapping[str, Any]) -> Card:
    """Set keys of a card, such as ``metrics`` or ``speed``, and return the new card."""
    content = {**read_json(card.path), **parts}
    write_json(card.path, content)
    return Card(card.name, card.path, content)


_LARGE = 4096
"""Values from which on a tensor of parameters is stored in 8 bits where a recipe says so."""


def write_weights(
    members: Sequence[ShowerModel], card: Path, eight_bits: bool = False
) -> list[dict[str, Any]]:
    """Write the weights of every member and return name, size and hash of their files.

    Arguments:
        eight_bits: Whether large tensors of parameters are stored in 8 bits and not in half precision.
    """
    states = [member.shipped_state() for member in members]
    for state in states:
        for name, value in state.items():
            if value.dtype == torch.float16 and not bool(torch.isfinite(value).all()):
                msg = f"{card.stem}: '{name}' is not finite in half precision; it cannot be shipped"
                raise InputError(msg)
    for old in card.parent.glob(f"{card.stem}-[0-9]*.safetensors"):
        if old.stem.removeprefix(f"{card.stem}-").isdigit():
            old.unlink()
    files = []
    for number, state in enumerate(states):
        path = card.with_name(f"{card.stem}{f'-{number}' if number else ''}.safetensors")
        large = [
            k for k, w in state.items() if eight_bits and w.dtype == torch.float16 and w.numel() >= _LARGE
        ]
        save_weights(path, state, large)
        path.chmod(0o644)  # everybody who has the package reads it
        bits = {"bits": 8} if large else {}
        files.append({"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path), **bits})
    return files


def _commands(folder: RunFolder, data: Sequence[str], output: str) -> tuple[list[str], bool]:
    """Return the commands of all trainings behind a run, the first one first, and whether they begin from nothing."""
    initial = Path(read_settings(folder.config).get("train", {}).get("initial", ""))
    if not initial.name:
        return [train_command(folder, data, output)], True
    before = RunFolder(initial.parent)
    last = train_command(folder, data, output, initial=_begun(output, initial))
    if not before.info.is_file() or initial.parent == folder.path:
        return [last], False
    described = before.read()["data"]
    files = [str(entry["file"]) for entry in described.get("files", [described])]
    same = described["sha256"] == folder.read()["data"]["sha256"]
    earlier, from_nothing = _commands(before, data if same else files, f"{output}-first")
    return [*earlier, last], from_nothing


def _begun(output: str, initial: str | Path) -> str:
    """Return the weights that the training into ``output`` begins from, as its commands name them."""
    return f"{output}-first/{Path(initial).name}"


def _only_best(name: str, zoo: Path) -> None:
    """Take the mark of the best from the other models of a data set."""
    for other, card in shipped_models(zoo).items():
        if other != name and other.partition("/")[0] == name.partition("/")[0] and card.content.get("best"):
            add_to_card(card, {"best": False})


def _parameters(model: ShowerModel) -> int:
    kept = model.shipped_state()
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in kept)


def _conditions(model: ShowerModel) -> dict[str, Any]:
    """Return the range of each condition in the training showers, a list for one of several columns."""
    ranges: dict[str, Any] = {}
    for name, columns in model.columns.items():
        entry = ranges[name] = {}
        for key, end in (("low", model.condition_low), ("high", model.condition_high)):
            values = [round(value, 6) for value in end[columns].tolist()]
            entry[key] = values[0] if len(values) == 1 else values
        if name in UNITS:
            entry["unit"] = UNITS[name]
    return ranges


def _data(folder: RunFolder, model: ShowerModel, data: Files) -> dict[str, Any]:
    """Return the description of the training showers: files with hashes, and how they were made.

    ``read`` is the file that the training read, where that is another: an image, a joined or a repacked file. Then the
    showers must be the same, by their identities.
    """
    info = folder.read()
    described = describe_files(data, folder.detector())
    files = described.pop("files", [dict(described)])
    repacked = described["sha256"] != info["data"]["sha256"]
    found, detectors = [], set()
    for entry, path in zip(files, data_paths(data), strict=True):
        with open_with_default(path, folder.detector()) as file:
            detectors.add(file.detector.name)
            entry["made"] = made(file)
            if repacked:
                found.append(identities(file, model.detector))
    facts: dict[str, Any] = {
        "files": files,
        "showers": described["showers"],
        "projected": detectors != {info["detector"]},
    }
    if not repacked:
        return facts
    if described["showers"] != info["data"]["showers"]:
        msg = (
            f"{folder.path}: was trained on {info['data']['file']} of {info['data']['showers']} showers; "
            f"the files have {described['showers']}"
        )
        raise IncompatibleError(msg)
    seen = folder.seen()
    own = seen_union([seen.training, seen.selection])
    lost = int((~np.isin(own, np.concatenate(found))).sum())
    if lost:
        msg = (
            f"{folder.path}: {lost} of {len(own)} showers that the run has seen are not in these files; expected "
            "the files that it was trained on"
        )
        raise IncompatibleError(msg)
    return facts | {"read": info["data"]}


def made(file: ShowerFile) -> dict[str, Any]:
    """Return how the showers of a file were made, as far as it says."""
    known = {key: file.attributes[key] for key in _MADE if key in file.attributes}
    if file.seed is not None:
        known["seed"] = file.seed
    return {"source": file.source, "detector": file.detector.name, **known}
