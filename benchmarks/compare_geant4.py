"""Compare showers that ``caloforge simulate`` makes with reference files of the five published beams.

    python benchmarks/compare_geant4.py FOLDER_OF_REFERENCE_FILES -n 500 -o FOLDER

For each beam it prints the two-sample Kolmogorov-Smirnov p of the visible energy, of visible over incident energy,
of the number of hits above 0.1 MeV and of the shower depth, the mean visible fraction of both, and the chi-square
of the mean layer profile with its p. Simulated files stay in the output folder and are not made again; their names end
with the number of showers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ks_2samp

from caloforge.showers import Showers, open_showers
from caloforge.simulate import simulate

HIT = 0.1  # MeV
BEAMS: dict[str, dict[str, str]] = {
    "ild-photon-50gev": {"detector": "ild-ecal"},
    "ild-photon-angled": {"detector": "ild-ecal-angled"},
    "clic-electron": {"detector": "clic-ecal"},
    "clic-electron-wide": {"detector": "clic-ecal-wide", "energy": "97.5-102.5GeV", "theta": "87.5-92.5"},
    "atlas-photon": {"detector": "atlas-em-barrel"},
}


def observe(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the observables of a file, each (N,), and its layer fractions (N, n_layers)."""
    with open_showers(path) as file:
        parts = [_observe(showers) for showers in file.chunks(500)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _observe(showers: Showers) -> dict[str, NDArray[np.float64]]:
    detector = showers.detector
    layers = np.stack([showers.cells[:, cells].sum(axis=1) for cells in detector.layer_cells], axis=1)
    visible = showers.cells.sum(axis=1, dtype=np.float64)
    depth = np.array([layer.z for layer in detector.layers])
    return {
        "visible": visible,
        "fraction": visible / showers.incident_energy,
        "hits": (showers.cells > HIT).sum(axis=1).astype(np.float64),
        "depth": layers @ depth / np.maximum(visible, 1e-12),
        "layers": layers / showers.incident_energy[:, None],
    }


def profile_chi2(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Return chi-square per layer, and its p, of two mean profiles with their pooled covariance."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    pooled = ((len(a) - 1) * np.cov(a.T) + (len(b) - 1) * np.cov(b.T)) / (len(a) + len(b) - 2)
    covariance = pooled * (1 / len(a) + 1 / len(b))
    value = float(difference @ np.linalg.pinv(covariance, rcond=1e-10, hermitian=True) @ difference)
    return value / len(difference), float(chi2.sf(value, len(difference)))


def main() -> None:
    """Compare every beam, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path, help="folder of the reference files")
    parser.add_argument("-n", type=int, default=500, help="showers a beam")
    parser.add_argument("-o", "--output", type=Path, default=Path("compare-geant4"))
    parser.add_argument("--beam", choices=BEAMS, action="append", help="one of the beams; all by default")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{'beam':20s} {'KS visible':>10s} {'fraction':>9s} {'hits':>9s} {'depth':>9s} {'mean visible/incident':>32s}"
          f" {'profile chi2/layers':>20s} {'ms':>7s} {'ref ms':>7s}")  # fmt: skip
    for beam in options.beam or BEAMS:
        path = options.output / f"{beam}-{options.n}.h5"
        if not path.exists():
            simulate(**BEAMS[beam], n=options.n, seed=options.seed, workers=options.workers, output=path)
        ours, theirs = observe(path), observe(options.reference / f"{beam}.h5")
        ks = {
            name: float(ks_2samp(ours[name], theirs[name]).pvalue)
            for name in ("visible", "fraction", "hits", "depth")
        }
        means = [
            (f["fraction"].mean(), f["fraction"].std() / len(f["fraction"]) ** 0.5) for f in (ours, theirs)
        ]
        value, p = profile_chi2(ours["layers"], theirs["layers"])
        with open_showers(path) as a, open_showers(options.reference / f"{beam}.h5") as b:
            cpu = [1e3 * float(file.attributes["cpu_seconds_per_shower"]) for file in (a, b)]
        text = " ".join(f"{mean:.5f}+-{error:.5f}" for mean, error in means)
        print(f"{beam:20s} {ks['visible']:10.3f} {ks['fraction']:9.3f} {ks['hits']:9.3f} {ks['depth']:9.3f} {text:>32s}"
              f" {value:10.2f} p {p:6.3f} {cpu[0]:8.1f} {cpu[1]:7.1f}", flush=True)  # fmt: skip
        result = {
            "ks": ks,
            "means": means,
            "profile_chi2": value,
            "profile_p": p,
            "cpu_ms": cpu,
            "n": options.n,
        }
        (options.output / f"{beam}-{options.n}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
