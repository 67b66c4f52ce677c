"""``load``: a generator from a run folder or from the name of a shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from caloforge.errors import InputError
from caloforge.generate.generator import Generator
from caloforge.generate.zoo import find_card
from caloforge.train.folder import RunFolder

__all__ = ["load"]


def load(source: str | Path, device: str = "auto", options: dict[str, Any] | None = None) -> Generator:
    """Load a generator.

    Arguments:
        source: A run folder, or a shipped model: ``DATASET/MODEL``, or ``DATASET`` for its best one.
        device: ``auto``, ``cpu`` or ``cuda``.
        options: What the model lets choose at generation, such as the number of steps.

    Raises:
        UnknownNameError: When it is neither.
        FileFormatError: When the run is not finished or its files are broken.
    """
    path = Path(source)
    if path.is_dir():
        folder = RunFolder(path)
        members, content = folder.models(), folder.read()
        name = str(content["model"])
    else:
        card = find_card(str(source))
        members, content, name = card.models(), card.content, card.name
    where = torch.device(_device(device))
    members = [member.choose(options).to(where) for member in members]
    return Generator(members, name, str(content.get("particle", "")), where)


def _device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        msg = f"device '{device}' is not known; expected auto, cpu or cuda"
        raise InputError(msg)
    if device == "cuda" and not torch.cuda.is_available():
        msg = "device 'cuda' was asked for, but torch finds no GPU here; use --device cpu"
        raise InputError(msg)
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
