"""What a study varies: ranges and choices of a model's settings, checked before anything runs.

One text describes the values of a setting, in a model's declaration (``search`` of its settings), in ``--search`` and in a TOML
file: ``8:64`` (uniform), ``1e-4:1e-2:log`` (uniform in the logarithm), or choices ``64,128,256``, each as TOML has it
(``[256, 128],[384, 256, 128]``) or plain text. Whether the numbers of a range are whole follows from the setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from caloforge.errors import ConfigError, FileFormatError, did_you_mean
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.settings import ModelConfig, merge
from caloforge.text_files import parse_toml, read_toml

__all__ = ["Parameter", "nested", "search_space", "value_at"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*(:\s*log\s*)?")
_NOT_VARIED = ("preset", "conditions")
"""Settings that decide what is compared."""


@dataclass(frozen=True)
class Parameter:
    """The values of one setting."""

    key: str  # dotted, within the model's settings
    low: float = 0.0  # least value of a range
    high: float = 0.0  # largest value of a range
    log: bool = False  # uniform in the logarithm
    whole: bool = False  # whole numbers
    choices: tuple[str, ...] = ()  # values in place of a range, each as JSON

    def suggest(self, trial: Any) -> Any:
        """Let a trial of Optuna choose a value; numbers have four significant digits."""
        if self.choices:
            return json.loads(trial.suggest_categorical(self.key, self.choices))
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return self.decoded(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def decoded(self, stored: Any) -> Any:
        """Return the value of the setting for what Optuna stores."""
        if self.choices:
            return json.loads(stored)
        return int(stored) if self.whole else min(max(float(f"{stored:.4g}"), self.low), self.high)

    def encoded(self, value: Any) -> Any:
        """Return what Optuna stores for a value, or None when it is not among them."""
        if self.choices:
            text = json.dumps(value)
            return text if text in self.choices else None
        return value if isinstance(value, int | float) and self.low <= value <= self.high else None

    def __str__(self) -> str:
        """Return the text that describes it."""
        if self.choices:
            return ",".join(self.choices)
        return f"{self.low:g}:{self.high:g}" + (":log" if self.log else "")


def search_space(
    model: str,
    base: ModelConfig,
    search: Iterable[str] = (),
    space: str | Path | Mapping[str, Any] | None = None,
    fixed: Iterable[str] = (),
    only: bool = False,
) -> tuple[Parameter, ...]:
    """Return what is varied: the model's defaults, replaced and completed by a file, then by single texts.

    Arguments:
        base: The settings that stay, but for what is varied.
        search: Texts ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=a,b,c``.
        space: TOML file, or the same as a mapping: a dotted key to such a text or to a list of choices.
        fixed: Keys that were set by hand, which the defaults leave alone.
        only: Leave the defaults out.

    Raises:
        ConfigError: When a key is unknown, given twice or set by hand too, or a value is wrong; names the nearest keys.
    """
    kind = MODELS[model]
    fixed = [key.removeprefix("model.") for key in fixed]
    found: dict[str, Parameter] = {}
    if not only:
        for key, text in kind.Config.search.items():
            if not any(key == other or key.startswith(f"{other}.") for other in fixed):
                found[key] = _parameter(kind, base, key, text, f"search space of '{model}', {key}")
    for key, value, where in (*_of_file(space), *_of_texts(search)):
        if key in fixed:
            raise ConfigError(f"{where}: '{key}' is set by --set too; expected it in one of the two")
        found[key] = _parameter(kind, base, key, value, where)
    if not found:
        raise ConfigError(f"model '{model}' has nothing to vary; expected --search KEY=LOW:HIGH or KEY=a,b,c")
    return tuple(found.values())


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings of dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merge(result, value)
    return result


def value_at(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def _of_texts(texts: Iterable[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield key, description and its origin of each ``KEY=...``."""
    seen: set[str] = set()
    for text in texts:
        key, equals, description = (part.strip() for part in text.partition("="))
        where = f"--search '{text}'"
        if not (key and equals and description):
            raise ConfigError(f"{where}: expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c")
        key = key.removeprefix("model.")
        if key in seen:
            raise ConfigError(f"{where}: '{key}' is given twice")
        seen.add(key)
        yield key, description, where


def _of_file(space: str | Path | Mapping[str, Any] | None) -> Iterator[tuple[str, Any, str]]:
    if space is None:
        return
    name = "space" if isinstance(space, Mapping) else str(space)
    content = space if isinstance(space, Mapping) else read_toml(space)
    for key, value in _flat(content):
        yield key.removeprefix("model."), value, f"{name}: key '{key}'"


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _parameter(
    kind: type[ShowerModel], base: ModelConfig, key: str, description: Any, where: str
) -> Parameter:
    """Read a description and check it against the model's settings."""
    annotation = _annotation(kind.Config, key, where)
    if isinstance(description, str) and (found := _RANGE.fullmatch(description)):
        if annotation not in (int, float):
            raise ConfigError(f"{where}: '{key}' is not a number; expected choices such as a,b,c")
        parameter = _range(key, found, annotation is int, where)
        values: Sequence[Any] = [parameter.decoded(end) for end in (parameter.low, parameter.high)]
    else:
        values = _choices(description, where)
        parameter = Parameter(key, choices=tuple(json.dumps(value) for value in values))
        if len(set(parameter.choices)) < max(2, len(values)):
            raise ConfigError(f"{where}: expected at least two different choices; --set fixes a value")
    for value in values:
        kind.resolve(merge(base.model_dump(mode="json"), nested({key: value})), where)
    return parameter


def _range(key: str, found: re.Match[str], whole: bool, where: str) -> Parameter:
    low, high, log = float(found[1]), float(found[2]), found[3] is not None
    if not low < high:
        raise ConfigError(f"{where}: {found[1]} is not below {found[2]}; expected LOW:HIGH")
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range begins at {found[1]}; expected more than 0")
    if whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{where}: '{key}' is a whole number; expected whole ends of the range")
    return Parameter(key, low, high, log, whole)


def _choices(description: Any, where: str) -> list[Any]:
    if isinstance(description, list):
        return description
    if not isinstance(description, str):
        raise ConfigError(f"{where}: expected a text such as '8:64:log' or a list of choices")
    if ":" in description:
        raise ConfigError(f"{where}: expected LOW:HIGH, LOW:HIGH:log or choices a,b,c")
    try:
        values: list[Any] = parse_toml(f"value = [{description}]", where)["value"]
    except FileFormatError:
        return [_plain(word.strip()) for word in description.split(",")]
    return values


def _plain(word: str) -> Any:
    try:
        return parse_toml(f"value = {word}", word)["value"]
    except FileFormatError:
        return word


def _annotation(kind: type[BaseModel], key: str, where: str) -> Any:
    """Return the type of the setting of a dotted key."""
    known = dict(_leaves(kind))
    if key in known and key not in _NOT_VARIED:
        return known[key]
    offered = [name for name in known if name not in _NOT_VARIED]
    raise ConfigError(f"{where}: the model has no setting '{key}' to vary; {did_you_mean(key, offered)}")


def _leaves(kind: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the type of each setting that is not a group of settings."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{before}{name}.")
        else:
            yield f"{before}{name}", field.annotation
