"""``caloforge``: the verbs, the options before them, and the one place where errors become one line."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from caloforge._version import __version__
from caloforge.cli.demo import demo
from caloforge.cli.detectors import detectors
from caloforge.cli.failures import describe
from caloforge.cli.generate import generate
from caloforge.cli.models import models
from caloforge.cli.project import project
from caloforge.cli.simulate import simulate
from caloforge.cli.study import study
from caloforge.cli.train import train
from caloforge.cli.validate import validate
from caloforge.cli.view import view

__all__ = ["app", "main"]

_LOOK, _WORK = "Look", "Work"


class Verbs(TyperGroup):
    """The group of verbs: accepts ``--debug`` anywhere and turns what a verb raises into one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Keep the verbs in the order in which they are used."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move ``--debug`` to the front, so that it can be added to the end of a command that failed."""
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an error prints one line on standard error and sets the exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # typer answers it: the reader of a pipe went away
        except (Exception, KeyboardInterrupt) as error:
            failure = describe(error)
            if failure is None:
                raise  # typer's own: usage errors, --help, exits
            if ctx.params.get("debug"):
                traceback.print_exc(file=sys.stderr)
            typer.echo(f"caloforge: error: {failure.line}", err=True)
            raise typer.Exit(failure.exit_code) from None


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


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Simulate, learn, generate and validate particle showers in calorimeters.

    Energies carry their unit: 50GeV, 500MeV, 10-100GeV, 1-262GeV:log2.
    Angles are degrees, 90 is perpendicular to the front face.
    """


app.command(rich_help_panel=_LOOK)(detectors)
app.command(rich_help_panel=_LOOK)(models)
app.command(rich_help_panel=_WORK)(simulate)
app.command(rich_help_panel=_WORK)(project)
app.command(rich_help_panel=_WORK)(train)
app.command(rich_help_panel=_WORK)(generate)
app.command(rich_help_panel=_WORK)(validate)
app.command(rich_help_panel=_WORK)(study)
app.command(rich_help_panel=_LOOK)(view)
app.command(rich_help_panel=_WORK)(demo)


def main() -> None:
    """Run the command line; the entry point of the ``caloforge`` script."""
    app()
