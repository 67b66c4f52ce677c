"""Laws that observables obey: sums, shifts, known shapes, empty showers, what applies where."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from made_up import sparse_showers

from caloforge.errors import InputError, UnknownNameError
from caloforge.geometry import DETECTORS, get_detector
from caloforge.showers import Showers
from caloforge.validate.observables import OBSERVABLES, ObservableTable, observe

DETECTOR_NAMES = DETECTORS.names()


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_empty_showers_are_defined_without_a_warning(name: str) -> None:
    detector = get_detector(name)
    conditions = {key: np.zeros((3, 1)) for key, _ in detector.beam.alignments}
    showers = Showers(detector, np.zeros((3, detector.n_cells)), np.full(3, 5e4), None, conditions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = observe(showers)
        assert not table["visible_energy"].any()
    for key in table.names:
        missing = np.isnan(table[key])
        assert missing.all() if OBSERVABLES[key].missing else not missing.any(), key


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_every_detector_has_its_observables_or_says_why_not(name: str) -> None:
    table = observe(sparse_showers(name, n=4, hits=40))
    assert set(table.names) | set(table.skipped) == set(OBSERVABLES.names())
    assert not set(table.names) & set(table.skipped)
    assert all(table.skipped.values())
    for key in table.names:
        values, observable = table[key], OBSERVABLES[key]
        assert (values.ndim == 1) == observable.is_scalar
        edges = observable.edges(table.detector)
        if edges is not None:
            assert values.shape[1] == len(edges) - 1 + 2 * observable.counts
            assert (np.diff(edges) > 0).all()
        if not observable.missing:
            assert np.isfinite(values).all()


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_all_profiles_sum_to_the_visible_energy(name: str) -> None:
    table = observe(sparse_showers(name, n=5, hits=80, seed=5))
    for key in ("layer_energy", "x_profile", "y_profile", "radial_profile"):
        if key in table:
            np.testing.assert_allclose(
                table[key].sum(axis=1), table["visible_energy"], rtol=1e-6, err_msg=key
            )
    hits = (1 - table["sparsity"]) * table.detector.n_cells
    np.testing.assert_allclose(table["cell_spectrum"].sum(axis=1), hits)


def test_a_skipped_observable_says_why() -> None:
    table = observe(sparse_showers("ild-ecal-10x10"))
    assert "shower_depth" in table.skipped
    with pytest.raises(InputError, match="needs 2 layers"):
        table["shower_depth"]
    with pytest.raises(UnknownNameError):
        table["no_such_observable"]


def test_depths_in_mm_are_asked_for_where_angles_are() -> None:
    skipped = observe(sparse_showers("calochallenge-1-photons")).skipped
    assert "not published" in skipped["angle_axis"]
    assert "not published" in skipped["angle_barycentres"]


def _line(theta: float) -> ObservableTable:
    """Observe one hit a layer in the cell nearest to a straight line."""
    detector = get_detector("ild-ecal-angled")
    cells = np.zeros((1, *detector.shape), np.float32)
    for index, layer in enumerate(detector.layers):
        y = detector.beam.y + layer.z / np.tan(np.radians(theta))
        cells[0, 15, np.abs(layer.y - y).argmin(), index] = 1.0
    return observe(Showers(detector, cells.reshape(1, -1), [5e4], [theta]))


@pytest.mark.parametrize("theta", [90.0, 75.0, 60.0, 50.0])
def test_a_straight_track_has_its_angle(theta: float) -> None:
    table = _line(theta)
    assert table["angle_barycentres"][0] == pytest.approx(theta, abs=1.0)
    assert table["angle_axis"][0] == pytest.approx(theta, abs=1.0)
    assert table["radius_90"][0] < 6.0  # two cells: the track is its own axis
    np.testing.assert_allclose(table["layer_centre_r"][0], 0.0, atol=3.6)


def test_a_shift_by_a_cell_moves_centres_and_nothing_else() -> None:
    showers = sparse_showers("clic-ecal", n=5, hits=300)
    grid = showers.grid().copy()
    grid[:, 20:] = 0
    moved = np.roll(grid, 2, axis=1)
    before = observe(showers.replace(cells=grid.reshape(5, -1)))
    after = observe(showers.replace(cells=moved.reshape(5, -1)))
    np.testing.assert_allclose(after["centre_x"], before["centre_x"] + 2 * 5.1)
    for name in (
        "centre_y",
        "second_moment_x",
        "third_moment_x",
        "radius_90",
        "depth_90",
        "angle_barycentres",
    ):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-7, atol=1e-6, err_msg=name)


def test_cells_that_move_with_the_alignment_are_taken_where_they_are() -> None:
    detector = get_detector("atlas-em-barrel")
    rng = np.random.default_rng(2)
    cells = np.tile(rng.exponential(1.0, (1, 266)).astype(np.float32), (8, 1))
    conditions = {"alignment_phi": np.arange(8) % 4, "alignment_eta": np.arange(8) // 4}
    showers = Showers(detector, cells, np.full(8, 1e4), None, conditions)
    shift = detector.layer_shift(showers.conditions)
    assert shift is not None
    assert shift.any()
    table = observe(showers)
    for axis, name in enumerate("xy"):
        values = table[f"layer_centre_{name}"]
        relative = values - shift[:, :, axis]
        np.testing.assert_allclose(relative, relative[:1].repeat(8, axis=0), atol=1e-4)
        assert np.ptp(values, axis=0).max() > 1.0


def test_energy_scales_out_of_shapes() -> None:
    showers = sparse_showers("atlas-em-barrel", n=6, hits=100)
    one, four = observe(showers), observe(showers.replace(cells=4 * showers.cells))
    for name in (
        "layer_fraction",
        "shower_depth",
        "depth_90",
        "radius_90",
        "centre_x",
        "second_moment_z",
        "angle_axis",
    ):
        np.testing.assert_allclose(four[name], one[name], rtol=1e-6, equal_nan=True, err_msg=name)
    for name in (
        "visible_energy",
        "response",
        "peak_energy",
        "layer_energy",
        "x_profile",
        "core_mean",
        "core_std",
    ):
        np.testing.assert_allclose(four[name], 4 * one[name], rtol=1e-6, err_msg=name)


def test_all_energy_in_the_last_layer_is_contained_in_it() -> None:
    detector = get_detector("ild-ecal")
    cells = np.zeros((2, *detector.shape), np.float32)
    cells[0, 15, 15, -1] = 7.0
    cells[1, 15, 15, 0] = 7.0
    table = observe(Showers(detector, cells.reshape(2, -1), np.full(2, 5e4)))
    first, last = detector.layers[0].z, detector.layers[-1].z
    assert detector.layers[-2].z < table["depth_90"][0] < last
    assert table["depth_90"][1] < first
    np.testing.assert_array_equal(table["shower_start"], [29, 0])
    np.testing.assert_allclose(table["centre_z"], [last, first])
