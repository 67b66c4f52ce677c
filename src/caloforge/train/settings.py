"""Settings of a training, and where they come from: presets, a TOML file, single overrides."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from caloforge.errors import ConfigError, FileFormatError
from caloforge.models import MODELS
from caloforge.settings import ModelConfig, Settings, merge, validated

__all__ = ["Resolved", "TrainConfig", "read_settings", "resolve", "to_toml", "toml_value"]


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested settings (texts, numbers, booleans, lists, tables) as TOML; None is left out."""
    plain = [
        f"{key} = {toml_value(value)}"
        for key, value in values.items()
        if not _nested(value) and value is not None
    ]
    text = "".join(f"{line}\n" for line in plain)
    for key, value in values.items():
        if _nested(value):
            name = f"{prefix}{key}"
            text += f"\n[{name}]\n{to_toml(value, f'{name}.')}"
    return text


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping)


def toml_value(value: Any) -> str:
    """Return a text, number, boolean or list as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


_SECTIONS = ("model", "train")


class TrainConfig(Settings):
    """Settings that do not depend on the model.

    Arguments:
        validation: Probability of each shower to be held out; its identity decides, see :func:`~caloforge.train.data.split`.
        train_size: Showers to train on; 0 for all that are not held out.
        train_offset: Where the training showers begin in the random order of the rest; disjoint sets have offsets that
            differ by at least ``train_size``.
        split_seed: Seed of the split, so that trainings of different seeds hold out the same showers.
        metric: Figure by which the best epoch is kept; empty: the stage's own.
        validate_every: Epochs between two looks at the held-out showers.
        log_every: Epochs between two rows of the log.
        checkpoint_epochs: Epochs between two checkpoints; 0: by time alone.
        checkpoint_seconds: Seconds between two checkpoints.
        max_seconds: Stop after so many seconds, at the end of an epoch; 0: never. Not reproducible. A run of which some
            stage was not trained at all is marked as unfinished.
        precision: Of the arithmetic: 32 bits, or mixed with bfloat16 or float16.
        compile: Compile the modules that the model names.
        trainings: Trainings with different seeds.
        combine: Of several trainings keep the ``best`` by its metric, or draw from all in equal parts (``ensemble``).
        initial: Weights file to start from; names and shapes that fit are taken.
        tensorboard: Write a TensorBoard log too.
    """

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2
    train_size: Annotated[int, Field(ge=0)] = 0
    train_offset: Annotated[int, Field(ge=0)] = 0
    split_seed: Annotated[int, Field(ge=0)] = 0
    metric: str = ""
    validate_every: Annotated[int, Field(ge=1)] = 1
    log_every: Annotated[int, Field(ge=1)] = 1
    checkpoint_epochs: Annotated[int, Field(ge=0)] = 0
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_seconds: Annotated[float, Field(ge=0)] = 0.0
    precision: Literal["32", "bf16", "16"] = "32"
    compile: bool = False
    trainings: Annotated[int, Field(ge=1, le=64)] = 1
    combine: Literal["best", "ensemble"] = "best"
    initial: str = ""
    tensorboard: bool = False


@dataclass(frozen=True)
class Resolved:
    """Everything that decides a training beside its data, its seed and its device."""

    model_name: str
    model: ModelConfig
    train: TrainConfig

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as ``config.toml`` holds them."""
        return {
            "name": self.model_name,
            "model": self.model.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
        }


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a TOML file with the tables ``[model]`` and ``[train]``; a run's ``config.toml`` is one.

    Raises:
        FileFormatError: When it is missing or not TOML.
        ConfigError: When it holds another key; names the file and the key.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, "", f"is not TOML: {error}") from error
    for key, value in content.items():
        if key not in ("name", *_SECTIONS) or (key in _SECTIONS and not isinstance(value, dict)):
            msg = f"{path}: unknown key '{key}'; known: [model] and [train]"
            raise ConfigError(msg)
    return content


def resolve(
    model_name: str,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    preset: str | None = None,
    **train: Any,
) -> Resolved:
    """Build the settings of a training.

    Arguments:
        model_name: A registered model.
        config: TOML file, or the same as a mapping with "model" and "train".
        overrides: Texts ``key=value``; the key is dotted and may begin with ``model.`` or ``train.``; the value is
            read as TOML and, when it is not, as text.
        preset: Preset of the model; stands before all others.
        train: Settings of the training that were given by name; None is left out.

    Raises:
        ConfigError: For a key that nothing knows, or a wrong value; says where it came from.
        UnknownNameError: For an unknown model.
    """
    model = MODELS[model_name]
    if isinstance(config, str | Path):
        given, where = read_settings(config), str(config)
        if given.get("name", model_name) != model_name:
            msg = f"{where}: key 'name': is for the model '{given['name']}', not for '{model_name}'"
            raise ConfigError(msg)
    else:
        given, where = dict(config or {}), "settings"
    first = {} if preset is None else {"preset": preset}
    model_values = merge(dict(given.get("model", {})), first)
    train_values = dict(given.get("train", {}))
    model.resolve(model_values, f"{where}: [model]" if given else "settings")
    validated(TrainConfig, train_values, f"{where}: [train]")
    for text in overrides:
        section, change = _override(text, model.Config)
        target = model_values if section == "model" else train_values
        target.update(merge(target, change))
    train_values.update({key: value for key, value in train.items() if value is not None})
    return Resolved(
        model_name,
        model.resolve(model_values, "--set"),
        validated(TrainConfig, train_values, "--set"),
    )


def _override(text: str, model: type[ModelConfig]) -> tuple[str, dict[str, Any]]:
    """Return the section and the nested change that ``key=value`` asks for."""
    key, equals, raw = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        msg = f"--set '{text}': expected key=value, such as epochs=10 or train.validation=0.1"
        raise ConfigError(msg)
    if parts[0] in _SECTIONS and len(parts) > 1:
        section, parts = parts[0], parts[1:]
    elif parts[0] in model.model_fields:
        section = "model"
    elif parts[0] in TrainConfig.model_fields:
        section = "train"
    else:
        known = [*model.model_fields, *TrainConfig.model_fields]
        msg = f"--set '{text}': unknown key '{parts[0]}'; known: {', '.join(known)}"
        raise ConfigError(msg)
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    for part in reversed(parts):
        value = {part: value}
    return section, value
