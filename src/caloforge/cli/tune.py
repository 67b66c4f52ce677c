"""``caloforge tune``: settings of a model that are accurate and fast."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import output as cli

__all__ = ["tune"]


def tune(
    model: Annotated[str, typer.Argument(help="Name of a model; caloforge models lists them.")],
    data: Annotated[
        list[Path], typer.Argument(help="File of showers, or several of one detector.", metavar="DATA...")
    ],
    output: cli.OutputFolder,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUES",
            help="A setting to vary: KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c; repeat it for more.",
        ),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="TOML file of settings to vary.", metavar="FILE")
    ] = None,
    only: Annotated[
        bool,
        typer.Option(
            "--only",
            help="Vary only the settings of --search and --space, not those that the model declares.",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of the settings that are not varied.")
    ] = None,
    settings: cli.Settings = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Preset of the settings that are not varied, and of trial 0."),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            "-n", "--trials", min=1, help="Total number of trials, including those of earlier calls."
        ),
    ] = 20,
    trial_time: Annotated[
        str | None,
        typer.Option(
            "--trial-time", metavar="TIME", help="Maximum time of a training, such as 30s or 10min."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="Maximum time of this call, such as 30min or 2h."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes.")] = 1,
    figure: Annotated[
        str,
        typer.Option(
            "--figure",
            help="Measure of accuracy: auc-observables, auc-cells, auc-spectrum, or selection (the figure by which the training chooses its epoch).",
        ),
    ] = "auc-observables",
    most_ms: Annotated[
        float | None,
        typer.Option("--max-ms", help="Maximum time of a shower, ms; slower trials are stopped."),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune/--no-prune", help="Stop trials that are less accurate than others of the same speed."
        ),
    ] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the runs of all trials, not only of the Pareto front.")
    ] = False,
    device: cli.Device = "auto",
    seed: Annotated[int, cli.seed_option("Seed of the search and of each training.")] = 0,
    detector: cli.Detector = None,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Search for settings of a model that are accurate and fast; write best.toml, trials.csv, tune.json, figures/front.png.

    Trials are measured with the showers that their training holds out. Repeat the command to continue the study.
    """
    from caloforge.errors import InputError
    from caloforge.tune import tune as run
    from caloforge.units import read_seconds

    if most_ms is not None and not math.isfinite(most_ms):
        raise InputError(f"--max-ms is {most_ms}; expected a number of milliseconds")
    result = run(
        model,
        data,
        output,
        search=tuple(search or ()),
        space=space,
        only=only,
        config=config,
        overrides=tuple(settings or ()),
        preset=preset,
        trials=trials,
        trial_seconds=0.0 if trial_time is None else read_seconds(trial_time),
        seconds=0.0 if time is None else read_seconds(time),
        workers=workers,
        figure=figure,
        most_ms=math.inf if most_ms is None else most_ms,
        prune=prune,
        keep=keep,
        force=force,
        device=device,
        seed=seed,
        detector=detector,
        say=lambda line: typer.echo(cli.printable(line), err=True),
    )
    cli.print_warnings(result.warnings)
    if as_json:
        from caloforge.text_files import read_json

        cli.print_json({"output": str(output), **read_json(output / "tune.json")})
        return
    from caloforge.units import plain_number

    known = {entry["number"]: entry for entry in result.trials}
    rows = []
    for number in result.front:
        entry = known[number]
        values = ", ".join(f"{key}={value}" for key, value in entry["values"].items())
        rows.append((number, plain_number(entry["figure"], 4), plain_number(entry["ms"]), values))
    cli.print_table(
        ("trial", f">{figure}", ">ms a shower", "settings"),
        rows,
        "Trials on the Pareto front, the fastest first",
    )
    counts = ", ".join(f"{number} {state}" for state, number in result.counts().items())
    cli.print_written(output / "trials.csv", f"{len(result.trials)} of {trials} trials: {counts}")
    if result.settings is not None:
        cli.print_written(output / "figures" / "front.png", "accuracy against speed")
        cli.print_written(
            output / "best.toml", f"trial {result.best}; caloforge train {model} --config takes it"
        )
