"""The command that trains a run again: what its settings say beyond its preset, without what changes no weight."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caloforge.errors import ConfigError
from caloforge.models import MODELS
from caloforge.train.folder import RunFolder
from caloforge.train.settings import Resolved, read_settings, resolve
from caloforge.train.toml import toml_value

__all__ = ["settings_of_command", "train_command"]

_IDLE = ("checkpoint_epochs", "checkpoint_seconds", "log_every", "tensorboard")
"""Settings of the training that change no weight."""


def train_command(run: RunFolder, data: Sequence[str], output: str, initial: str = "") -> str:
    """Return the command line that trains a finished run again.

    Arguments:
        run: The run.
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
        words += ["--set", f"{key}={toml_value(value)}"]
    words += ["--device", str(info["device"]), "--seed", str(info["seed"])]
    return shlex.join(words)


def settings_of_command(command: str) -> Resolved:
    """Return the settings that a command of :func:`train_command` asks for."""
    words = shlex.split(command)
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    preset = words[words.index("--preset") + 1] if "--preset" in words else None
    return resolve(words[2], overrides=overrides, preset=preset)


def _matters(key: str, value: Any, info: Mapping[str, Any]) -> bool:
    """Return whether a changed setting of the training had an effect on the weights."""
    if key == "max_seconds":
        return bool(info.get("wall_seconds", float("inf")) >= value)
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
