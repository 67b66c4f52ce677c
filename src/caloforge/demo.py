"""The whole path as one short script: Geant4 showers -> training -> generation -> validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caloforge.data import sample_path
from caloforge.files import ensure_output_dir
from caloforge.random import generator
from caloforge.showers import open_showers
from caloforge.train import train
from caloforge.validate.driver import validate
from caloforge.zoo import load

if TYPE_CHECKING:
    from caloforge.validate.driver import Report

__all__ = ["Demo", "run_demo"]

HELD_OUT = 1600
"""Showers of the sample that are not trained on; as many are generated."""


@dataclass(frozen=True)
class Demo:
    """Output of the demo.

    Arguments:
        folder: The folder.
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
        folder: Where to write; a stopped run continues there with ``force``.
        seed: Seed of the split, the training and the generation.
        overrides: Settings of the training, as ``key=value``.
        force: Use a folder that is not empty.

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
