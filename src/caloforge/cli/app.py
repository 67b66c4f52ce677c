"""``caloforge``: the verbs, the options before them, and the one place where errors become one line."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from caloforge import __version__
from caloforge.cli.benchmark import benchmark
from caloforge.cli.convert import convert
from caloforge.cli.demo import demo
from caloforge.cli.detectors import detectors
from caloforge.cli.doctor import doctor
from caloforge.cli.files import info, merge, split
from caloforge.cli.models import models
from caloforge.cli.output import printable
from caloforge.cli.showers import export, generate, project, simulate, view
from caloforge.cli.study import study
from caloforge.cli.train import train
from caloforge.cli.tune import tune
from caloforge.cli.validate import validate
from caloforge.errors import CaloforgeError, CaloforgeWarning, options_in_messages

__all__ = ["INTERRUPTED", "Failure", "Terminated", "app", "describe", "main"]

_LONGEST = 1500  # characters of a message
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it; after another signal 128 and its number."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    getattr(errno, name)
    for name in ["EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG"]
}


class Terminated(KeyboardInterrupt):
    """A signal that ends the work, such as a batch system's at the end of a job's time; cleaned up after as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Failure(NamedTuple):
    """One line for standard error, and the exit code: 2 bad usage or input, 1 failure, 130 interrupted."""

    line: str
    exit_code: int


UsageError: Any = typer.BadParameter.__base__
"""Wrong usage: click's, or that of the copy of click inside typer."""


def describe(error: BaseException) -> Failure | None:
    """Return line and exit code for what a verb raised or for wrong usage; None for typer's own exceptions (exits, and help that it prints)."""
    if isinstance(error, CaloforgeError):
        return Failure(_one_line(str(error)), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        how, code = "interrupted", INTERRUPTED
        if isinstance(error, Terminated):
            how, code = "ended by a signal", 128 + error.number
        line = f"{how}; no incomplete file is left; repeat the command to continue where it can"
        return Failure(line + " (train: add --resume)", code)
    if isinstance(error, UsageError) and type(error).__name__ != "NoArgsIsHelpError":
        return _describe_usage(error)
    if any(kind.__module__.partition(".")[0] in {"typer", "click"} for kind in type(error).__mro__):
        return None  # of click, or of the copy of click inside typer
    if isinstance(error, OSError):
        return _describe_os_error(error)
    if type(error).__module__.startswith("pydantic") and hasattr(error, "errors"):
        return Failure(_one_line(_first_setting(error.errors())), 2)
    name = type(error).__name__
    return Failure(_one_line(f"unexpected {name}: {error} (--debug shows where)"), 1)


def _describe_usage(error: Any) -> Failure:
    """Say what was wrong with the words of a command, and whose help says more."""
    where = "caloforge" if error.ctx is None else error.ctx.command_path
    return Failure(_one_line(f"{error.format_message()} ({where} --help)"), 2)


def _describe_os_error(error: OSError) -> Failure:
    """Name the file and the reason; a full disk is a failure, a wrong or closed path is bad input."""
    where = f"{error.filename}: " if error.filename is not None else ""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return Failure(_one_line(f"{where}no space left while writing ({reason}); nothing was kept"), 1)
    return Failure(_one_line(f"{where}{reason}"), 2 if error.errno in _REFUSED else 1)


def _first_setting(problems: list[dict[str, Any]]) -> str:
    """Name the first setting that was refused, and why."""
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"setting '{key}': {first['msg']}, got {first['input']!r}"


def _one_line(text: str) -> str:
    """Return a text in one line of printable characters, not too long: names in files may hold anything."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of caloforge's as one line; others as Python does."""
    if issubclass(category, CaloforgeWarning):
        typer.echo(f"caloforge: warning: {_one_line(str(message))}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, *where[:2], *where[3:]), err=True, nl=False)


def _fail(error: BaseException, debug: bool = False) -> None:
    """Print what :func:`describe` says of an error, and leave with its exit code; return where it says nothing."""
    failure = describe(error)
    if failure is None:
        return
    if debug:
        traceback.print_exc(file=sys.stderr)
    typer.echo(f"caloforge: error: {failure.line}", err=True)
    raise typer.Exit(failure.exit_code) from None


class Verbs(TyperGroup):
    """The group of verbs: accepts ``--debug`` anywhere and prints what a verb raises as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Keep the verbs in the order in which they are used."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move ``--debug`` to the front, so that it can be added to the end of a command that failed."""
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            _fail(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an error prints one line on standard error and sets the exit code."""
        with options_in_messages():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # typer answers it: the reader of a pipe went away
        except (Exception, KeyboardInterrupt) as error:
            _fail(error, bool(ctx.params.get("debug")))
            raise  # typer's own: --help, exits


app = typer.Typer(
    name="caloforge",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"caloforge {__version__}")
        raise typer.Exit


def _print_citation(wanted: bool) -> None:
    if wanted:
        from caloforge.citation import bibtex

        typer.echo("\n".join(bibtex()))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    cite: Annotated[
        bool,
        typer.Option(
            "--cite",
            help="Print what to cite: caloforge, and the papers behind its models and metrics, as BibTeX (a part: caloforge models NAME --cite, study NAME --cite, validate --cite).",
            callback=_print_citation,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Simulate particle showers in calorimeters, train generative models on them, generate more, and validate these.

    Write energies with their unit: 50GeV, 500MeV, 10-100GeV, 1-1000GeV:log, 1-262GeV:log2.
    Angles are in degrees; 90 is perpendicular to the front face.
    """


for _verb in (
    detectors, models, info, view, doctor, simulate, project, train, tune, generate, export, validate, study, benchmark, convert, merge, split, demo,
):  # fmt: skip
    app.command(rich_help_panel="Look" if _verb in (detectors, models, info, view, doctor) else "Work")(_verb)


def main() -> None:
    """Run the command line; the entry point of the ``caloforge`` script."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # SIGHUP: the terminal or the connection is gone; not on Windows
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _end)
    app()


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave every block in order; a further signal does not disturb that."""
    signal.signal(number, signal.SIG_IGN)
    raise Terminated(number)
