"""Settings as immutable pydantic classes whose errors name the known keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from caloforge.errors import ConfigError, FileFormatError, InputError, did_you_mean
from caloforge.text_files import parse_toml

__all__ = [
    "ModelConfig",
    "OptimizerSettings",
    "Settings",
    "assignment",
    "assignments",
    "merge",
    "torch_device",
    "validated",
]

C = TypeVar("C", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no number from a text or a truth value, no truth value from a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        annotation: Any = cls.model_fields[str(info.field_name)].annotation
        kinds = _kinds(annotation)
        if kinds <= _PLAIN:
            _check_kind(value, kinds)
        return value


class OptimizerSettings(Settings):
    """An optimiser, its schedule, and what belongs to a step."""

    kind: Literal["adam", "adamw", "rmsprop"] = "adam"  # which optimiser
    lr: Annotated[float, Field(gt=0)] = 1e-3  # learning rate
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam and AdamW
    alpha: float = 0.99  # smoothing of RMSprop
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # of the optimiser
    # ``cosine``: to ``final`` x lr over the stage's steps; ``exponential``: times ``gamma`` an epoch
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Annotated[int, Field(ge=0)] = 0  # steps over which the rate rises from 0
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest norm of the gradient; 0 for none
    # decay of the moving average of the weights that validation and the saved weights use; 0 for none
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ModelConfig(Settings):
    """Base of every model's settings.

    Attributes:
        search: What ``caloforge tune`` varies by default: a dotted key to ``LOW:HIGH``, ``LOW:HIGH:log`` or choices such as
            ``64,128,256`` (:mod:`caloforge.tune.space`).
    """

    search: ClassVar[Mapping[str, str]] = {}

    preset: str = "improved"  # name of the preset that the settings started from
    # what the model is conditioned on; empty: the detector's ``model_conditions``
    conditions: tuple[str, ...] = ()


_PLAIN = frozenset({int, float, bool, str, type(None)})


@cache
def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types that an annotation is made of, those of the values of containers included."""
    parts = get_args(annotation)
    if not parts:
        return frozenset({annotation})
    if not isinstance(parts[0], type) and isinstance(parts[0], str | int):  # the values of a Literal
        return frozenset({Any})
    named = (
        parts[:1] if hasattr(annotation, "__metadata__") else parts[-1:] if _is_mapping(annotation) else parts
    )
    return frozenset().union(*(_kinds(one) for one in named if one is not Ellipsis))


def _is_mapping(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _check_kind(value: Any, kinds: frozenset[Any]) -> None:
    """Raise ValueError for a value that would be converted to another kind."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            _check_kind(one, kinds)
    elif isinstance(value, bool) and bool not in kinds:
        raise ValueError(
            f"expected {'a number' if kinds & {int, float} else 'a text'}, not {str(value).lower()}"
        )
    elif isinstance(value, str) and str not in kinds:
        raise ValueError(f"expected {'a number' if kinds & {int, float} else 'true or false'}, not a text")
    elif isinstance(value, int | float) and not isinstance(value, bool) and not kinds & {int, float}:
        raise ValueError(f"expected {'true or false' if bool in kinds else 'a text'}, not a number")


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some values replaced."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def torch_device(name: str) -> str:
    """Return the name of the torch device to compute on: of ``auto`` the GPU where there is one.

    Raises:
        InputError: When the device is not known, or there is no such GPU.
    """
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"device '{name}' is not known; expected auto, cpu, cuda or cuda:1")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and torch.cuda.device_count() <= int(number or 0):
        msg = f"device '{name}' is not available: torch finds {torch.cuda.device_count()} GPUs; use --device cpu"
        raise InputError(msg)
    return name


def assignment(text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``, the value as TOML or, when it is not, as text.

    Raises:
        ConfigError: When there is no key or no equals sign.
    """
    key, equals, raw = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"--set '{text}': expected key=value, such as epochs=10 or train.validation=0.1")
    try:
        value = parse_toml(f"value = {raw}", key)["value"]
    except FileFormatError:
        value = raw.strip()
    return key.strip(), value


def assignments(
    values: Mapping[str, Any] | Iterable[str | tuple[str, Any]] | None,
) -> tuple[tuple[str, Any], ...]:
    """Return keys and values of a mapping, whose keys may be dotted and whose values may be mappings, or of texts ``key=value``.

    Raises:
        ConfigError: When a text is not ``key=value``.
    """
    items = values.items() if isinstance(values, Mapping) else values or ()
    return tuple(assignment(one) if isinstance(one, str) else one for one in items)


def validated(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build settings from plain values.

    Arguments:
        kind: Class of the settings.
        values: Nested plain values.
        where: File or option where they come from, for the message.

    Raises:
        ConfigError: When a key is unknown (the known ones are named) or a value is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            *path, last = (str(part) for part in first["loc"])
            msg = f"{where}: unknown key '{key}'; {did_you_mean(last, _known(kind, tuple(path)), 200, both=True)}"
        else:
            given = f", got {first['input']!r:.80}" if isinstance(first["input"], str | int | float) else ""
            said = first["msg"].removeprefix("Value error, ")
            given = "" if isinstance(first["input"], str) and f"'{first['input']}'" in said else given
            msg = f"{where}: {said}" if not key else f"{where}: key '{key}': {said}{given}"
        raise ConfigError(msg) from error


def _known(kind: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """Return the keys of the settings at a path of keys."""
    current: type[BaseModel] = kind
    for part in path:
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            current = annotation
    return list(current.model_fields)
