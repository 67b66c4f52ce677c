"""Running the command line in this process, and small files of showers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app

Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    """Return a function that runs ``caloforge ARGUMENTS`` and checks the exit code."""

    def call(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
        return result

    return call


@pytest.fixture
def refused(run: Run) -> Run:
    """Return a function that runs a command which must fail with one line, and returns that line."""

    def call(*arguments: object, code: int = 2) -> str:
        result = run(*arguments, code=code)
        assert result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if not line.startswith("caloforge: not given")]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("caloforge: error: ")
        return str(lines[0])

    return call


@pytest.fixture(scope="session")
def showers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 300 parametrised showers in ``atlas-em-barrel``."""
    from caloforge.simulate import simulate

    path = tmp_path_factory.mktemp("showers") / "gflash.h5"
    return simulate("atlas-em-barrel", 300, engine="gflash", seed=1, output=path)
