"""``caloforge generate``: showers from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli import output as cli

__all__ = ["generate"]


def generate(
    source: Annotated[str, typer.Argument(help="A run folder, or a shipped model (caloforge models).")],
    output: cli.OutputFile,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", min=1, help="Number of showers; with --like by default as many."),
    ] = None,
    energy: cli.Energy = None,
    theta: cli.Theta = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="Take energies, angles and other conditions from this file.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the model lets choose, such as its steps."),
    ] = None,
    allow_extrapolation: Annotated[
        bool, typer.Option("--allow-extrapolation", help="Accept conditions outside the training's range.")
    ] = False,
    device: cli.Device = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Showers made at once.")] = 1000,
    seed: cli.Seed = 0,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Generate showers: with --energy (and --theta), or with the conditions of a reference file."""
    from caloforge.errors import InputError
    from caloforge.files import check_output
    from caloforge.settings import assignment
    from caloforge.showers import open_showers
    from caloforge.showers.seen import warnings_of
    from caloforge.zoo.store import load

    if like is not None and (energy is not None or theta is not None):
        raise InputError("--like takes energies and angles from a file; leave out --energy and --theta")
    if like is None and (number is None or energy is None):
        msg = "give the number of showers and their energy (-n 1000 --energy 50GeV), or --like REFERENCE.h5"
        raise InputError(msg)
    check_output(output, force)
    model = load(source, device=device, options=dict(map(assignment, settings or ())))
    cli.print_warnings(warnings_of(model.name, model.attributes))
    model.write(
        output,
        number,
        energy=energy,
        theta=theta,
        like=like,
        seed=seed,
        batch_size=batch_size,
        allow_extrapolation=allow_extrapolation,
        force=force,
    )
    with open_showers(output) as file:
        made = len(file)
    detector = model.detector.name
    what = f"{made} showers of {model.name} in {detector}"
    cli.print_result(as_json, output, what, n=made, source=model.name, detector=detector)
