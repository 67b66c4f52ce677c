"""Weights and the ``run.json`` or card beside them: types of their entries, and the files that belong to them.

Weights of shipped models may be stored in 8 bits: the values of a tensor, in their order in memory, in blocks of 32, each value a whole number
from -127 to 127 (int8) times the block's scale (float16, a tensor of the same name with ``.scale`` behind it). The largest error is 1/254 of the
block's largest value, and the file has 8.5 bits a value.

A run that has ended and a card hold the SHA-256 of their files. Bits that flipped on a disk or in a copy, and files of another training, make
showers that look like any others; so each file is compared with its SHA-256 whenever it is read. Runs of older versions hold none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import torch
from pydantic import ConfigDict, Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as packed
from torch import Tensor

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path, sha256_file
from caloforge.settings import Settings, validated
from caloforge.showers.description import html_table
from caloforge.text_files import check_regular, listed, read_json
from caloforge.units import AngleSpec, plain_number

__all__ = [
    "MEMBER",
    "RUN_FILE",
    "Described",
    "RunPath",
    "check_digest",
    "described",
    "held_out_figure",
    "load_weights",
    "run_lines",
    "save_weights",
    "unfinished_text",
]

RUN_FILE: Final = "run.json"
MEMBER: Final = re.compile(r"-\d+$")
"""End of the name of the weights of an ensemble's further member."""
_NAME = r"^[^/\\]+$"  # of a file beside a card


_BLOCK: Final = 32  # values of a tensor in 8 bits with one scale
_SCALE: Final = ".scale"


if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # what can be derived from before Python 3.12


class RunPath(_Path):
    """The path of a run folder, which notebooks show as a table of the run."""

    def _repr_html_(self) -> str | None:
        info = self / RUN_FILE
        return html_table(f"Run {self}", run_lines(described(info))) if info.is_file() else None


def save_weights(path: Path, weights: Mapping[str, Tensor], eight_bits: Collection[str] = ()) -> None:
    """Write weights as safetensors.

    Arguments:
        eight_bits: Names of tensors of finite floating-point numbers that are stored in 8 bits.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    for name in eight_bits:
        plain[name], plain[name + _SCALE] = _in_eight_bits(plain[name])
    with atomic_path(path, force=True) as part:
        part.write_bytes(packed(plain))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from safetensors, and check them against the SHA-256 that the run or the card beside them has.

    Tensors in 8 bits are returned as float32.

    Raises:
        FileFormatError: When the file is missing, broken, or not the one that was written.
    """
    if not path.exists():
        raise FileFormatError(path, "", "is missing; expected weights as safetensors")
    check_digest(path)
    try:
        stored = dict(load_file(str(path)))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FileFormatError(path, "", f"is not a file of weights as safetensors: {error}") from error
    for name in [name for name, value in stored.items() if value.dtype == torch.int8]:
        scale = stored.pop(name + _SCALE, None)
        if scale is None or scale.shape != (-(-stored[name].numel() // _BLOCK),):
            raise FileFormatError(
                path, name, f"is stored in 8 bits; expected one scale for each {_BLOCK} values"
            )
        stored[name] = _from_eight_bits(stored[name], scale)
    return stored


def _in_eight_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers from -127 to 127 (int8) of a tensor's shape, and the scale (float16) of each block."""
    flat = value.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
    scale = (blocks.abs().amax(1) / 127).half()
    whole = (
        (blocks / scale.float()[:, None].clamp(min=torch.finfo(torch.float16).tiny)).round().clamp(-127, 127)
    )
    return whole.flatten()[: len(flat)].to(torch.int8).view(value.shape), scale


def _from_eight_bits(whole: Tensor, scale: Tensor) -> Tensor:
    """Return the tensor (float32) that whole numbers and scales stand for."""
    return (whole.flatten() * scale.float().repeat_interleave(_BLOCK)[: whole.numel()]).view(whole.shape)


def held_out_figure(stage: Mapping[str, Any]) -> str:
    """Return the figure on held-out showers of a stage as ``run.json`` describes it, as text."""
    return "never measured" if stage["metric"] is None else plain_number(stage["metric"], 4)


def run_lines(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a ``run.json`` says as names and texts, for people."""
    data, versions = content.get("data", {}), content.get("versions", {})
    files = listed(str(entry["file"]) for entry in data.get("files", [data] if data else []))
    rows = [
        ("model", str(content["model"])),
        ("status", str(content.get("status", "not known"))),
        ("detector", listed(content.get("detectors", [content["detector"]]))),
        ("particle", str(content.get("particle") or "not known")),
        ("data", f"{files}, {data.get('showers', 0):,} showers"),
        (
            "showers",
            f"{content.get('train_showers', 0):,} trained on, {content.get('held_out_showers', 0):,} held out",
        ),
        ("seed", str(content.get("seed", "not known"))),
    ]
    for name, stage in content.get("stages", {}).items():
        kept = f"epoch {stage['epoch']} kept, figure on held-out showers: {held_out_figure(stage)}"
        rows.append((f"stage {name}", kept))
    if "parameters" in content:
        rows.append(("parameters", f"{content['parameters']:,}"))
    if "wall_seconds" in content:
        rows.append(
            (
                "time",
                f"{content['wall_seconds']:,.0f} s, {content.get('cpu_seconds', 0.0):,.0f} s of processors",
            )
        )
    rows.append(
        (
            "device",
            f"{content.get('devices', 1)} x {content.get('device', '')} {content.get('hardware', '')}".strip(),
        )
    )
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return rows


class _Weights(Settings):
    """An entry of a card."""

    model_config = ConfigDict(extra="ignore")
    file: Annotated[str, Field(pattern=_NAME)]
    sha256: str = ""
    bytes: Annotated[int, Field(ge=0)] | None = None


class _Seen(Settings):
    """What a run or a card says of the showers that the model has seen."""

    model_config = ConfigDict(extra="ignore")
    file: Annotated[str, Field(pattern=_NAME)] = "identities.npz"
    showers: Annotated[int, Field(ge=0)] = 0
    sha256: str = ""
    seeds: tuple[int, ...] = ()
    missing: str = ""


class Described(Settings):
    """Entries of a ``run.json`` or a card that are read; other entries are ignored."""

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
    bytes: dict[str, int] = Field(default_factory=dict)  # their sizes

    @field_validator("incident_theta")
    @classmethod
    def _angles(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if value is None else (AngleSpec(*value).low, AngleSpec(*value).high)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file beside it; empty when it has none."""
        listed: list[_Weights | _Seen] = [*self.weights, *([] if self.seen is None else [self.seen])]
        return self.sha256.get(name) or next((one.sha256 for one in listed if one.file == name), "")

    def size(self, name: str) -> int | None:
        """Return the size of a file beside it, bytes; None when it does not say it."""
        known = {one.file: one.bytes for one in self.weights} | self.bytes
        return known.get(name)


def described(path: Path) -> dict[str, Any]:
    """Return the content of a ``run.json`` or a card.

    Raises:
        FileFormatError: When it cannot be read as JSON.
        ConfigError: When what readers rely on is missing or of another kind.
    """
    content = read_json(path)
    validated(Described, content, str(path))
    return content


def check_digest(path: Path, described_by: Path | None = None) -> None:
    """Check a file of a run or of a shipped model against the size and the SHA-256 that stand beside it, if there are any.

    Arguments:
        described_by: The ``run.json`` or card that says them, where its name does not follow from the file's.

    Raises:
        FileFormatError: When it is no regular file, or another one.
    """
    check_regular(path)
    beside = [path.parent / RUN_FILE, path.with_name(f"{MEMBER.sub('', path.stem)}.json")]
    for one in beside if described_by is None else [described_by]:
        if not one.is_file():
            continue
        content = validated(Described, read_json(one), str(one))
        said, size, real = content.digest(path.name), content.size(path.name), path.stat().st_size
        if size is not None and real != size:
            message = f"is not the file that was written: it has {real:,} bytes, {one.name} says {size:,}"
            raise FileFormatError(path, "", f"{message}; copy it again, or train again")
        if said and (found := sha256_file(path)) != said:
            message = f"is not the file that was written: its SHA-256 begins with {found[:12]}, {one.name} says {said[:12]:.12}"
            raise FileFormatError(path, "", f"{message}; copy it again, or train again")
        return


def unfinished_text(stages: Iterable[str]) -> str:
    """Return what a run is of which some stages were not trained."""
    names = list(stages)
    return f"unfinished: stage{'s' if len(names) > 1 else ''} {', '.join(names)} not trained"
