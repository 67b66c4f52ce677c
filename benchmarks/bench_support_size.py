"""Time and memory of the support-size study's search for duplicates.

    python benchmarks/bench_support_size.py [--showers FILE] [-n 5000]

Two samples of N showers of 51 x 51 x 25 cells: the trusted ones are those of FILE (Geant4, clic-ecal-wide), smeared
copies of them where they are fewer than N (each cell times a log-normal number of width 0.1, mirrored in x), or
parametrised showers without FILE; the generated ones are parametrised. Prints CPU seconds of each step on
one thread, the peak of the memory, and two ratios: divergences in blocks against a loop over pairs, and
similarities of many pairs against those of single ones.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import rel_entr

from caloforge.showers import Showers, open_showers
from caloforge.simulate import simulate
from caloforge.statistics.birthday import collision_rate
from caloforge.statistics.pairs import pair_divergences, structural_similarity
from caloforge.studies.support_size.duplicates import DEFINITIONS
from caloforge.studies.support_size.sample import Findings, SupportSizeSettings, findings_of, limits_from

BEAM = {"energy": "97.5-102.5GeV", "theta": "87.5-92.5"}


def reference_showers(path: Path | None, n: int) -> Showers:
    """Return N showers of a file, filled up with smeared, mirrored copies."""
    if path is None:
        return simulate("clic-ecal-wide", n, engine="gflash", seed=1, **BEAM)
    with open_showers(path) as file:
        own = file[: min(n, len(file))]
    missing = n - len(own)
    if missing <= 0:
        return own
    rng = np.random.default_rng(0)
    copies = own[np.arange(missing) % len(own)]
    mirrored = np.ascontiguousarray(copies.grid()[:, ::-1]).reshape(missing, -1)
    mirrored *= np.exp(0.1 * rng.standard_normal(mirrored.shape, np.float32))
    return Showers.concatenate([own, copies.replace(cells=mirrored)])


def timed(label: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """Do the work, print its CPU time and return both."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    print(f"  {label:<44} {seconds:8.1f} s")
    return result, seconds


def ratios(showers: Showers) -> None:
    """Compare the fast versions with the obvious ones, on few pairs."""
    few = showers[:400]
    pair_divergences(np.ones((2, 2)))  # loads torch
    profiles = few.grid().sum(axis=(2, 3), dtype=np.float64)
    start = time.process_time()
    slow = [
        0.5 * (rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum())
        for i, p in enumerate(profiles)
        for q in profiles[i + 1 :]
    ]
    loop = time.process_time() - start
    start = time.process_time()
    fast = pair_divergences(profiles)
    block = time.process_time() - start
    np.testing.assert_allclose(fast, slow, rtol=1e-4)
    print(f"divergences: blocks x{loop / block:.0f} faster than a loop over {len(slow):,} pairs")
    i, j = np.triu_indices(40, 1)
    grid = few.grid()
    start = time.process_time()
    structural_similarity(grid, i, grid, j, (0.1,))
    print(f"similarities: {1e3 * (time.process_time() - start) / len(i):.2f} ms a pair")


def search(label: str, showers: Showers, reference: Findings | None) -> tuple[Findings, float]:
    """Find the duplicates of a sample, by the limits of another one or its own."""
    settings = SupportSizeSettings(device="cpu")
    limits = None if reference is None else limits_from(reference, settings.all_alphas)
    arrays, seconds = timed(label, lambda: findings_of(showers, settings, 0, limits))
    return Findings(arrays), seconds


def main() -> None:
    """Time the search in both samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--showers", type=Path, help="Geant4 showers of clic-ecal-wide")
    parser.add_argument("-n", type=int, default=5000, help="showers of each sample")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    reference, _ = timed(
        "read or make reference showers", lambda: reference_showers(chosen.showers, chosen.n)
    )
    ratios(reference)
    print(f"{chosen.n:,} showers a sample, {chosen.n * (chosen.n - 1) // 2:,} pairs")
    own, first = search("reference showers: limits, duplicates", reference, None)
    # the first ones are freed
    reference = simulate("clic-ecal-wide", chosen.n, engine="gflash", seed=2, **BEAM)
    other, second = search("parametrised showers: duplicates", reference, own)
    found = [own, other]
    for label, findings in zip(("reference", "parametrised"), found, strict=True):
        print(f"{label}: {findings.compared:,} pairs compared cell by cell")
        for definition in DEFINITIONS:
            duplicates = findings.duplicates(definition.name)
            assert duplicates is not None
            rate = collision_rate(duplicates)
            print(
                f"  {definition.label:<26} {rate.count:>8,} duplicates, 1 / rate {1 / max(rate.rate, 1e-12):,.0f}"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"both samples {(first + second) / 60:.1f} minutes of one core, peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
