"""Table and figure of the study, and what a training may expect from it.

Measurements of several seeds are averaged; their spread is the uncertainty where there are several, else the AUC's own error. How many showers from
nothing a start is worth follows from the curve of the starts from nothing, linear in ln(AUC - 1/2) against ln n and continued by its
nearest two points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from caloforge.studies.base import Figure, Row
from caloforge.studies.drawing import Margins, legend, panels
from caloforge.studies.efficiency.measure import START, Measured
from caloforge.validate.plots.panel import colour
from caloforge.validate.report.page import Cell, Table

__all__ = ["expected", "figure_of", "rows_of", "table_of", "texts_of", "worth"]

_MARKERS = "osD"
_LEAST = 1e-3  # of AUC - 1/2 in a logarithm


def expected(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the averages over the seeds, by detector, start and number of showers, as ``train/expected.toml`` has them."""
    groups: dict[tuple[str, str, int], list[Measured]] = defaultdict(list)
    for one in found:
        groups[one.detector, one.start, one.n].append(one)
    rows = []
    order = list(START)
    for (detector, start, n), same in sorted(
        groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]), item[0][2])
    ):
        auc = np.array([one.auc for one in same])
        error = float(auc.std(ddof=1) / np.sqrt(len(auc))) if len(auc) > 1 else same[0].auc_error
        needs = [one.detectability for one in same if one.detectability is not None]
        floors = [one.floor for one in same if one.floor is not None]
        rows.append(
            {
                "detector": detector,
                "cells": same[0].cells,
                "start": start,
                "showers": n,
                "auc": round(float(auc.mean()), 4),
                "auc_error": round(max(error, min(one.auc_error for one in same) / np.sqrt(len(same))), 4),
                "auc_cells": round(float(np.mean([one.auc_cells for one in same])), 4),
                **({"auc_floor": round(float(np.mean(floors)), 4)} if floors else {}),
                **(
                    {"detectability": round(float(np.exp(np.mean(np.log(needs)))))}
                    if len(needs) == len(same)
                    else {}
                ),
                "seconds": round(float(np.mean([one.seconds for one in same])), 1),
                "device": same[0].device,
                "trainings": len(same),
            }
        )
    return rows


def worth(rows: Sequence[dict[str, Any]], detector: str, auc: float) -> float | None:
    """Return the number of showers from nothing that give an AUC, None where the curve has fewer than two points or does not fall."""
    curve = [
        (row["showers"], row["auc"])
        for row in rows
        if row["detector"] == detector and row["start"] == "nothing"
    ]
    if len(curve) < 2:
        return None
    n = np.log([point[0] for point in curve])
    y = np.log(np.maximum([point[1] - 0.5 for point in curve], _LEAST))
    wanted = float(np.log(max(auc - 0.5, _LEAST)))
    k = int(np.clip(np.searchsorted(-y, -wanted), 1, len(y) - 1))
    slope = (y[k] - y[k - 1]) / (n[k] - n[k - 1])
    return float(np.exp(n[k] + (wanted - y[k]) / slope)) if slope < 0 else None


def rows_of(found: Sequence[Measured]) -> list[Row]:
    """Return the AUC of each detector, start and number."""
    rows = expected(found)
    out = []
    for row in rows:
        equal = None if row["start"] == "nothing" else worth(rows, row["detector"], row["auc"])
        note = f"detectability {row['detectability']:,} showers" if "detectability" in row else ""
        note += f"; as {equal:,.0f} showers from nothing" if equal else ""
        quantity = f"AUC of the observables, {row['showers']:,} showers, {START[row['start']]}"
        out.append(
            Row(quantity, row["auc"], row["auc_error"], note=note.removeprefix("; "), sample=row["detector"])
        )
    return out


def table_of(found: Sequence[Measured]) -> Table:
    """Return every training."""
    columns = (
        "detector",
        "start",
        "showers",
        "seed",
        "AUC, observables",
        "AUC, cells",
        "detectability",
        "seconds",
        "device",
    )
    rows: list[list[Cell | str | float]] = [
        [
            one.detector,
            f"{START[one.start]}" + (f" ({one.source})" if one.start == "detector" and one.source else ""),
            Cell(f"{one.n:,}", sort=float(one.n)),
            str(one.seed),
            Cell(f"{one.auc:.4f} ± {one.auc_error:.4f}", sort=one.auc),
            Cell(f"{one.auc_cells:.4f}", sort=one.auc_cells),
            Cell(
                "not reached" if one.detectability is None else f"{one.detectability:,.0f}",
                sort=one.detectability or float("inf"),
            ),
            Cell(f"{one.seconds:.0f}", sort=one.seconds),
            one.device,
        ]
        for one in sorted(
            found, key=lambda one: (one.detector, one.n, list(START).index(one.start), one.seed)
        )
    ]
    caption = "AUC of gradient boosting in two folds against Geant4 showers that the model has not seen; the detectability is the number of showers a side for five standard deviations."
    return Table(columns, rows, caption, texts=(0, 1, 8))


def texts_of(found: Sequence[Measured]) -> list[str]:
    """Return how it was measured, and what the starts are worth."""
    rows = expected(found)
    texts = [
        "Every number of showers includes those that were held out to choose epochs. Smaller sets are subsets of the larger ones. The reference "
        "showers were not used for any training or choice."
    ]
    for detector in dict.fromkeys(row["detector"] for row in rows):
        parts = []
        for row in rows:
            if row["detector"] == detector and row["start"] != "nothing":
                equal = worth(rows, detector, row["auc"])
                if equal:
                    parts.append(
                        f"{row['showers']:,} showers {START[row['start']]}: as {equal:,.0f} from nothing"
                    )
        if parts:
            texts.append(f"{detector}: {'; '.join(parts)}.")
    return texts


def figure_of(found: Sequence[Measured]) -> Figure:
    """Return AUC and detectability against the number of showers, a column a detector."""
    rows = expected(found)
    detectors = list(dict.fromkeys(row["detector"] for row in rows))

    def draw(pyplot: Any) -> Any:
        figure, axes = panels(pyplot, 2, len(detectors), width=3.4, height=2.6, margins=Margins(top=1.15))
        for column, detector in enumerate(detectors):
            for number, start in enumerate(START, 1):
                mine = [row for row in rows if row["detector"] == detector and row["start"] == start]
                style = {"color": colour(number), "marker": _MARKERS[number - 1], "linewidth": 1.5}
                n = [row["showers"] for row in mine]
                errors = [row["auc_error"] for row in mine]
                axes[0][column].errorbar(n, [row["auc"] for row in mine], errors, label=START[start], **style)
                known = [(row["showers"], row["detectability"]) for row in mine if "detectability" in row]
                axes[1][column].plot(
                    [k for k, _ in known], [d for _, d in known], label=START[start], **style
                )
            floors = [row["auc_floor"] for row in rows if row["detector"] == detector and "auc_floor" in row]
            if floors:
                axes[0][column].axhline(float(np.mean(floors)), color="0.6", linestyle=":")
            axes[0][column].set_title(detector, fontsize=12)
            axes[1][column].set_yscale("log")
            for row in range(2):
                axes[row][column].set_xscale("log")
        axes[0][0].set_ylabel("AUC, observables")
        axes[1][0].set_ylabel("showers a side to 5 σ")
        legend(figure, pyplot, list(START.values()), first=1)
        figure.supxlabel("Geant4 showers", fontsize=13)
        return figure

    caption = (
        "Above: AUC of gradient boosting on the observables; the dotted line is that between halves of Geant4. Below: detectability; larger is better, "
        "and points are missing where five standard deviations are not reached."
    )
    return Figure("data_efficiency", "Accuracy against the number of Geant4 showers", caption, draw)
