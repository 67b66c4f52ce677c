"""Detectability and feature importance: how many showers distinguish a generator from the reference, and by what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from caloforge.validate.plots.growth import KINDS, Bars, Growth, GrowthCurve, Mark
from caloforge.validate.plots.panel import BAND, INK, colour, marker
from caloforge.validate.report.interactive import AXIS, LAYOUT, LEGEND, packed
from caloforge.validate.report.page import Block, Cell, Plot, Table, format_count, format_value
from caloforge.validate.report.similarity import features_of

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
        band = [np.array(line.get(key, []), np.float64) for key in ("sizes", "auc", "low", "high")]
        x, y = (band[0], band[1]) if len(band[0]) else (showers, auc)
        marks = []
        for name, key in _SIGMAS:
            found = detail.get(key) or {}
            if found.get("value"):
                n = float(found["value"])
                at = np.interp(math.log(n), np.log(x), y)
                marks.append(
                    Mark(name, n, float(found.get("low") or n), float(found.get("high") or n), float(at))
                )
        curves.append(GrowthCurve(role, label, showers, auc, np.nan_to_num(error), *band, tuple(marks)))
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


def growth_figure(growth: Growth) -> dict[str, Any]:
    """Return a plotly figure of the AUC against the number of showers."""
    data: list[dict[str, Any]] = []
    annotations = []
    for curve in growth.curves:
        shade = colour(curve.role)
        base = {"type": "scatter", "legendgroup": curve.label, "name": curve.label}
        if len(curve.line_showers):
            x = np.concatenate([curve.line_showers, curve.line_showers[::-1]])
            y = np.concatenate([curve.high, curve.low[::-1]])
            data.append(base | {"x": packed(x), "y": packed(y), "mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": shade, "opacity": 0.2, "hoverinfo": "skip", "showlegend": False})  # fmt: skip
            for part, dashes in zip(curve.parts(), ("solid", "dash"), strict=True):
                data.append(base | {"x": packed(curve.line_showers[part]), "y": packed(curve.line[part]), "mode": "lines", "line": {"color": shade, "width": 1.6, "dash": dashes}, "hoverinfo": "skip", "showlegend": False})  # fmt: skip
        data.append(base | {
            "x": packed(curve.showers), "y": packed(curve.auc), "mode": "markers",
            "marker": {"color": shade, "symbol": marker(curve.role), "size": 9},
            "error_y": {"type": "data", "array": packed(curve.error), "color": shade, "width": 0, "thickness": 1.4},
            "hovertemplate": "%{x:,.0f} showers: AUC %{y:.3f}",
        })  # fmt: skip
        for mark in curve.marks:
            data.append(base | {"x": [mark.low, mark.high], "y": [mark.auc, mark.auc], "mode": "lines", "line": {"color": shade, "width": 5}, "opacity": 0.5, "showlegend": False, "hovertemplate": f"{mark.name}: {format_count(mark.showers)} showers"})  # fmt: skip
            data.append(base | {"x": [mark.showers], "y": [mark.auc], "mode": "markers", "marker": {"symbol": "line-ns-open", "size": 18, "color": shade, "line": {"width": 2.4, "color": shade}}, "showlegend": False, "hovertemplate": f"{mark.name}: {format_count(mark.showers)} showers"})  # fmt: skip
            annotations.append({"x": math.log10(mark.showers), "y": mark.auc, "text": f"{mark.name}: {format_count(mark.showers)}", "showarrow": False, "yshift": 18, "font": {"size": 12, "color": shade}})  # fmt: skip
    low, high = growth.limits()
    layout = LAYOUT | {
        "height": 400, "margin": {"l": 66, "r": 14, "t": 40, "b": 50}, "hovermode": "closest", "annotations": annotations,
        "legend": LEGEND,
        "xaxis": AXIS | {"type": "log", "title": {"text": "showers a side", "standoff": 6}},
        "yaxis": AXIS | {"range": [low, high], "title": {"text": "AUC of the strongest classifier", "standoff": 8}},
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5, "line": {"color": INK, "width": 1.1}}],
    }  # fmt: skip
    return {"data": data, "layout": layout}


def bars_figure(bars: Bars) -> dict[str, Any]:
    """Return a plotly figure of horizontal bars, one legend entry a kind."""
    data = []
    order = list(bars.names)[::-1]
    for kind in dict.fromkeys(bars.kinds):
        chosen = [k for k, name in enumerate(bars.kinds) if name == kind]
        data.append({
            "type": "bar", "orientation": "h", "name": kind, "y": [bars.names[k] for k in chosen],
            "x": packed(bars.values[chosen]), "marker": {"color": KINDS.get(kind, BAND)},
            "error_x": {"type": "data", "array": packed(np.nan_to_num(bars.errors[chosen])), "color": INK, "width": 0, "thickness": 1.2},
            "hovertemplate": "%{y}: %{x:.4f}",
        })  # fmt: skip
    longest = max(len(name) for name in bars.names)
    layout = LAYOUT | {
        "height": 118 + 26 * len(bars.names), "margin": {"l": min(260, 30 + 7 * longest), "r": 20, "t": 62, "b": 46},
        "hovermode": "closest", "bargap": 0.25,
        "legend": LEGEND,
        "xaxis": AXIS | {"title": {"text": bars.x_label, "standoff": 6}},
        "yaxis": AXIS | {"categoryorder": "array", "categoryarray": order, "minor": {}, "ticks": ""},
    }  # fmt: skip
    return {"data": data, "layout": layout}
