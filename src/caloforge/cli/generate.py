"""``caloforge generate``: showers from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.options import Device, Energy, Force, Json, OutputFile, Seed, Theta
from caloforge.cli.output import print_json, print_written

__all__ = ["generate"]


def generate(
    source: Annotated[str, typer.Argument(help="A run folder of caloforge train, or a shipped model.")],
    output: OutputFile,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", min=1, help="Number of showers; with --like: by default as many."),
    ] = None,
    energy: Energy = None,
    theta: Theta = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="Take energies, angles and other conditions from this file.")
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Showers made at once.")] = 1000,
    seed: Seed = 0,
    allow_extrapolation: Annotated[
        bool, typer.Option("--allow-extrapolation", help="Accept conditions outside the training's.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate showers: with --energy (and --theta), or with the conditions of a reference file."""
    from caloforge.errors import InputError
    from caloforge.generate import load

    if like is not None and (energy is not None or theta is not None):
        msg = "--like takes energies and angles from a file; leave out --energy and --theta"
        raise InputError(msg)
    if like is None and (number is None or energy is None):
        msg = "give the number of showers and their energy (-n 1000 --energy 50GeV), or --like REFERENCE.h5"
        raise InputError(msg)
    model = load(source, device=device)
    made = model.write(
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
    if as_json:
        print_json({"output": str(made), "seed": seed})
    else:
        print_written(made, f"showers of {source}")
