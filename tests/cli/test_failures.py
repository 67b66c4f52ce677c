"""Errors become one line and an exit code; --debug shows the traceback."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from caloforge.cli.app import INTERRUPTED, Verbs, describe
from caloforge.cli.output import printable
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


def test_what_a_file_says_does_not_steer_the_terminal() -> None:
    result = CliRunner().invoke(_application(InputError("x\x1b[2Jy\x07\u202e")), ["verb"])
    assert result.stderr == "caloforge: error: x\\x1b[2Jy\\x07\\u202e\n"
    assert printable("plain – é\n\tx") == "plain – é\n\tx"


SCRIPT = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
from caloforge.cli.app import app, main
from caloforge.files import atomic_path, lock_folder
@app.command()
def stopped(name: str):
    with lock_folder("run"), atomic_path("run/a.h5") as part:
        part.write_text("half")
        os.kill(os.getpid(), getattr(signal, name))
        signal.pause()
main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_of_a_batch_system_leaves_nothing(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "stopped", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr.startswith("caloforge: error: ended by a signal; no incomplete file is left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["verb", "--no-such-option"], ["--no-such-option"]])
def test_wrong_usage_is_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(_application(InputError("unused")), words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("caloforge: error: No such option: --no-such-option")
    assert line.endswith("--help)")
    assert describe(typer.Exit(3)) is None
    assert describe(typer.BadParameter("x")) == ("Invalid value: x (caloforge --help)", 2)
