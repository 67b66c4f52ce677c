r"""Accuracy to expect of ``flow-matching`` for a number of Geant4 training showers, from measurements of the study ``data-efficiency``.

``expected.toml`` has a row for each detector, start and number of showers. In between, :math:`\ln(A - 1/2)` of the AUC A, and the logarithm of the number of
showers that distinguish the model at 5 standard deviations, are taken as linear in the logarithm of the number of training showers; beyond both ends
as constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.text_files import read_toml
from caloforge.units import say_seconds

__all__ = ["Expected", "expected_accuracy"]

_TABLE = Path(__file__).with_name("expected.toml")
_LEAST = 1e-3  # least AUC - 0.5, so that it has a logarithm


@dataclass(frozen=True)
class Expected:
    """An estimate of the accuracy."""

    auc: float  # of the observables, by gradient boosting
    floor: float  # the same for two samples of Geant4
    detectability: float | None  # showers a side for 5 standard deviations; None where not measured
    detector: str  # on whose showers it was measured
    cells: int  # of that detector
    measured: tuple[int, int]  # fewest and most showers that were trained on
    inside: bool  # whether the number of showers is between these
    training: str  # how long on what

    def __str__(self) -> str:
        showers = (
            "" if self.detectability is None else f", {self.detectability:,.0f} showers a side to 5 sigma"
        )
        low, high = self.measured
        beyond = "" if self.inside else "; here the nearest of these"
        return (
            f"AUC of the observables about {self.auc:.2f} (floor {self.floor:.2f}){showers}: an estimate from {self.detector} "
            f"({self.cells:,} cells), measured with {low:,} to {high:,} showers{beyond}, trained for {self.training}"
        )


def expected_accuracy(
    showers: int, cells: int, start: str = "nothing", table: Path | None = None
) -> Expected | None:
    """Return what to expect of a training, from the detector whose number of cells is nearest; None where nothing was measured.

    Arguments:
        showers: Geant4 showers, those held out included.
        cells: Cells of the detector.
        start: What the training begins from: ``nothing``, ``gflash``, ``detector``.
        table: TOML file of the measurements; by default the package's.
    """
    path = _TABLE if table is None else table
    rows = (
        [row for row in read_toml(path).get("measured", []) if row["start"] == start]
        if path.is_file()
        else []
    )
    if not rows:
        return None
    near = min(rows, key=lambda row: abs(math.log(row["cells"] / cells)))
    rows = sorted(
        (row for row in rows if row["detector"] == near["detector"]), key=lambda row: row["showers"]
    )
    low, high = int(rows[0]["showers"]), int(rows[-1]["showers"])
    last = min(rows, key=lambda row: abs(math.log(row["showers"] / showers)))
    return Expected(
        0.5 + math.exp(_at(showers, rows, [max(_LEAST, row["auc"] - 0.5) for row in rows])),
        float(last["auc_floor"]),
        _detectability(showers, rows),
        str(near["detector"]),
        int(near["cells"]),
        (low, high),
        low <= showers <= high,
        f"{say_seconds(last['seconds'])} on {last['device']}",
    )


def _detectability(showers: int, rows: Sequence[Mapping[str, Any]]) -> float | None:
    known = [row for row in rows if row.get("detectability")]
    return (
        math.exp(_at(showers, known, [row["detectability"] for row in known]))
        if len(known) == len(rows)
        else None
    )


def _at(showers: int, rows: Sequence[Mapping[str, Any]], values: Sequence[float]) -> float:
    """Return the interpolated logarithm of some values at a number of showers."""
    return float(np.interp(math.log(showers), np.log([row["showers"] for row in rows]), np.log(values)))
