"""The showers of a training: files read once, and which showers are held out.

One read checks and hashes the files, computes the identity of every shower, and packs the cells in memory while they
fit into a bound. Larger data stay in their files, and are streamed epoch by epoch.

The split follows from the identity of each shower alone (:mod:`caloforge.showers.identity`): the identity and
``split_seed`` are mixed to a number that looks uniform in [0, 1), and showers below the fraction ``validation`` are held
out. So a shower is on the same side whatever else is in the files, and equal showers are on one side. Both parts are in
the order of that number, which has nothing to do with the order of the files: the first n showers of a part are a
random sample of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.errors import IncompatibleError, InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.models.stage import Batch
from caloforge.random import child_seed
from caloforge.showers import Showers, open_showers
from caloforge.showers.identity import hash_showers, mixed
from caloforge.showers.views import conditions_of, open_any
from caloforge.text_files import listed
from caloforge.train.dataset import CellPacker, PackedCells
from caloforge.train.files import IN_MEMORY, Files, items_of, joined_facts
from caloforge.train.settings import TrainConfig

__all__ = [
    "Split",
    "StreamedDataset",
    "TrainingFiles",
    "read_files",
    "split",
]

Storage: TypeAlias = Literal["memory", "packed", "files"]
"""Where the cells are: in memory, with room for a dense copy; in memory without; in the files."""

LEAST = 10
"""Fewest showers to train on."""
SAMPLE_BYTES = 2**29
"""Dense cells of the random sample that fits, calibrations and epoch selection take of data that do not fit densely into
memory: 5,000 showers of 27,000 cells."""


@dataclass(frozen=True)
class Block:
    """Consecutive showers of a file, about 16 MiB of cells: rows ``first`` on of all files, ``start`` to ``stop`` of this one."""

    path: Path | None  # None: in memory, and not read again
    start: int
    stop: int
    first: int


@dataclass(frozen=True)
class TrainingFiles:
    """Showers of several files, one file after the other; their cells are in memory or stay in the files."""

    header: Showers  # conditions and origin of all showers (N); its cells are zeros that take no memory
    identities: NDArray[np.uint64]  # identities (N,) uint64, 0 for showers without energy
    facts: dict[str, Any]  # names, hashes and sizes, see :func:`~caloforge.train.files.describe_files`
    blocks: tuple[Block, ...]  # where the rows are in the files
    storage: Storage  # ``memory``, ``packed`` or ``files``
    cells: PackedCells  # cells in memory: of all showers, or of a sample when they stay in the files
    places: NDArray[np.int64]  # where in ``cells`` each row is (N,); -1 for those that are only in the files
    detectors: tuple[Detector, ...] = ()  # of all files where these are of several, the header's first
    groups: NDArray[np.int64] | None = None  # then the detector of each row (N,)

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.header.detector

    @property
    def n_sample(self) -> int:
        """Most showers that fits, calibrations and epoch selection take at once."""
        return len(self) if self.storage == "memory" else SAMPLE_BYTES // (4 * self.detector.n_cells)

    def load(self, rows: NDArray[np.int64]) -> tuple[PackedCells, NDArray[np.int64]]:
        """Return cells in memory and where in them these rows (n,) are; from files each block is read once."""
        places = self.places[rows]
        if (places >= 0).all():
            return self.cells, places
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        packer = CellPacker(len(rows), self.detector.n_cells)
        ends = np.searchsorted(wanted, [*(block.first for block in self.blocks), len(self)])
        with ExitStack() as stack:
            path, file = None, None
            for block, low, high in zip(self.blocks, ends[:-1], ends[1:], strict=True):
                if low == high:
                    continue
                if file is None or block.path != path:
                    stack.close()
                    assert block.path is not None
                    path, file = block.path, stack.enter_context(open_showers(block.path, self.detector))
                packer.append(file.take(wanted[low:high] - block.first + block.start).cells)
        places[order] = np.arange(len(rows))
        cells = packer.packed()
        assert cells is not None
        return cells, places

    def keep(self, rows: NDArray[np.int64]) -> TrainingFiles:
        """Return the same with these rows (n,) in memory."""
        cells, found = self.load(rows)
        places = np.full(len(self), -1)
        places[rows] = found
        return replace(self, cells=cells, places=places)

    def by_detector(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return those of the rows that are of each detector, where these are several."""
        assert self.groups is not None
        return [rows[self.groups[rows] == k] for k in range(len(self.detectors))]

    def showers(self, rows: NDArray[np.int64] | None = None) -> Showers:
        """Return the showers of these rows (n,), or all, in memory."""
        rows = np.arange(len(self)) if rows is None else rows
        cells, places = self.load(rows)
        header = self.header
        if self.groups is not None and len(found := np.unique(self.groups[rows])) == 1:
            header = header.replace(detector=self.detectors[found[0]])
        return header.replace(
            cells=cells.dense(torch.from_numpy(places)).numpy(),
            incident_energy=header.incident_energy[rows],
            incident_theta=header.incident_theta[rows] if header.has_theta else None,
            conditions={name: values[rows] for name, values in header.conditions.items()},
        )


def read_files(
    data: Files,
    memory: float = float("inf"),
    storage: Storage | None = None,
    detector: str | Path | Detector | None = None,
    several: bool = False,
) -> TrainingFiles:
    """Read files of showers once: check and hash them, compute identities, and pack the cells in memory when they fit.

    Arguments:
        memory: Most bytes that cells may take in memory.
        storage: Where the cells are to be, whatever the bound; by default it follows from the bound.
        detector: Detector of files that do not name their own.
        several: Whether files may be of several detectors with as many cells.

    Raises:
        FileFormatError: When a file is missing or broken.
        IncompatibleError: When their detectors or conditions differ.
        InputError: When showers that are in memory do not fit there a second time, as hits.
    """
    items = items_of(data)
    paths = [item if isinstance(item, Path) else None for item in items]
    with ExitStack() as stack:
        files = [stack.enter_context(open_any(item, detector)) for item in items]
        heads = [file[:0] for file in files]
        detectors = tuple(dict.fromkeys(one.detector for one in heads))
        number = [detectors.index(one.detector) for one in heads]
        if several and len(detectors) > 1:
            heads = _as_one(heads)
        head = Showers.concatenate(heads)
        n, n_cells = sum(len(file) for file in files), head.detector.n_cells
        header = head.replace(
            cells=np.broadcast_to(np.float32(0), (n, n_cells)),
            incident_energy=np.concatenate([file.incident_energy for file in files]),
            incident_theta=np.concatenate([file.incident_theta for file in files])
            if head.has_theta
            else None,
            conditions={
                name: np.concatenate([file.condition(name) for file in files]) for name in head.conditions
            },
        )
        most = memory if storage is None else 0.0 if storage == "files" else float("inf")
        packer = CellPacker(n, n_cells, most)
        known: list[NDArray[np.uint64]] = []
        blocks: list[Block] = []
        facts: list[dict[str, Any]] = []
        row = 0
        for path, file in zip(paths, files, strict=True):
            digest, size, start = hashlib.sha256(), path.stat().st_size if path else 0, 0
            with path.open("rb") if path else BytesIO() as raw:
                for part in file.chunks():
                    stop = start + len(part)
                    # Bytes are hashed while the file's showers are unpacked, so that the disk is read once.
                    digest.update(raw.read(stop * size // len(file) - raw.tell()))
                    if path is None:
                        digest.update(
                            part.cells.tobytes() + b"".join(v.tobytes() for v in conditions_of(part).values())
                        )
                    known.append(hash_showers(part.cells, part.incident_energy))
                    packer.append(part.cells)
                    blocks.append(Block(path, start, stop, row))
                    start, row = stop, row + len(part)
            facts.append(
                {"file": path.name if path else IN_MEMORY, "sha256": digest.hexdigest(), "showers": len(file)}
            )
    cells = packer.packed()
    if storage is None:
        dense = 4 * n * n_cells
        storage = "files" if cells is None else "memory" if cells.nbytes + dense <= memory else "packed"
    if storage == "files" and (len(detectors) > 1 or None in paths):
        what = "of several detectors" if len(detectors) > 1 else "that are not in files"
        raise InputError(
            f"{listed(one['file'] for one in facts)}: showers {what} must fit in memory; give fewer, or raise train.data.memory"
        )
    places = np.full(n, -1) if cells is None else np.arange(n)
    cells = PackedCells(np.empty((0, n_cells), np.float32)) if cells is None else cells
    known_all = np.concatenate(known)
    found = TrainingFiles(header, known_all, joined_facts(facts), tuple(blocks), storage, cells, places)
    if len(detectors) == 1:
        return found
    return replace(found, detectors=detectors, groups=np.repeat(number, [one["showers"] for one in facts]))


def _as_one(heads: Sequence[Showers]) -> list[Showers]:
    """Return files' first rows as if all were of the first one's detector.

    Raises:
        IncompatibleError: When these have other cells.
    """
    first = heads[0].detector
    for one in heads:
        if one.detector.shape != first.shape:
            raise IncompatibleError(
                f"detector '{one.detector.name}' has {' x '.join(map(str, one.detector.shape))} cells, '{first.name}' "
                f"{' x '.join(map(str, first.shape))}; one model serves detectors of one grid"
            )
    return [one.replace(detector=first) for one in heads]


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
    size, least = config.train_size or len(rest), max(config.train_size, LEAST)
    if size < LEAST or len(rest) < least:
        raise TooFewShowersError(
            f"{n} showers leave {min(size, len(rest))} to train on (validation {config.validation:g}, "
            f"offset {config.train_offset}, train_size {config.train_size}); expected at least {least}"
        )
    return Split(rest[:size], order[chosen])


class StreamedDataset:
    """Training showers that stay in their files, as batches on the device: the same interface as :class:`~caloforge.train.dataset.CellDataset`.

    An epoch reads the blocks of the files in random order, collects about 512 MiB of cells in a buffer, whose showers it
    yields in random order, and reads ahead meanwhile. The order depends on the files, the seed, the stage and the epoch
    alone, not on the memory.

    Arguments:
        rows: Rows (n,) of the showers.
        conditions: Conditions (n, C) of the showers.
    """

    def __init__(
        self, files: TrainingFiles, rows: NDArray[np.int64], conditions: Tensor, device: torch.device
    ) -> None:
        self.device = device
        self._files, self._rows, self._conditions = files, rows, conditions
        self._in_order = np.argsort(rows, kind="stable")
        firsts = [block.first for block in files.blocks]
        self._parts = np.split(self._in_order, np.searchsorted(rows[self._in_order], firsts[1:]))

    def __len__(self) -> int:
        return len(self._rows)

    def steps(self, size: int) -> int:
        """Return the steps of one epoch: whole batches, and at least one."""
        return max(1, len(self) // size)

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,), on the device; they are read from the files."""
        cells, place = self._files.load(self._rows[indices.cpu().numpy()])
        return self._batch(cells.dense(torch.from_numpy(place)), indices.cpu())

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers in the order of the files."""
        for start in range(0, len(self), size):
            yield self.take(torch.from_numpy(self._in_order[start : start + size]))

    def epoch(
        self, size: int, seed: int, stage: str, epoch: int, part: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Iterate over one shuffled epoch in whole batches, of each part k of n equal ones; a pure function of the arguments and the files."""
        steps, share, before = self.steps(size), size // part[1], 0
        generator = torch.Generator().manual_seed(child_seed(seed, f"epoch/{stage}", epoch))
        parts = [self._parts[k] for k in torch.randperm(len(self._parts), generator=generator).tolist()]
        buffer = max(1, SAMPLE_BYTES // (4 * self._files.detector.n_cells))
        fills = np.cumsum([0, *(len(part) for part in parts)])[:-1] // buffer
        groups = [
            np.concatenate([p for p, k in zip(parts, fills, strict=True) if k == g]) for g in np.unique(fills)
        ]
        rest, left = torch.empty(0, self._files.detector.n_cells), torch.empty(0, dtype=torch.int64)
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(self._files.load, self._rows[groups[0]])]
            for number, group in enumerate(groups):
                cells, place = coming.pop().result()
                if number + 1 < len(groups):
                    coming.append(ahead.submit(self._files.load, self._rows[groups[number + 1]]))
                order = torch.randperm(len(group), generator=generator)
                order = order[(before + torch.arange(len(order))) % size // share == part[0]]
                before, start = before + len(group), 0
                while start < len(order):
                    mine = order[start : start + share - len(left)]
                    start += len(mine)
                    found = cells.dense(torch.from_numpy(place)[mine])
                    rest = torch.cat([rest, found]) if len(left) else found
                    left = torch.cat([left, torch.from_numpy(group)[mine]])
                    if len(left) == share and steps:
                        yield self._batch(rest, left)
                        steps -= 1
                        rest, left = rest[:0], left[:0]

    def _batch(self, cells: Tensor, indices: Tensor) -> Batch:
        conditions = self._conditions[indices]
        return Batch(*(x.to(self.device, non_blocking=True) for x in (cells, conditions, indices)))
