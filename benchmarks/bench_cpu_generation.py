"""The BIB-AE and the Conv2D GAN on one processor core: fast evaluation against the networks as training uses them.

    python benchmarks/bench_cpu_generation.py [--batches 100 1] [--repeats 5]

For each model and batch both ways make the same showers in turn. Printed are milliseconds of processor time a shower, the least of the
repeats, and their ratio; then, of 200 showers, the cells that are filled in one way alone and the relative differences of the others: the
largest, that of all but one in a thousand, the mean, and the largest of the showers' sums.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

import caloforge as cf
from caloforge.models.bib_ae.generators import AxisGenerator, ShowerGenerator
from caloforge.models.grid_gan import conv2d

Plain = Callable[[], AbstractContextManager[object]]
MODELS: dict[str, tuple[dict[str, str], Plain]] = {
    "ild-photon-angled/bib-ae": (
        {"energy": "10-100GeV", "theta": "30-90"},
        lambda: mock.patch.object(AxisGenerator, "make", ShowerGenerator.make),
    ),
    "clic-electron/conv2d-gan": (
        {"energy": "2-500GeV"},
        lambda: mock.patch.object(conv2d, "evaluate", lambda layers, images: layers(images)),
    ),
}
"""Conditions of the showers, and what has the networks evaluated plainly."""
COMPARED = 200


def made(generator: Any, n: int, conditions: dict[str, str], way: Plain) -> tuple[NDArray[np.float32], float]:
    """Return cells of n showers and processor time a shower, ms."""
    with way():
        start = time.process_time()
        cells = generator.generate(n, **conditions, seed=1).cells
        return cells, 1e3 * (time.process_time() - start) / n


def compared(name: str, plain: NDArray[np.float64], fast: NDArray[np.float64]) -> str:
    """Return in words how cells (N, n_cells), MeV, differ."""
    both = (plain > 0) & (fast > 0)
    away = np.abs(fast - plain)[both] / plain[both]
    sums = np.abs(fast.sum(1) / plain.sum(1) - 1.0)
    return (
        f"{name}: of {int((plain > 0).sum())} filled cells {int(((plain > 0) != (fast > 0)).sum())} in one way alone; "
        f"largest difference {away.max():.1e}, one in a thousand above {np.quantile(away, 0.999):.1e}, mean {away.mean():.1e}; "
        f"of sums {sums.max():.1e}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[100, 1])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'model':28s} {'batch':>5s} {'plain ms':>9s} {'fast ms':>9s} {'ratio':>6s}")
    differences = []
    for name, (conditions, plain) in MODELS.items():
        generator = cf.load(name, device="cpu")
        ways: dict[str, Plain] = {"plain": plain, "fast": nullcontext}
        for batch in options.batches:
            times: dict[str, list[float]] = {key: [] for key in ways}
            for repeat in range(options.repeats + 1):
                for key, way in ways.items():
                    spent = made(generator, batch, conditions, way)[1]
                    if repeat:  # the first sets things up
                        times[key].append(spent)
            slow, quick = (min(times[key]) for key in ways)
            print(f"{name:28s} {batch:5d} {slow:9.2f} {quick:9.2f} {slow / quick:6.2f}", flush=True)
        both = (made(generator, COMPARED, conditions, way)[0].astype(np.float64) for way in ways.values())
        differences.append(compared(name, *both))
    print(*differences, sep="\n")


if __name__ == "__main__":
    main()
