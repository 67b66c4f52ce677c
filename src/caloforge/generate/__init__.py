"""A trained model as a source of showers.

Noise and conditions are counted per shower, so that shower i of a seed is the same whatever the batch size and the number of
showers. Matrix products of different heights may round differently in the last bits. On a CPU the network therefore works on
blocks of 100 at fixed places, a batch is a whole number of them, and showers are equal bit for bit whatever the batch size. A last
hundred that is not full is made in blocks of 8 and of 1, so that one shower does not cost a hundred; its showers may
differ in rounding from those of a longer run, and where energies are ordered by it two cells of nearly equal energy can change places. A GPU
makes whole batches, and its showers depend on the batch size in that way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError, InputError
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel, counted_noise
from caloforge.progress import progress
from caloforge.showers import Showers, ShowerSource, ShowerWriter, open_showers
from caloforge.showers.identity import seen_union
from caloforge.showers.writing import check_layout
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["BLOCK", "Generator", "blocks", "condition_range", "condition_slack"]

BLOCK = 100
"""Showers that one pass of the network makes on a CPU; batches are whole numbers of them. A GPU makes whole batches."""
_LAST_BLOCKS = ((100, 80), (8, 5), (1, 1))
"""Heights of the blocks of a last hundred that is not full, each with the fewest showers for which it is used."""


def blocks(n: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield the first shower and the height of each block of ``n`` showers; the last block of a height may not be full."""
    first = 0
    heights = ((block, block), *(pair for pair in _LAST_BLOCKS if pair[0] <= block))
    while first < n:
        height = next(height for height, fewest in heights if n - first >= fewest)
        yield first, height
        first += height


class Generator:
    """Showers from a model, or from the members of an ensemble in equal parts (shower i from member i mod k).

    Arguments:
        members: Models of one kind, in evaluation mode, on the device.
        name: Written as the showers' source.
        seen: Identities (M,) uint64 of the showers that trained or selected the models; stored with all generated showers.
        attributes: Attributes of all generated showers: seeds that were seen, whether the model is unfinished.
    """

    def __init__(
        self,
        members: Sequence[ShowerModel],
        name: str,
        particle: str,
        device: torch.device,
        seen: NDArray[np.uint64] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.members, self.name, self.particle, self.device = list(members), name, particle, device
        self.model = self.members[0]
        self.seen: NDArray[np.uint64] = seen_union([] if seen is None else [seen])
        self.attributes: dict[str, Any] = dict(attributes or {})
        self._most = 0  # showers at once that fit into the memory of the GPU; 0: no limit was met
        self.card: Mapping[str, Any] = {}  # of a shipped model

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.model.detector

    def generate(
        self,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
    ) -> Showers:
        """Generate showers in memory; see :meth:`stream` for the arguments."""
        stream = self.stream(n, energy, theta, like, seed, batch_size, allow_extrapolation)
        return Showers.concatenate(list(stream))

    def write(
        self,
        path: str | Path,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
        force: bool = False,
        layout: str = "dense",
    ) -> Path:
        """Generate showers into a file, a batch at a time; see :meth:`stream` for the arguments.

        ``layout`` is "dense", with all cells, or "sparse", with those that have energy; see :class:`~caloforge.showers.ShowerWriter`.
        """
        check_layout(layout)
        stream = self.stream(n, energy, theta, like, seed, batch_size, allow_extrapolation)
        first = next(stream)
        total = self._number(n, like)
        writer = ShowerWriter(
            path, self.detector, first.particle, self.name, seed, first.attributes, force, layout
        )
        with writer, progress(total, f"generate {self.name}") as advance:
            for part in chain([first], stream):
                writer.append(part)
                advance(len(part))
        return Path(path)

    def stream(
        self,
        n: int | None = None,
        energy: str | EnergySpec | None = None,
        theta: str | float | AngleSpec | None = None,
        like: str | Path | ShowerSource | None = None,
        seed: int = 0,
        batch_size: int = 1000,
        allow_extrapolation: bool = False,
    ) -> Iterator[Showers]:
        """Iterate over generated showers.

        Arguments:
            n: Number of showers; with ``like`` by default as many as it has.
            energy: Incident energies such as ``50GeV``; other conditions follow the detector's beam.
            theta: Angles, degrees; by default those of the detector's beam.
            like: File or showers whose energies, angles and further conditions are taken.
            batch_size: Showers a part.
            allow_extrapolation: Accept conditions outside those of the training.

        Raises:
            InputError: When neither ``n`` and ``energy`` nor ``like`` are given, or both.
            IncompatibleError: When ``like`` is of another detector, or conditions lie outside the training's.
        """
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}; expected at least 1")
        size = max(1, round(batch_size / BLOCK)) * BLOCK
        starts = range(0, self._number(n, like), size)
        if like is None:
            if energy is None:
                msg = "an energy is needed, such as 50GeV, or showers whose conditions are taken ('like')"
                raise InputError(msg)
            beam = self.detector.beam.replace(energy=energy, theta=theta)
            straight = beam.theta == AngleSpec(90.0, 90.0)
            for start in starts:
                drawn = beam.sample(seed, start, min(size, starts.stop - start))
                angles = None if straight else drawn.theta
                yield self._batch(drawn.energy, angles, drawn.conditions, start, seed, allow_extrapolation)
            return
        if energy is not None or theta is not None:
            raise InputError("'like' gives energies and angles; leave out energy and theta")
        with _opened(like) as source:
            if source.detector != self.detector:
                msg = f"'{source.detector.name}' showers cannot be imitated by a model of '{self.detector.name}'"
                raise IncompatibleError(msg)
            for start in starts:
                one = source.take(np.arange(start, min(start + size, starts.stop)) % len(source))
                angles = one.incident_theta if one.has_theta else None
                yield self._batch(
                    one.incident_energy,
                    angles,
                    one.conditions,
                    start,
                    seed,
                    allow_extrapolation,
                    one.particle,
                )

    def _number(self, n: int | None, like: str | Path | ShowerSource | None) -> int:
        """Return the number of showers: ``n``, or that of ``like``."""
        if n is None and like is None:
            raise InputError("the number of showers is needed")
        if like is not None:
            with _opened(like) as source:
                available = len(source)
            if not available:
                raise InputError("'like' contains no showers")
            n = available if n is None else n
        if n is None or n < 1:
            raise InputError(f"number of showers is {n}; expected at least 1")
        return n

    def _batch(
        self,
        energy: NDArray[np.float64],
        theta: NDArray[np.float64] | None,
        conditions: dict[str, NDArray[np.float32]],
        start: int,
        seed: int,
        allow_extrapolation: bool,
        particle: str = "",
    ) -> Showers:
        """Return showers ``start`` to ``start + len(energy)``, with the conditions that shape them or place their cells."""
        readout = self.detector.readout
        known = {*self.model.columns, *(() if readout is None else readout.alignment_names)}
        shell = Showers(
            self.detector,
            np.zeros((len(energy), self.detector.n_cells), np.float32),
            energy,
            theta,
            {name: values for name, values in conditions.items() if name in known},
            particle or self.particle or self.detector.beam.particle,
            self.name,
            seed,
            self.attributes,
            self.seen,
        )
        matrix = self.model.condition_matrix(shell)
        if not allow_extrapolation:
            self._check_range(matrix)
        if self.device.type == "cpu":
            for first, height in blocks(len(matrix), BLOCK):
                rows = slice(first, first + height)
                shell.cells[rows] = self._block(matrix[rows], start + first, seed, height)
        else:
            self._fill(shell.cells, matrix, start, seed)
        return shell

    def _fill(self, cells: NDArray[np.float32], matrix: torch.Tensor, start: int, seed: int) -> None:
        """Make showers (n, n_cells) of conditions (n, C) on a GPU, at once or, where its memory does not suffice, in parts."""
        first = 0
        while first < len(matrix):
            rows = slice(first, first + (self._most or len(matrix)))
            part = matrix[rows]
            try:
                cells[rows] = self._block(part, start + first, seed, len(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    msg = f"{self.name}: the memory of the GPU does not suffice for one shower; use --device cpu"
                    raise InputError(msg) from None
                self._most = len(part) // 2
                torch.cuda.empty_cache()
                text = f"{self.name}: {len(part)} showers at once do not fit into the memory of the GPU; going on with {self._most}"
                warnings.warn(text, stacklevel=2)
            else:
                first += len(part)

    @torch.inference_mode()
    def _block(self, matrix: torch.Tensor, start: int, seed: int, block: int) -> NDArray[np.float32]:
        """Return one block (n, n_cells), padded to its full height, so that its rounding does not depend on n."""
        n = len(matrix)
        padded = torch.cat([matrix, matrix[:1].expand(block - n, -1)]).to(self.device)
        noise = counted_noise(seed, start, block, self.model.noise_size, self.device)
        cells = self.members[0].sample(noise, padded)
        for number, member in enumerate(self.members[1:], start=1):
            mine = (torch.arange(block, device=self.device) + start) % len(self.members) == number
            cells = torch.where(mine[:, None], member.sample(noise, padded), cells)
        return cells[:n].float().cpu().numpy()

    def _check_range(self, matrix: torch.Tensor) -> None:
        low, high = self.model.condition_low.cpu(), self.model.condition_high.cpu()
        least, most = (bound.cpu() for bound in condition_range(self.model))
        for name, columns in self.model.columns.items():
            values, a, b = matrix[:, columns], low[columns], high[columns]
            if bool(((values < least[columns]) | (values > most[columns])).any()):
                raise IncompatibleError(
                    f"condition '{name}' from {values.min().item():g} to {values.max().item():g} is outside the "
                    f"training's {a.min().item():g} to {b.max().item():g}; use --allow-extrapolation to go on"
                )


_Bound = TypeVar("_Bound", float, torch.Tensor)


def condition_slack(low: _Bound, high: _Bound) -> _Bound:
    """Return by how much a condition may lie outside the training's lowest and highest value."""
    return 0.02 * (high - low) + 1e-3 * abs(high)


def condition_range(model: ShowerModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest conditions (C,) that a model takes: a little more than those of its training."""
    low, high = model.condition_low, model.condition_high
    slack = condition_slack(low, high)
    return low - slack, high + slack


def _opened(like: str | Path | ShowerSource) -> AbstractContextManager[ShowerSource]:
    return open_showers(like) if isinstance(like, str | Path) else nullcontext(like)
