"""Checkpoints: whole or not there, never pickled objects.

``weights.safetensors`` has the best weights; ``state.pt`` what a stopped training needs to go on bit for bit. The latter is
in torch's format and is read with ``weights_only=True``, so that it cannot run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path

__all__ = ["load_state", "load_weights", "random_state", "restore_random", "save_state", "save_weights"]

FORMAT = 1


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    with atomic_path(path, force=True) as part:
        save_file(plain, str(part))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from safetensors.

    Raises:
        FileFormatError: When the file is missing or broken.
    """
    try:
        return dict(load_file(str(path)))
    except FileNotFoundError as error:
        raise FileFormatError(path, "", "is missing; expected weights as safetensors") from error
    except (SafetensorError, OSError) as error:
        raise FileFormatError(path, "", f"is not a file of weights as safetensors: {error}") from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training."""
    with atomic_path(path, force=True) as part:
        torch.save({"format": FORMAT, **state}, part)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read the state of a training.

    Raises:
        FileFormatError: When it is broken or of another format.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise FileFormatError(path, "", "is not the state of a training; start again with --force") from error
    if state.get("format") != FORMAT:
        raise FileFormatError(path, "format", f"is {state.get('format')}; expected {FORMAT}")
    return state


def random_state() -> dict[str, Any]:
    """Return the states of torch's global generators, which dropout and initialisation use."""
    on_gpu = torch.cuda.is_available()
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if on_gpu else []}


def restore_random(state: Mapping[str, Any]) -> None:
    """Set torch's global generators."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
