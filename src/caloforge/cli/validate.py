"""``caloforge validate``: generated showers against reference showers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import output as cli

__all__ = ["validate"]


def _cite(wanted: bool) -> None:
    if wanted:
        from caloforge.validate.metrics import METRICS

        cli.print_citation(metric.papers for _, metric in METRICS.items())
        raise typer.Exit


def validate(
    reference: Annotated[Path, typer.Argument(help="File of reference showers, usually Geant4.")],
    generated: Annotated[list[Path], typer.Argument(help="Files of showers to compare with the reference.")],
    output: cli.OutputFolder,
    fail_on: Annotated[
        Path | None,
        typer.Option(
            "--fail-on",
            help="TOML file of limits; if one is violated, name the failing rows and exit with 1.",
        ),
    ] = None,
    match_conditions: Annotated[
        bool,
        typer.Option(
            "--match-conditions",
            help="Compare only the common range of the conditions, with the same distribution.",
        ),
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Name of a sample, first that of the reference; repeat it."),
    ] = None,
    n_max: Annotated[
        int,
        typer.Option(
            "--n-max", min=2, help="Maximum number of showers a side for metrics that compare whole showers."
        ),
    ] = 10_000,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, help="A cell above this energy is a hit, MeV.")
    ] = 0.1,
    classifier: Annotated[
        str,
        typer.Option("--classifier", help="fast, or calochallenge for the networks of the CaloChallenge."),
    ] = "fast",
    cnn: Annotated[
        bool, typer.Option("--cnn", help="Train the 3-D convolutional classifier as well.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Use only gradient boosting in two folds for the two-sample tests; no detectability.",
        ),
    ] = False,
    reconstruction: Annotated[
        bool | None,
        typer.Option(
            "--reconstruction/--no-reconstruction",
            help="Compare also after digitisation, clustering and calibration; done by default for grids of known MIP energy.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, cli.seed_option("Seed of subsets, bootstrap and classifiers.")] = 0,
    device: cli.Device = "auto",
    detector: cli.Detector = None,
    allow_seen: cli.AllowSeen = False,
    scheduler: cli.Scheduler = None,
    cite: Annotated[
        bool,
        typer.Option(
            "--cite", help="Print what to cite for the metrics, as BibTeX.", callback=_cite, is_eager=True
        ),
    ] = False,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Compare generated showers with a reference; write metrics.json, report.html, figures/*.png and .pdf.

    Every metric has an uncertainty and, where meaningful, a floor: the value that a perfect generator would
    have with samples of this size.
    """
    # Threads that wait for each other leave the cores to the processes that draw figures meanwhile; what is set already
    # stays, and it must be set before NumPy and torch are imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    from caloforge.errors import GateError
    from caloforge.validate.driver import validate as compare

    settings = {
        "seed": seed,
        "n_max": n_max,
        "threshold": threshold,
        "classifier": classifier,
        "cnn": cnn,
        "quick": quick,
        "reconstruction": reconstruction,
        "device": device,
    }
    try:
        report = compare(
            reference,
            *generated,
            output=output,
            settings=settings,
            limits=fail_on,
            match_conditions=match_conditions,
            force=force,
            detector=detector,
            labels=label,
            allow_seen=allow_seen,
            scheduler=scheduler,
        )
    except GateError:
        if not as_json:
            _print_outputs(output)
        raise
    cli.print_warnings(report.warnings())
    if as_json:
        limits = [
            {"sample": row.sample, "name": row.name, "value": row.value, "passed": row.passed}
            for row in report.limits
        ]
        cli.print_json(
            {"output": str(output), "report": str(report.path), "limits": limits, "metrics": report.metrics}
        )
        return
    cli.print_rich(report.summary())
    _print_outputs(output)


def _print_outputs(output: Path) -> None:
    cli.print_written(output / "metrics.json", "every number")
    cli.print_written(output / "report.html", "open it in a browser; figures are in figures/")
