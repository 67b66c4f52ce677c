"""A conversion needs the same memory for any number of showers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONVERT = """
import sys
import h5py
import numpy as np
from caloforge.formats import convert
folder, n = sys.argv[1], int(sys.argv[2])

def mib():  # getrusage would count what the parent process had as well
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

rng = np.random.default_rng(0)
cells = np.zeros((50, 30, 30, 30), np.float32)
depth = np.arange(30)[:, None, None]
cells[:, :, 13:17, 13:17] = rng.exponential(1.0, (50, 30, 4, 4)) * (depth**3 * np.exp(-0.5 * depth))
cells *= 0.0215 * 50e3 / cells.sum((1, 2, 3)).mean()
with h5py.File(folder + "/in.h5", "w") as file:
    data = file.create_dataset("30x30/layers", (n, 30, 30, 30), np.float32, chunks=(10, 30, 30, 30))
    for start in range(0, n, 50):
        data[start : start + 50] = cells
    file["30x30/energy"] = np.full((n, 1), 50.0)
before = mib()
convert(folder + "/in.h5", folder + "/a.npz")
convert(folder + "/a.npz", folder + "/b.h5", layout="sparse")
convert(folder + "/b.h5", folder + "/c.h5", to="showerdata")
print(mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of peak memory")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """400 and 1200 showers are 43 and 130 MB of cells."""
    used = []
    for n in (400, 1200):
        folder = tmp_path / str(n)
        folder.mkdir()
        command = [sys.executable, "-c", CONVERT, str(folder), str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        used.append(float(done.stdout))
    assert max(used) < 160
    assert abs(used[1] - used[0]) < 45
