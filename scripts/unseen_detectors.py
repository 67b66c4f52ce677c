"""One flow for many detectors, tried on detectors that it has never seen (docs/few-showers.md).

    python scripts/unseen_detectors.py detectors designs      # 33 detectors to train on and 3 to try, as TOML
    python scripts/unseen_detectors.py simulate designs showers [-n 600] [--unseen 1500] [--workers 2]
    python scripts/unseen_detectors.py train showers runs [--seconds 170] [--device cuda]
    python scripts/unseen_detectors.py measure showers runs -o unseen.json [--seconds 400] [--device cuda]

The detectors have 20 layers of 11 x 11 cells: lead, tungsten, iron or copper with scintillator, silicon or liquid argon, 0.45 to 1.2 X0 of
absorber a layer, cells of 0.3 to 0.7 Moliere radii; electrons of 1 to 20 GeV. Of those to try, one lies within all ranges, one is a
combination of materials that no other has, and one has layers of 1.6 X0. ``measure`` takes 300 showers of each for training and the rest to
compare with: the joint model without any of them, with and without its calibration, and with the 300; and 300 from nothing
and after showers of gflash. Seeds of the simulations are 41000 on and 42001 to 42003.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.geometry import get_material
from caloforge.showers import Showers, read_showers, write_showers
from caloforge.simulate import simulate
from caloforge.studies.efficiency.measure import Effort, Start, compare, floor, generated
from caloforge.train import RunFolder, train
from caloforge.zoo.store import load

FEW = 300
UNSEEN = ("inside-pb-sc", "combination-w-lar", "outside-pb-sc")
ABSORBERS = ("G4_Pb", "G4_W", "G4_Fe", "G4_Cu")
ACTIVE = {  # its name in ours, and its thinnest and thickest, mm
    "G4_PLASTIC_SC_VINYLTOLUENE": ("sc", 2.0, 6.0),
    "G4_Si": ("si", 0.3, 0.7),
    "G4_lAr": ("lar", 2.0, 5.0),
}
TEMPLATE = """name = "{name}"
nx = 11
ny = 11
pitch = {pitch:.1f}                # mm
padding = 3

[[layers]]
repeat = 20
absorber = "{absorber}"
absorber_mm = {absorber_mm:.2f}
active = "{active}"
active_mm = {active_mm:.2f}
gap_mm = {gap_mm:.1f}

[beam]
particle = "e-"
energy = "1-20GeV:log"
theta = "90"
entry = [5, 5]
"""
STARTS: dict[str, Start] = {"nothing": "nothing", "gflash": "gflash", "joint-300": "detector"}
"""Trainings on the few showers, and which effort of the study of data efficiency they make."""


def write_detectors(folder: Path) -> None:
    """Write the detectors; depths are stratified, so that each third of the list covers another third of the range."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(
        name: str,
        absorber: str,
        active: str,
        depth: float,
        active_mm: float,
        cell: float,
        gap_mm: float = 0.0,
    ) -> None:
        """Absorber of ``depth`` radiation lengths a layer, cells of ``cell`` Moliere radii of the layer."""
        a, b = get_material(absorber), get_material(active)
        mm = depth * a.x0
        x = depth + active_mm / b.x0
        critical = (depth * a.critical_energy + active_mm / b.x0 * b.critical_energy) / x
        radius = (mm + active_mm + gap_mm) / x * 21.2 / critical
        text = TEMPLATE.format(
            name=name, pitch=cell * radius, absorber=absorber, absorber_mm=mm, active=active, active_mm=active_mm, gap_mm=gap_mm
        )  # fmt: skip
        (folder / f"{name}.toml").write_text(text)

    random = np.random.default_rng(17)
    pairs = [(a, b) for a in ABSORBERS for b in ACTIVE if (a, b) != ("G4_W", "G4_lAr")] * 3
    for k, (absorber, active) in enumerate(pairs):
        short, low, high = ACTIVE[active]
        part = (k // 11 + random.random()) / 3
        write(
            f"train-{k:02d}-{absorber[3:].lower()}-{short}", absorber, active, 0.45 + 0.75 * part,
            low + (high - low) * random.random(), 0.3 + 0.4 * random.random(), random.choice([0.0, 0.0, 1.0, 2.0]),
        )  # fmt: skip
    write("inside-pb-sc", "G4_Pb", "G4_PLASTIC_SC_VINYLTOLUENE", 0.8, 4.0, 0.5)
    write("combination-w-lar", "G4_W", "G4_lAr", 0.75, 3.0, 0.45, 1.0)
    write("outside-pb-sc", "G4_Pb", "G4_PLASTIC_SC_VINYLTOLUENE", 1.6, 4.0, 0.5)


def simulate_all(designs: Path, showers: Path, n: int, unseen: int, workers: int) -> None:
    """Simulate every detector's showers, several detectors at a time."""
    showers.mkdir(parents=True, exist_ok=True)

    def one(file: Path) -> None:
        new = file.stem in UNSEEN
        seed = 42001 + UNSEEN.index(file.stem) if new else 41000 + int(file.stem.split("-")[1])
        output = showers / f"{file.stem}.h5"
        if not output.exists():
            simulate(file, unseen if new else n, seed=seed, output=output, layout="sparse")
            print(f"wrote {output}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, sorted(designs.glob("*.toml"))))


def train_jointly(showers: Path, runs: Path, seconds: float, device: str) -> None:
    """Train one flow on the showers of all detectors to train on."""
    optimiser = {"lr": 1e-3, "weight_decay": 0.1, "warmup": 100, "ema": 0.999}
    config = {
        "model": {
            "detector_conditions": True, "epochs": 60, "summary_epochs": 150, "batch_size": 128, "summary_batch_size": 128,
            "optimizer": optimiser, "summary": optimiser,
        },
        "train": {
            "validation": 0.08, "validate_every": 5, "log_every": 5,
            "stage_seconds": {"summary": 0.4 * seconds, "cells": 0.6 * seconds},
        },
    }  # fmt: skip
    train(
        "flow-matching",
        sorted(showers.glob("train-*.h5")),
        runs / "joint",
        config=config,
        device=device,
        seed=1,
    )


def observables(reference: Showers, made: Showers) -> dict[str, float]:
    """Return response, resolution and hits, generated over Geant4's, and the rms deviation of the mean layer shares, weighted with them."""

    def of(showers: Showers) -> tuple[Any, ...]:
        cells, energy = np.asarray(showers.cells, np.float64), np.asarray(showers.incident_energy, np.float64)
        layers = np.stack(
            [cells[:, showers.detector.cell_layer == k].sum(1) for k in range(showers.detector.n_layers)], 1
        )
        response = layers.sum(1) / energy
        return (
            response.mean(),
            response.std() / response.mean(),
            (cells > 0.1).sum(1).mean(),
            layers.mean(0) / layers.sum(1).mean(),
        )

    a, b = of(reference), of(made)
    deviation = b[3] / np.maximum(a[3], 1e-9) - 1.0
    rms = float(np.sqrt((a[3] * deviation**2).sum()))
    return {"response": b[0] / a[0], "resolution": b[1] / a[1], "hits": b[2] / a[2], "profile_rms": rms}


def measure(showers: Path, runs: Path, name: str, seconds: float, device: str) -> Iterator[dict[str, Any]]:
    """Yield the figures of one unseen detector, start by start; trainings share the given seconds."""
    all_of = read_showers(showers / f"{name}.h5")
    few, reference = all_of[np.arange(FEW)], all_of[np.arange(FEW, len(all_of))]
    file = write_showers(
        runs / f"{name}-few.h5", few.replace(attributes={}, seed=None), force=True, layout="sparse"
    )
    yield {"detector": name, "floor": floor(reference, 7), "showers": len(reference)}

    def judged(start: str, run: Path, spent: float, **choice: Any) -> dict[str, Any]:
        model = load(run, device, **choice)
        made = generated(model, reference, 7)
        found = compare(reference, made, 7)
        figures = {
            "auc": found.auc,
            "auc_error": found.auc_error,
            "auc_cells": found.auc_cells,
            "detectability": found.detectability,
        }
        facts = {
            "detector": name,
            "start": start,
            "training_seconds": spent,
            "caveats": model.model.caveats(),
        }
        return facts | figures | observables(reference, made)

    for calibrated in (True, False):
        choice = {"detector": all_of.detector, "options": {"calibrated": calibrated}}
        yield judged("joint" if calibrated else "joint-uncalibrated", runs / "joint", 0.0, **choice)
    for start, kind in STARTS.items():
        limit = seconds / 6 * (1.5 if kind == "gflash" else 1.0)
        effort = Effort(
            steps=1500,
            summary_steps=2500,
            precision="32",
            pretrain_showers=20_000,
            pretrain_epochs=12,
            max_seconds=limit,
        )
        joint = kind == "detector"
        if joint:
            effort = replace(effort, steps=750, summary_steps=1250, tuning_rate=3e-4)
        config = effort.config(FEW, kind)
        if joint and "preset" in config["model"]:
            config["model"]["detector_conditions"] = True
        share = 0.9 * limit * (2 / 3 if kind == "gflash" else 1.0)
        config["train"] |= {
            "stage_seconds": {"summary": 0.4 * share, "cells": 0.5 * share},
            "max_seconds": 1.5 * limit,
        }
        began = time.monotonic()
        run = train(
            "flow-matching", file, runs / f"{name}-{start}", config=config, device=device, seed=2, force=True,
            start=RunFolder(runs / "joint").weights() if joint else None, pretrain="gflash" if kind == "gflash" else None,
        )  # fmt: skip
        yield judged(start, run, time.monotonic() - began)


def main() -> None:
    """Run one of the four steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    names = {
        "detectors": ["designs"],
        "simulate": ["designs", "showers"],
        "train": ["showers", "runs"],
        "measure": ["showers", "runs"],
    }
    for step, folders in names.items():
        one = steps.add_parser(step)
        for folder in folders:
            one.add_argument(folder, type=Path)
        if step == "simulate":
            one.add_argument("-n", type=int, default=600, help="showers of each detector to train on")
            one.add_argument("--unseen", type=int, default=1500, help="of each other one")
            one.add_argument("--workers", type=int, default=2)
        elif step != "detectors":
            one.add_argument("--seconds", type=float, default=170.0 if step == "train" else 400.0)
            one.add_argument("--device", default="auto")
        if step == "measure":
            one.add_argument("-o", type=Path, default=Path("unseen.json"), dest="output")
    chosen = parser.parse_args()
    if chosen.step == "detectors":
        write_detectors(chosen.designs)
    elif chosen.step == "simulate":
        simulate_all(chosen.designs, chosen.showers, chosen.n, chosen.unseen, chosen.workers)
    elif chosen.step == "train":
        train_jointly(chosen.showers, chosen.runs, chosen.seconds, chosen.device)
    else:
        found = []
        for name in UNSEEN:
            for figures in measure(chosen.showers, chosen.runs, name, chosen.seconds, chosen.device):
                print(figures, flush=True)
                found.append(figures)
                chosen.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
