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
path, n = sys.argv[1], int(sys.argv[2])

def mib():  # getrusage would count what the parent process had as well
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

cells = np.zeros((40, 27000), np.float32)
cells[:, ::50] = np.random.default_rng(0).random((40, 540))
batch = Showers("ild-ecal", cells, np.full(40, 5e4))
before = mib()
with ShowerWriter(path, "ild-ecal") as writer:
    while len(writer) < n:
        writer.append(batch)
written = mib()
with open_showers(path) as file:
    assert sum(len(part) for part in file.chunks()) == n
    for start in range(0, n, 70):
        file[start : start + 70]
print(written - before, mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of peak memory")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """400 and 1000 showers are 43 and 108 MB of cells."""
    used = []
    for n in (400, 1000):
        command = [sys.executable, "-c", STREAM, str(tmp_path / f"{n}.h5"), str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        used.append([float(word) for word in done.stdout.split()])
    for written, read in used:
        assert written < 40
        assert read < 90
    assert abs(used[1][0] - used[0][0]) < 15
    assert abs(used[1][1] - used[0][1]) < 25
