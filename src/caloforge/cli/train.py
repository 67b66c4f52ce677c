"""``caloforge train``: a model on a file of showers, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import output as cli

__all__ = ["train"]


def train(
    model: Annotated[str, typer.Argument(help="A model; caloforge models lists them.")],
    data: Annotated[
        list[Path], typer.Argument(help="File of showers, or several of one detector.", metavar="DATA...")
    ],
    output: cli.OutputFolder,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    settings: cli.Settings = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="paper: as published; improved: as it works best here.")
    ] = None,
    device: cli.Device = "auto",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed; the same seed gives the same weights.")
    ] = 0,
    train_size: Annotated[
        int | None, typer.Option("--train-size", min=1, help="Use the first so many training showers.")
    ] = None,
    detector: cli.Detector = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from this model: a run folder or a shipped model, of any detector.",
            metavar="SOURCE",
        ),
    ] = None,
    pretrain: Annotated[
        str | None,
        typer.Option(
            "--pretrain",
            help="Train first on parametrised showers of the same detector: gflash.",
            metavar="ENGINE",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Train a model; the run folder holds weights, resolved settings, log, seed, versions and data hash."""
    from caloforge.train import RunFolder
    from caloforge.train import train as run
    from caloforge.zoo.store import weights_of

    folder = run(
        model,
        data,
        output,
        config=config,
        overrides=tuple(settings or ()),
        preset=preset,
        device=device,
        seed=seed,
        train_size=train_size,
        resume=resume,
        force=force,
        detector=detector,
        start=None if start is None else weights_of(start),
        pretrain=pretrain,
    )
    info = RunFolder(folder).read()
    if as_json:
        cli.print_json({"output": str(folder), **info})
        return
    seconds = f"{info['wall_seconds']:.0f} s on {info['device']}"
    cli.print_written(
        folder, f"{model}, {info['parameters']:,} parameters, {info['train_showers']} showers, {seconds}"
    )
    for name, done in info.get("stopped_early", {}).items():
        cli.print_lines(
            [f"  stage {name}: stopped early by max_seconds after {done['epochs']} of {done['of']} epochs"]
        )
    for name, stage in info["stages"].items():
        figure = "never measured" if stage["metric"] is None else f"{stage['metric']:.4g}"
        cli.print_lines(
            [f"  stage {name}: kept epoch {stage['epoch']}, figure on held-out showers: {figure}"]
        )
