"""Speed and physics of the parametrised engine against Geant4.

    python benchmarks/bench_gflash.py [--showers FOLDER] [-n 2000] [--geant4 20]

FOLDER holds Geant4's reference files. For each, parametrised showers are made with the same beam on one core
and compared: CPU time a shower, worst layer of the mean longitudinal profile (of those with more than 2 % of the
energy), resolution (standard deviation over mean of the visible fraction), visible fraction, hits above
0.1 MeV. Geant4's time is the one recorded in the file, or, with ``--geant4 N``, measured now on N showers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Beam
from caloforge.showers import Showers, read_showers
from caloforge.simulate.gflash import GFlashEngine

FILES = {  # reference file: energy and angle of its beam where they are not the detector's own
    "ild-photon-50gev.h5": {},
    "ild-photon-angled.h5": {},
    "clic-electron.h5": {},
    "clic-electron-wide.h5": {"energy": "97.5-102.5GeV", "theta": "87.5-92.5"},
    "atlas-photon.h5": {},
}


def layer_energies(showers: Showers) -> NDArray[np.float64]:
    """Return (N, n_layers) MeV."""
    cells = showers.cells
    return np.stack([cells[:, i].sum(1, dtype=np.float64) for i in showers.detector.layer_cells], axis=1)


def resolution(layers: NDArray[np.float64], energy: NDArray[np.float64]) -> float:
    """Return standard deviation over mean of the visible fraction."""
    fraction = layers.sum(1) / energy
    return float(fraction.std() / fraction.mean())


def geant4_seconds(showers: Showers, beam: Beam, n: int) -> float:
    """Return Geant4's CPU seconds a shower: recorded in the file, or measured on ``n`` showers."""
    if n == 0:
        return float(showers.attributes["cpu_seconds_per_shower"])
    from caloforge.simulate import simulate

    made = simulate(showers.detector, n, energy=beam.energy, theta=beam.theta, engine="geant4", seed=1)
    return float(made.attributes["cpu_seconds_per_shower"])


def compare(path: Path, changes: dict[str, str], n: int, n_geant4: int) -> None:
    """Print the figures of one reference file."""
    truth = read_showers(path)
    engine, detector = GFlashEngine(), truth.detector
    beam = detector.beam.replace(**changes)
    engine.run(detector, beam, 0, 0, 16)  # tables and calibration
    size, parts = engine.chunk_size(detector, beam), []
    start = time.process_time()
    for first in range(0, n, size):
        parts.append(engine.run(detector, beam, 0, first, min(size, n - first)))
    seconds = (time.process_time() - start) / n
    fast = Showers.concatenate(parts)
    reference = geant4_seconds(truth, beam, n_geant4)
    ours, theirs = layer_energies(fast), layer_energies(truth)
    mine, real = ours.sum(0) / ours.sum(), theirs.sum(0) / theirs.sum()
    ratio = mine / real
    filled = real > 0.02
    worst = int(np.argmax(np.where(filled, np.abs(ratio - 1), 0)))
    a, b = resolution(ours, fast.incident_energy), resolution(theirs, truth.incident_energy)
    s, t = ours.sum() / fast.incident_energy.sum(), theirs.sum() / truth.incident_energy.sum()
    hits = [float((showers.cells > 0.1).sum(1).mean()) for showers in (fast, truth)]
    speed, off = reference / seconds, 100 * (ratio[worst] - 1)
    print(f"{path.stem} ({len(truth)} Geant4 showers, {n} parametrised)")
    print(f"  CPU a shower      {seconds * 1e3:.2f} ms, Geant4 {reference * 1e3:.0f} ms: x{speed:.0f}")
    print(f"  worst layer       {worst}: {off:+.1f} %   (target 15 %)")
    print(f"  resolution        {_pair(100 * a, 100 * b, '.2f')}   (target 20 %)")
    print(f"  visible fraction  {_pair(s, t, '.5f')}")
    print(f"  hits > 0.1 MeV    {_pair(*hits, '.0f')}")
    print(
        "  layer ratios      "
        + " ".join(f"{r:.2f}" if f else "-" for r, f in zip(ratio, filled, strict=True))
    )


def _pair(fast: float, truth: float, form: str) -> str:
    """Return both figures and their relative difference."""
    return f"{fast:{form}}, Geant4 {truth:{form}}: {100 * (fast / truth - 1):+.1f} %"


def main() -> None:
    """Compare with every reference file that is there."""
    default = Path(__file__).resolve().parents[2] / "shared" / "showers"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--showers", type=Path, default=default, help="folder with Geant4's reference files")
    parser.add_argument("-n", type=int, default=2000, help="parametrised showers a file")
    parser.add_argument("--geant4", type=int, default=0, help="showers on which to measure Geant4's time now")
    options = parser.parse_args()
    found = [name for name in FILES if (options.showers / name).exists()]
    if not found:
        parser.error(f"none of {', '.join(FILES)} in {options.showers}")
    for name in found:
        compare(options.showers / name, FILES[name], options.n, options.geant4)


if __name__ == "__main__":
    main()
