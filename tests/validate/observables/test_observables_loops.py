"""Every observable against the slow loop that spells out its definition, on every kind of detector."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import sparse_showers
from slow_observables import BINNED, LAYERS, SCALARS, THRESHOLD, Shower, core

from caloforge.showers import Showers
from caloforge.validate.observables import (
    OBSERVABLES,
    ObservableTable,
    beam_window,
    observe,
    tracked_cells,
)

SETUPS = {
    "ild-ecal-angled": True,
    "clic-ecal": False,
    "clic-ecal-wide": True,
    "ild-ecal-10x10": False,
    "atlas-em-barrel": False,
    "calochallenge-1-photons": False,
    "calochallenge-1-pions": False,
    "calochallenge-2": False,
    "calochallenge-3": False,
}


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def observed(request: pytest.FixtureRequest) -> tuple[Showers, ObservableTable, list[Shower]]:
    showers = sparse_showers(request.param, theta=SETUPS[request.param])
    return showers, observe(showers, threshold=THRESHOLD), [Shower(showers, i) for i in range(len(showers))]


def _compare(name: str, table: ObservableTable, expected: list, tolerance: float) -> None:
    if name in table.skipped:
        return
    expected = np.array(expected, float)
    scale = np.nanmax(np.abs(expected)) if np.isfinite(expected).any() else 1.0
    assert table[name].shape == expected.shape
    np.testing.assert_allclose(
        table[name], expected, rtol=tolerance, atol=tolerance * max(scale, 1e-12), err_msg=name
    )


def test_all_are_covered_by_a_loop() -> None:
    assert {*SCALARS, *LAYERS, *BINNED, "core_mean", "core_std", "core_cells"} == set(OBSERVABLES.names())


def test_numbers_a_shower(observed: tuple[Showers, ObservableTable, list[Shower]]) -> None:
    _, table, slow = observed
    for name, function in SCALARS.items():
        if name not in table.skipped:
            _compare(name, table, [function(shower) for shower in slow], 1e-9)


def test_numbers_a_layer(observed: tuple[Showers, ObservableTable, list[Shower]]) -> None:
    _, table, slow = observed
    for name, function in LAYERS.items():
        # a width is the root of a difference: rounding of 1e-16 of the square shows as 1e-8 of the position
        tolerance = 2e-6 if "width" in name else 2e-7
        _compare(name, table, [function(shower) for shower in slow], tolerance)


def test_numbers_a_bin(observed: tuple[Showers, ObservableTable, list[Shower]]) -> None:
    _, table, slow = observed
    for name, function in BINNED.items():
        edges = OBSERVABLES[name].edges(table.detector)
        _compare(name, table, [function(shower, edges) for shower in slow], 2e-7)


def _kept(showers: Showers) -> np.ndarray:
    """Return the cells after the detector's cut."""
    return np.where(showers.cells < showers.detector.evaluation_cut, np.float32(0), showers.cells)


def test_core_cells(observed: tuple[Showers, ObservableTable, list[Shower]]) -> None:
    showers, table, slow = observed
    cells = _kept(showers)
    np.testing.assert_array_equal(table["core_cells"], cells[:, tracked_cells(showers.detector)])
    if showers.detector.is_grid:
        expected = np.array([core(shower) for shower in slow])
    else:
        expected = cells[:, beam_window(showers.detector)].astype(float)
    np.testing.assert_allclose(table["core_mean"], expected.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(table["core_std"], expected.std(axis=1), rtol=1e-9)


def test_cell_statistics(observed: tuple[Showers, ObservableTable, list[Shower]]) -> None:
    showers, table, _ = observed
    cells = _kept(showers).astype(float)
    np.testing.assert_allclose(table.cells.mean, cells.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(table.cells.std, cells.std(axis=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table.cells.occupancy, (cells > 0).mean(axis=0))


def test_cells_below_the_cut_are_empty_everywhere() -> None:
    showers = sparse_showers("calochallenge-1-pions", seed=3)
    cleaned = showers.replace(cells=np.where(showers.cells < 1.5, 0, showers.cells))
    one, other = observe(showers, cut=1.5), observe(cleaned)
    for name in one.names:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    np.testing.assert_array_equal(one.cells.mean, other.cells.mean)


def test_the_core_of_the_clic_grid_is_that_of_the_paper() -> None:
    grid = np.zeros((25, 25, 25), bool)
    grid[10:17, 10:17, 10:17] = True
    showers = sparse_showers("clic-ecal", n=1)
    np.testing.assert_array_equal(beam_window(showers.detector), np.flatnonzero(grid.reshape(-1)))
