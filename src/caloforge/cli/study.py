"""``caloforge study``: the published analyses on any showers and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli import output as cli

__all__ = ["study"]


def study(
    name: Annotated[
        str | None, typer.Argument(help="Name of a study; without it all studies are listed.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="File of reference showers (or the word shipped, for those in the package), then files of "
            "generated showers, run folders or shipped models."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option("--truth", help="A further file of reference showers; repeat it for more."),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", min=1, help="Showers of each model; by default the study's choice."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Name of a generated sample; repeat it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the study; repeat it for more."),
    ] = None,
    seed: Annotated[int, cli.seed_option("Seed of all random choices.")] = 0,
    device: cli.Device = "auto",
    detector: cli.Detector = None,
    allow_seen: cli.AllowSeen = False,
    scheduler: cli.Scheduler = None,
    cite: Annotated[
        bool, typer.Option("--cite", help="Print what to cite for the study, or for all, as BibTeX.")
    ] = False,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Repeat a published study with your models; write study.json, report.html, figures/*.png and .pdf.

    Without a name, list the studies and what each needs. Repeat the command to continue an interrupted study.
    """
    if name is None and not cite:
        _list(as_json)
        return
    from caloforge.errors import InputError
    from caloforge.studies import STUDIES

    if name is None or cite:
        names = STUDIES.names() if name is None or STUDIES[name].several else [name]
        cli.print_citation([STUDIES[one].papers for one in names], as_json)
        return
    from caloforge.studies.run import run_study

    chosen = STUDIES[name]
    given = list(files or ())
    if not given:
        raise InputError(f"study '{name}' needs {chosen.needs}")
    if output is None:
        raise InputError(f"study '{name}': name the folder to write with -o")
    result = run_study(
        name,
        [given[0], *(truth or ())],
        *given[1:],
        output=output,
        settings=settings,
        seed=seed,
        n=number,
        device=device,
        detector=detector,
        labels=label,
        force=force,
        allow_seen=allow_seen,
        scheduler=scheduler,
    )
    cli.print_warnings(result.content["warnings"])
    if as_json:
        cli.print_json({"output": str(output), "report": str(result.path), **result.content})
        return
    rows = (
        (row["sample"], row["quantity"], _number(row), _paper(row), row["note"])
        for row in result.content["rows"]
    )
    cli.print_table(("sample", "quantity", ">ours", ">paper", "note"), rows)
    cli.print_lines(result.texts)
    cli.print_written(output / "study.json", "every number and curve")
    cli.print_written(output / "report.html", "open it in a browser; figures are in figures/")


def _list(as_json: bool) -> None:
    from caloforge.studies import STUDIES
    from caloforge.studies.page import document

    known = [
        {
            "name": one,
            "title": kind.title,
            "paper": document(kind.source)["reference"],
            "needs": kind.needs,
            "settings": kind.Settings().model_dump(mode="json"),
        }
        for one, kind in STUDIES.items()
    ]
    if as_json:
        cli.print_json({"studies": known})
    else:
        rows = ((one["name"], one["title"], one["paper"], one["needs"]) for one in known)
        cli.print_table(("study", "what it finds", "paper", "needs"), rows)


def _number(row: dict[str, Any]) -> str:
    from caloforge.studies.page import number_text

    return number_text(row["ours"], row["uncertainty"], row["unit"])


def _paper(row: dict[str, Any]) -> str:
    from caloforge.studies.page import paper

    return "" if row["paper"] is None else paper(row["paper"]["key"]).text
