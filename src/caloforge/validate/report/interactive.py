"""Figures for the page: plotly figures with ratio panels, uncertainty bands and log switches, curves and bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from caloforge.validate.plots.panel import (
    BAND,
    INK,
    KINDS,
    Array,
    Bars,
    Curve,
    Growth,
    Heat,
    Panel,
    colour,
    dash,
    marker,
)  # fmt: skip
from caloforge.validate.report.images import AXIS, LAYOUT, LEGEND, heat_figure, packed, titled, whole_numbers
from caloforge.validate.report.page import format_count

__all__ = [
    "bars_figure", "figure_of", "growth_figure", "heat_figure", "packed", "panel_figure",
]  # fmt: skip


_LONG = 31  # letters of an axis title that fit beside the main axis


def panel_figure(panel: Panel) -> dict[str, Any]:
    """Return a plotly figure of curves with their ratio to the reference."""
    data: list[dict[str, Any]] = []
    bottom, top = panel.y_limits()
    for curve in panel.curves:
        data += [_band(panel, curve, bottom), _line(panel, curve)]
    error = np.nan_to_num(panel.ratio(panel.curves[0])[1])  # the reference's relative uncertainty around one
    data.append(
        _polygon(panel, panel.base - error, panel.base + error, "y2") | {"fillcolor": BAND, "opacity": 0.8}
    )
    low, high = panel.ratio_limits()
    for curve in panel.curves[1:]:
        data += _ratio(panel, curve, low, high)
    x_range = list(panel.x_limits())
    x_axis = AXIS | {"anchor": "y2", "range": np.log10(x_range).tolist() if panel.log_x else x_range}
    x_axis |= {"type": "log" if panel.log_x else "linear"} | titled(panel.x_label)
    if panel.ticks:
        x_axis |= {"tickvals": panel.centres.tolist(), "ticktext": list(panel.ticks), "minor": {}}
    elif panel.whole:
        x_axis |= whole_numbers(len(panel.edges) - 1)
    y_axis = AXIS | {"domain": [0.31, 1.0], "rangemode": "tozero"} | titled(_lines(panel.y_label), 8)
    line = {
        "type": "line",
        "xref": "x domain",
        "yref": "y2",
        "x0": 0,
        "x1": 1,
        "y0": panel.base,
        "y1": panel.base,
    }
    ratio = {"domain": [0.0, 0.27], "range": [low, high], "tickvals": panel.ratio_ticks()} | titled(
        panel.ratio_lines("<br>"), 8
    )
    ratio["title"]["font"] = {"size": 12}
    lines = [line | {"line": {"color": INK, "width": 1.1}}]
    for edge in panel.guides:
        lines.append(line | {"y0": edge, "y1": edge, "line": {"color": INK, "width": 0.7, "dash": "dot"}})
    layout = LAYOUT | {
        "height": 436, "margin": {"l": 66, "r": 14, "t": 58, "b": 72}, "legend": LEGEND,
        "xaxis": x_axis, "yaxis": y_axis | _scale(panel.log_y, bottom, top), "yaxis2": AXIS | ratio,
        "shapes": lines, "updatemenus": [_switch(panel)],
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _lines(text: str) -> str:
    """Return the title of the main axis, in two lines where it is longer than the axis."""
    return "<br>".join(wrap(text, len(text) // 2 + 5 if len(text) > _LONG else _LONG))


def _scale(log: bool, bottom: float, top: float) -> dict[str, Any]:
    """Return type and range of the main axis; on a logarithmic one a step of whole decades, at most seven labels."""
    if not log:
        return {"type": "linear", "range": [bottom, top], "dtick": None}
    low, high = float(np.log10(bottom)), float(np.log10(top))
    return {"type": "log", "range": [low, high], "dtick": max(1, int(np.ceil((high - low) / 7)))}


def _switch(panel: Panel) -> dict[str, Any]:
    """Return the buttons that change the main axis between linear and logarithmic."""
    buttons = []
    for name, log in (("lin", False), ("log", True)):
        scale = _scale(log, *replace(panel, log_y=log).y_limits())
        change = {f"yaxis.{key}": value for key, value in scale.items()}
        buttons.append({"label": name, "method": "relayout", "args": [change]})
    return {
        "type": "buttons", "direction": "right", "showactive": True, "active": int(panel.log_y), "buttons": buttons,
        "x": 1.0, "xanchor": "right", "y": 0.0, "yanchor": "top", "pad": {"t": 42, "b": 0, "l": 0, "r": 0},
        "font": {"size": 11}, "bgcolor": "#ffffff", "bordercolor": "#d9dee4", "borderwidth": 1,
    }  # fmt: skip


def _steps(panel: Panel, y: Array) -> tuple[Array, Array]:
    """Return the corners of a curve: of the histogram's steps, or the points themselves."""
    if panel.points:
        return panel.centres, y
    return np.repeat(panel.edges, 2)[1:-1], np.repeat(y, 2)


def _line(panel: Panel, curve: Curve) -> dict[str, Any]:
    shade = colour(curve.role)
    trace: dict[str, Any] = {
        "type": "scatter", "name": curve.label, "legendgroup": curve.label,
        "line": {"color": shade, "width": 1.8, "dash": dash(curve.role)},
        "hovertemplate": "%{y:.4g}",
    }  # fmt: skip
    if panel.points:
        trace |= {"x": packed(panel.centres), "y": packed(curve.y), "mode": "lines+markers"}
        mark = {"color": shade, "symbol": marker(curve.role), "size": 7}
        return trace | {"marker": mark, "error_y": _error_bars(curve.error, shade)}
    shown = np.append(curve.y, curve.y[-1])
    if panel.log_y:
        shown = np.where(shown > 0, shown, np.nan)
    line = trace["line"] | {"shape": "hv"}
    return trace | {"x": packed(panel.edges), "y": packed(shown), "mode": "lines", "line": line}


def _error_bars(error: Array, shade: str) -> dict[str, Any]:
    bars = {"type": "data", "array": packed(np.nan_to_num(error)), "color": shade}
    return bars | {"width": 0, "thickness": 1.2}


def _band(panel: Panel, curve: Curve, bottom: float) -> dict[str, Any]:
    error = np.nan_to_num(curve.error)
    y = np.nan_to_num(curve.y)
    low, high = y - error, y + error
    if panel.log_y:
        low, high = np.maximum(low, bottom / 10), np.maximum(high, bottom / 10)
    return _polygon(panel, low, high, "y") | {
        "fillcolor": BAND if curve.role == 0 else colour(curve.role),
        "opacity": 0.8 if curve.role == 0 else 0.25,
        "legendgroup": curve.label,
    }


def _polygon(panel: Panel, low: Array, high: Array, axis: str) -> dict[str, Any]:
    """Return the closed outline between two curves."""
    x, upper = _steps(panel, high)
    _, lower = _steps(panel, low)
    return {
        "type": "scatter", "mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip",
        "showlegend": False, "yaxis": axis,
        "x": packed(np.concatenate([x, x[::-1]])), "y": packed(np.concatenate([upper, lower[::-1]])),
    }  # fmt: skip


def _ratio(panel: Panel, curve: Curve, low: float, high: float) -> list[dict[str, Any]]:
    """Return the ratio's points, and triangles at the rim for those beyond the axis."""
    value, error = panel.ratio(curve)
    shade = colour(curve.role)
    base = {
        "type": "scatter", "mode": "markers", "name": curve.label, "legendgroup": curve.label, "showlegend": False,
        "yaxis": "y2",
    }  # fmt: skip
    traces = [
        base | {
            "x": packed(panel.centres), "y": packed(value), "error_y": _error_bars(error, shade) | {"thickness": 1},
            "marker": {"color": shade, "size": 4.5, "symbol": marker(curve.role)}, "hovertemplate": f"{panel.ratio_label}: %{{y:.3f}}",
        }
    ]  # fmt: skip
    beyond = np.isfinite(value) & ((value > high) | (value < low))
    if beyond.any():
        above = value[beyond] > high
        rim = np.where(above, high - 0.03 * (high - low), low + 0.03 * (high - low))
        signs = ["triangle-up" if up else "triangle-down" for up in above]
        mark = {"color": shade, "size": 8, "symbol": signs}
        x = packed(panel.centres[beyond])
        traces.append(base | {"x": x, "y": packed(rim), "marker": mark, "hoverinfo": "skip"})
    return traces


def _counts(growth: Growth) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis of showers: 1, 2 and 5 times the powers of ten."""
    every = np.concatenate([np.concatenate([curve.showers, curve.line_showers]) for curve in growth.curves])
    first, last = math.floor(math.log10(every.min())), math.ceil(math.log10(every.max()))
    values = [lead * 10**power for power in range(first, last + 1) for lead in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [f"{value:,.0f}" for value in values], "minor": {}}


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
            "error_y": _error_bars(curve.error, shade),
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
        "xaxis": AXIS | {"type": "log", "title": {"text": "showers a side", "standoff": 6}} | _counts(growth),
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
            "error_x": _error_bars(bars.errors[chosen], INK),
            "hovertemplate": "%{y}: %{x:.4f}",
        })  # fmt: skip
    longest = max(len(name) for name in bars.names)
    layout = LAYOUT | {
        "height": 118 + 26 * len(bars.names), "margin": {"l": min(260, 30 + 7 * longest), "r": 20, "t": 62, "b": 46},
        "hovermode": "closest", "bargap": 0.25,
        "legend": LEGEND,
        "xaxis": AXIS | titled(bars.x_label),
        "yaxis": AXIS | {"categoryorder": "array", "categoryarray": order, "minor": {}, "ticks": ""},
    }  # fmt: skip
    return {"data": data, "layout": layout}


_FIGURES: dict[type, Callable[[Any], dict[str, Any]]] = {
    Panel: panel_figure, Heat: heat_figure, Growth: growth_figure, Bars: bars_figure,
}  # fmt: skip


def figure_of(content: Panel | Heat | Growth | Bars) -> dict[str, Any]:
    """Return the plotly figure of any content, whose texts are drawn as they are."""
    return _FIGURES[type(content)](_literal(content))


def _literal(content: Any) -> Any:
    """Return content with texts that plotly shows as they are, and takes neither for HTML nor for a template."""
    if isinstance(content, str):
        return escape(content, quote=False).replace("%{", "&#37;{")
    if isinstance(content, tuple):
        return tuple(map(_literal, content))
    if is_dataclass(content) and not isinstance(content, type):
        return replace(content, **{one.name: _literal(getattr(content, one.name)) for one in fields(content)})
    return content
