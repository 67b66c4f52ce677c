"""Errors become one line and an exit code; --debug shows the traceback."""

from __future__ import annotations

import errno

import pytest
import typer
from typer.testing import CliRunner

from caloforge.cli.app import INTERRUPTED, Verbs, describe
from caloforge.errors import GateError, InputError, OutputExistsError, UnitError, WriteError

CASES = [
    (InputError("bad thing"), 2, "bad thing"),
    (UnitError("energy '50' has no unit"), 2, "energy '50' has no unit"),
    (OutputExistsError("x.h5"), 2, "--force"),
    (GateError("auc_high = 0.9, expected <= 0.7"), 1, "auc_high"),
    (WriteError("x.h5: no space left"), 1, "no space left"),
    (OSError(errno.ENOSPC, "No space left on device", "x.h5"), 1, "x.h5: no space left while writing"),
    (OSError(errno.EFBIG, "File too large"), 1, "no space left while writing"),
    (PermissionError(errno.EACCES, "Permission denied", "x.h5"), 2, "x.h5: Permission denied"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.h5"), 2, "x.h5: No such file"),
    (OSError("truncated"), 1, "truncated"),
    (KeyboardInterrupt(), INTERRUPTED, "--resume"),
    (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines"),
]


def _application(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=Verbs, pretty_exceptions_enable=False)

    @app.callback()
    def options(debug: bool = typer.Option(False, "--debug")) -> None:
        pass

    @app.command()
    def verb() -> None:
        raise error

    return app


@pytest.mark.parametrize(("error", "code", "text"), CASES)
def test_every_error_becomes_one_line(error: BaseException, code: int, text: str) -> None:
    result = CliRunner().invoke(_application(error), ["verb"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("caloforge: error: ")
    assert text in result.stderr


@pytest.mark.parametrize("arguments", [["--debug", "verb"], ["verb", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(arguments: list[str]) -> None:
    result = CliRunner().invoke(_application(InputError("bad thing")), arguments)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.rstrip().endswith("caloforge: error: bad thing")


def test_usage_errors_stay_with_typer() -> None:
    result = CliRunner().invoke(_application(InputError("unused")), ["verb", "--no-such-option"])
    assert result.exit_code == 2
    assert "--no-such-option" in result.stderr
    assert describe(typer.Exit(3)) is None
    assert describe(typer.BadParameter("x")) is None
