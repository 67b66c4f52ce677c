"""A Geant4 application whose calorimeter showers come from a trained model, or from Geant4 for comparison.

    python application.py --particle pi0 --energy 20-60GeV -n 300 -o pi0-full
    python application.py --particle pi0 --energy 20-60GeV -n 300 -o pi0-fast --model ild-photon-angled/bib-ae

The world of air holds the calorimeter of ``plane.toml``; particles are born in front of it and fly towards it, pi0 decay in Geant4. A thin
slab of air before the face is a sensitive detector. With a model, photons and electrons in its range that enter there are recorded and
killed; when the event ends, all of them go through the model in one batch, and the cells of its showers are added to the hits of Geant4, which
simulates everything else. The same seed gives the same primary particles in both modes.

It writes OUTPUT.h5, showers as ``caloforge validate`` and ``view`` read them, and OUTPUT.npz, the particles at the face and the
processor time of each event.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events import Event, Gun, columns_of
from numpy.typing import NDArray
from replacement import ELECTRON_DEPTH, ShowerReplacement

import caloforge as cf
from caloforge.errors import CaloforgeError, InputError
from caloforge.files import atomic_path, check_output
from caloforge.geometry import load_detector
from caloforge.showers import ShowerWriter
from caloforge.simulate.geant4 import Geant4Engine, export_data, find_data
from caloforge.units import EnergySpec

PLANE = Path(__file__).with_name("plane.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; return the exit code."""
    try:
        return _run(_options(arguments))
    except CaloforgeError as error:
        print(f"application: error: {error}", file=sys.stderr)
        return error.exit_code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--particle", default="pi0", help="Geant4's name of the primary particle")
    parser.add_argument("--energy", default="20-60GeV", help="kinetic energy, with its unit")
    parser.add_argument("--distance", default="500-2000", help="from birth to face, mm")
    parser.add_argument("--incidence", default="0-10", help="angle to the perpendicular, degrees")
    parser.add_argument("-n", type=int, default=100, help="events")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="shipped model or run folder; without it Geant4 simulates all")
    parser.add_argument(
        "--electron-depth", type=float, default=ELECTRON_DEPTH, help="radiation lengths, see replacement.py"
    )
    parser.add_argument("--whole-cells", action="store_true", help="move showers to the nearest cell")
    parser.add_argument("--device", default="cpu", help="of the model: cpu or cuda")
    parser.add_argument("-o", "--output", type=Path, required=True, help="without its ending")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    return parser.parse_args(arguments)


def _range(text: str, name: str, low: float, high: float) -> tuple[float, float]:
    """Return the ends of "5" or "0-10".

    Raises:
        InputError: When it is neither, or beyond the limits.
    """
    ends = text.split("-")
    try:
        first, last = float(ends[0]), float(ends[-1])
    except ValueError:
        first, last = np.nan, np.nan
    if len(ends) > 2 or not low <= first <= last <= high:
        raise InputError(
            f"{name} '{text}' is not understood: expected one number or LOW-HIGH, {low:g} to {high:g}"
        )
    return first, last


def _run(options: argparse.Namespace) -> int:
    if options.n < 1:
        raise InputError(f"-n is {options.n}; expected 1 or more")
    gun = Gun(
        options.particle,
        EnergySpec.parse(options.energy),
        _range(options.distance, "distance", 1.0, 2000.0),
        _range(options.incidence, "incidence", 0.0, 60.0),
    )
    path = check_output(options.output.with_name(options.output.name + ".h5"), options.force)
    detector = load_detector(PLANE)
    torch.set_num_threads(1)
    replacement, source, seen = None, "geant4", None
    if options.model is not None:
        model = cf.load(options.model, device=options.device)
        replacement = ShowerReplacement(model, detector, options.electron_depth, options.whole_cells)
        source, seen = f"geant4 with {options.model}", model.seen
    Geant4Engine()  # says what is missing
    export_data(find_data())
    from world import Application  # imports Geant4

    application, done = Application(detector), list[Event]()
    with ShowerWriter(path, detector, gun.particle, source, options.seed, force=options.force) as writer:
        for events in application.run(gun, options.n, options.seed, replacement):
            showers = cf.Showers(
                detector,
                np.stack([event.cells for event in events]),
                [event.start.energy for event in events],
                [90.0 - np.degrees(np.arccos(event.start.direction[2])) for event in events],
                particle=gun.particle,
                seen=seen,
            )
            writer.append(showers)
            for event in events:
                event.cells = np.empty(0, np.float32)  # written
            done += events
            print(f"\r{len(done)} of {options.n} events", end="", file=sys.stderr, flush=True)
        columns: dict[str, Any] = columns_of(done)
        with atomic_path(path.with_suffix(".npz"), force=True) as part, part.open("wb") as file:
            np.savez_compressed(file, **columns, model=np.array(options.model or ""))
    print(file=sys.stderr)
    _summarise(columns, path)
    return 0


def _summarise(columns: dict[str, NDArray[Any]], path: Path) -> None:
    """Print what happened."""
    n, replaced, energy = len(columns["energy"]), columns["face_replaced"], columns["face_energy"]
    electromagnetic = np.isin(columns["face_name"], ("gamma", "e-", "e+"))
    print(f"wrote {path} and {path.with_suffix('.npz').name} ({n} events)")
    print(
        f"processor time: {columns['seconds'].mean():.4f} s an event, {columns['model_seconds'].mean():.4f} s of it in the model"
    )
    print(
        f"at the face: {len(energy)} particles, {replaced.sum()} replaced in {columns['batches'].sum()} batches;"
        f" to Geant4: {(~replaced & electromagnetic).sum()} photons and electrons, {(~electromagnetic).sum()} others,"
        f" {energy[~replaced].sum() / energy.sum():.1%} of the energy"
    )
    print(f"beside the cells: {columns['outside'].sum():.3g} MeV of the model's visible energy")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Geant4's own clean-up at exit is not sound under Python
