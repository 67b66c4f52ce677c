"""Response of the parametrised engine against Geant4: stacks of many materials and depths.

    python benchmarks/gflash_response.py -o FOLDER [--only contained|leaking] [--fit]

Simulates with Geant4 what FOLDER does not hold yet, one file a stack, and prints for each the mean visible over incident energy
of both engines, its width and the mean depth; the detectors have no measured sampling fraction. ``contained``
stacks are at least 26 X0 deep and 1.2 m wide (electrons of 5 GeV); ``leaking`` ones end early, or are narrow.

``--fit`` fits the constants of ``caloforge.geometry.active_over_passive`` to the contained stacks. Geant4's showers have
the physics list and production cut of ``caloforge simulate``'s defaults.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, active_over_passive, detector_from_definition, get_material
from caloforge.showers import Showers, read_showers
from caloforge.simulate import simulate
from caloforge.simulate.gflash import containment, expected_response

LEAD, TUNGSTEN, COPPER, IRON, ALUMINIUM = "G4_Pb", "G4_W", "G4_Cu", "G4_Fe", "G4_Al"
SCINTILLATOR, SILICON, ARGON = "G4_PLASTIC_SC_VINYLTOLUENE", "G4_Si", "G4_lAr"
SEED = 1
GFLASH_SHOWERS = 500

CONTAINED = {  # absorber: thickness of absorber, active material and its thickness, mm
    LEAD: (
        *(
            (1.0, SCINTILLATOR, 5.0),
            (1.0, SCINTILLATOR, 2.0),
            (2.0, SCINTILLATOR, 5.0),
            (2.0, SCINTILLATOR, 2.0),
        ),
        *(
            (4.0, SCINTILLATOR, 2.0),
            (4.0, SCINTILLATOR, 10.0),
            (5.6, SCINTILLATOR, 4.0),
            (10.0, SCINTILLATOR, 5.0),
        ),
        *((1.0, ARGON, 4.0), (2.4, ARGON, 5.0), (3.0, ARGON, 2.0), (6.0, ARGON, 4.0)),
        *((1.5, SILICON, 0.3), (4.0, SILICON, 0.5), (6.0, SILICON, 0.3)),
    ),
    TUNGSTEN: (
        *(
            (1.0, SCINTILLATOR, 2.0),
            (2.4, SCINTILLATOR, 3.0),
            (3.5, SCINTILLATOR, 5.0),
            (7.0, SCINTILLATOR, 3.0),
        ),
        *((1.0, ARGON, 3.0), (2.4, ARGON, 3.0), (5.0, ARGON, 3.0)),
        *((1.0, SILICON, 0.3), (2.4, SILICON, 0.1), (2.4, SILICON, 0.5), (3.0, SILICON, 1.5)),
        *((4.2, SILICON, 0.5), (7.0, SILICON, 0.5)),
    ),
    COPPER: (
        *((2.0, SCINTILLATOR, 3.0), (6.0, SCINTILLATOR, 4.0), (15.0, SCINTILLATOR, 5.0)),
        *((3.0, ARGON, 4.0), (6.0, ARGON, 4.0)),
        *((3.0, SILICON, 0.3), (6.0, SILICON, 0.5), (15.0, SILICON, 0.5)),
    ),
    IRON: (
        *((4.0, SCINTILLATOR, 3.0), (12.0, SCINTILLATOR, 5.0), (25.0, SCINTILLATOR, 5.0)),
        *((10.0, ARGON, 4.0), (3.0, SILICON, 0.5), (10.0, SILICON, 0.5)),
    ),
    ALUMINIUM: ((30.0, SCINTILLATOR, 5.0), (30.0, SILICON, 0.5)),
    "G4_PbWO4": ((9.0, SCINTILLATOR, 5.0), (9.0, SILICON, 0.5)),
}


@dataclass(frozen=True)
class Stack:
    """A detector and its beam; lengths in mm."""

    absorber: str
    absorber_mm: float
    active: str
    active_mm: float
    layers: int
    gap_mm: float = 0.0
    particle: str = "e-"
    energy: str = "10GeV"
    showers: int = 500
    cells: int = 21
    pitch: float = 40.0

    @property
    def name(self) -> str:
        """Its name, as of the file."""
        parts = [
            self.absorber[3:],
            f"{self.absorber_mm:g}",
            self.active[3:].split("_")[0],
            f"{self.active_mm:g}",
        ]
        parts += [f"x{self.layers}", self.particle, self.energy, f"{self.cells * self.pitch:g}mm"]
        return "-".join(parts).lower().replace(".", "p").replace("e--", "e-")

    def detector(self) -> Detector:
        """Return the detector, without a measured sampling fraction."""
        layers = {"repeat": self.layers, "absorber": self.absorber, "absorber_mm": self.absorber_mm}
        layers |= {"active": self.active, "active_mm": self.active_mm, "gap_mm": self.gap_mm}
        beam = {"particle": self.particle, "energy": self.energy}
        whole = {"name": "stack", "nx": self.cells, "ny": self.cells, "pitch": self.pitch, "beam": beam}
        return detector_from_definition(json.dumps(whole | {"layers": [layers]}))


def contained_stacks() -> list[Stack]:
    """Return stacks that hold all but a few permille of a shower."""
    found = []
    for absorber, several in CONTAINED.items():
        for absorber_mm, active, active_mm in several:
            unit = absorber_mm / get_material(absorber).x0 + active_mm / get_material(active).x0
            shape = {"cells": 11, "pitch": 110.0, "energy": "5GeV", "showers": 150}
            found.append(Stack(absorber, absorber_mm, active, active_mm, int(np.ceil(26 / unit)), **shape))
    return found


def leaking_stacks() -> list[Stack]:
    """Return stacks that leak."""
    lead = (LEAD, 2.0, SCINTILLATOR, 5.0)
    silicon = (TUNGSTEN, 2.4, SILICON, 0.5)
    return [
        *(Stack(*lead, layers) for layers in (20, 32, 50, 70)),
        Stack(*lead, 20, energy="2GeV"),
        Stack(*lead, 20, energy="50GeV", showers=200),
        Stack(*lead, 20, particle="gamma", showers=1500),
        *(Stack(*silicon, layers, gap_mm=2.0) for layers in (10, 15, 25, 40)),
        Stack(*silicon, 15, gap_mm=2.0, particle="gamma", showers=1000),
        Stack(LEAD, 5.6, SCINTILLATOR, 4.0, 10),
        Stack(LEAD, 4.0, SILICON, 0.5, 12),
        Stack(IRON, 12.0, SCINTILLATOR, 5.0, 10),
        Stack(COPPER, 6.0, ARGON, 4.0, 18),
        Stack(*lead, 70, cells=5, pitch=20.0, showers=200),
        Stack(*silicon, 40, gap_mm=2.0, cells=5, pitch=10.0, showers=200),
    ]


def geant4(stack: Stack, folder: Path) -> Showers:
    """Return Geant4's showers of a stack, simulated if they are not in the folder."""
    path = folder / f"{stack.name}.h5"
    if not path.exists():
        simulate(stack.detector(), stack.showers, engine="geant4", seed=SEED, output=path)
    return read_showers(path)


def moments(showers: Showers) -> tuple[float, float, float, float]:
    """Return mean visible over incident energy, its error, its relative width, and the mean depth in X0."""
    detector = showers.detector
    layers = np.stack([showers.cells[:, i].sum(1, dtype=np.float64) for i in detector.layer_cells], axis=1)
    fraction = layers.sum(1) / showers.incident_energy
    depth = np.array([layer.depth_x0 for layer in detector.layers])
    mean, width = float(fraction.mean()), float(fraction.std())
    return mean, width / len(showers) ** 0.5, width / mean, float(layers.sum(0) @ depth / layers.sum())


def compare(stack: Stack, folder: Path) -> float:
    """Print both engines' figures of a stack; return the ratio of the mean responses, less one."""
    detector = stack.detector()
    mean, error, width, depth = moments(geant4(stack, folder))
    fast = simulate(detector, GFLASH_SHOWERS, engine="gflash", seed=SEED)
    _, _, fast_width, fast_depth = moments(fast)
    share, ratio = containment(detector), expected_response(detector) / mean - 1
    leaks = f"{100 * share.longitudinal:5.1f} {100 * share.lateral:4.1f}"
    print(
        f"{stack.name:46s} {detector.depth_x0:5.1f} {leaks}  {detector.sampling_fraction:.4f}  {mean:.5f} "
        f"+- {100 * error / mean:.1f} %  {100 * ratio:+5.1f} %  {100 * fast_width:5.1f} {100 * width:5.1f}  "
        f"{fast_depth:5.2f} {depth:5.2f}",
        flush=True,
    )
    return ratio


def fit(stacks: list[Stack], folder: Path) -> None:
    """Fit the constants of ``active_over_passive`` and print them with the residuals of the sampling fraction."""
    from scipy.optimize import least_squares

    measured = [moments(geant4(stack, folder))[:2] for stack in stacks]
    mean, error = np.array(measured).T
    passive, active = ([get_material(getattr(one, key)) for one in stacks] for key in ("absorber", "active"))
    grams = np.array([a.density * one.active_mm / 10 for a, one in zip(active, stacks, strict=True)])
    z = np.array([p.z - a.z for p, a in zip(passive, active, strict=True)])
    density = np.array([p.density - a.density for p, a in zip(passive, active, strict=True)])
    mip = np.array([a.mip_energy(one.active_mm) for a, one in zip(active, stacks, strict=True)])
    lost = np.array([p.mip_energy(one.absorber_mm) for p, one in zip(passive, stacks, strict=True)])

    def fraction(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return r * mip / (r * mip + lost)

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        surface = x[2] * -np.expm1(-grams / x[3]) * x[3] / grams
        r = np.exp(-(x[0] * z + x[1] * density) * (1 - surface))
        return np.asarray((fraction(r) / mean - 1) / np.hypot(error / mean, 0.006))

    found = least_squares(residuals, [0.009, 0.003, 0.3, 0.2], x_scale=[0.009, 0.003, 0.3, 0.2]).x
    print("per Z {:.4f}, per g/cm3 {:.4f}, surface {:.2f}, range {:.2f} g/cm2".format(*found))
    used = np.array(
        [
            active_over_passive([(p, one.absorber_mm)], a, one.active_mm)
            for p, a, one in zip(passive, active, stacks, strict=True)
        ]
    )
    off = fraction(used) / mean - 1
    print(f"as in the package: rms {100 * off.std():.1f} %, worst {100 * np.abs(off).max():.1f} %")


def main() -> None:
    """Simulate what is missing, compare, fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of Geant4's showers")
    parser.add_argument("--only", choices=("contained", "leaking"), help="one of the two sets")
    parser.add_argument("--fit", action="store_true", help="fit the constants of active_over_passive")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    sets = {"contained": contained_stacks(), "leaking": leaking_stacks()}
    for name, stacks in sets.items():
        if options.only in (None, name):
            print(
                f"{name}: X0; % leaking behind, beside; sampling fraction; Geant4's response; gflash's over it;"
            )
            print("  widths of the response, %, gflash and Geant4; mean depths, X0, gflash and Geant4")
            ratios = np.array([compare(stack, options.output) for stack in stacks])
            print(f"  worst {100 * ratios[np.abs(ratios).argmax()]:+.1f} %, rms {100 * ratios.std():.1f} %")
    if options.fit:
        fit(sets["contained"], options.output)


if __name__ == "__main__":
    main()
