"""What the numbers of a foreign file mean: its units, found and judged on a sample of its showers.

A unit is the user's, the file's or its format's; one that none of them knows is taken when it is the only one with which the showers are plausible
(:mod:`caloforge.showers.plausibility`), and otherwise the file is refused. The sample is from the beginning, the middle and the end of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.formats.base import ANGLE_UNITS, ANGLES, ENERGY_UNITS, ReadOptions, Rows, Table
from caloforge.geometry import Detector
from caloforge.showers import hdf5
from caloforge.showers.plausibility import SAMPLE, Finding, check_angles, check_axes, check_energies
from caloforge.units import EnergySpec

__all__ = ["Interpretation"]

_GUESSED = ("MeV", "GeV")
_PARTS = 3  # of the sample


class Interpretation:
    """The way from the rows of a table to MeV and degrees.

    Arguments:
        table: An open file, bound to a detector.
        detector: That detector.
        axes: Order of the cells' axes, empty where there is none.
        options: What the user says.
        particle: Incident particle, empty when not known.

    Attributes:
        read_as: Texts that say how the file is understood; those that were guessed end with "(guessed)".
        implausible: What looks wrong, without a known cause or allowed by the user, or an empty text.

    Raises:
        FileFormatError: When energies or units are missing, or the showers are implausible; names the option that settles it.
    """

    def __init__(
        self, table: Table, detector: Detector, axes: str, options: ReadOptions, particle: str
    ) -> None:
        self._table, self._detector, self._options, self._particle = table, detector, options, particle
        self.read_as: list[str] = []
        self.implausible = ""
        self._settle(axes)

    def cells(self, rows: Rows) -> NDArray[np.float32]:
        """Return cells (n, n_cells), MeV."""
        scale = ENERGY_UNITS[self._cell_unit] * self._options.cell_scale
        cells = np.ascontiguousarray(rows.cells)
        if scale != 1.0:
            cells = (cells.astype(np.float64) * scale).astype(np.float32)
        return np.maximum(cells, np.float32(0)) if self._options.clip_negative else cells

    def energies(self, rows: Rows) -> NDArray[np.float64]:
        """Return incident energies (n,), MeV."""
        return self._energies(rows, self._energy_unit)

    def angles(self, rows: Rows) -> NDArray[np.float64] | None:
        """Return angles (n,), degrees, 90 being perpendicular; None where there are none."""
        if self._options.theta is not None:
            return np.full(len(rows.cells), self._options.theta)
        if rows.theta is None:
            return None
        sign, zero = ANGLES[self._options.angle_from]
        return sign * rows.theta * ANGLE_UNITS[self._angle_unit] + zero

    def _settle(self, axes: str) -> None:
        """Fix the units, and judge a sample."""
        table, options = self._table, self._options
        sample = self._sample()
        if sample.energy is None and options.energy is None:
            table.reject(
                "",
                "has no incident energies; name them (--key energy=NAME), or give the one of all showers (--energy 50GeV)",
            )
        for what, own, given in (
            ("energy", sample.energy, options.energy),
            ("theta", sample.theta, options.theta),
        ):
            if own is not None and given is not None:
                table.reject("", f"has its own values of '{what}'; leave out --{what}")
        said = {
            "energy": options.energy_unit or table.energy_unit,
            "cells": options.cell_unit or table.cell_unit,
        }
        self._energy_unit, self._cell_unit = self._find_units(sample, said["energy"], said["cells"])
        self._angle_unit = self._find_angle_unit(sample)
        self.read_as.append(table.describe())
        for what, unit, known in (
            ("incident energies", self._energy_unit, said["energy"] or sample.energy is None),
            ("cells", self._cell_unit, said["cells"]),
            (
                "angles",
                self._angle_unit if sample.theta is not None else "",
                options.angle_unit or table.angle_unit,
            ),
        ):
            if unit:
                self.read_as.append(f"{what} {unit}" + ("" if known else " (guessed)"))
        if table.trusted:
            return
        finding = self._judge(sample, axes)
        if finding is not None and finding.clear and not options.allow_implausible:
            raise FileFormatError(table.path, "", f"{finding} (or accept it with --allow-implausible)")
        self.implausible = finding.message if finding is not None else ""

    def _sample(self) -> Rows:
        """Read some showers from the beginning, the middle and the end."""
        n = len(self._table)
        size = max(1, min(SAMPLE // _PARTS, hdf5.STREAM_BYTES // (4 * self._detector.n_cells)))
        starts = [0] if self._table.trusted else sorted({0, max(0, (n - size) // 2), max(0, n - size)})
        parts = [self._table.rows(start, min(start + size, n)) for start in starts]

        def joined(values: list[Any]) -> Any:
            return None if values[0] is None else np.concatenate(values)

        return Rows(
            joined([part.cells for part in parts]),
            joined([part.energy for part in parts]),
            joined([part.theta for part in parts]),
            {},
            joined([part.raw for part in parts]),
        )

    def _find_units(self, sample: Rows, energy: str | None, cells: str | None) -> tuple[str, str]:
        if sample.energy is None:
            energy = "MeV"
        if energy is not None and cells is not None:
            return energy, cells
        if energy is None and cells is None:
            self._table.reject(
                "",
                "does not say its units; give those of its incident energies (--energy-unit GeV) or of its cells (--cell-unit MeV)",
            )
        pairs = [(a, b) for a in ([energy] if energy else _GUESSED) for b in ([cells] if cells else _GUESSED)]
        good = [pair for pair in pairs if self._energy_finding(sample, *pair) is None]
        if len(good) != 1:
            missing, option = (
                ("cells", "--cell-unit") if cells is None else ("incident energies", "--energy-unit")
            )
            self._table.reject(
                "",
                f"the unit of its {missing} is not known: neither MeV nor GeV is plausible; settle it with {option}",
            )
        return good[0]

    def _energy_finding(self, sample: Rows, energy_unit: str, cell_unit: str) -> Finding | None:
        visible = sample.cells.sum(1, dtype=np.float64) * ENERGY_UNITS[cell_unit] * self._options.cell_scale
        incident = self._energies(sample, energy_unit)
        return check_energies(visible, incident, self._detector, self._particle)

    def _find_angle_unit(self, sample: Rows) -> str:
        unit = self._options.angle_unit or self._table.angle_unit
        if unit is not None or sample.theta is None:
            return unit or "deg"
        return "rad" if np.abs(sample.theta).max() <= np.pi + 1e-6 and sample.theta.any() else "deg"

    def _judge(self, sample: Rows, axes: str) -> Finding | None:
        """Return the first thing about a sample that cannot be right, or else the first that is unusual."""
        if not np.isfinite(sample.cells).all():
            return None  # named, with its row, when it is read
        theta = self.angles(sample)
        energies = self._energy_finding(sample, self._energy_unit, self._cell_unit)
        angles = None if theta is None else self._angle_finding(theta)
        order = None
        if angles is None and sample.raw is not None and axes:
            right = np.full(len(sample.cells), hdf5.PERPENDICULAR) if theta is None else theta
            order = check_axes(sample.raw, axes, self.energies(sample), right, self._detector, self._particle)
        found = [finding for finding in (energies, angles, order) if finding is not None]
        return min(found, key=lambda finding: not finding.clear, default=None)

    def _angle_finding(self, theta: NDArray[np.float64]) -> Finding | None:
        if ((theta > 0) & (theta < 180)).all():
            return check_angles(theta)
        other = "deg" if self._angle_unit == "rad" else "rad"
        shown = f"angles are {theta.min():.4g} to {theta.max():.4g} degrees; expected 0 to 180, 90 being perpendicular"
        return Finding(shown, f"settle it with --angle-unit {other} or --angle-from normal")

    def _energies(self, rows: Rows, unit: str) -> NDArray[np.float64]:
        if rows.energy is None:
            return np.full(len(rows.cells), EnergySpec.parse(self._options.energy or "").low)
        return rows.energy * ENERGY_UNITS[unit]
