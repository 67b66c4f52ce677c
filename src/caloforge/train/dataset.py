"""Showers of a training in memory: packed cells, and batches of tensors on the training device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.models.base import ShowerModel
from caloforge.models.stage import Batch
from caloforge.random import child_seed
from caloforge.showers import Showers

__all__ = ["CellDataset", "CellPacker", "DetectorDatasets", "PackedCells"]


class PackedCells:
    """Cells of showers in memory: dense, or the hits alone (compressed sparse rows).

    Arguments:
        values: Dense cells (N, n_cells), MeV; or energies (H,) of all hits, shower by shower.
        index: Cells (H,) of the hits, whole numbers.
        ends: Where in the hits each shower ends (N,).
    """

    def __init__(
        self,
        values: NDArray[np.float32],
        index: NDArray[Any] | None = None,
        ends: NDArray[np.int64] | None = None,
        n_cells: int = 0,
    ) -> None:
        self.values, self.index, self._ends = values, index, ends
        self.n_cells = values.shape[1] if index is None else n_cells

    @property
    def nbytes(self) -> int:
        """Memory that the cells take."""
        return sum(x.nbytes for x in (self.values, self.index, self._ends) if x is not None)

    def dense(self, rows: Tensor) -> Tensor:
        """Return the cells (n, n_cells) of some showers."""
        if self.index is None or self._ends is None:
            return torch.from_numpy(self.values)[rows]
        cells = np.zeros((len(rows), self.n_cells), np.float32)
        places = rows.numpy()
        stops = self._ends[places]
        starts = np.where(places > 0, self._ends[places - 1], 0)
        for shower, start, stop in zip(cells, starts.tolist(), stops.tolist(), strict=True):
            shower[self.index[start:stop]] = self.values[start:stop]
        return torch.from_numpy(cells)


class CellPacker:
    """Collects cells chunk by chunk: the hits alone where those of the first chunk take less than half its memory.

    Beyond ``memory`` bytes everything is dropped.
    """

    def __init__(self, n: int, n_cells: int, memory: float = float("inf")) -> None:
        self._n, self._n_cells, self._left = n, n_cells, memory
        self._type = np.dtype(np.uint16 if n_cells <= 2**16 else np.int32)
        self._dense: NDArray[np.float32] | None = None
        self._hits: list[tuple[NDArray[np.float32], NDArray[Any]]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._row = 0

    def append(self, cells: NDArray[np.float32]) -> None:
        """Add showers (n, n_cells)."""
        if self._left < 0:
            return
        if self._dense is None:
            flat = np.flatnonzero(cells)
            hit_bytes = len(flat) * (4 + self._type.itemsize) + 8 * len(cells)
            if not self._row and 2 * hit_bytes > cells.nbytes:
                self._left -= 4 * self._n * self._n_cells
                if self._left >= 0:
                    self._dense = np.empty((self._n, self._n_cells), np.float32)
            else:
                self._left -= hit_bytes
                counts = np.diff(np.searchsorted(flat, np.arange(len(cells) + 1) * self._n_cells))
                index = flat - np.repeat(np.arange(len(cells)) * self._n_cells, counts)
                self._hits.append((cells.reshape(-1)[flat], index.astype(self._type)))
                self._counts.append(counts)
        if self._dense is not None:
            self._dense[self._row : self._row + len(cells)] = cells
        if self._left < 0:
            self._hits.clear()
        self._row += len(cells)

    def packed(self) -> PackedCells | None:
        """Return all cells, or None when they take more than the memory; the packer is empty then."""
        if self._left < 0:
            return None
        if self._dense is not None or not self._row:
            dense = np.empty((0, self._n_cells), np.float32) if self._dense is None else self._dense
            return PackedCells(dense)
        ends = np.cumsum(np.concatenate(self._counts))
        values, index = np.empty(ends[-1], np.float32), np.empty(ends[-1], self._type)
        stop = len(values)
        while self._hits:
            v, i = self._hits.pop()
            values[stop - len(v) : stop], index[stop - len(v) : stop] = v, i
            stop -= len(v)
        return PackedCells(values, index, ends, self._n_cells)


class CellDataset:
    """Showers in memory as batches of tensors: dense on a GPU when they take less than half of its free memory.

    Arguments:
        conditions: Conditions (n, C) of the showers.
        rows: Rows (n,) of ``cells`` that the showers are; by default all.
    """

    def __init__(
        self,
        cells: PackedCells,
        conditions: Tensor,
        device: torch.device,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.device = device
        self._cells, self._conditions = cells, conditions
        self._rows = torch.arange(len(conditions)) if rows is None else torch.from_numpy(rows)
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if 4 * len(self) * cells.n_cells < free / 2:
                self._resident = torch.empty(len(self), cells.n_cells, device=device)
                for part, some in zip(
                    torch.split(self._resident, 512), torch.split(self._rows, 512), strict=True
                ):
                    part.copy_(cells.dense(some))
                self._conditions = conditions.to(device)

    @classmethod
    def of(cls, showers: Showers, model: ShowerModel, device: torch.device) -> Self:
        """Return showers in memory with the conditions of a model."""
        return cls(PackedCells(np.ascontiguousarray(showers.cells)), model.condition_matrix(showers), device)

    def __len__(self) -> int:
        return len(self._rows)

    def steps(self, size: int) -> int:
        """Return the steps of one epoch: whole batches, and at least one."""
        return max(1, len(self) // size)

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,), on the device."""
        if self._resident is not None:
            mine = indices.to(self.device)
            return Batch(self._resident[mine], self._conditions[mine], mine)
        mine = indices.cpu()
        parts = self._cells.dense(self._rows[mine]), self._conditions[mine], mine
        return Batch(*(part.to(self.device, non_blocking=True) for part in parts))

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers in order."""
        for part in torch.split(torch.arange(len(self)), size):
            yield self.take(part)

    def subset(self, n: int) -> Self:
        """Return the first ``n`` showers, a random sample."""
        first = copy(self)
        first._rows, first._conditions = self._rows[:n], self._conditions[:n]
        first._resident = None if self._resident is None else self._resident[:n]
        return first

    def epoch(self, size: int, seed: int, stage: str, epoch: int) -> Iterator[Batch]:
        """Iterate over one shuffled epoch; a pure function of the arguments."""
        generator = torch.Generator().manual_seed(child_seed(seed, f"epoch/{stage}", epoch))
        order = torch.randperm(len(self), generator=generator)
        order = order if self._resident is None else order.to(self.device)
        for batch in range(self.steps(size)):
            yield self.take(order[batch * size : (batch + 1) * size])


class DetectorDatasets:
    """Showers of several detectors, each batch of one: the same interface as :class:`CellDataset`.

    Before a batch the model is made that of its detector (``ShowerModel.enter``).

    Arguments:
        parts: Showers of each detector of the model, none where there are none.
    """

    def __init__(self, model: ShowerModel, parts: Sequence[CellDataset]) -> None:
        self.model, self.parts = model, [(k, part) for k, part in enumerate(parts) if len(part)]
        self.device = parts[0].device

    def __len__(self) -> int:
        return sum(len(part) for _, part in self.parts)

    def steps(self, size: int) -> int:
        """Return the steps of one epoch: whole batches of each detector, and at least one of each."""
        return sum(part.steps(size) for _, part in self.parts)

    def take(self, indices: Tensor) -> Batch:
        """Return the showers of these indices (B,), counted detector by detector, which must be of one detector."""
        first = 0
        for k, part in self.parts:
            if int(indices.min()) < first + len(part):
                self.model.enter(k)
                return part.take(indices - first)
            first += len(part)
        raise IndexError(f"no shower {int(indices.min())} among {len(self)}")

    def batches(self, size: int) -> Iterator[Batch]:
        """Iterate over all showers, detector by detector."""
        for k, part in self.parts:
            self.model.enter(k)
            yield from part.batches(size)

    def epoch(self, size: int, seed: int, stage: str, epoch: int) -> Iterator[Batch]:
        """Iterate over one shuffled epoch; a pure function of the arguments."""
        generator = torch.Generator().manual_seed(child_seed(seed, f"detectors/{stage}", epoch))
        batches = {
            k: part.epoch(size, child_seed(seed, f"detector {k}"), stage, epoch) for k, part in self.parts
        }
        turns = torch.tensor([k for k, part in self.parts for _ in range(part.steps(size))])
        for k in turns[torch.randperm(len(turns), generator=generator)].tolist():
            batch = next(batches[k])
            self.model.enter(k)
            yield batch
