"""Detectability and feature importance: how many showers distinguish a generator from the reference, and by what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from caloforge.validate.plots.panel import Bars, Growth, GrowthCurve, Mark
from caloforge.validate.report.interactive import bars_figure, growth_figure
from caloforge.validate.report.page import Block, Cell, Plot, Table, format_value
from caloforge.validate.report.statements import features_of

__all__ = ["detectability_blocks", "detectability_figures", "growth_curves"]

_MOST_BARS = 12
_MOST_ROWS = 20
_SIGMAS = (("2 sigma", "n_2sigma"), ("5 sigma", "n_5sigma"))


def detectability_figures(metrics: Mapping[str, Any]) -> list[Growth | Bars]:
    """Return the AUC against the number of showers, and each sample's most important features; none where not measured."""
    figures: list[Growth | Bars] = []
    curves = growth_curves(metrics)
    if curves:
        note = "Dashed: extrapolated, with its 68 % band. Bars at the marks: 68 % range of the number of showers."
        title = f"How many showers tell it from {metrics['reference']['label']}"
        figures.append(Growth("detectability", title, tuple(curves), note))
    for number, (label, sample) in enumerate(metrics["samples"].items(), start=1):
        rows = features_of(sample)[:_MOST_BARS]
        if rows:
            text = f"attribution_{number}", f"Most important features of {label}", "loss of AUC when permuted"
            names, kinds = tuple(_feature(row) for row in rows), tuple(str(row["kind"]) for row in rows)
            errors = np.array([float(row.get("uncertainty") or 0.0) for row in rows])
            figures.append(
                Bars(*text, names, kinds, np.array([float(row["importance"]) for row in rows]), errors)
            )
    return figures


def growth_curves(metrics: Mapping[str, Any]) -> list[GrowthCurve]:
    """Return the measured and extrapolated AUC of every sample that has one."""
    curves = []
    for role, (label, sample) in enumerate(metrics["samples"].items(), start=1):
        detail = sample.get("detectability", {}).get("detail", {})
        if not detail.get("sizes"):
            continue
        showers, auc, error = (
            np.array(detail[key], np.float64) for key in ("sizes", "auc", "auc_uncertainty")
        )
        line = detail.get("extrapolation") or {}
        grid, fitted, lower, upper = (np.array(line.get(key, [])) for key in ("sizes", "auc", "low", "high"))
        band = grid, fitted, lower, upper
        x, y = (grid, fitted) if len(grid) else (showers, auc)
        marks = []
        for name, key in _SIGMAS:
            found = detail.get(key) or {}
            if found.get("value"):
                n = float(found["value"])
                at = np.interp(math.log(n), np.log(x), y)
                marks.append(
                    Mark(name, n, float(found.get("low") or n), float(found.get("high") or n), float(at))
                )
        measured = showers, auc, np.nan_to_num(error)
        curves.append(GrowthCurve(role, label, *measured, *band, tuple(marks)))
    return curves


def _feature(row: Mapping[str, Any]) -> str:
    return str(row["feature"]).replace("_", " ")


def detectability_blocks(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the figures and the table of the section, empty when nothing of it was measured."""
    blocks: list[Block] = []
    for figure in detectability_figures(metrics):
        drawn = growth_figure(figure) if isinstance(figure, Growth) else bars_figure(figure)
        blocks.append(Plot(drawn, figure.note, figure.title, isinstance(figure, Growth), key=figure.name))
    rows = [
        [Cell(label), Cell(_feature(row)), Cell(str(row["kind"])), Cell(format_value(row["importance"], row.get("uncertainty")), row["importance"])]
        for label, sample in metrics["samples"].items()
        for row in features_of(sample)[:_MOST_ROWS]
    ]  # fmt: skip
    if rows:
        caption = "Loss of AUC when a feature's values are permuted among the showers, above 3 standard deviations; correlated features share it."
        columns = ["Sample", "Feature", "Kind", "Importance"]
        blocks.append(Table(columns, rows, caption, key="attribution-table", texts=(0, 1, 2)))
    return blocks
