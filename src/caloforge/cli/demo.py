"""``caloforge demo``: the whole path on the Geant4 showers that ship with the package."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from caloforge.cli.output import Force, Json, Settings, print_json, print_lines, print_rich, print_written
from caloforge.data import sample_path
from caloforge.files import ensure_output_dir
from caloforge.random import generator
from caloforge.showers import open_showers
from caloforge.train import train
from caloforge.validate.driver import validate
from caloforge.zoo.store import load

if TYPE_CHECKING:
    from caloforge.validate.driver import Report

__all__ = ["Demo", "demo", "run_demo"]


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of split, training and generation.")] = 0,
    settings: Settings = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train on packaged Geant4 showers, generate, validate: minutes on two cores."""
    start = time.monotonic()
    made = run_demo(output, seed, tuple(settings or ()), force)
    seconds = time.monotonic() - start
    if as_json:
        paths = {"truth": made.truth, "fake": made.fake, "run": made.run, "report": made.report.path}
        print_json({name: str(path) for name, path in paths.items()} | {"seconds": seconds})
        return
    print_rich(made.report.summary())
    print_written(made.truth, "Geant4 showers that the model never saw")
    print_written(made.run, "the trained model")
    print_written(made.fake, "generated showers with the same energies and alignments")
    print_written(made.report.path, "open it in a browser")
    print_lines([f"the whole path took {seconds:.0f} s"])


HELD_OUT = 1600
"""Showers of the sample that the model never sees; as many are generated."""


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Arguments:
        folder: Where everything lies.
        truth: File of the held-out Geant4 showers.
        fake: File of the generated showers.
        run: Folder of the trained model.
        report: The comparison.
    """

    folder: Path
    truth: Path
    fake: Path
    run: Path
    report: Report


def run_demo(
    folder: str | Path = "demo", seed: int = 0, overrides: tuple[str, ...] = (), force: bool = False
) -> Demo:
    """Train the variational autoencoder on the packaged Geant4 showers, generate, validate.

    Arguments:
        folder: Where to write; a run that was stopped goes on there with ``force``.
        seed: Seed of the split, the training and the generation.
        overrides: Settings of the training, as ``key=value``.
        force: Use a folder that holds something already.

    Returns:
        Where everything is.
    """
    folder = ensure_output_dir(folder, force)
    with open_showers(sample_path()) as sample:
        order = generator(seed, "demo").permutation(len(sample))
        truth = sample.take(np.sort(order[:HELD_OUT])).save(folder / "geant4-held-out.h5", force)
        data = sample.take(np.sort(order[HELD_OUT:])).save(folder / "geant4-training.h5", force)
    run = folder / "vae"
    train("vae", data, run, overrides=overrides, seed=seed, force=force)
    model = load(run)
    fake = model.write(folder / "vae.h5", like=truth, seed=seed, force=force)
    report = validate(truth, fake, output=folder / "report", force=force)
    return Demo(folder, truth, fake, run, report)
