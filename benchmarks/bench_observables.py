"""Speed and memory of the observables' pass against reading the file alone.

    python benchmarks/bench_observables.py FILE.h5 [--repeat 1] [--rounds 3]

Each round runs, in processes of their own and one after the other: reading the dataset with h5py alone in
aligned blocks, and all observables in one streaming pass. ``--repeat 13`` goes through the file thirteen times as if it
were one sample, to see the memory of a large one (8,000 showers become 104,000). The best round counts. The
aim for showers of 27,000 cells: a pass at a third of the reading rate or faster, below 1 GiB with 100,000 showers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 16 * 2**20  # bytes


class Repeated:
    """A source read several times over."""

    def __init__(self, source: Any, times: int) -> None:
        self.source, self.times, self.detector = source, times, source.detector

    def __len__(self) -> int:
        return self.times * len(self.source)

    def chunks(self, size: int | None = None) -> Iterator[Any]:
        """Iterate over all showers."""
        for _ in range(self.times):
            yield from self.source.chunks(size)


def read_only(path: Path, times: int) -> dict[str, float]:
    """Read the dataset, nothing else."""
    import h5py

    with h5py.File(path) as file:
        data = file["showers"]
        stored = data.chunks[0] if data.chunks else 1
        step = max(stored, _BLOCK // (4 * data.shape[1]) // stored * stored)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            for low in range(0, len(data), step):
                data[low : low + step]
        return {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu, "n": times * len(data)}


def observe_all(path: Path, times: int) -> dict[str, float]:
    """Compute all observables in one pass."""
    from caloforge.showers import open_showers
    from caloforge.validate.observables import observe

    with open_showers(path) as file:
        start, cpu = time.perf_counter(), time.process_time()
        table = observe(Repeated(file, times) if times > 1 else file)
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        size = sum(values.nbytes for values in table.values.values())
        return {"wall": wall, "cpu": used, "n": len(table), "table": size, "names": len(table.names)}


_JOBS = {"read": read_only, "observe": observe_all}


def in_a_process(job: str, path: Path, times: int) -> dict[str, float]:
    """Run a job in a process of its own and return what it measured."""
    command = [sys.executable, __file__, str(path), "--job", job, "--repeat", str(times)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=list(_JOBS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        result = _JOBS[options.job](options.file, options.repeat)
        result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(result))
        return
    rounds = [
        {job: in_a_process(job, options.file, options.repeat) for job in _JOBS} for _ in range(options.rounds)
    ]
    n = rounds[0]["observe"]["n"]
    print(f"{options.file.name}: {n:.0f} showers, {rounds[0]['observe']['names']:.0f} observables")
    for job in _JOBS:
        wall = min(each[job]["wall"] for each in rounds)
        cpu = min(each[job]["cpu"] for each in rounds)
        peak = max(each[job]["peak"] for each in rounds) / 2**20
        print(
            f"  {job:8s} {n / wall:8.0f} showers/s  {1e3 * cpu / n:6.3f} ms CPU a shower  peak {peak:5.0f} MiB"
        )
    for clock in ("wall", "cpu"):
        ratios = [each["read"][clock] / each["observe"][clock] for each in rounds]
        print(
            f"  rate of the pass over the rate of reading, {clock:4s}: {np.median(ratios):.2f} (median of rounds)"
        )
    print(f"  table: {rounds[0]['observe']['table'] / n:.0f} bytes a shower")


if __name__ == "__main__":
    main()
