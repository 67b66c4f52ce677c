"""Options that several verbs share, and answers: plain lines or a table for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "AllowSeen",
    "Detector",
    "Device",
    "Energy",
    "Force",
    "Json",
    "Number",
    "OutputFile",
    "OutputFolder",
    "Scheduler",
    "Seed",
    "Settings",
    "Theta",
    "known_device",
    "print_citation",
    "print_json",
    "print_lines",
    "print_note",
    "print_result",
    "print_rich",
    "print_table",
    "print_warnings",
    "print_written",
    "printable",
    "seed_option",
]

_WIDE = 200


def known_device(name: str) -> str:
    """Return the name of a device, or refuse it."""
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise typer.BadParameter(
            f"'{name}' is not a device; expected auto, cpu, cuda, or one GPU such as cuda:1"
        )
    return name


def printable(text: str) -> str:
    r"""Return a text whose control characters are written out (``\x1b``): texts of files must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\t\n" else c.encode("unicode_escape").decode() for c in text)


def seed_option(text: str) -> Any:
    """Return the option for a seed, with that help."""
    return typer.Option("--seed", min=0, max=2**63 - 1, help=text)


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists already.")]
Seed = Annotated[int, seed_option("Seed; the same seed gives the same showers.")]
Number = Annotated[int, typer.Option("-n", "--number", min=1, help="Number of showers.")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, or one GPU such as cuda:1.", callback=known_device)
]
OutputFile = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")]
AllowSeen = Annotated[
    bool,
    typer.Option(
        "--allow-seen",
        help="Accept reference showers that trained or selected a model; the result says how many.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Use the Dask cluster of this scheduler: tcp://HOST:PORT, or its scheduler file.",
        metavar="ADDRESS",
    ),
]
Energy = Annotated[
    str | None,
    typer.Option(
        "--energy", help="Incident energy with its unit: 50GeV, 10-100GeV, 1-1000GeV:log, 1-262GeV:log2."
    ),
]
Theta = Annotated[
    str | None, typer.Option("--theta", help="Polar angle in degrees: 90 (perpendicular) or 30-90.")
]
Detector = Annotated[
    str | None, typer.Option("--detector", help="Detector of files that do not name theirs.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the training; repeat it for more."),
]


def print_json(result: dict[str, Any] | list[Any]) -> None:
    """Print a result as JSON on standard output; not-a-number becomes null."""
    from caloforge.files import dump_json

    typer.echo(dump_json(result))


def print_citation(papers: Iterable[Sequence[str]], as_json: bool = False) -> None:
    """Print what to cite as BibTeX: the software, and papers by their keys in ``CITATION.cff``, those of each model, study or metric."""
    from caloforge.citation import bibtex, references

    keys = list(dict.fromkeys(key for some in papers for key in some))
    if as_json:
        print_json({"papers": references(keys), "bibtex": "\n".join(bibtex(keys))})
    else:
        print_lines(bibtex(keys))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output."""
    for line in lines:
        typer.echo(printable(line))


def print_warnings(lines: Iterable[str]) -> None:
    """Print warnings on standard error, a line each."""
    for line in lines:
        typer.echo(printable(f"caloforge: warning: {line}"), err=True)


def print_note(line: str) -> None:
    """Print what was assumed on standard error."""
    typer.echo(printable(f"caloforge: {line}"), err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table; columns of numbers are aligned to the right.

    Arguments:
        columns: Headings; ``>`` before those of numbers.
        rows: Cells, shown with ``str``.
        title: A line above the table.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        name = column.removeprefix(">")
        table.add_column(name, justify=justify, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    print_rich(table)


def print_rich(content: Any) -> None:
    """Print a table of rich; in a file or a pipe its width is not limited to a terminal's."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(content)


def print_written(path: object, what: str) -> None:
    """Say what was written where."""
    typer.echo(printable(f"wrote {path} ({what})"))


def print_result(as_json: bool, path: Path, what: str, **facts: object) -> None:
    """Say what was written where, or print the path and facts as JSON."""
    if as_json:
        print_json({"output": str(path), **facts})
    else:
        print_written(path, what)
