"""A trained model as a source of showers.

Noise and conditions are counted per shower, so that shower i of a seed is the same whatever the batch size and the number of
showers. Matrix products of different heights may round differently in the last bits. On a CPU the network therefore works on
blocks of 100 at fixed places, a batch is a whole number of them, and showers are equal bit for bit whatever the batch size. A last
hundred that is not full is made in blocks of 8 and of 1, so that one shower does not cost a hundred; its showers may
differ in rounding from those of a longer run, and where energies are ordered by it two cells of nearly equal energy can change places. A GPU
makes whole batches, and its showers depend on the batch size in that way; compiled networks make batches of one height, the last one
filled up. Its noise is made there from the integers of the CPU's, and is the same but for the rounding of some numbers to float32.

Showers are equal bit for bit between runs on one CPU, in either layout of a file. Between devices, precisions and compiled or
plain networks they are the same showers, rounded differently.

A GPU hands over hits, not cells, and makes the next batch while they are copied (:mod:`~caloforge.generate.overlap`); a file is written
while the next batches are made. Networks may compute in less than float32, or compiled (:mod:`~caloforge.generate.precision`).
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from caloforge.errors import CaloforgeError, InputError, SameShowersWarning, spoken
from caloforge.generate.conditions import (
    BLOCK,
    Given,
    Request,
    accepted_range,
    admitted,
    blocks,
    check_range,
    condition_range,
    default_angles,
    notes,
    ranges,
    trained_angles,
    unconditioned,
)
from caloforge.generate.overlap import PendingHits, ahead
from caloforge.generate.precision import PLAIN, Means, NetworkMode
from caloforge.geometry import Detector
from caloforge.models.base import ShowerModel, counted_noise
from caloforge.progress import progress
from caloforge.showers import Showers, ShowerWriter, SparseShowers
from caloforge.showers.description import html_table
from caloforge.showers.hdf5 import PRECISION, UNCONDITIONED, check_ending
from caloforge.showers.identity import seen_union
from caloforge.showers.ranges import made_before
from caloforge.showers.sparse import Hits
from caloforge.showers.views import AnyShowers
from caloforge.showers.writing import check_layout
from caloforge.units import Angles, AngleSpec, Energies

__all__ = ["BLOCK", "Generator", "accepted_range", "blocks", "condition_range"]

_COMPARED = (200, 1000)  # fewest and most showers that are made in two ways and compared


class _Batch(NamedTuple):
    """Showers to be made."""

    start: int  # number of the first one
    empty: Showers  # all of them but their cells
    matrix: torch.Tensor  # conditions (N, C)


def _never() -> bool:
    return False


class Generator:
    """Showers from a model, or from the members of an ensemble in equal parts (shower i from member i mod k).

    Arguments:
        members: Models of one kind, in evaluation mode, on the device.
        name: Written as the showers' source.
        seen: Identities (M,) uint64 of the showers that trained or selected the models; stored with all generated showers.
        attributes: Attributes of all generated showers: seeds that were seen, whether the model is unfinished.
        precision: Of the networks that are safe in it: float32, tf32 or bf16.
        compiled: Compile the networks, on a GPU.
        theta: Angles of the training's showers, where the angle is no condition of the model; by default the beam's.

    Raises:
        InputError: When the model or the device cannot do that.
    """

    def __init__(
        self,
        members: Sequence[ShowerModel],
        name: str,
        particle: str,
        device: torch.device,
        seen: NDArray[np.uint64] | None = None,
        attributes: Mapping[str, Any] | None = None,
        precision: str = PLAIN,
        compiled: bool = False,
        theta: AngleSpec | None = None,
    ) -> None:
        self.members, self.name, self.particle, self.device = list(members), name, particle, device
        self.model = self.members[0]
        self.seen: NDArray[np.uint64] = seen_union([] if seen is None else [seen])
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.theta = trained_angles(theta, self.detector.beam)
        if ignored := unconditioned(self.model, self.theta):
            self.attributes[UNCONDITIONED] = list(ignored)
        self.mode = NetworkMode(self.members, name, device, precision, compiled)
        self._most = 0  # showers at once that fit into the memory of the GPU; 0: no limit was met
        self._good: list[tuple[Any, Any, Any]] = []  # energy, angle and like for which the mode was compared
        self._alone = False  # whether the memory of the GPU holds one batch, not two
        self.card: Mapping[str, Any] = {}  # of a shipped model

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.model.detector

    def notes(
        self,
        theta: Angles | None = None,
        like: AnyShowers | None = None,
        allow_extrapolation: bool = False,
    ) -> list[str]:
        """Return a line on each thing that is assumed about showers of these arguments, or not taken from ``like``."""
        request = Request(theta=theta, like=like, allow_extrapolation=allow_extrapolation)
        return [spoken(line) for line in (*self.model.caveats(), *notes(self.model, self.theta, request))]

    def __repr__(self) -> str:
        return f"Generator({self.name}, {self.particle or 'particle not known'} in {self.detector.name}, on {self.device})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return html_table(
            f"Generator {self.name}",
            [*ranges(self.model, self.theta), ("particle", self.particle), ("device", str(self.device))],
        )

    def generate(
        self, n: int | None = None, energy: Energies | None = None, theta: Angles | None = None,
        like: AnyShowers | None = None, seed: int = 0, batch_size: int = 1000, allow_extrapolation: bool = False, first: int = 0,
    ) -> Showers:  # fmt: skip
        """Generate showers in memory; see :meth:`stream` for the arguments."""
        stream = self.stream(n, energy, theta, like, seed, batch_size, allow_extrapolation, first)
        return Showers.concatenate(list(stream))

    def write(
        self, path: str | Path, n: int | None = None, energy: Energies | None = None, theta: Angles | None = None,
        like: AnyShowers | None = None, seed: int = 0, batch_size: int = 1000, allow_extrapolation: bool = False, force: bool = False,
        layout: str = "dense", first: int = 0,
    ) -> Path:  # fmt: skip
        """Generate showers into a file, a batch at a time; see :meth:`stream` for the arguments.

        ``layout`` is "dense", with all cells, or "sparse", with those that have energy; see :class:`~caloforge.showers.ShowerWriter`.
        """
        check_layout(layout)
        check_ending(path)
        request = Request(n, energy, theta, like, seed, batch_size, allow_extrapolation, first)
        total = request.number()
        self.warn_of_same(Path(path), request)
        dense = self.device.type == "cpu" and layout == "dense"
        parts: AbstractContextManager[Iterator[Showers | SparseShowers]] = (
            nullcontext(self._dense(request)) if dense else self._ahead(request)
        )
        with parts as stream:
            head = next(stream)
            writer = ShowerWriter(
                path, self.detector, head.particle, self.name, seed, head.attributes, force, layout
            )
            with writer, progress(total, f"generate {self.name}") as advance:
                for part in chain([head], stream):
                    writer.append(part)
                    advance(len(part))
        return Path(path)

    def stream(
        self, n: int | None = None, energy: Energies | None = None, theta: Angles | None = None, like: AnyShowers | None = None,
        seed: int = 0, batch_size: int = 1000, allow_extrapolation: bool = False, first: int = 0,
    ) -> Iterator[Showers]:  # fmt: skip
        """Iterate over generated showers.

        Arguments:
            n: Number of showers; with ``like``, and with arrays of energies or angles, by default as many as these have.
            energy: Incident energies such as ``50GeV``, or an array (N,) of those of each shower in MeV; other conditions follow the detector's beam.
            theta: Angles, degrees, or an array (N,); by default those of the detector's beam, as far as the model was trained on them.
            like: File or showers, or a list of these, whose energies, angles and further conditions are taken.
            batch_size: Showers a part.
            allow_extrapolation: Accept conditions outside those of the training.
            first: Number of the first shower: made are the showers ``first`` to ``first + n`` of the seed.

        Raises:
            InputError: When neither ``n`` and ``energy`` nor ``like`` are given, or both.
            IncompatibleError: When ``like`` is of another detector or particle, or conditions lie outside the training's, those too that the model does
                not have.
        """
        request = Request(n, energy, theta, like, seed, batch_size, allow_extrapolation, first)
        if self.device.type == "cpu":
            yield from self._dense(request)
        else:
            with self._ahead(request) as parts:
                for part in parts:
                    yield part.to_dense()

    def stream_sparse(
        self, n: int | None = None, energy: Energies | None = None, theta: Angles | None = None,
        like: AnyShowers | None = None, seed: int = 0, batch_size: int = 1000, allow_extrapolation: bool = False, first: int = 0,
    ) -> Iterator[SparseShowers]:  # fmt: skip
        """Iterate over generated showers as hits, of which all cells of a part are never in the memory of the CPU; see :meth:`stream`."""
        return self._sparse(Request(n, energy, theta, like, seed, batch_size, allow_extrapolation, first))

    def _ahead(self, request: Request) -> AbstractContextManager[Iterator[SparseShowers]]:
        """Return showers as hits, made in a thread while those before are used."""
        return ahead(lambda stopped: self._sparse(request, stopped))

    def _dense(self, request: Request) -> Iterator[Showers]:
        """Iterate over showers with all their cells, made on a CPU."""
        for batch in self._batches(request):
            cells = np.zeros((len(batch.matrix), self.detector.n_cells), np.float32)
            first = 0
            for made in self._cells(batch.matrix, batch.start, request):
                cells[first : first + len(made)] = made.numpy()
                first += len(made)
            yield batch.empty.replace(cells=cells)

    def _sparse(self, request: Request, stopped: Callable[[], bool] = _never) -> Iterator[SparseShowers]:
        """Iterate over showers as hits until ``stopped`` says so; on a GPU the next ones are begun before hits are waited for."""
        waiting: deque[tuple[Showers, PendingHits, bool]] = deque()
        done: list[Hits] = []

        def spare() -> bool:
            """Empty the device of showers that are made; return whether there were some."""
            held = [pending for _, pending, _ in waiting if pending.held]
            for pending in held:
                pending.result()
            return bool(held)

        def landed() -> Iterator[SparseShowers]:
            """Take the hits that were begun first; a batch is there with the last of its parts."""
            empty, pending, last = waiting.popleft()
            done.append(pending.result())
            if last:
                hits = done[0] if len(done) == 1 else Hits.concatenate(done)
                done.clear()
                yield SparseShowers.with_hits(hits, empty)

        for batch in self._batches(request):
            first = 0
            for cells in self._cells(batch.matrix, batch.start, request, spare=spare):
                first += len(cells)
                waiting.append((batch.empty, PendingHits(cells), first == len(batch.matrix)))
                del cells  # the device's memory belongs to the pending hits alone
                if stopped():
                    return
                while len(waiting) > (self.device.type != "cpu" and not self._alone):
                    yield from landed()
        while waiting:
            yield from landed()

    def _batches(self, request: Request) -> Iterator[_Batch]:
        """Iterate over the showers to be made; the first comes when the networks' mode has been compared with plain float32."""
        total = request.number()
        facts = self.attributes | {PRECISION: self.mode.precision} | self._facts(request)
        with request.opened(self.detector, default_angles(self.model, self.theta)) as take:
            for start, stop in request.spans():
                batch = self._batch(take(start, stop), start, request, facts)
                if not (start > request.first or self.mode.plain or self._is_good(request)):
                    least, most = _COMPARED
                    some = take(0, min(max(total, least), most))
                    self._compare(self._batch(some, 0, request, facts), request)
                yield batch

    def warn_of_same(self, path: Path, request: Request) -> None:
        """Warn when a file beside an output has some of the showers that it is to have."""
        made = {"detector": self.detector.name, "source": self.name, "seed": request.seed}
        if same := made_before(path, made | self._facts(request), self.seen):
            warnings.warn(same, SameShowersWarning, stacklevel=3)

    def _facts(self, request: Request) -> dict[str, Any]:
        """Return the attributes that say which showers a request makes."""
        return request.facts(self.detector.beam, default_angles(self.model, self.theta))

    def _batch(self, given: Given, start: int, request: Request, facts: dict[str, Any]) -> _Batch:
        """Return showers with the conditions that shape them or place their cells."""
        particle = self.particle or self.detector.beam.particle
        given = admitted(self.model, particle, self.theta, given, request)
        empty = Showers(
            self.detector,
            np.broadcast_to(np.float32(0), (len(given.energy), self.detector.n_cells)),  # takes no memory
            given.energy,
            given.theta,
            given.conditions,
            given.particle,
            self.name,
            request.seed,
            facts,
            self.seen,
        )
        matrix = self.model.condition_matrix(empty)
        if not request.allow_extrapolation:
            check_range(self.model, matrix)
        return _Batch(start, empty, matrix)

    def _cells(
        self,
        matrix: torch.Tensor,
        start: int,
        request: Request,
        plain: bool = False,
        spare: Callable[[], bool] = _never,
    ) -> Iterator[torch.Tensor]:
        """Iterate over the cells (B, n_cells) of showers with conditions (N, C), on the device, as many at once as it can make.

        A CPU makes blocks. A GPU makes all at once or, where its memory does not suffice, first empties it (``spare``), then makes parts.
        """
        if self.device.type == "cpu":
            for first, height in blocks(len(matrix)):
                yield self._block(matrix[first : first + height], start + first, request.seed, height, plain)
            return
        first = 0
        while first < len(matrix):
            part = matrix[first : first + (self._most or len(matrix))]
            height = (self._most or request.size) if self.mode.compiled and not plain else len(part)
            made: list[torch.Tensor] = []  # so that nothing here keeps the cells in memory
            with suppress(torch.OutOfMemoryError):  # whose traceback holds what did not fit
                made.append(self._block(part, start + first, request.seed, height, plain))
            if made:
                first += len(part)
                yield made.pop()
                continue
            if spare():
                self._alone = True
            else:
                self._halve(height)
            torch.cuda.empty_cache()

    def _halve(self, height: int) -> None:
        """Make half as many showers at once from now on."""
        if height == 1:
            msg = f"{self.name}: the GPU has too little memory for one shower; use --device cpu"
            raise InputError(msg)
        self._most = height // 2
        text = f"{self.name}: {height} showers at once do not fit into the memory of the GPU; going on with {self._most}"
        warnings.warn(text, stacklevel=2)

    @torch.inference_mode()
    def _block(
        self, matrix: torch.Tensor, start: int, seed: int, height: int, plain: bool = False
    ) -> torch.Tensor:
        """Return one block (n, n_cells), padded to its full height, so that its rounding does not depend on n."""
        n = len(matrix)
        padded = torch.cat([matrix, matrix[:1].expand(height - n, -1)]).to(self.device)
        noise = counted_noise(seed, start, height, self.model.noise_size, self.device)
        with nullcontext() if plain else self.mode.applied():
            cells = self.members[0].sample(noise, padded)
            for number, member in enumerate(self.members[1:], start=1):
                mine = (torch.arange(height, device=self.device) + start) % len(self.members) == number
                cells = torch.where(mine[:, None], member.sample(noise, padded), cells)
        return cells[:n].float()

    def _is_good(self, request: Request) -> bool:
        """Return whether the networks' mode was compared with float32 under these conditions before."""
        return any(
            (e, t) == (request.energy, request.theta) and like is request.like for e, t, like in self._good
        )

    def _compare(self, batch: _Batch, request: Request) -> None:
        """Make showers in plain float32 and in the networks' mode, and compare them.

        Raises:
            InputError: When they differ too much, or the networks cannot be compiled here.
        """
        threshold = float(getattr(self.model.config, "threshold", 0.0))
        plain = Means.of(self._cells(batch.matrix, 0, request, plain=True), threshold)
        try:
            found = Means.of(self._cells(batch.matrix, 0, request), threshold)
        except (CaloforgeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if not self.mode.compiled:
                raise
            reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
            msg = f"{self.name}: the networks cannot be compiled here, {reason}; leave out --compile"
            raise InputError(msg) from error
        plain.check(found, self.name, self.mode.label)
        self._good.append((request.energy, request.theta, request.like))
