"""Training data: the files of a training, which showers are held out, and batches of tensors.

Training data: which showers are held out, and showers as tensors where the training runs.

The split follows from the identity of each shower alone (:mod:`caloforge.showers.identity`): the identity and
``split_seed`` are mixed to a number that looks uniform in [0, 1), and showers below the fraction ``validation`` are held out. So
a shower is on the same side whatever else is in the files, and equal showers are on one side. Both parts are in
the order of that number, which has nothing to do with the order of the files: the first so many showers of
a part are a random sample of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.errors import InputError, TooFewShowersError
from caloforge.files import sha256_file
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch
from caloforge.random import child_seed
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.showers.identity import mixed
from caloforge.train.settings import TrainConfig

__all__ = ["CellDataset", "Files", "Split", "data_paths", "describe_files", "read_files", "split"]


Files: TypeAlias = "str | Path | Sequence[str | Path]"


def data_paths(data: Files) -> tuple[Path, ...]:
    """Return the paths of one file or of several.

    Raises:
        InputError: When there are none, or one is named twice.
    """
    paths = (Path(data),) if isinstance(data, str | Path) else tuple(Path(path) for path in data)
    if not paths:
        msg = "no file of showers was given; expected at least one"
        raise InputError(msg)
    twice = [path for number, path in enumerate(paths) if path in paths[:number]]
    if twice:
        msg = f"{twice[0]} is given twice; its showers would be trained on and held out at once"
        raise InputError(msg)
    return paths


def read_files(data: Files) -> Showers:
    """Return the showers of all files in memory, one file behind the other.

    Raises:
        FileFormatError: When a file is missing or broken.
        IncompatibleError: When their detectors or conditions differ.
    """
    parts = [read_showers(path) for path in data_paths(data)]
    return parts[0] if len(parts) == 1 else Showers.concatenate(parts)


def describe_files(data: Files) -> dict[str, Any]:
    """Return ``file``, ``sha256`` and ``showers``; of several files also ``files``, the same of each.

    The hash of several files is that of their hashes, one a line.
    """
    each = []
    for path in data_paths(data):
        with open_showers(path) as file:
            each.append({"file": path.name, "sha256": sha256_file(path), "showers": len(file)})
    if len(each) == 1:
        return each[0]
    hashes = "".join(f"{entry['sha256']}\n" for entry in each)
    return {
        "file": " ".join(str(entry["file"]) for entry in each),
        "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "showers": sum(int(str(entry["showers"])) for entry in each),
        "files": each,
    }


LEAST = 10
"""Fewest showers to train on."""


@dataclass(frozen=True)
class Split:
    """Indices of the showers to train on and of those held out, both in random order."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split(identities: NDArray[np.uint64], config: TrainConfig) -> Split:
    """Divide showers by the settings' rule.

    Arguments:
        identities: Identities of the showers (N,); those without energy, which all have 0, are divided by their position.
        config: ``validation``, ``split_seed``, ``train_offset`` and ``train_size``.

    Raises:
        TooFewShowersError: When fewer than ten showers are left to train on, or fewer than ``train_size``.
    """
    n = len(identities)
    positions = mixed(np.arange(n, dtype=np.uint64))
    known = np.where(identities != 0, identities, positions)
    numbers = mixed(known ^ np.uint64(config.split_seed % 2**64))
    order = np.argsort(numbers, kind="stable").astype(np.int64)
    chosen = numbers[order] < np.uint64(min(int(config.validation * 2**64), 2**64 - 1))
    if config.validation > 0 and n and not chosen.any():
        chosen = numbers[order] == numbers[order[0]]
    rest = order[~chosen][config.train_offset :]
    if config.train_size:
        if config.train_size > len(rest):
            msg = (
                f"{n} showers leave {len(rest)} to train on (validation {config.validation:g}, "
                f"offset {config.train_offset}); expected at least train_size = {config.train_size}"
            )
            raise TooFewShowersError(msg)
        rest = rest[: config.train_size]
    if len(rest) < LEAST:
        msg = f"{n} showers leave {len(rest)} to train on; expected at least {LEAST}"
        raise TooFewShowersError(msg)
    return Split(rest, order[chosen])


class CellDataset:
    """Showers as tensors: on the device when they take less than half of its free memory, else on the host.

    Arguments:
        showers: The showers.
        model: The model, which names the conditions.
        device: Where batches are wanted.
    """

    def __init__(self, showers: Showers, model: ShowerModel, device: torch.device) -> None:
        self.device = device
        cells = torch.from_numpy(np.ascontiguousarray(showers.cells))
        conditions = model.condition_matrix(showers)
        home = device if _fits(cells, device) else torch.device("cpu")
        self._cells, self._conditions = cells.to(home), conditions.to(home)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def resident(self) -> bool:
        """Whether the showers lie where they are used."""
        return self._cells.device == self.device

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,), on the device."""
        home = indices.to(self._cells.device)
        return Batch(
            self._cells[home].to(self.device, non_blocking=True),
            self._conditions[home].to(self.device, non_blocking=True),
            indices.to(self.device),
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers in order."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def steps(self, size: int) -> int:
        """Return the steps of one epoch: whole batches, and at least one."""
        return max(1, len(self) // size)

    def epoch(self, size: int, seed: int, stage: str, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Iterate over one shuffled epoch from its batch ``first`` on; a pure function of the arguments."""
        order = torch.randperm(
            len(self), generator=torch.Generator().manual_seed(child_seed(seed, f"epoch/{stage}", epoch))
        ).to(self._cells.device)
        for batch in range(first, self.steps(size)):
            yield self.take(order[batch * size : (batch + 1) * size])


def _fits(cells: Tensor, device: torch.device) -> bool:
    """Whether showers may lie on the device for good."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return cells.numel() * cells.element_size() < free / 2
