"""Concentric cylinders in Geant4 and the mesh that reads them out."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caloforge.geometry import Detector, MeshReadout, detector_from_definition, get_detector
from caloforge.showers import Showers
from caloforge.simulate import simulate

pytestmark = pytest.mark.geant4

LIST = {"physics_list": "G4EmStandardPhysics_noRayleigh", "production_cut": 0.7}


@pytest.fixture(scope="module")
def showers() -> Showers:
    """Electrons of 2 GeV."""
    return simulate("calochallenge-2", n=80, energy="2GeV", seed=41)


def coarse(everything: bool = False) -> Detector:
    """The cylinders with one voxel of 60 mm radius a layer; every deposit counts, as it is, where ``everything`` is set."""
    detector = get_detector("calochallenge-2")
    stack = detector.stack
    if everything:
        stack = tuple(dataclasses.replace(slab, layer=int(slab.z / 3.4)) for slab in stack)
    edges = (0.0, 250.0 if everything else 60.0)
    return dataclasses.replace(
        detector,
        name="coarse",
        stack=stack,
        layers=tuple(dataclasses.replace(layer, r_edges=edges, n_alpha=1) for layer in detector.layers),
        readout=MeshReadout.regular(45, 1, 1, edges[1], 3.4),
        evaluation_cut=0.0,
    )


def test_all_energy_is_deposited_somewhere() -> None:
    whole = simulate(coarse(everything=True), n=20, energy="2GeV", seed=42)
    share = whole.visible_energy / whole.incident_energy
    assert (share <= 1.0 + 1e-3).all()  # of it the rounding of the cells
    assert 0.96 < share.mean() < 1.0  # some leaves backwards, some lies beside the mesh


def test_the_response_is_that_of_flat_plates_with_square_cells() -> None:
    layers = [{"repeat": 90, "absorber": "G4_W", "absorber_mm": 1.4, "active": "G4_Si", "active_mm": 0.3}]
    plates = detector_from_definition(
        json.dumps({"name": "plates", "nx": 24, "ny": 24, "pitch": 5.0, "padding": 10, "layers": layers})
    )
    mean, error = [], []
    for detector in (coarse(), plates):
        made = simulate(detector, n=60, energy="2GeV", particle="e-", theta="90", seed=43, **LIST)
        share = made.visible_energy / made.incident_energy
        mean.append(share.mean())
        error.append(share.std() / np.sqrt(len(share)))
    assert abs(mean[0] - mean[1]) < 4 * np.hypot(*error)
    assert error[0] < 0.03 * mean[0]
    assert mean[0] == pytest.approx(0.0325, rel=0.06)  # the published files divide by 0.033


def test_energies_are_divided_by_the_share_of_the_silicon(showers: Showers) -> None:
    response = showers.visible_energy.mean() / 2000.0
    assert response == pytest.approx(showers.detector.sampling_fraction, rel=0.06)
    filled = showers.cells[showers.cells > 0]
    assert filled.min() >= 0.015 * (1 - 1e-3)  # the data set's cut; the least in silicon is 0.5 keV


def test_showers_are_round(showers: Showers) -> None:
    centres = showers.detector.cell_centres
    alpha = np.arctan2(centres[:, 1], centres[:, 0])
    total = showers.visible_energy
    for wave in (np.cos(alpha), np.sin(alpha)):
        mean = showers.cells @ wave / total
        assert abs(mean.mean()) < 4 * mean.std() / np.sqrt(len(mean))
    sectors = showers.cells.reshape(len(showers), 45, 16, 9).sum(axis=(1, 3)) / total[:, None]
    pull = (sectors.mean(0) - 1 / 16) / (sectors.std(0) / np.sqrt(len(showers)))
    assert (np.abs(pull) < 4.5).all()


def test_profiles_are_those_of_the_parametrisation(showers: Showers) -> None:
    like = simulate("calochallenge-2", n=400, energy="2GeV", seed=44, engine="gflash")
    depth, radius = [], []
    for made in (showers, like):
        z, r = made.detector.cell_centres[:, 2], np.hypot(*made.detector.cell_centres[:, :2].T)
        mean = made.cells.sum(axis=0, dtype=np.float64)
        depth.append(mean @ z / mean.sum())
        radius.append(mean @ r / mean.sum())
    step = 153.0 / showers.detector.depth_x0  # mm in a radiation length
    assert abs(depth[0] - depth[1]) < 0.5 * step
    assert radius[0] == pytest.approx(radius[1], rel=0.35)  # the parametrisation is narrower


def test_the_same_whatever_the_chunks_and_workers(showers: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caloforge.simulate.geant4._CHUNK_SECONDS", 0.05)
    part = simulate("calochallenge-2", n=12, energy="2GeV", seed=41, workers=2)
    np.testing.assert_array_equal(part.cells, showers.cells[:12])
    finer = simulate("calochallenge-3", n=12, energy="2GeV", seed=41)
    # the same showers in other voxels: twice as many rings, each with its own cut
    rings = finer.cells.reshape(12, 45, 50, 9, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(rings, part.cells.reshape(12, 45, 16, 9).sum(axis=2), atol=0.3, rtol=2e-3)
    assert (simulate("calochallenge-2", n=2, energy="2GeV", seed=42).cells != part.cells[:2]).any(1).all()


def test_what_is_recorded(showers: Showers) -> None:
    assert showers.attributes["physics_list"] == "G4EmStandardPhysics_noRayleigh"
    assert showers.attributes["production_cut_mm"] == 0.7
    assert showers.attributes["cell_threshold_mev"] == pytest.approx(0.5e-3 / 0.033)
    own = simulate("calochallenge-2", n=2, energy="1GeV", production_cut=2.0, threshold=0.5)
    assert own.attributes["production_cut_mm"] == 2.0
    assert own.cells[own.cells > 0].min() >= 0.5


SLOW = """
import json, math, sys
from collections import Counter
from caloforge.simulate.geant4 import export_data, find_data
export_data(find_data())
from caloforge.geometry import get_detector
from caloforge.simulate.geant4 import mesh, session

detector = get_detector("calochallenge-2")
found = Counter()

class Slow(mesh.DepositScorer):
    def ProcessHits(self, step, history):
        place, energy = step.GetPostStepPoint().GetPosition(), step.GetTotalEnergyDeposit()
        r, alpha = math.hypot(place.x, place.y), math.atan2(place.y, place.x) + math.pi
        depth = math.floor(place.z / 3.4 - 1e-7)
        if energy > 0 and r < 9 * 4.65 and 0 <= depth < 45:
            found[depth * 144 + int(alpha / (2 * math.pi) * 16) % 16 * 9 + int(r / 4.65)] += energy / 0.033
        return super().ProcessHits(step, history)

mesh.DepositScorer = Slow
if sys.argv[1] == "all":
    mesh.MeshConstruction._filters = lambda self: [("all", None)]
run = session.Session(detector, sys.argv[2], 0.7)
beam = detector.beam.replace(energy="3GeV")
cells, _ = run.run("e-", beam.sample(1, 0, 1), 1, 0)
print(json.dumps({"fast": cells[0].tolist(), "slow": [found[k] for k in range(6480)]}))
sys.stdout.flush()
import os
os._exit(0)
"""


def slowly(tmp_path: Path, which: str, physics: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of one shower, and what a scorer that looks at each step by itself finds."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    done = subprocess.run(
        [sys.executable, script, which, physics], capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout.strip().splitlines()[-1])
    return np.array(made["fast"]), np.array(made["slow"])


@pytest.mark.parametrize("physics", ["G4EmStandardPhysics_noRayleigh", "G4EmStandardPhysics_option1"])
def test_voxels_are_what_a_scorer_that_looks_at_each_step_finds(tmp_path: Path, physics: str) -> None:
    fast, slow = slowly(tmp_path, "some", physics)
    np.testing.assert_allclose(fast, slow, rtol=1e-6)
    every, again = slowly(tmp_path, "all", physics)
    np.testing.assert_allclose(every, again, rtol=1e-6)
    # steps that are not looked at deposit nothing
    assert (every >= fast * (1 - 1e-6)).all()
    assert every.sum() == pytest.approx(fast.sum(), rel=1e-4)


PARAMETERS = """
import os, sys
from caloforge.simulate.geant4 import export_data, find_data
export_data(find_data())
import geant4_pybind as g4
from caloforge.simulate.geant4.session import build_physics
g4.G4RunManager()
build_physics(sys.argv[1])
for _ in range(3):  # the last lines stay in a buffer of Geant4's
    g4.G4UImanager.GetUIpointer().ApplyCommand("/process/em/printParameters")
os._exit(0)
"""


def test_the_list_without_rayleigh_has_the_parameters_of_the_standard_one() -> None:
    printed = []
    for name in ("G4EmStandardPhysics", "G4EmStandardPhysics_noRayleigh", "G4EmStandardPhysics_option1"):
        done = subprocess.run(
            [sys.executable, "-c", PARAMETERS, name], capture_output=True, text=True, check=True
        )
        whole = done.stdout.split("Electromagnetic Physics Parameters")[1]
        printed.append([line.rstrip() for line in whole.splitlines() if line.strip("= ")])
    assert len(printed[0]) > 60
    assert "Screening factor" in printed[0][-1]
    assert printed[0] == printed[1] != printed[2]
