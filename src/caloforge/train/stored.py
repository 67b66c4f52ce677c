"""Weights, and what the ``run.json`` or the card beside them says: of which kind each entry must be, and which files belong to it.

A run that has ended and a card hold the SHA-256 of their files. Bits that flipped on a disk or in a copy, and files of another training, make
showers that look like any others; so each file is compared with its SHA-256 whenever it is read. Runs of older versions hold none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as packed
from torch import Tensor

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path, sha256_file
from caloforge.settings import Settings, validated
from caloforge.text_files import check_regular, read_json
from caloforge.units import AngleSpec

__all__ = ["MEMBER", "RUN_FILE", "Described", "check_digest", "described", "load_weights", "save_weights"]

RUN_FILE: Final = "run.json"
MEMBER: Final = re.compile(r"-\d+$")
"""End of the name of the weights of an ensemble's further member."""
_NAME = r"^[^/\\]+$"  # of a file beside a card


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    with atomic_path(path, force=True) as part:
        part.write_bytes(packed(plain))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from safetensors, and check them against the SHA-256 that the run or the card beside them has.

    Raises:
        FileFormatError: When the file is missing, broken, or not the one that was written.
    """
    if not path.exists():
        raise FileFormatError(path, "", "is missing; expected weights as safetensors")
    check_digest(path)
    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FileFormatError(path, "", f"is not a file of weights as safetensors: {error}") from error


class _Weights(Settings):
    """An entry of a card."""

    model_config = ConfigDict(extra="ignore")
    file: Annotated[str, Field(pattern=_NAME)]
    sha256: str = ""


class _Seen(Settings):
    """What a run or a card says of the showers that the model has seen."""

    model_config = ConfigDict(extra="ignore")
    file: Annotated[str, Field(pattern=_NAME)] = "identities.npz"
    showers: Annotated[int, Field(ge=0)] = 0
    sha256: str = ""
    seeds: tuple[int, ...] = ()
    missing: str = ""


class Described(Settings):
    """What readers rely on of a ``run.json`` or a card; the rest is not looked at."""

    model_config = ConfigDict(extra="ignore")
    model: str
    detector: str
    detector_definition: str = ""
    status: str = ""
    particle: str = ""
    incident_theta: tuple[float, float] | None = None  # degrees
    members: Annotated[int, Field(ge=1, le=64)] = 1
    best: bool = False
    not_trained: tuple[str, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    seen: _Seen | None = None
    weights: tuple[_Weights, ...] = ()  # of a card
    sha256: dict[str, str] = Field(default_factory=dict)  # of the files of a run

    @field_validator("incident_theta")
    @classmethod
    def _angles(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if value is None else (AngleSpec(*value).low, AngleSpec(*value).high)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file beside it; empty when it has none."""
        return self.sha256.get(name) or next((one.sha256 for one in self.weights if one.file == name), "")


def described(path: Path) -> dict[str, Any]:
    """Return the content of a ``run.json`` or a card.

    Raises:
        FileFormatError: When it cannot be read as JSON.
        ConfigError: When what readers rely on is missing or of another kind.
    """
    content = read_json(path)
    validated(Described, content, str(path))
    return content


def check_digest(path: Path) -> None:
    """Check a file of a run or of a shipped model against the SHA-256 that stands beside it, if there is one.

    Raises:
        FileFormatError: When it is no regular file, or another one.
    """
    check_regular(path)
    beside = path.parent / RUN_FILE, path.with_name(f"{MEMBER.sub('', path.stem)}.json")
    for one in beside:
        if not one.is_file():
            continue
        said = validated(Described, read_json(one), str(one)).digest(path.name)
        if said and (found := sha256_file(path)) != said:
            message = f"is not the file that was written: its SHA-256 begins with {found[:12]}, {one.name} says {said[:12]:.12}"
            raise FileFormatError(path, "", f"{message}; copy it again, or train again")
        return
