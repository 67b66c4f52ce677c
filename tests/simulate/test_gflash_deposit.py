import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.simulate.gflash.column import column_of
from caloforge.simulate.gflash.deposit import develop, draw_spots, spot_spectrum, to_cells


def shower(name, n, energy, theta, seed=0):
    """Spots of n typical showers."""
    detector = get_detector(name)
    column = column_of(detector)
    primaries = detector.beam.replace(energy=energy, theta=theta).sample(seed, 0, n)
    response = develop(
        column, detector.beam.particle, primaries.energy, primaries.theta, np.zeros((n, 2)), np.ones(n)
    )
    spots = draw_spots(column, response, primaries, 0.9, np.random.default_rng(seed))
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
