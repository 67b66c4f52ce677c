"""The commands on files: ``caloforge info``, ``merge`` and ``split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli import output as cli

__all__ = ["info", "merge", "split"]

Layout = Annotated[
    str | None,
    typer.Option("--layout", help="Layout of the output, dense or sparse; by default that of the input."),
]


def info(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of showers, in any known format, or run folders.", metavar="FILE..."),
    ],
    form: Annotated[
        str | None,
        typer.Option("--format", help="Format of the files; recognised by their content by default."),
    ] = None,
    detector: cli.Detector = None,
    as_json: cli.Json = False,
) -> None:
    """Show what is in files: detector, beam, ranges of conditions, numbers of showers and of empty ones, layout, size, and origin.

    Every shower is read once. For a run folder: model, data, settings of the training, and how it ended.
    """
    found = []
    for number, path in enumerate(files):
        facts, rows = _run(path) if path.is_dir() else _showers(path, form, detector)
        found.append({"path": str(path), **facts})
        if not as_json:
            cli.print_lines([""] if number else [])
            width = max(len(name) for name, _ in rows) + 2
            cli.print_lines([str(path), *(f"  {name:<{width}}{text}" for name, text in rows)])
    if as_json:
        cli.print_json(found)


def _run(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what a run folder is, for machines and for people."""
    from caloforge.train import RunFolder
    from caloforge.train.stored import run_lines

    content = RunFolder(path).read()
    return {"kind": "run", **content}, run_lines(content)


def _showers(
    path: Path, form: str | None, detector: str | None
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what is in a file of showers, for machines and for people."""
    from caloforge.formats import FORMATS, open_file
    from caloforge.formats.conversion import guess_format
    from caloforge.showers.description import describe, lines

    name = (guess_format(path) if form is None else FORMATS[form]).name
    with open_file(path, form, detector) as source:
        facts = {"kind": "showers", "format": name, **describe(source)}
    facts = {"bytes": path.stat().st_size, **facts}
    return facts, [("format", name), *lines(facts)]


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of one production, or parts of a file, in any order.", metavar="FILES..."),
    ],
    output: cli.OutputFile,
    layout: Layout = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Accept that showers are missing between the files.")
    ] = False,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Merge the files of a job array (simulate or generate with --first), or of split, into one, with each shower once and in order."""
    from caloforge.showers.ranges import merge as join

    made = join(files, output, force=force, layout=layout, gaps=allow_gaps)
    several = "" if len(made.ranges) < 2 else f", {len(made.ranges)} seeds"
    what = f"{made.n} showers of {made.files} files{several}"
    cli.print_result(as_json, output, what, n=made.n, files=made.files, ranges=made.ranges)


def split(
    source: Annotated[Path, typer.Argument(help="File of showers.", metavar="FILE")],
    output: cli.OutputFolder,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", min=1, help="Showers in each file; the last file has the rest."),
    ] = None,
    parts: Annotated[
        int | None, typer.Option("--parts", min=1, help="Instead of -n: the number of files, of equal size.")
    ] = None,
    layout: Layout = None,
    detector: cli.Detector = None,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Divide a file into FOLDER/NAME-0.h5, NAME-1.h5, ...; merge joins them again to the same showers."""
    from caloforge.showers.ranges import split as divide

    made = divide(source, output, number, parts, force, layout, detector)
    if as_json:
        cli.print_json({"output": str(output), "files": [str(path) for path in made]})
    else:
        cli.print_written(output, f"{len(made)} files, {made[0].name} to {made[-1].name}")
