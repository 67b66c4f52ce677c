"""Processor time of Geant4 in ``caloforge simulate``, against a plain Geant4 script where one is given.

    python benchmarks/bench_simulate.py [--against SCRIPT] [-n 40] [--pairs 3] [--beam ild-ecal]

SCRIPT is called as ``python SCRIPT SETUP N SEED OUT.h5`` and leaves ``cpu_seconds_per_shower`` and
``incident_energies`` in its file. The runs alternate, so that whatever else the machine does falls on both; since both
draw their energies, times are compared by the GeV. They are those of the event loop; what a run costs besides is
printed for itself.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from caloforge.simulate import simulate

SETUPS: dict[str, tuple[str, dict[str, str]]] = {
    "ild-ecal": ("ild_photon_50gev", {}),
    "ild-ecal-angled": ("ild_photon_energy_angle", {}),
    "clic-ecal": ("clic_electron_25", {}),
    "clic-ecal-wide": ("clic_electron_51_100gev", {"energy": "97.5-102.5GeV", "theta": "87.5-92.5"}),
    "atlas-em-barrel": ("atlas_photon", {}),
}


def spent() -> float:
    """Return the processor time of this process and of its ended children, s."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + usage.ru_utime + usage.ru_stime


def milliseconds(path: Path) -> tuple[float, float]:
    """Return what a file says of its event loop: ms a shower, ms a GeV."""
    with h5py.File(path) as file:
        shower = 1e3 * float(file.attrs["cpu_seconds_per_shower"])
        return shower, shower / float(np.mean(file["incident_energies"]) / 1e3)


def ours(detector: str, n: int, seed: int, options: dict[str, str], path: Path) -> float:
    """Simulate into ``path`` and return the seconds that were spent outside the event loop."""
    before = spent()
    simulate(detector, n=n, seed=seed, output=path, **options)
    return spent() - before - n * milliseconds(path)[0] / 1e3


def main() -> None:
    """Run the pairs and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="a plain Geant4 script")
    parser.add_argument("-n", type=int, default=40, help="showers a run")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--beam", choices=SETUPS, default="ild-ecal")
    arguments = parser.parse_args()
    setup, options = SETUPS[arguments.beam]
    times: dict[str, list[tuple[float, float]]] = {"caloforge": [], "script": []}
    besides: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.pairs):
            path = Path(folder) / f"ours-{seed}.h5"
            besides.append(ours(arguments.beam, arguments.n, seed, options, path))
            times["caloforge"].append(milliseconds(path))
            if arguments.against is not None:
                path = Path(folder) / f"script-{seed}.h5"
                command = [
                    sys.executable,
                    str(arguments.against),
                    setup,
                    str(arguments.n),
                    str(seed),
                    str(path),
                ]
                subprocess.run(command, check=True, capture_output=True)
                times["script"].append(milliseconds(path))
    print(f"{arguments.beam}, {arguments.n} showers, {arguments.pairs} alternating runs, one core")
    for name, values in times.items():
        if values:
            shower, gev = (statistics.median(column) for column in zip(*values, strict=True))
            low, high = min(values)[0], max(values)[0]
            print(f"  {name:9s} {shower:8.2f} ms a shower ({low:.2f} to {high:.2f}), {gev:.3f} ms a GeV")
    print(f"  besides   {statistics.median(besides):8.2f} s a run: start, physics tables, file")
    if times["script"]:
        medians = [statistics.median(gev for _, gev in times[name]) for name in ("caloforge", "script")]
        print(f"  caloforge / script {medians[0] / medians[1]:.3f}, by the GeV")


if __name__ == "__main__":
    main()
