"""Checks on the values of showers: vectorised, and exact about the place of the first fault.

Each check returns None, or the first :class:`Fault`; the caller knows whether it came from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.showers.layout import CELLS, CONDITIONS, ENERGIES, THETA

__all__ = ["Fault", "check_cells", "check_condition", "check_energies", "check_theta", "check_values"]


@dataclass(frozen=True)
class Fault:
    """Where a value is wrong, and how.

    Arguments:
        where: Dataset and row.
        message: The value, and what was expected.
    """

    where: str
    message: str


def check_cells(cells: NDArray[np.float32], first_row: int = 0) -> Fault | None:
    """Find the first cell whose energy is negative or not finite.

    Arguments:
        cells: Energies (N, n_cells), MeV.
        first_row: Row of the file in which ``cells`` begins.
    """
    # The minimum and maximum of an array with a NaN are NaN, for which the comparison is false.
    if cells.size == 0 or (cells.min() >= 0 and cells.max() < np.inf):
        return None
    good = (cells >= 0) & (cells < np.inf)
    row = int(np.argmin(good.all(axis=1)))
    cell = int(np.argmin(good[row]))
    return Fault(
        f"dataset '{CELLS}', row {first_row + row}",
        f"cell {cell} holds {cells[row, cell]:g}; expected a finite energy in MeV that is not negative",
    )


def check_energies(energies: NDArray[np.float64], first_row: int = 0) -> Fault | None:
    """Find the first incident energy (N,) that is not finite and positive."""
    expected = "a finite incident energy in MeV above zero"
    return _first(energies, (energies > 0) & (energies < np.inf), ENERGIES, first_row, expected)


def check_theta(theta: NDArray[np.float64], first_row: int = 0) -> Fault | None:
    """Find the first angle (N,) that does not lie between 0 and 180 degrees."""
    expected = "an angle in degrees between 0 and 180 (90 is perpendicular to the front face)"
    return _first(theta, (theta > 0) & (theta < 180), THETA, first_row, expected)


def check_condition(name: str, values: NDArray[Any], first_row: int = 0) -> Fault | None:
    """Find the first row of a condition (N, k) that is not finite."""
    good = np.isfinite(values).all(axis=1)
    return _first(values, good, f"{CONDITIONS}/{name}", first_row, "finite values")


def check_values(
    cells: NDArray[np.float32],
    energies: NDArray[np.float64],
    theta: NDArray[np.float64],
    conditions: dict[str, NDArray[Any]],
    first_row: int = 0,
) -> Fault | None:
    """Return the first fault of a batch of showers, the cheap checks first."""
    fault = check_energies(energies, first_row) or check_theta(theta, first_row)
    for name, values in conditions.items():
        fault = fault or check_condition(name, values, first_row)
    return fault or check_cells(cells, first_row)


def _first(
    values: NDArray[Any], good: NDArray[np.bool_], dataset: str, first_row: int, expected: str
) -> Fault | None:
    if good.all():
        return None
    row = int(np.argmin(good))
    held = np.array2string(np.asarray(values[row]), precision=8)
    return Fault(f"dataset '{dataset}', row {first_row + row}", f"holds {held}; expected {expected}")
