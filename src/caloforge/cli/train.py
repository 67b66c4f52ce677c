"""``caloforge train``: a model on a file of showers, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.options import Device, Force, Json, OutputFolder

__all__ = ["train"]


def train(
    model: Annotated[str, typer.Argument(help="A model; caloforge models lists them.")],
    data: Annotated[Path, typer.Argument(help="File of showers.")],
    output: OutputFolder,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting; repeat it for more. Goes before --config."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="paper: as published; improved: as it works best here.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed; the same seed gives the same weights.")
    ] = 0,
    train_size: Annotated[
        int | None, typer.Option("--train-size", min=1, help="Use the first so many training showers.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a model; the run folder holds weights, resolved settings, log, seed, versions and data hash."""
