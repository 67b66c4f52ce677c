"""Streaming needs the same memory for any number of showers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STREAM = """
import sys
import numpy as np
from caloforge.showers import Showers, ShowerWriter, open_showers
path, n, layout = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def mib():  # getrusage would count what the parent process had as well
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

cells = np.zeros((40, 27000), np.float32)
cells[:, ::50] = np.random.default_rng(0).random((40, 540))
batch = Showers("ild-ecal", cells, np.full(40, 5e4))
before = mib()
with ShowerWriter(path, "ild-ecal", layout=layout, threads=2) as writer:
    while len(writer) < n:
        writer.append(batch)
written = mib()
with open_showers(path) as file:
    assert sum(len(part) for part in file.chunks()) == n
    for start in range(0, n, 70):
        file[start : start + 70]
print(written - before, mib() - before)
"""


linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's record of peak memory"
)


@linux
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, layout: str) -> None:
    """400 and 1000 showers are 43 and 108 MB of cells."""
    used = []
    for n in (400, 1000):
        command = [sys.executable, "-c", STREAM, str(tmp_path / f"{n}.h5"), str(n), layout]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        used.append([float(word) for word in done.stdout.split()])
    for written, read in used:
        assert written < 40
        assert read < 90
    assert abs(used[1][0] - used[0][0]) < 15
    assert abs(used[1][1] - used[0][1]) < 25


GENERATE = """
import sys
import numpy as np
import torch
from caloforge.generate import Generator
from caloforge.geometry import get_detector
from caloforge.showers.ranges import range_facts
from caloforge.showers import Showers, SparseShowers
path, n, layout = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def mib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

class Toy(Generator):
    def __init__(self):
        self.name, self.particle, self.attributes, self.seen = "toy", "gamma", {}, np.empty(0, np.uint64)
        self.device = torch.device("cpu")
    detector = get_detector("ild-ecal")
    def _facts(self, request):
        return range_facts(0, request.number())
    def _dense(self, request):
        for start in range(0, request.number(), 500):
            cells = np.zeros((500, 27000), np.float32)
            cells[:, ::500] = 1.0
            yield Showers("ild-ecal", cells, np.full(500, 5e4))
    def _sparse(self, request, stopped=None):
        for part in self._dense(request):
            yield SparseShowers.from_dense(part)

before = mib()
Toy().write(path, n, "50GeV", batch_size=500, layout=layout)
print(mib() - before)
"""


@linux
def test_memory_of_generation_does_not_grow_with_the_showers(tmp_path: Path) -> None:
    """2,000 and 20,000 showers of 54 hits, of which the cells are 0.2 and 2.2 GB, in batches of 54 MB."""
    used = []
    for n in (2_000, 20_000):
        path = tmp_path / f"{n}.h5"
        command = [sys.executable, "-c", GENERATE, str(path), str(n), "sparse"]
        used.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        assert path.stat().st_size < 800 * n
    assert max(used) < 250
    assert used[1] - used[0] < 25
