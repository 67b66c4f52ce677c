"""The campaign of kills, in short: commands end in the middle and go on to the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, which lists processes")
def test_a_short_campaign_loses_nothing(tmp_path: Path) -> None:
    words = [
        "--only",
        "simulate,generate",
        "--kills",
        "2",
        "--terms",
        "2",
        "--operations",
        "3",
        "--scale",
        "0.02",
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "-o", str(tmp_path / "kills.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "kills.json").read_text())
    assert {row["kind"] for row in rows} == {"kill", "term", "operation"}
    assert all(row["outcome"] in ("same", "complete") for row in rows)
    operations = [row for row in rows if row["kind"] == "operation"]
    assert {row["command"] for row in operations} == {"simulate", "generate"}
    assert all(row["ended"] for row in operations)
