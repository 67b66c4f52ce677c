"""Numbers of the study for people: the comparison beside the paper's two columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caloforge.generate.timing import GeneratorTime
from caloforge.studies.base import Row
from caloforge.studies.papers import paper, paper_values
from caloforge.studies.shapes.figures import (
    SimulationTime,
)
from caloforge.validate.metrics.base import Value, jsonable
from caloforge.validate.report.page import Cell, Table
from caloforge.validate.shape_tests import CoreRatios, CoreWindow, ShapeTests

__all__ = ["Shapes", "comparison_table", "sampling_table", "summary_rows"]

_PUBLISHED = {"conv3d-gan": "conv3d"}
_HIGH = 0.8  # the paper's "above 80 %"


@dataclass(frozen=True, eq=False)
class Shapes:
    """Everything about one generated sample.

    Attributes:
        label: Its name.
        n: Its showers.
        parameters: That sampling needs; None for a file.
        members: Members of an ensemble; None for a file.
        time: None for a file.
        mse: Shower-shape MSE.
        sampling: ``reference``, ``generated`` and ``ratio``, whose detail holds the energies.
        core: Core cells.
        tests: Kolmogorov-Smirnov probabilities.
    """

    label: str
    n: int
    parameters: int | None
    members: int | None
    time: GeneratorTime | None
    mse: Any
    sampling: Any
    core: CoreRatios
    tests: ShapeTests

    def speedup(self, geant4: SimulationTime) -> float | None:
        """Return how many showers it makes while Geant4 makes one."""
        if self.time is None or geant4.seconds is None or self.time.cost_ms <= 0:
            return None
        return 1000.0 * geant4.seconds / self.time.cost_ms

    @property
    def worst_sampling(self) -> Value | None:
        """The largest deviation of the sampling fraction over the energies, a ratio minus 1."""
        bins = self.sampling["ratio"].detail["bins"]
        known = [entry for entry in bins if np.isfinite(entry["ratio"])]
        if not known:
            return None
        worst = max(known, key=lambda entry: abs(entry["ratio"] - 1))
        return Value(worst["ratio"] - 1, worst["ratio_uncertainty"], detail={"energy": worst["energy"]})

    def high_probability(self, profiles: bool) -> tuple[float, float]:
        """Return median probability, and the part above 80 %, of the mean shapes or of the quantities."""
        rows = slice(0, self.tests.n_profiles) if profiles else slice(self.tests.n_profiles, None)
        p = self.tests.p[rows]
        p = p[np.isfinite(p)]
        if p.size == 0:
            return float("nan"), float("nan")
        return float(np.median(p)), float((p > _HIGH).mean())

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        tests = self.tests
        return {
            "n": self.n,
            "parameters": self.parameters,
            "members": self.members,
            "time": None if self.time is None else asdict(self.time),
            "shape_mse": jsonable(self.mse),
            "sampling_fraction": jsonable(self.sampling),
            "core_cells": {
                "n": self.core.n,
                "mean_ratio": [self.core.mean, self.core.mean_error],
                "std_ratio": [self.core.std, self.core.std_error],
                "floor": list(self.core.floor),
            },
            "ks": {
                shape: {"p": tests.p[index], "statistic": tests.statistic[index]}
                for index, shape in enumerate(tests.shapes)
            },
        }


def summary_rows(
    found: Sequence[Shapes], geant4: SimulationTime, window: CoreWindow, reference: str
) -> list[Row]:
    """Return our numbers, beside those of the paper's Conv2D, for a Conv3D GAN of the Conv3D."""
    rows = [Row("Geant4, a shower", geant4.seconds, None, "shapes.geant4", "s", geant4.how, reference)]
    for one in found:
        rows += [*_speed_rows(one, geant4), *_quality_rows(one, window)]
    return rows


def published_as(label: str) -> str:
    """Return which of the paper's two generators stands beside a sample: the Conv2D, unless it is named as the other."""
    return _PUBLISHED.get(label.rpartition("/")[2], "conv2d")


def _speed_rows(one: Shapes, geant4: SimulationTime) -> list[Row]:
    if one.time is None or one.parameters is None:
        return []
    what = (
        f"processor time, {one.time.wall_ms:.3g} ms by the clock"
        if one.time.device == "cpu"
        else "by the clock"
    )
    note = f"{what}; batch {one.time.batch} on {one.time.device}, median of {one.time.repeats}"
    paper_is = published_as(one.label)
    members = "" if one.members == 1 else f"each of {one.members} members"
    speedup = one.speedup(geant4)
    kind = "processor time on both sides" if one.time.device == "cpu" else "a GPU against one core"
    return [
        Row(
            "generator's parameters",
            one.parameters / 1e6,
            None,
            f"shapes.parameters_{paper_is}",
            "million",
            members,
            one.label,
        ),
        Row(
            "time a shower",
            one.time.cost_ms,
            one.time.cost_error,
            f"shapes.time_{paper_is}",
            "ms",
            note,
            one.label,
        ),
        Row(
            "speed-up against Geant4",
            speedup,
            None,
            f"shapes.speedup_{paper_is}",
            "",
            kind if speedup is not None else geant4.how,
            one.label,
        ),
    ]


def _quality_rows(one: Shapes, window: CoreWindow) -> list[Row]:
    ratio, worst = one.sampling["ratio"], one.worst_sampling
    at = (
        ""
        if worst is None
        else f"worst: {100 * worst.value:+.2f} % at {worst.detail['energy'] / 1000:.3g} GeV"
    )
    paper_is = published_as(one.label)
    shapes, share = one.high_probability(True)
    quantities, high = one.high_probability(False)
    core_note = f"{window.text}, {window.n} and {one.core.n} showers; halves of the reference "
    return [
        Row(
            "shower-shape MSE",
            one.mse.value,
            one.mse.uncertainty,
            f"shapes.mse_{paper_is}",
            note="" if one.mse.floor is None else f"halves of the reference: {one.mse.floor:.2g}",
            sample=one.label,
        ),
        Row(
            "sampling fraction over the reference's",
            ratio.value,
            ratio.uncertainty,
            note=at,
            sample=one.label,
        ),
        Row(
            "core cells, ratio of means",
            _known(one.core.mean),
            one.core.mean_error,
            f"shapes.mean_ratio_{paper_is}",
            note=f"{core_note}{one.core.floor[0]:.3f}",
            sample=one.label,
        ),
        Row(
            "core cells, ratio of standard deviations",
            _known(one.core.std),
            one.core.std_error,
            f"shapes.std_ratio_{paper_is}",
            note=f"{core_note}{one.core.floor[1]:.3f}",
            sample=one.label,
        ),
        Row(
            "median KS probability of the mean shapes",
            _known(100 * shapes),
            None,
            "shapes.ks_conv2d",
            "%",
            f"{100 * share:.0f} % of shapes and energies above 80 %"
            if np.isfinite(share)
            else "too few showers",
            one.label,
        ),
        Row(
            "median KS probability of quantities of each shower",
            _known(100 * quantities),
            None,
            None,
            "%",
            f"{100 * high:.0f} % above 80 %; 50 and 20 % expected of equal distributions"
            if np.isfinite(high)
            else "too few showers",
            one.label,
        ),
    ]


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


_LINES: tuple[tuple[str, str, Callable[[Shapes, SimulationTime], tuple[float | None, float | None]]], ...] = (
    ("generator's parameters [million]", "parameters", lambda s, g: (_millions(s.parameters), None)),
    (
        "time a shower [ms]",
        "time",
        lambda s, g: (None, None) if s.time is None else (s.time.cost_ms, s.time.cost_error),
    ),
    ("speed-up against Geant4", "speedup", lambda s, g: (s.speedup(g), None)),
    ("shower-shape MSE", "mse", lambda s, g: (s.mse.value, s.mse.uncertainty)),
    ("core cells, ratio of means", "mean_ratio", lambda s, g: (s.core.mean, s.core.mean_error)),
    ("core cells, ratio of standard deviations", "std_ratio", lambda s, g: (s.core.std, s.core.std_error)),
    (
        "median KS probability of mean shapes [%]",
        "ks",
        lambda s, g: (100 * s.high_probability(True)[0], None),
    ),
)
"""Line of the table, name in ``papers.toml``, and where our number and its error are."""


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def comparison_table(found: Sequence[Shapes], geant4: SimulationTime, window: CoreWindow) -> Table:
    """Return the paper's table with our columns."""
    known: Mapping[str, Any] = paper_values("shapes")
    rows = []
    for title, name, value in _LINES:
        cells: list[Cell | str | float] = [title]
        for one in found:
            ours, error = value(one, geant4)
            cells.append(_cell(ours, error))
        for column in ("conv2d", "conv3d"):
            key = f"{name}_{column}"
            cells.append(Cell(paper(f"shapes.{key}").text if key in known else ""))
        rows.append(cells)
    columns = ("", *(one.label for one in found), "Conv2D (paper)", "Conv3D (paper)")
    return Table(
        columns, rows, f"Core cells at {window.text}. Geant4: {geant4.how}. The paper's times are a V100's."
    )


def sampling_table(found: Sequence[Shapes]) -> Table:
    """Return the sampling fraction in bins of energy."""
    rows = []
    for one in found:
        for entry in one.sampling["ratio"].detail["bins"]:
            rows.append(
                [
                    Cell(one.label),
                    Cell(
                        "-" if entry["energy"] is None else f"{entry['energy'] / 1000:.4g}",
                        sort=entry["energy"],
                    ),
                    Cell(f"{entry['n_reference']} / {entry['n_generated']}"),
                    _cell(entry["reference"], entry["reference_uncertainty"]),
                    _cell(entry["generated"], entry["generated_uncertainty"]),
                    _cell(entry["ratio"], entry["ratio_uncertainty"]),
                ]
            )
    return Table(("sample", "energy [GeV]", "showers", "reference", "generated", "ratio"), rows)


def _cell(value: float | None, error: float | None) -> Cell:
    if value is None or not np.isfinite(value):
        return Cell("-")
    if error is None or not np.isfinite(error) or error <= 0:
        return Cell(f"{value:.4g}", sort=float(value))
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return Cell(f"{value:.{digits}f} ± {error:.{digits}f}", sort=float(value))
