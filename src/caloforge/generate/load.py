"""``load``: a generator from a run folder or from the name of a shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from caloforge.errors import InputError
from caloforge.generate.generator import Generator
from caloforge.generate.zoo import find_card
from caloforge.showers.layout import MODEL_STATUS
from caloforge.train.folder import RunFolder

__all__ = ["load"]


def load(source: str | Path, device: str = "auto", options: dict[str, Any] | None = None) -> Generator:
    """Load a generator.

    Arguments:
        source: A run folder, or a shipped model: ``DATASET/MODEL``, or ``DATASET`` for its best one.
        device: ``auto``, ``cpu`` or ``cuda``.
        options: What the model lets choose at generation, such as the number of steps.

    Returns:
        The generator, with the identities of the showers that trained and selected the model. Of an unfinished run, its
        attribute ``model_status`` says which stages were not trained.

    Raises:
        UnknownNameError: When it is neither.
        FileFormatError: When the run has not ended or its files are broken.
    """
    where = _device(device)
    path = Path(source)
    if not path.is_dir():
        return find_card(str(source)).generator(where, options)
    folder = RunFolder(path)
    content, seen, unfinished = folder.read(), folder.seen(), folder.unfinished()
    facts = seen.attributes() | ({MODEL_STATUS: unfinished} if unfinished else {})
    members = [member.choose(options).to(torch.device(where)) for member in folder.models()]
    name, particle = str(content["model"]), str(content.get("particle", ""))
    return Generator(members, name, particle, torch.device(where), seen.all, facts)


def _device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        msg = f"device '{device}' is not known; expected auto, cpu or cuda"
        raise InputError(msg)
    if device == "cuda" and not torch.cuda.is_available():
        msg = "device 'cuda' was asked for, but torch finds no GPU here; use --device cpu"
        raise InputError(msg)
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
