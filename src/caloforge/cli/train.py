"""``caloforge train``: a model on a file of showers, into a run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caloforge.cli import output as cli

if TYPE_CHECKING:
    from caloforge.train.plan import Plan
    from caloforge.zoo.closing import Closing

__all__ = ["train"]

_FEW = 1_000  # showers a side below which the table says that they are few


def train(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of showers of one detector, after the name of a model (caloforge models lists them). "
            "Without a model the flagship is trained, with settings for these showers, the device and --time.",
            metavar="[MODEL] DATA...",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder to write.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    settings: cli.Settings = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="paper: settings as published; improved: the best settings found for this package.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            help="Time for the whole command, such as 15min, 2h or 900s; the number of epochs is chosen to fit. "
            "Without a model 30min. With --resume the time already used counts.",
        ),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Compare the model with the held-out showers at the end and write RUN/report; done by default for a planned training.",
            show_default=False,
        ),
    ] = None,
    device: cli.Device = "auto",
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices",
            min=1,
            help="Divide every batch between this number of GPUs, or of processes with --device cpu.",
        ),
    ] = None,
    seed: Annotated[
        int | None, cli.seed_option("Seed, 0 by default; the same seed gives the same weights.")
    ] = None,
    train_size: Annotated[
        int | None,
        typer.Option("--train-size", min=1, help="Train on this number of showers; fewer are an error."),
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
            help="First train on parametrised showers of the same detector; the engine is gflash.",
            metavar="ENGINE",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a run that was stopped, with the same files, seed and settings: caloforge train --resume RUN; --time and larger numbers "
            "of epochs may be given.",
        ),
    ] = False,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Train a model and write a run folder with weights, settings, log, seed, versions and a hash of the data.

    Without the name of a model, or with --time, the command prints a plan before the training starts.
    """
    from caloforge.errors import InputError
    from caloforge.train import RunFolder
    from caloforge.train import train as run
    from caloforge.train.devices import first_process
    from caloforge.train.files import own_files
    from caloforge.zoo.store import weights_of

    words = list(inputs or ())
    if resume and output is None and len(words) == 1:
        output, words = Path(words.pop()), []
    if output is None:
        raise InputError("name the run folder with -o; to continue a run: caloforge train --resume RUN")
    model, data = _model_and_data(words) if words or not resume else (None, [])
    folder = run(
        model,
        data or None,
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
        time_limit=time,
        report=report is not False,
        announce=partial(_announce, err=as_json),
        start=None if start is None else weights_of(start),
        pretrain=pretrain,
        devices=devices,
    )
    if not first_process():
        return
    info = RunFolder(folder).read()
    if not as_json:
        _print_run(folder, info)
    planned = info.get("plan")
    if report or (report is None and planned):
        from caloforge.zoo.closing import close_training, needs_quick

        quick = bool(planned) and needs_quick(info)
        closing = close_training(
            folder, own_files(folder, info, data or None), device, {"quick": quick}, int(info["seed"])
        )
        info = RunFolder(folder).read()
        if not as_json:
            _print_closing(folder, closing)
    if as_json:
        cli.print_json({"output": str(folder), **info})


def _announce(plan: Plan, err: bool) -> None:
    """Print a plan."""
    for line in plan.lines():
        typer.echo(cli.printable(line), err=err)


def _model_and_data(inputs: list[str]) -> tuple[str | None, list[Path]]:
    """Return the model, where one is named, and the files.

    Raises:
        UnknownNameError: When the first is neither a model nor looks like a file.
        BadParameter: When there is no file.
    """
    from caloforge.errors import InputError
    from caloforge.models import MODELS

    if not inputs:
        raise InputError("name a file of showers to train on")
    first = inputs[0]
    named = first in MODELS
    if not named and not Path(first).exists() and not Path(first).suffix and Path(first).name == first:
        MODELS[first]  # says which there are
    data = [Path(path) for path in inputs[named:]]
    if not data:
        raise typer.BadParameter(f"no file of showers after the model '{first}'; expected at least one")
    return (first if named else None), data


def _print_run(folder: Path, info: dict[str, Any]) -> None:
    """Say what was trained and how it ended."""
    from caloforge.train.stored import held_out_figure

    where = info["device"] if info["devices"] == 1 else f"{info['devices']} x {info['device']}"
    seconds = f"{info['wall_seconds']:.0f} s on {where}"
    cli.print_written(
        folder,
        f"{info['model']}, {info['parameters']:,} parameters, {info['train_showers']} showers, {seconds}",
    )
    for name, done in info.get("stopped_early", {}).items():
        cli.print_lines(
            [f"  stage {name}: stopped early by max_seconds after {done['epochs']} of {done['of']} epochs"]
        )
    for name, done in info.get("shortened", {}).items():
        cli.print_lines(
            [f"  stage {name}: slower than planned, shortened to {done['epochs']} of {done['of']} epochs"]
        )
    for name, stage in info["stages"].items():
        kept = f"kept epoch {stage['epoch']}, figure on held-out showers: {held_out_figure(stage)}"
        cli.print_lines([f"  stage {name}: {kept}"])


def _print_closing(folder: Path, closing: Closing) -> None:
    """Print the short table, or why there is none."""
    if closing.report is None:
        cli.print_lines([f"no report: {closing.missing}"])
        return
    title = f"{closing.showers:,} generated showers against as many held-out ones, which chose the epochs but trained no weight"
    cli.print_table(["", "value", ""], closing.rows(), title=title)
    if closing.showers < _FEW:
        few = f"with {closing.showers:,} showers a side classifiers find only large differences: for a full comparison use caloforge validate with more showers that the training did not use"
        cli.print_lines([few])
    cli.print_written(folder / "report" / "report.html", "open it in a browser")
