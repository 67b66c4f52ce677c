"""Showers in detectors from TOML files: cells that differ by layer, rings behind plates, materials of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.geometry import Detector, detector_from_definition
from caloforge.showers import Showers, read_showers
from caloforge.simulate import simulate
from caloforge.simulate.gflash import expected_response

PVT = {"density": 1.032, "elements": {"C": 0.914708, "H": 0.085292}}
UNIT = {"absorber": "G4_Pb", "absorber_mm": 6.0, "active": "plastic", "active_mm": 5.0, "gap_mm": 0.5}
SILICON = {"absorber": "G4_W", "absorber_mm": 2.8, "active": "G4_Si", "active_mm": 0.5, "gap_mm": 1.7}


def detector(name: str, layers: list[dict[str, Any]], **more: Any) -> Detector:
    content = {"name": name, "layers": layers, "materials": {"plastic": PVT}, **more}
    return detector_from_definition(json.dumps({"beam": {"particle": "e-", "energy": "2GeV"}, **content}))


FINE = detector(
    "fine",
    [{"repeat": 3, **UNIT}, {"repeat": 5, "nx": 20, "ny": 20, **UNIT}, {"repeat": 4, **UNIT}],
    nx=10,
    ny=10,
    width=200.0,
    padding_mm=40.0,
)
EQUAL = detector("equal", [{"repeat": 12, **UNIT}], nx=10, ny=10, width=200.0, padding_mm=40.0)
RINGS = detector(
    "rings",
    [{"repeat": 2, "n_alpha": 4, **SILICON}, {"repeat": 5, "units": 2, **SILICON}],
    r_edges=[0, 5, 10, 20, 40, 80],
    n_alpha=12,
)


def layer_energies(showers: Showers) -> np.ndarray:
    return np.stack([showers.cells[:, cells].sum(axis=1) for cells in showers.detector.layer_cells], axis=1)


def pulls(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences of two samples' means (N, k) in standard errors (k,)."""
    error = np.hypot(*(sample.std(axis=0) / np.sqrt(len(sample)) for sample in (one, other)))
    return np.asarray((one.mean(axis=0) - other.mean(axis=0)) / error)


@pytest.mark.parametrize("engine", ["gflash", pytest.param("geant4", marks=pytest.mark.geant4)])
def test_finer_cells_see_the_same_showers(engine: str) -> None:
    n = 400 if engine == "gflash" else 60
    fine, equal = (simulate(one, n=n, seed=k, engine=engine) for k, one in ((1, FINE), (2, EQUAL)))
    assert np.abs(pulls(layer_energies(fine), layer_energies(equal))).max() < 4.5
    for layer in (2, 5):
        cells = fine.detector.layer_cells[layer]
        size = 20 if layer == 5 else 10
        image = fine.cells[:, cells].sum(axis=0).reshape(size, size)
        x = fine.detector.cell_centres[cells][:, 0].reshape(size, size)[:, 0]
        centre = fine.detector.beam.x  # of a coarse cell, which is not the middle of the layer
        assert image.sum(axis=1) @ x / image.sum() == pytest.approx(centre, abs=2.0)
    middle = layer_energies(fine)[:, 5].sum()
    share = fine.cells[:, fine.detector.layer_cells[5]].max(axis=1).sum() / middle
    coarse = equal.cells[:, equal.detector.layer_cells[5]].max(axis=1).sum() / middle
    assert share < 0.8 * coarse


@pytest.mark.parametrize("engine", ["gflash", pytest.param("geant4", marks=pytest.mark.geant4)])
def test_rings_see_round_showers(engine: str) -> None:
    made = simulate(RINGS, n=400 if engine == "gflash" else 60, seed=3, engine=engine)
    response = made.visible_energy.mean() / 2000.0
    assert response == pytest.approx(expected_response(RINGS), rel=0.03 if engine == "gflash" else 0.1)
    single, double = layer_energies(made).mean(axis=0)[[1, 2]]
    assert double > 1.4 * single  # two units, nearer to the maximum
    angles = np.arctan2(RINGS.cell_centres[:, 1], RINGS.cell_centres[:, 0])
    for wave in (np.cos(angles), np.sin(angles), np.cos(2 * angles)):
        mean = made.cells @ wave / made.visible_energy
        assert abs(mean.mean()) < 4.5 * mean.std() / np.sqrt(len(mean))


@pytest.mark.geant4
def test_rings_hold_what_cells_hold() -> None:
    unit = [{"repeat": 12, **SILICON}]
    cells = detector("cells", unit, nx=1, ny=1, pitch=340.0)
    rings = detector("rings", unit, r_edges=[0, 170], n_alpha=1)
    one, other = (layer_energies(simulate(place, n=60, seed=4)) for place in (cells, rings))
    assert np.abs(pulls(one, other)).max() < 4.5
    assert abs(pulls(one.sum(axis=1, keepdims=True), other.sum(axis=1, keepdims=True))[0]) < 4


@pytest.mark.geant4
def test_an_own_material_behaves_as_the_one_that_it_is() -> None:
    known = detector(
        "known", [{"repeat": 12, **UNIT, "active": "G4_PLASTIC_SC_VINYLTOLUENE"}], nx=1, ny=1, pitch=200.0
    )
    own = detector("own", [{"repeat": 12, **UNIT}], nx=1, ny=1, pitch=200.0)
    one, other = (simulate(place, n=80, seed=5) for place in (known, own))
    assert abs(pulls(one.visible_energy[:, None], other.visible_energy[:, None])[0]) < 4
    assert one.visible_energy.std() < 0.25 * one.visible_energy.mean()
    assert own.sampling_fraction == pytest.approx(known.sampling_fraction, rel=0.01)


def test_the_file_holds_the_whole_definition(tmp_path: Path) -> None:
    for number, place in enumerate((FINE, RINGS)):
        path = tmp_path / f"{number}.h5"
        simulate(place, n=5, seed=6, engine="gflash", output=path, layout="sparse" if number else "dense")
        read = read_showers(path)
        assert read.detector == place
        assert read.detector.definition == place.definition
        np.testing.assert_allclose(read.cells, simulate(place, n=5, seed=6, engine="gflash").cells, rtol=1e-6)
