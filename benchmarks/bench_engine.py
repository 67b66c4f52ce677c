"""Time generation beside its networks: noise, showers to memory and to files of both layouts, in one run.

    python benchmarks/bench_engine.py [SOURCE ...] [--device cuda] [--batch 4000] [--number 20000] [--repeats 3]

A source is a run folder or a shipped model, DATASET/MODEL; by default all shipped flows. Each is timed in float32 and, where the
model has networks for it, in bf16 and, on a GPU, compiled. Microseconds of the clock a shower, medians:

- networks: ``sample``, from noise and conditions on the device to cells that stay there;
- noise: the counted noise alone;
- memory, sparse, dense: ``Generator.generate``, and ``Generator.write`` of both layouts, into a temporary folder or that of ``--folder``.

In brackets is the rate over that of the networks. A first, smaller file goes before, uncounted: it compiles, compares the precision
with float32, and warms up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from caloforge.errors import CaloforgeError
from caloforge.generate import Generator
from caloforge.generate.conditions import Request, default_angles
from caloforge.models import MODELS
from caloforge.models.flow.model import FlowMatching
from caloforge.models.noise import counted_noise
from caloforge.settings import torch_device
from caloforge.zoo.store import load, shipped_models

COLUMNS = ("networks", "noise", "memory", "sparse", "dense")


def shipped_flows() -> list[str]:
    """Return the names of the shipped flows."""
    cards = shipped_models()
    return [name for name, card in cards.items() if issubclass(MODELS[card.content["model"]], FlowMatching)]


def energies_of(generator: Generator) -> str:
    """Return the range of energies of the training, as the command line takes it."""
    model = generator.model
    column = model.columns["incident_energy"]
    low, high = (float(ends[column][0]) for ends in (model.condition_low, model.condition_high))
    return f"{low:.6g}MeV" if low == high else f"{low:.6g}-{high:.6g}MeV"


def seconds_of(call: Callable[[], object], repeats: int, device: str) -> float:
    """Return the median time of a call, s; one more goes first, uncounted."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(repeats + 1):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def networks(generator: Generator, batch: int, energy: str) -> Callable[[], object]:
    """Return a call that makes a batch of cells on the device, from noise and conditions there."""
    request = Request(batch, energy, batch_size=batch, allow_extrapolation=True)
    with request.opened(generator.detector, default_angles(generator.model, generator.theta)) as take:
        given = generator._batch(take(0, batch), 0, request, {}).matrix.to(generator.device)
    noise = counted_noise(0, 0, batch, generator.model.noise_size, generator.device)

    def call() -> None:
        with torch.inference_mode(), generator.mode.applied():
            generator.model.sample(noise, given)

    return call


def timed(generator: Generator, batch: int, number: int, repeats: int, folder: Path) -> dict[str, float]:
    """Return microseconds a shower by column."""
    energy, device = energies_of(generator), str(generator.device)
    path = folder / "showers.h5"
    size = generator.model.noise_size

    def write(layout: str, n: int = number) -> None:
        generator.write(
            path, n, energy, batch_size=batch, layout=layout, force=True, allow_extrapolation=True
        )

    write("sparse", min(number, 2 * batch))
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "networks": (networks(generator, batch, energy), batch),
        "noise": (lambda: counted_noise(0, 0, batch, size, generator.device), batch),
        "memory": (
            lambda: generator.generate(number, energy, batch_size=batch, allow_extrapolation=True),
            number,
        ),
        "sparse": (lambda: write("sparse"), number),
        "dense": (lambda: write("dense"), number),
    }
    found = {name: 1e6 * seconds_of(call, repeats, device) / n for name, (call, n) in calls.items()}
    path.unlink()
    return found


def line(name: str, mode: str, found: dict[str, float]) -> str:
    """Return a line of the table."""
    cells = [f"{found[column]:9.2f}" for column in COLUMNS[:2]]
    cells += [f"{found[column]:9.2f} ({found['networks'] / found[column]:4.2f})" for column in COLUMNS[2:]]
    return f"{name:38s}{mode:16s}{''.join(cells)}"


def main(words: list[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "source", nargs="*", help="run folders or shipped models, DATASET/MODEL; all shipped flows"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--batch", type=int, default=4000, help="showers at once, a multiple of 100")
    parser.add_argument("--number", type=int, default=20_000, help="showers in memory and in files")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is timed")
    parser.add_argument("--folder", type=Path, help="where files are written; by default a temporary folder")
    options = parser.parse_args(words)
    try:
        device = torch_device(options.device)
        gpu = device.startswith("cuda")
        hardware = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
        print(f"{hardware}, {options.batch:,} showers at once, microseconds a shower")
        head = "".join(f"{c:>9s}" for c in COLUMNS[:2]) + "".join(f"{c:>16s}" for c in COLUMNS[2:])
        print(f"{'model':38s}{'mode':16s}{head}", flush=True)
        for source in options.source or shipped_flows():
            for precision in ("float32", "bf16"):
                fast = precision != "float32"
                if fast and not load(source, device).model.low_precision:
                    continue
                generator = load(source, device, precision=precision, compiled=fast and gpu)
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    found = timed(
                        generator, options.batch, options.number, max(1, options.repeats), Path(folder)
                    )
                print(line(str(source), generator.mode.label.rstrip(","), found), flush=True)
                del generator
                if gpu:
                    torch.compiler.reset()
                    torch.cuda.empty_cache()
    except CaloforgeError as error:
        print(f"bench_engine: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
