"""``caloforge demo``: the whole path on the Geant4 showers that ship with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.output import (
    Force,
    Json,
    Settings,
    print_json,
    print_lines,
    print_rich,
    print_written,
    seed_option,
)

__all__ = ["demo"]

HELD_OUT = 1600
"""Showers of the sample that are not trained on; as many are generated."""


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, seed_option("Seed of split, training and generation.")] = 0,
    settings: Settings = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a model on packaged Geant4 showers, generate showers and validate them; takes minutes on two cores."""
    import numpy as np

    from caloforge.data import sample_path
    from caloforge.files import ensure_output_dir
    from caloforge.random import generator
    from caloforge.showers import open_showers
    from caloforge.train import train
    from caloforge.validate import driver
    from caloforge.zoo import load

    start = time.monotonic()
    folder = ensure_output_dir(output, force)
    with open_showers(sample_path()) as sample:
        order = generator(seed, "demo").permutation(len(sample))
        truth = sample.take(np.sort(order[:HELD_OUT])).save(folder / "geant4-held-out.h5", force)
        data = sample.take(np.sort(order[HELD_OUT:])).save(folder / "geant4-training.h5", force)
    run = train("vae", data, folder / "vae", overrides=tuple(settings or ()), seed=seed, force=force)
    fake = load(run).write(folder / "vae.h5", like=truth, seed=seed, force=force)
    report = driver.validate(truth, fake, output=folder / "report", force=force)
    seconds = time.monotonic() - start
    if as_json:
        paths = {"truth": truth, "fake": fake, "run": run, "report": report.path}
        print_json({name: str(path) for name, path in paths.items()} | {"seconds": seconds})
        return
    print_rich(report.summary())
    print_written(truth, "held-out Geant4 showers")
    print_written(run, "the trained model")
    print_written(fake, "generated showers with the same energies and alignments")
    print_written(report.path, "open it in a browser")
    print_lines([f"the demo took {seconds:.0f} s"])
