import dataclasses

import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import DETECTORS, detector_from_definition, get_detector
from caloforge.simulate.gflash import BLOCK, GFlashEngine

ENGINE = GFlashEngine()
SIMULABLE = [name for name in DETECTORS if get_detector(name).simulable]
TOY = """{"name": "toy", "nx": 21, "ny": 21, "pitch": 10.0, "padding": 2, "sampling_fraction": 0.05,
 "layers": [{"repeat": 25, "absorber": "G4_Pb", "absorber_mm": 5.6, "active": "G4_POLYSTYRENE",
             "active_mm": 4.0, "gap_mm": 1.0}],
 "beam": {"particle": "e-", "energy": "1-50GeV", "theta": "90"}}"""


def run(name, n, start=0, seed=1, **beam):
    detector = get_detector(name)
    return ENGINE.run(detector, detector.beam.replace(**beam), seed, start, n)


@pytest.mark.parametrize("name", SIMULABLE)
def test_showers_of_every_detector(name):
    showers = run(name, 8)
    detector = get_detector(name)
    assert showers.cells.shape == (8, detector.n_cells)
    assert showers.cells.dtype == np.float32
    assert np.isfinite(showers.cells).all()
    assert (showers.cells >= 0).all()
    visible = showers.cells.sum(1) / showers.incident_energy
    assert (np.abs(visible / detector.sampling_fraction - 1) < 0.6).all()
    assert showers.source == "gflash"
    assert showers.particle == detector.beam.particle
    assert {name: value.shape[1] for name, value in showers.conditions.items()} == detector.condition_sizes


@pytest.mark.parametrize("name", ["ild-ecal-angled", "atlas-em-barrel"])
def test_a_shower_does_not_depend_on_the_chunk_it_is_made_in(name):
    n = 2 * BLOCK + 5
    whole = run(name, n)
    for start, size in ((0, 3), (BLOCK - 2, 4), (BLOCK, BLOCK), (n - 1, 1)):
        part = run(name, size, start)
        np.testing.assert_array_equal(part.cells, whole.cells[start : start + size])
        np.testing.assert_array_equal(part.incident_energy, whole.incident_energy[start : start + size])
        for key, value in part.conditions.items():
            np.testing.assert_array_equal(value, whole.conditions[key][start : start + size])


def test_seeds_and_showers_are_independent():
    one, other = run("atlas-em-barrel", 40, seed=1), run("atlas-em-barrel", 40, seed=2)
    assert len(np.unique(one.cells.sum(1))) == 40
    assert not np.isin(one.cells.sum(1), other.cells.sum(1)).any()


def test_no_showers_and_chunk_sizes():
    assert run("atlas-em-barrel", 0).cells.shape == (0, 266)
    for name in SIMULABLE:
        detector = get_detector(name)
        size = ENGINE.chunk_size(detector, detector.beam)
        assert size % BLOCK == 0
        assert size * detector.n_cells * 4 <= 128 << 20


@pytest.mark.parametrize("name", ["ild-ecal", "clic-ecal", "atlas-em-barrel"])
def test_mean_response_is_the_sampling_fraction(name):
    showers = run(name, 250)
    fraction = showers.cells.sum(dtype=np.float64) / showers.incident_energy.sum()
    assert fraction == pytest.approx(get_detector(name).sampling_fraction, rel=0.02)


def test_response_is_linear_in_a_deep_uniform_calorimeter():
    detector = detector_from_definition(TOY.replace('"repeat": 25', '"repeat": 40'))
    fractions = []
    for gev in (2, 10, 50):
        beam = detector.beam.replace(energy=f"{gev}GeV")
        showers = ENGINE.run(detector, beam, 0, 0, 200)
        fractions.append(float(showers.cells.sum(dtype=np.float64) / showers.incident_energy.sum()))
    assert fractions == pytest.approx([0.05] * 3, rel=0.03)


def test_angles_mirror_each_other_in_y():
    low, high = (
        run("clic-ecal-wide", 160, energy="10GeV", theta=65),
        run("clic-ecal-wide", 160, energy="10GeV", theta=115),
    )
    y = [showers.grid().sum(axis=(0, 1, 3), dtype=np.float64) for showers in (low, high)]
    assert y[0].sum() == pytest.approx(y[1].sum(), rel=0.01)
    centre = [(profile @ np.arange(51)) / profile.sum() - 25 for profile in y]
    assert centre[0] > 1  # leans towards +y
    assert centre[0] == pytest.approx(-centre[1], abs=0.1)
    profiles = [showers.grid().sum(axis=(1, 3), dtype=np.float64) for showers in (low, high)]
    mean = [profile.mean(0) for profile in profiles]
    error = [profile.std(0) / np.sqrt(len(profile)) for profile in profiles]
    pull = (mean[0] - mean[1][::-1]) / np.hypot(error[0], error[1][::-1])
    assert np.all(np.abs(pull[20:40]) < 5), "bins that hold energy agree within their errors"


def test_axis_goes_where_the_primary_points():
    showers = run("ild-ecal-angled", 100, energy="30GeV", theta=50)
    detector = showers.detector
    profile = showers.grid().sum(axis=(0, 1), dtype=np.float64)  # (y, layer)
    for layer in (6, 10, 14):
        peak = detector.layers[layer].y[profile[:, layer].argmax()]
        expected = detector.beam.y + detector.layers[layer].z / np.tan(np.radians(50))
        assert abs(peak - expected) <= 5.0


@pytest.mark.parametrize("energy", ["1GeV", "500GeV"])
@pytest.mark.parametrize("particle", ["gamma", "e-", "e+"])
def test_from_one_to_five_hundred_gev(energy, particle):
    showers = run("ild-ecal", 16, energy=energy, particle=particle)
    assert np.isfinite(showers.cells).all()
    assert (showers.cells.sum(1) > 0).all()


def test_a_users_own_detector():
    detector = detector_from_definition(TOY)
    showers = ENGINE.run(detector, detector.beam, 0, 0, 200)
    assert showers.cells.sum() / showers.incident_energy.sum() == pytest.approx(0.05, rel=0.02)
    doubled = dataclasses.replace(detector, sampling_fraction=0.1)
    again = ENGINE.run(doubled, doubled.beam, 0, 0, 200)
    assert again.cells.sum() / showers.cells.sum() == pytest.approx(2, rel=0.02)


def test_one_single_layer_will_do():
    detector = detector_from_definition(
        '{"name": "slab", "nx": 5, "ny": 5, "pitch": 20, "layers": [{"absorber": "G4_Pb", "absorber_mm": 30, '
        '"active": "G4_Si", "active_mm": 0.3}], "beam": {"energy": "5GeV", "theta": "60-90"}}'
    )
    showers = ENGINE.run(detector, detector.beam, 0, 0, 32)
    assert np.isfinite(showers.cells).all()
    assert showers.cells.sum() > 0


def test_meshes_are_refused():
    mesh = get_detector("calochallenge-2")
    with pytest.raises(IncompatibleError, match="calochallenge-2"):
        ENGINE.run(mesh, get_detector("ild-ecal").beam, 0, 0, 1)
