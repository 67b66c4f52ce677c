"""Finished chunks on disk, until they are joined: ``OUTPUT.parts/``.

Each part holds the hit cells of one chunk alone (cell, energy), so it is small and quickly written, and
it appears under its name only when it is whole. ``job.json`` says which simulation the parts belong to;
parts of another one are never mixed in. A folder without parts is removed. A lock keeps two runs from working on one output at once.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from caloforge.errors import IncompatibleError, OutputError
from caloforge.files import atomic_path, ensure_output_dir, read_json, write_json
from caloforge.showers import Showers
from caloforge.simulate.job import Job

__all__ = ["Chunk", "Parts", "plan", "write_part"]


@dataclass(frozen=True)
class Chunk:
    """Showers ``start`` to ``start + n``."""

    start: int
    n: int

    @property
    def file_name(self) -> str:
        """Name of its part."""
        return f"{self.start:010d}-{self.start + self.n:010d}.npz"


def plan(n: int, size: int) -> list[Chunk]:
    """Cut ``n`` showers into chunks at fixed places."""
    return [Chunk(start, min(size, n - start)) for start in range(0, n, size)]


def write_part(path: Path, showers: Showers) -> None:
    """Write a chunk.

    Raises:
        WriteError: When the disk is full.
    """
    rows, cells = np.nonzero(showers.cells)
    columns: dict[str, Any] = {f"condition {name}": values for name, values in showers.conditions.items()}
    if showers.has_theta:
        columns["incident_theta"] = showers.incident_theta
    with atomic_path(path, force=True) as part, part.open("wb") as handle:
        np.savez(
            handle,
            hits=np.bincount(rows, minlength=len(showers)),
            cell=cells.astype(np.int32),
            energy=showers.cells[rows, cells],
            incident_energy=showers.incident_energy,
            attributes=json.dumps(showers.attributes),
            **columns,
        )


class Parts:
    """The folder of parts of one job; use it in a ``with`` block.

    Arguments:
        folder: Where; made when it is not there.
        job: What the parts are made by.
        force: Throw away parts of another job instead of refusing.

    Raises:
        IncompatibleError: When the folder holds parts of another job and ``force`` is not set.
        OutputError: When another process works on them.
    """

    def __init__(self, folder: Path, job: Job, force: bool = False) -> None:
        self.folder, self.job, self._force = folder, job, force
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Parts:
        ensure_output_dir(self.folder, resume=True)
        self._lock = (self.folder / "lock").open("wb")
        if not _lock(self._lock):
            self._lock.close()
            msg = f"{self.folder}: another run is working on this output; wait for it or name another output"
            raise OutputError(msg)
        try:
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        if not self._finished():
            self.remove()
        self._lock.close()

    def _finished(self) -> list[Path]:
        """Return the parts that are there, of whatever job."""
        return list(self.folder.glob("*.npz"))

    def _claim(self) -> None:
        """Make the folder this job's, or refuse."""
        card = self.folder / "job.json"
        mine = json.loads(json.dumps(self.job.fingerprint()))
        try:
            theirs = read_json(card) if card.exists() else None
        except ValueError:
            theirs = {}
        if theirs == mine:
            return
        if theirs is not None and self._finished() and not self._force:
            keys = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
            msg = (
                f"{self.folder} holds chunks of another simulation (it differs in: {', '.join(keys)});"
                " remove it, use --force, or name another output"
            )
            raise IncompatibleError(msg)
        for path in self._finished():
            path.unlink()
        write_json(card, mine)

    def path(self, chunk: Chunk) -> Path:
        """Return where a chunk's part is or will be."""
        return self.folder / chunk.file_name

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished."""
        return self.path(chunk).exists()

    def attributes(self, chunk: Chunk) -> dict[str, Any]:
        """Return the attributes of a finished chunk."""
        with np.load(self.path(chunk)) as part:
            found: dict[str, Any] = json.loads(str(part["attributes"]))
        return found

    def read(self, chunk: Chunk) -> Showers:
        """Return a finished chunk."""
        job = self.job
        with np.load(self.path(chunk)) as part:
            cells = np.zeros((chunk.n, job.detector.n_cells), np.float32)
            cells[np.repeat(np.arange(chunk.n), part["hits"]), part["cell"]] = part["energy"]
            prefix = "condition "
            return Showers(
                detector=job.detector,
                cells=cells,
                incident_energy=part["incident_energy"],
                incident_theta=part["incident_theta"] if "incident_theta" in part.files else None,
                conditions={k.removeprefix(prefix): part[k] for k in part.files if k.startswith(prefix)},
                particle=job.beam.particle,
                source=job.engine.name,
                seed=job.seed,
                attributes=json.loads(str(part["attributes"])),
            )

    def remove(self) -> None:
        """Throw the parts away, after they were joined."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _lock(handle: IO[bytes]) -> bool:
    """Lock an open file until it is closed; whether it was free. Systems without such locks say it was."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True
