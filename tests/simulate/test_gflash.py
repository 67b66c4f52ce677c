"""Spectra of spots, the cells they are summed in, and the engine."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import (
    DETECTORS,
    MATERIALS,
    detector_from_definition,
    get_detector,
    get_material,
)
from caloforge.simulate.gflash import (
    BLOCK,
    SOFT_SHARE,
    GFlashEngine,
    develop,
    draw_spots,
    landau,
    spot_spectrum,
    to_cells,
)
from caloforge.simulate.gflash.parametrisation import column_of


def test_most_probable_loss_in_silicon_is_the_measured_one():
    # Bichsel 1988: 84 keV in 300 um, a full width of about 25 keV
    peak, xi = landau(get_material("G4_Si"), 0.3)
    assert peak == pytest.approx(0.084, rel=0.03)
    assert 4.02 * xi == pytest.approx(0.0215, rel=0.1)


def test_most_probable_loss_lies_below_the_mean():
    for name in ("G4_Si", "G4_lAr", "G4_POLYSTYRENE"):
        material = get_material(name)
        assert 0.5 < landau(material, 2.0)[0] / material.mip_energy(2.0) < 1


def test_moments_are_those_of_the_table():
    spectrum = spot_spectrum(get_material("G4_Si"), 0.525)
    table = spectrum.table.astype(np.float64)
    assert spectrum.mean == pytest.approx(table.mean())
    assert spectrum.noise == pytest.approx((table**2).mean() / table.mean())
    assert (table >= 0).all()


def test_spectrum_is_a_falling_background_with_a_peak_at_one_mip():
    silicon = get_material("G4_Si")
    table = spot_spectrum(silicon, 0.525).table
    counts, edges = np.histogram(table, bins=np.arange(0, 0.6, 0.02))
    peak = landau(silicon, 0.525)[0]
    below, above = counts[: int(peak / 0.02)], counts[int(peak / 0.02) :]
    assert above.max() > 1.5 * below.min()
    assert abs(edges[int(peak / 0.02) + above.argmax()] - peak) < 0.03
    assert 0 < SOFT_SHARE < 1


def test_table_has_the_distribution_of_the_two_kinds_drawn_at_random():
    material, thickness, n = get_material("G4_lAr"), 4.2, 400_000
    random = np.random.default_rng(1)
    peak, xi = landau(material, thickness)
    secant = 1 / np.sqrt(random.uniform(1 / 9, 1, n))
    through = secant * np.maximum(peak - xi * np.log(random.standard_normal(n) ** 2), 0)
    slow = np.where(random.random(n) < SOFT_SHARE, random.exponential(0.3, n), through)
    quantiles = np.linspace(0.02, 0.98, 25)
    table = spot_spectrum(material, thickness).table
    np.testing.assert_allclose(np.quantile(table, quantiles), np.quantile(slow, quantiles), rtol=0.03)


@pytest.mark.parametrize("name", [name for name in MATERIALS if name != "G4_Galactic"])
@pytest.mark.parametrize("thickness", [0.01, 1.0, 50.0])
def test_any_active_material_has_a_spectrum(name, thickness):
    spectrum = spot_spectrum(get_material(name), thickness)
    assert np.isfinite(spectrum.table).all()
    assert spectrum.mean > 0


def shower(name, n, energy, theta, seed=0):
    """Spots of n typical showers."""
    detector = get_detector(name)
    column = column_of(detector)
    primaries = detector.beam.replace(energy=energy, theta=theta).sample(seed, 0, n)
    response = develop(
        column, detector.beam.particle, primaries.energy, primaries.theta, np.zeros((n, 2)), np.ones(n)
    )
    (spots,) = draw_spots(column, response, primaries, 0.9, np.random.default_rng(seed))
    return detector, column, primaries, response, spots


def test_spots_carry_the_mean_response_with_the_noise_of_their_spectrum():
    n = 300
    _, column, _, response, spots = shower("ild-ecal", n, "10GeV", 90)
    each = np.zeros((n, len(column)))
    np.add.at(each, (spots.shower, spots.unit), spots.energy)
    expected = 0.9 * response.visible[0]
    noise = spot_spectrum(column.slabs[0].material, column.slabs[0].thickness).noise
    busy = expected > 1.0
    error = np.sqrt(noise * expected[busy] / n)
    assert (np.abs(each.mean(0) - expected)[busy] < 4.5 * error).all()
    np.testing.assert_allclose(each.var(0)[busy] / (noise * expected[busy]), 1, atol=0.45)
    # layers fluctuate independently, so that the total has the noise of the whole
    assert each.sum(1).var() == pytest.approx(noise * expected.sum(), rel=0.35)


def test_many_spots_come_in_parts(monkeypatch):
    """What is held at once does not grow with the energy, and no spot is lost or counted twice."""
    _, column, primaries, response, spots = shower("ild-ecal", 5, "10GeV", 90)
    monkeypatch.setattr("caloforge.simulate.gflash.response._MOST_SPOTS", 1000)
    parts = list(draw_spots(column, response, primaries, 0.9, np.random.default_rng(0)))
    assert [len(part) for part in parts[:-1]] == [1000] * (len(spots) // 1000)
    for name in ("shower", "unit"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(spots, name))


def test_noise_is_the_sampling_term_of_the_paper():
    # c^2 = <d^2> / (<d> S): a stochastic term near the 16 to 17 % of silicon-tungsten calorimeters
    detector = get_detector("ild-ecal")
    slab = column_of(detector).slabs[0]
    noise = spot_spectrum(slab.material, slab.thickness).noise
    assert np.sqrt(noise / 1e3 / detector.sampling_fraction) == pytest.approx(0.165, abs=0.02)


def test_cells_are_those_of_a_loop_over_spots():
    detector, column, primaries, _, spots = shower("ild-ecal-angled", 3, "2GeV", 60)
    cells = to_cells(detector, column, spots, 3, primaries.conditions).reshape(3, *detector.shape)
    slow = np.zeros((3, *detector.shape))
    nx, ny, _ = detector.shape
    for number, unit, x, y, energy in zip(
        spots.shower, spots.unit, spots.x, spots.y, spots.energy, strict=True
    ):
        ix, iy = int(np.floor(x / 5.0 + nx / 2)), int(np.floor(y / 5.0 + ny / 2))
        if unit >= 0 and 0 <= ix < nx and 0 <= iy < ny:
            slow[number, ix, iy, column.layer[unit]] += energy
    np.testing.assert_allclose(cells, slow, rtol=1e-5, atol=1e-9)


def test_atlas_cells_follow_the_alignment():
    detector, column, primaries, _, spots = shower("atlas-em-barrel", 8, "8GeV", 90)
    cells = to_cells(detector, column, spots, 8, primaries.conditions)
    for i in range(8):
        conditions = {name: value[i : i + 1] for name, value in primaries.conditions.items()}
        mine = spots.shower == i
        one = detector.readout.digitise(
            spots.x[mine],
            spots.y[mine],
            column.layer[spots.unit[mine]],
            {name: float(conditions[name][0, 0]) for name in detector.readout.alignment_names},
        )
        slow = np.zeros(detector.n_cells)
        for cell, energy in zip(one, spots.energy[mine], strict=True):
            if cell >= 0:
                slow[cell] += energy
        np.testing.assert_allclose(cells[i], slow, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("theta", [90, 60, 35])
def test_spots_spread_around_the_inclined_axis(theta):
    _, column, primaries, _, spots = shower("ild-ecal-angled", 200, "20GeV", theta)
    inside = (spots.unit > 4) & (spots.unit < 13)
    axis = primaries.y[0] + column.z[spots.unit] / np.tan(np.radians(theta))
    x, y = (spots.x - primaries.x[0])[inside], (spots.y - axis)[inside]
    near = np.hypot(x, y * np.sin(np.radians(theta))) < 15.0
    assert np.median(x[near]) == pytest.approx(0, abs=0.1)
    assert np.median(y[near]) == pytest.approx(0, abs=0.6)
    # the circle around the axis is an ellipse in the plane of the cells
    lengths = np.percentile(np.abs(y[near]), 50) / np.percentile(np.abs(x[near]), 50)
    assert lengths == pytest.approx(1 / np.sin(np.radians(theta)), rel=0.1)


def test_spots_beyond_the_column_are_marked():
    _, column, _, _, spots = shower("ild-ecal-angled", 50, "20GeV", 30)
    assert spots.unit.min() == -1
    assert spots.unit.max() < len(column)
    assert (spots.unit == -1).mean() < 0.02


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
    mesh = get_detector("calochallenge-1-photons")
    with pytest.raises(IncompatibleError, match="calochallenge-1-photons"):
        ENGINE.run(mesh, get_detector("ild-ecal").beam, 0, 0, 1)
