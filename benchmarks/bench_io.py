"""Speed, size and memory of the files of showers.

    python benchmarks/bench_io.py [--showers FILE.h5] [-n 1000] [--memory 5000] [--period 35]

FILE.h5 holds showers to try on; without it they are parametrised ones of ``ild-ecal``. Four tables are printed:

- gzip levels: bytes a shower, and the rates of writing and reading (MB of cells in memory a CPU second), by HDF5 alone;
- the same file read whole by h5py, and by caloforge (with its checks) whole, in chunks, in slices that do not fit the
  file's chunks, and as scattered showers; each as a ratio to h5py in this run;
- writers beside a generator that makes a shower every ``period`` microseconds (it sleeps, as a process that waits for a GPU): HDF5's
  filters in the generator's thread, as caloforge wrote until November 2026, and the writer with its threads, for cells, points, and
  points of batches that are hits already; and points in sequences of variable length. By the clock, the processor time of all threads,
  and that of the generator's own thread;
- peak memory of a process that streams N and 4 N showers of 27,000 cells into a file and out of it. What it needs
  beyond the libraries does not grow with N, so that 1,000,000 showers need no more (read from Linux's /proc).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caloforge.showers import Showers, SparseShowers, open_showers, read_showers, write_showers
from caloforge.showers.chunks import thread_count
from caloforge.showers.hdf5 import CHUNK_BYTES, COMPRESSION_LEVEL, check_cells, rows_per_chunk
from caloforge.showers.sparse import Cells

STREAM = """
import sys
import numpy as np
from caloforge.showers import Showers, ShowerWriter, open_showers

def mib():  # getrusage would count what the parent process had as well
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

verb, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
imported = mib()
rng = np.random.default_rng(0)
def batch(size):
    cells = rng.exponential(1.0, (size, 27000)).astype(np.float32)
    cells[rng.random(cells.shape, dtype=np.float32) > 0.03] = 0
    return Showers("ild-ecal", cells, np.full(size, 5e4), rng.uniform(30, 90, size))
if verb == "write":
    with ShowerWriter(path, "ild-ecal") as writer:
        while len(writer) < n:
            writer.append(batch(min(100, n - len(writer))))
elif verb == "read":
    with open_showers(path) as file:
        assert sum(len(part) for part in file.chunks()) == n
else:
    with open_showers(path) as file:
        for start in range(0, n, 37):
            file.take(np.arange(start, min(start + 37, n)))
print(imported, mib())
"""


def timed(work: Callable[[], Any], repeat: int = 3) -> float:
    """Return the shortest CPU time of some, seconds."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def sample(path: Path | None, n: int) -> Showers:
    """Return showers to try on."""
    if path is not None:
        with open_showers(path) as file:
            return file[:n]
    from caloforge.simulate import simulate

    made = simulate("ild-ecal", n, engine="gflash")
    assert isinstance(made, Showers)
    return made


def levels(showers: Showers, folder: Path) -> None:
    """Print what each gzip level costs and saves."""
    cells, path = showers.cells, folder / "level.h5"
    rows = min(len(cells), rows_per_chunk(4 * cells.shape[1], CHUNK_BYTES))

    def write(level: int) -> None:
        with h5py.File(path, "w") as file:
            options = {"compression": "gzip", "compression_opts": level, "shuffle": True}
            file.create_dataset("showers", data=cells, chunks=(rows, cells.shape[1]), **options)

    def read() -> None:
        with h5py.File(path) as file:
            file["showers"][:]

    print(f"{showers}: {cells.nbytes / len(cells) / 1e3:.1f} kB a shower in memory")
    print("gzip level   kB/shower   write MB/s   read MB/s")
    for level in (1, 2, 4, 6):
        writing, reading = timed(lambda level=level: write(level), 2), timed(read)
        size = path.stat().st_size / len(cells) / 1e3
        print(
            f"{level:10d} {size:11.2f} {cells.nbytes / writing / 1e6:12.0f} {cells.nbytes / reading / 1e6:11.0f}"
        )


def rates(showers: Showers, folder: Path) -> None:
    """Print how caloforge reads and writes against h5py alone."""
    path, copy, points = folder / "rates.h5", folder / "copy.h5", folder / "points.h5"
    write_showers(path, showers)
    write_showers(points, showers, layout="sparse")
    size, n = showers.cells.nbytes, len(showers)
    rng = np.random.default_rng(0)
    tenth = np.sort(rng.choice(n, max(1, n // 10), replace=False))

    def bare() -> None:
        with h5py.File(path) as file:
            file["showers"][:]

    def chunks(step: int | None, path: Path = path) -> None:
        with open_showers(path) as file:
            for _ in file.chunks(step):
                pass

    def scattered(path: Path = path) -> None:
        with open_showers(path) as file:
            file.take(tenth)

    base = timed(bare)
    print(f"\nh5py reads the cells at {size / base / 1e6:.0f} MB/s; time relative to that:")
    for label, work in {
        "read_showers": lambda: read_showers(path),
        "chunks()": lambda: chunks(None),
        "chunks(7), which do not fit the file's": lambda: chunks(7),
        "take() of a tenth, scattered": scattered,
        "chunks(), sparse": lambda: chunks(None, points),
        "take() of a tenth, scattered, sparse": lambda: scattered(points),
        "the checks alone": lambda: [check_cells(part.cells) for part in showers.chunks(19)],
        "write_showers": lambda: write_showers(copy, showers, force=True),
        "write_showers, sparse": lambda: write_showers(copy, showers, force=True, layout="sparse"),
    }.items():
        print(f"{timed(work) / base:8.2f}  {label}")


def old_write(path: Path, batches: Iterable[Showers]) -> None:
    """Write cells as caloforge did before: checks and HDF5's filters between one batch and the next."""
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        stop = 0
        for part in batches:
            assert check_cells(part.cells) is None
            if not stop:
                shape, rows = (0, part.cells.shape[1]), rows_per_chunk(4 * part.cells.shape[1], CHUNK_BYTES)
                options = {"compression": "gzip", "compression_opts": COMPRESSION_LEVEL, "shuffle": True}
                cells = file.create_dataset(
                    "showers", shape, "f4", maxshape=(None, shape[1]), chunks=(rows, shape[1]), **options
                )
            start, stop = stop, stop + len(part)
            cells.resize(stop, axis=0)
            cells[start:stop] = part.cells


def variable_write(path: Path, batches: Iterable[SparseShowers]) -> None:
    """Write points as the package ShowerData does, in sequences of variable length, which HDF5 does not compress."""
    with h5py.File(path, "w", libver=("v108", "v110")) as file:
        cells = file.create_dataset(
            "showers", (0,), h5py.vlen_dtype(np.float32), maxshape=(None,), chunks=(64,)
        )
        centres, stop = None, 0
        for part in batches:
            centres = Cells(part.detector).points if centres is None else centres
            points = np.concatenate([centres[part.hits.cell], part.hits.energy[:, None]], axis=1).reshape(-1)
            rows = np.empty(len(part), object)
            rows[:] = np.split(points, 4 * part.hits.offsets[1:-1])
            start, stop = stop, stop + len(part)
            cells.resize(stop, axis=0)
            cells[start:stop] = rows


def overlap(showers: Showers, folder: Path, period: float, seconds: float = 4.0) -> None:
    """Print what writers add to a generator that makes a shower every ``period`` microseconds."""
    size = min(1000, len(showers))
    dense = showers[:size]
    hits = SparseShowers.from_dense(dense)
    path = folder / "overlap.h5"

    def stream(batch: Any, n: int, pause: float) -> Iterator[Any]:
        for _ in range(n):
            time.sleep(pause * size * 1e-6)
            yield batch

    def write(layout: str) -> Callable[[Iterable[Any]], object]:
        return lambda batches: write_showers(path, batches, force=True, layout=layout)

    writers: dict[str, tuple[Any, Callable[[Iterable[Any]], object]]] = {
        "cells, HDF5's filters": (dense, lambda batches: old_write(path, batches)),
        "cells": (dense, write("dense")),
        "points": (dense, write("sparse")),
        "points, of hits": (hits, write("sparse")),
        "points, variable": (hits, lambda batches: variable_write(path, batches)),
    }
    width = showers.cells.nbytes / len(showers)
    print(
        f"\n{thread_count()} threads compress; cells of {width / 1e3:.0f} kB, batches of {size}; us a shower"
    )
    print(f"{'':24}bytes   alone  MB/s  all CPU   beside a generator of {period:g} us: on top  its own CPU")
    for label, (batch, work) in writers.items():
        begin = time.perf_counter()
        work(stream(batch, 2, 0.0))
        n = max(3, min(100, round(2 * seconds / (time.perf_counter() - begin))))
        clocks = time.perf_counter, time.process_time, time.thread_time
        found = []
        for pause in (0.0, period):
            began = [clock() for clock in clocks]
            work(stream(batch, n, pause))
            found.append([(clock() - t) / (n * size) * 1e6 for clock, t in zip(clocks, began, strict=True)])
        (alone, cpu, _), (beside, _, own) = found
        stored = path.stat().st_size / (n * size)
        print(
            f"{label:24}{stored:5.0f} {alone:7.1f} {width / alone:5.0f} {cpu:8.1f} {beside - period:40.1f} {own:12.1f}"
        )
    path.unlink()


def memory(n: int, folder: Path) -> None:
    """Print the peak memory of streaming n and 4 n showers."""
    print("\npeak memory, MiB (of which the imports)")
    for number in (n, 4 * n):
        path = folder / f"{number}.h5"
        for verb in ("write", "read", "take"):
            command = [sys.executable, "-c", STREAM, verb, str(path), str(number)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            imported, peak = map(float, done.stdout.split())
            print(f"{peak:8.0f} ({imported:.0f})  {verb} {number} showers, {number * 0.108:.0f} MB of cells")
        path.unlink()


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--showers", type=Path, help="file of showers to try on")
    parser.add_argument("-n", type=int, default=1000, help="showers of it")
    parser.add_argument("--period", type=float, default=35.0, help="time of a generated shower, microseconds")
    parser.add_argument("--memory", type=int, default=5000, help="showers of the smaller stream; 0: none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        showers = sample(arguments.showers, arguments.n)
        levels(showers, folder)
        rates(showers, folder)
        overlap(showers, folder, arguments.period)
        if arguments.memory:
            memory(arguments.memory, folder)


if __name__ == "__main__":
    main()
