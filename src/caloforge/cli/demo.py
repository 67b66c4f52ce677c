"""``caloforge demo``: the whole path on the Geant4 showers that ship with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.output import Force, Json, Settings, print_json, print_lines, print_rich, print_written

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of split, training and generation.")] = 0,
    settings: Settings = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train on packaged Geant4 showers, generate, validate: minutes on two cores."""
    from caloforge.demo import run_demo

    start = time.monotonic()
    made = run_demo(output, seed, tuple(settings or ()), force)
    seconds = time.monotonic() - start
    if as_json:
        paths = {"truth": made.truth, "fake": made.fake, "run": made.run, "report": made.report.path}
        print_json({name: str(path) for name, path in paths.items()} | {"seconds": seconds})
        return
    print_rich(made.report.summary())
    print_written(made.truth, "Geant4 showers that the model was not trained on")
    print_written(made.run, "the trained model")
    print_written(made.fake, "generated showers with the same energies and alignments")
    print_written(made.report.path, "open it in a browser")
    print_lines([f"the whole path took {seconds:.0f} s"])
