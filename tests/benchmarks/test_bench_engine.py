"""The benchmark of generation: a small run on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def test_a_small_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench_engine import COLUMNS, main

    words = ["--device", "cpu", "--batch", "100", "--number", "200", "--repeats", "1"]
    assert main([str(run), *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3  # no network of this model is safe in bf16
    assert printed[1].split()[-len(COLUMNS) :] == list(COLUMNS)
    values = [float(word.strip("()")) for word in printed[2].removeprefix(str(run)).split()[1:]]
    assert len(values) == 8
    assert min(values) > 0


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_engine import main

    assert main(["none/such", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("bench_engine: error: unknown shipped model")
