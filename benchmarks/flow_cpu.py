"""Time the flow models on one core, part by part, and compare with Geant4.

    python benchmarks/flow_cpu.py SOURCE [SOURCE ...] [--energy 50GeV] [-n 200] [--data SHOWERS.h5] [--simulate N]
    python benchmarks/flow_cpu.py --fresh ild-ecal --fresh clic-ecal

A source is a run folder or a shipped model, DATASET/MODEL; ``--fresh DETECTOR`` is an untrained ``flow-matching-cpu`` whose
constants are fitted to quick showers. The parts are the noise, the summary, the cells' values and their decoding; ``all`` is what
``caloforge generate`` does in memory. All times are processor times; Geant4's is that of ``--simulate N`` showers of the
same energy, made on the same core in this run, or else that which the data's file or the model's card says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caloforge.generate import BLOCK, Generator
from caloforge.models import MODELS
from caloforge.models.base import counted_noise
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import open_showers
from caloforge.simulate import simulate
from caloforge.units import EnergySpec
from caloforge.zoo.store import find_card, load

REPEATS = 5


def fresh(detector: str, energy: str) -> Generator:
    """Return an untrained ``flow-matching-cpu`` fitted to quick showers."""
    showers = simulate(detector, 200, energy=energy, engine="gflash")
    kind = MODELS["flow-matching-cpu"]
    torch.manual_seed(0)
    model = kind(showers.detector, kind.resolve())
    model.fit_transforms(showers)
    return Generator([model.eval()], "untrained", showers.particle, torch.device("cpu"))


def fastest(function: Callable[[], Any]) -> float:
    """Return the least processor seconds of some calls after one that is not counted."""
    function()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


@torch.inference_mode()
def parts(generator: Generator, conditions: Tensor) -> Iterator[tuple[str, float]]:
    """Yield names and milliseconds a shower for one block of conditions (BLOCK, C)."""
    model = generator.model
    assert isinstance(model, FlowMatching)
    n, unit = len(conditions), 1e3 / len(conditions)
    noise = counted_noise(1, 0, n, model.noise_size)
    encoded = model.encoder(conditions)
    first = noise[:, : model.summary_size].view(n, model.summary.rows, model.summary.kinds)
    rest = noise[:, model.summary_size :]
    summary = model.summarise(first, encoded)
    values, targets = model.drawn(noise, conditions)
    yield "noise", unit * fastest(lambda: counted_noise(1, 0, n, model.noise_size))
    yield "summary", unit * fastest(lambda: model.summarise(first, encoded))
    yield "cells", unit * fastest(lambda: model.shape(rest, encoded, summary, targets))
    yield "decode", unit * fastest(lambda: model.values.decode(values, targets))


def geant4(
    source: str, generator: Generator, energy: str, number: int, data: Path | None
) -> tuple[float, str]:
    """Return milliseconds a shower and where they are from; 0 when nothing says them."""
    if number:
        made = simulate(generator.detector, number, energy=energy, seed=1, workers=1)
        return 1e3 * float(made.attributes["cpu_seconds_per_shower"]), f"{number} showers made in this run"
    if data is not None:
        with open_showers(data) as file:
            return 1e3 * float(file.attributes["cpu_seconds_per_shower"]), data.name
    if Path(source).is_dir() or "/" not in source:
        return 0.0, ""
    files = find_card(source).content["data"]["files"]
    seconds = [entry["made"]["cpu_seconds_per_shower"] * entry["showers"] for entry in files]
    return 1e3 * sum(seconds) / sum(
        entry["showers"] for entry in files
    ), "its training data, of all their energies"


def main() -> None:
    """Print a table for each source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="*", help="run folders or shipped models, DATASET/MODEL")
    parser.add_argument("--fresh", action="append", default=[], metavar="DETECTOR", help="an untrained model")
    parser.add_argument("--energy", default="50GeV", help="incident energy of all showers")
    parser.add_argument("-n", type=int, default=200, help="showers that 'all' makes")
    parser.add_argument("--data", type=Path, help="showers of Geant4 whose time is compared with")
    parser.add_argument(
        "--simulate", type=int, default=0, metavar="N", help="make N showers with Geant4 for it"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources = [(source, load(source)) for source in options.source]
    sources += [(name, fresh(name, options.energy)) for name in options.fresh]
    for source, generator in sources:
        energy = EnergySpec.parse(options.energy).low
        beam = generator.detector.beam.replace(energy=options.energy)
        primaries = beam.sample(1, 0, BLOCK)
        own = {"incident_energy": primaries.energy, "incident_theta": primaries.theta}
        columns = [
            torch.as_tensor(own.get(name, primaries.conditions.get(name))).float().reshape(BLOCK, -1)
            for name in generator.model.conditions
        ]
        print(f"{source}: {generator.detector.name}, {energy / 1e3:g} GeV, one core, blocks of {BLOCK}")
        for name, milliseconds in parts(generator, torch.cat(columns, 1)):
            print(f"  {name:8s} {milliseconds:8.3f} ms a shower", flush=True)
        made = partial(generator.generate, options.n, energy=options.energy, allow_extrapolation=True)
        whole = 1e3 / options.n * fastest(made)
        print(f"  {'all':8s} {whole:8.3f} ms a shower", flush=True)
        theirs, origin = geant4(source, generator, options.energy, options.simulate, options.data)
        if theirs:
            print(
                f"  Geant4   {theirs:8.1f} ms a shower ({origin}): {theirs / whole:.0f} times longer",
                flush=True,
            )


if __name__ == "__main__":
    main()
