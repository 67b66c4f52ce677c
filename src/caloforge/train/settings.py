"""Settings of a training, from presets, a TOML file and single overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tomli_w
from pydantic import AfterValidator, Field

from caloforge.errors import ConfigError, did_you_mean
from caloforge.models import MODELS
from caloforge.settings import ModelConfig, Settings, assignments, merge, validated
from caloforge.text_files import read_toml

__all__ = [
    "FLAGSHIP",
    "DataConfig",
    "Overrides",
    "Precision",
    "Resolved",
    "TrainConfig",
    "Wanted",
    "read_settings",
    "resolve",
    "to_toml",
]


def to_toml(values: Mapping[str, Any]) -> str:
    """Return nested settings (texts, numbers, booleans, lists, tables) as TOML; None is left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if item is not None}
        return value

    return tomli_w.dumps(plain(values))


FLAGSHIP = "flow-matching"
"""The model where none is named."""
_SECTIONS = ("model", "train")
Overrides: TypeAlias = "Mapping[str, Any] | Iterable[str | tuple[str, Any]]"
"""Single settings: a mapping, or texts ``key=value``."""
Precision: TypeAlias = Literal["32", "bf16", "16"]
_BYTES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def _size(text: str) -> str:
    if not re.fullmatch(r"auto|\d+(\.\d+)? ?[kMGT]B", text):
        raise ValueError("expected auto, or a size such as 500MB or 4GB")
    return text


def free_memory() -> int:
    """Return the free memory of this machine in bytes, within the limit of the process's control group (cgroup v2)."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        free = 1024 * int(found[1]) if found else 0
    except OSError:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        used = re.search(r"^anon (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        return min(free, int((group / "memory.max").read_text()) - int(used[1] if used else 0))
    except (OSError, ValueError):
        return free


class DataConfig(Settings):
    """How the training showers are kept.

    Arguments:
        memory: Most memory that their cells may take, such as ``4GB``; ``auto``: half of what is free. Showers that fit, as
            hits alone where that is smaller, are kept in memory, others are streamed from the files, in another random
            order. Where they do not fit densely, fits, calibrations and epoch selection use a random sample of them.
    """

    memory: Annotated[str, AfterValidator(_size)] = "auto"

    @property
    def bytes(self) -> float:
        """The memory in bytes."""
        if self.memory == "auto":
            return free_memory() / 2
        return float(self.memory[:-2]) * _BYTES[self.memory[-2:]]


class TrainConfig(Settings):
    """Settings that do not depend on the model."""

    # probability of each shower to be held out; its identity decides, see :func:`~caloforge.train.data.split`
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2
    train_size: Annotated[int, Field(ge=0)] = 0  # showers to train on; 0 for all that are not held out
    # where the training showers begin in the random order of the rest; disjoint sets have offsets that differ
    # by at least ``train_size``
    train_offset: Annotated[int, Field(ge=0)] = 0
    # seed of the split, so that trainings of different seeds hold out the same showers
    split_seed: Annotated[int, Field(ge=0)] = 0
    metric: str = ""  # figure by which the best epoch is kept; empty: the stage's own
    validate_every: Annotated[int, Field(ge=1)] = 1  # epochs between two looks at the held-out showers
    log_every: Annotated[int, Field(ge=1)] = 1  # epochs between two rows of the log
    checkpoint_epochs: Annotated[int, Field(ge=0)] = 0  # epochs between two checkpoints; 0: by time alone
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0  # seconds between two checkpoints
    # Stop after so many seconds, at the end of an epoch; 0: never. Not reproducible. A run of which some
    # stage was not trained at all is marked as unfinished.
    max_seconds: Annotated[float, Field(ge=0)] = 0.0
    # most seconds of stages, by their names: a stage that would take longer gets fewer epochs on its way, and its learning
    # rates fall accordingly faster. Not reproducible where that happens, which ``run.json`` says
    stage_seconds: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    precision: Precision = "32"  # of the arithmetic: 32 bits, or mixed with bfloat16 or float16
    compile: bool = False  # compile the modules that the model names
    trainings: Annotated[int, Field(ge=1, le=64)] = 1  # trainings with different seeds
    # of several trainings keep the ``best`` by its metric, or draw from all in equal parts (``ensemble``)
    combine: Literal["best", "ensemble"] = "best"
    initial: str = ""  # weights file to start from; names and shapes that fit are taken
    # weights of a run or a shipped model to start from, constants following from the showers (``--from``)
    start: str = ""
    pretrain: str = ""  # engine of parametrised showers, ``gflash``, to train on first; empty: none
    pretrain_showers: Annotated[int, Field(ge=100)] = 20_000  # how many
    pretrain_epochs: Annotated[int, Field(ge=1)] = 15  # epochs of that training
    tensorboard: bool = False  # write a TensorBoard log too
    data: DataConfig = DataConfig()  # how the training showers are kept


@dataclass(frozen=True)
class Resolved:
    """All settings that determine a training, apart from its data, its seed and its device."""

    model_name: str
    model: ModelConfig
    train: TrainConfig

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as in ``config.toml``."""
        return {
            "name": self.model_name,
            "model": self.model.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
        }


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a TOML file with the tables ``[model]`` and ``[train]``; a run's ``config.toml`` is one.

    Raises:
        FileFormatError: When it is missing or not TOML.
        ConfigError: When it has another key; names the file and the key.
    """
    content = read_toml(path)
    for key, value in content.items():
        if key not in ("name", *_SECTIONS) or (key in _SECTIONS and not isinstance(value, dict)):
            raise ConfigError(f"{path}: unknown key '{key}'; known: [model] and [train]")
    return content


def resolve(
    model_name: str,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    preset: str | None = None,
    **train: Any,
) -> Resolved:
    """Build the settings of a training.

    Arguments:
        model_name: A registered model.
        config: TOML file, or the same as a mapping with "model" and "train".
        overrides: A mapping of keys to values, or texts ``key=value``; the key is dotted and may begin with ``model.`` or ``train.``; the
            value of a text is read as TOML and, when it is not, as text.
        preset: Preset of the model; stands before all others.
        train: Single settings of the training; None is left out.

    Raises:
        ConfigError: For an unknown key or a wrong value; says where it came from.
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
    for key, value in assignments(overrides):
        section, change = _override(key, value, model.Config)
        target = model_values if section == "model" else train_values
        target.update(merge(target, change))
    train_values.update({key: value for key, value in train.items() if value is not None})
    return Resolved(
        model_name, model.resolve(model_values, "--set"), validated(TrainConfig, train_values, "--set")
    )


@dataclass(frozen=True)
class Wanted:
    """The settings of a training as the user gives them: arguments of :func:`resolve`, the model being the flagship where none is named."""

    model: str | None
    config: str | Path | Mapping[str, Any] | None = None
    overrides: Overrides = ()
    preset: str | None = None
    train_size: int | None = None
    start: str | None = None
    pretrain: str | None = None
    stored: Mapping[str, Any] = field(default_factory=dict)  # settings of a run that goes on

    def __post_init__(self) -> None:
        if self.model is None and (named := self._tables().get("name")):
            object.__setattr__(self, "model", named)

    def _tables(self) -> dict[str, Any]:
        """Return the settings of the file."""
        if isinstance(self.config, str | Path):
            return read_settings(self.config)
        return dict(self.config or {})

    def after(self, config: Path) -> Wanted:
        """Return the same on top of the settings of a run of that model that goes on."""
        stored = read_settings(config)
        name = stored.pop("name")
        return self if self.model not in (None, name) else replace(self, model=name, stored=stored)

    def settings(self, planned: Mapping[str, Any] | None = None) -> Resolved:
        """Return the settings, the user's on top of those of a plan or of the run that goes on."""
        base = self.stored if planned is None else planned
        config = merge(base, self._tables()) if base else self.config
        own = {"train_size": self.train_size, "start": self.start, "pretrain": self.pretrain}
        return resolve(self.model or FLAGSHIP, config, self.overrides, self.preset, **own)

    def given(self) -> frozenset[str]:
        """Return the keys of the model's settings, and ``train.KEY``, that the user has set."""
        tables = self._tables()
        for key, value in assignments(self.overrides):
            section, change = _override(key, value, MODELS[self.model or FLAGSHIP].Config)
            tables = merge(tables, {section: change})
        keys = {*tables.get("model", {}), *(f"train.{key}" for key in tables.get("train", {}))}
        keys |= {"preset"} if self.preset else set()
        keys |= {f"train.{key}" for key in ("start", "pretrain") if getattr(self, key)}
        return frozenset(keys | ({"train.train_size"} if self.train_size else set()))


def _override(key: str, value: Any, model: type[ModelConfig]) -> tuple[str, dict[str, Any]]:
    """Return the section and the nested change of a dotted key and its value."""
    parts = [part.strip() for part in key.split(".")]
    if parts[0] in _SECTIONS and isinstance(value, Mapping) and len(parts) == 1:
        return parts[0], dict(value)
    if parts[0] in _SECTIONS and len(parts) > 1:
        section, parts = parts[0], parts[1:]
    elif parts[0] in model.model_fields:
        section = "model"
    elif parts[0] in TrainConfig.model_fields:
        section = "train"
    else:
        known = [*model.model_fields, *TrainConfig.model_fields]
        raise ConfigError(
            f"--set '{key}': unknown key '{parts[0]}'; {did_you_mean(parts[0], known, 200, both=True)}"
        )
    for part in reversed(parts):
        value = {part: value}
    return section, value
