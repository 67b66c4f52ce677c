"""The checks on values, against a loop over every one of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caloforge.showers.hdf5 import CONDITIONS, ENERGIES, THETA, check_cells, check_column, check_columns

IMPACT = f"{CONDITIONS}/impact"
CELL = st.sampled_from([0.0, 1.5, 3e38, -0.0, -1e-30, -2.0, math.nan, math.inf, -math.inf])


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=CELL))
def test_the_first_bad_cell_against_a_loop(cells: np.ndarray) -> None:
    wrong = [
        (row, cell)
        for row in range(len(cells))
        for cell in range(cells.shape[1])
        if not (cells[row, cell] >= 0 and math.isfinite(cells[row, cell]))
    ]
    fault = check_cells(cells, first_row=100)
    if not wrong:
        assert fault is None
    else:
        assert fault is not None
        assert fault.where == f"dataset 'showers', row {100 + wrong[0][0]}"
        assert f"cell {wrong[0][1]} is {cells[wrong[0]]:g};" in fault.message


@pytest.mark.parametrize("value", [0.0, -5.0, math.nan, math.inf])
def test_bad_energies(value: float) -> None:
    fault = check_column(ENERGIES, np.array([1.0, 2.0, value, value]), 10)
    assert fault is not None
    assert fault.where == "dataset 'incident_energies', row 12"
    assert "expected a finite incident energy in MeV above zero" in fault.message
    assert check_column(ENERGIES, np.array([1e-3, 1e9])) is None


@pytest.mark.parametrize("value", [0.0, 180.0, -30.0, 200.0, math.nan])
def test_bad_angles(value: float) -> None:
    fault = check_column(THETA, np.array([value, 90.0]))
    assert fault is not None
    assert fault.where == "dataset 'incident_theta', row 0"
    assert "between 0 and 180" in fault.message
    assert check_column(THETA, np.array([0.1, 179.9])) is None


def test_bad_condition() -> None:
    fault = check_column(IMPACT, np.array([[0, 1], [2, np.nan]], np.float32), 4)
    assert fault is not None
    assert fault.where == "dataset 'conditions/impact', row 5"
    assert check_column(IMPACT, np.zeros((3, 2), np.float32)) is None


def test_every_column_is_checked() -> None:
    columns = {ENERGIES: np.ones((2, 1)), THETA: np.full((2, 1), 90.0), IMPACT: np.ones((2, 2), np.float32)}
    assert check_columns(columns) is None
    for name, values in columns.items():
        assert check_columns(columns | {name: values * np.nan}) is not None
    assert check_columns({name: values[:0] for name, values in columns.items()}) is None
