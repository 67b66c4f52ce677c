"""Layout and axes of the page's figures, and its images side by side: rectangular ones, and polar ones drawn as wedges."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from caloforge.validate.plots.axes import whole_bins
from caloforge.validate.plots.panel import INK, SEQUENTIAL, Array, Heat

__all__ = ["AXIS", "LAYOUT", "LEGEND", "SCALE", "heat_figure", "packed", "titled", "whole_numbers"]


LAYOUT: dict[str, Any] = {
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", "size": 13, "color": INK},
    "paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff", "hovermode": "x unified",
    "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#9aa2ab", "font": {"size": 12}},
}  # fmt: skip
AXIS: dict[str, Any] = {
    "showline": True, "linecolor": INK, "linewidth": 1.2, "mirror": "ticks", "ticks": "inside", "ticklen": 6,
    "tickcolor": INK, "minor": {"ticks": "inside", "ticklen": 3}, "showgrid": False, "zeroline": False,
    "exponentformat": "power", "automargin": True,
}  # fmt: skip
LEGEND: dict[str, Any] = {
    "orientation": "h", "x": 0, "xanchor": "left", "y": 1.005, "yanchor": "bottom", "font": {"size": 12},
}  # fmt: skip
SCALE = [[number / (len(SEQUENTIAL) - 1), shade] for number, shade in enumerate(SEQUENTIAL)]


def packed(values: ArrayLike) -> Any:
    """Return an array as plotly.js's typed-array specification.

    Arguments:
        values: Numbers of one or two dimensions. Floats are stored in single precision; values that are not
            finite leave gaps in a figure.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            return _digits(array)
    elif array.dtype.kind in "iu":
        small = array.size == 0 or (array.min() >= 0 and array.max() < 2**16)
        array = array.astype(np.uint16 if small else np.int32)
    else:
        return array.tolist()
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    specification = {"dtype": array.dtype.str[1:], "bdata": data}
    if array.ndim > 1:
        specification["shape"] = ", ".join(map(str, array.shape))
    return specification


def _digits(array: Any) -> Any:
    """Return numbers with six digits, and None for those that are not finite."""
    if array.ndim:
        return [_digits(part) for part in array]
    return float(f"{array:.6g}") if np.isfinite(array) else None


def whole_numbers(number: int) -> dict[str, Any]:
    """Return an axis of as many whole numbers, without ticks between them."""
    return {"tick0": 0, "dtick": max(1, round(number / 8)), "tickformat": "d", "minor": {}}


def titled(text: str, standoff: int = 6) -> dict[str, Any]:
    """Return the title of an axis."""
    return {"title": {"text": text, "standoff": standoff}}


_BLUE_RED = [[0.0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#ffffff"], [0.75, "#f4a582"], [1.0, "#b2182b"]]
_WHITE = [[0.0, "#ffffff"], [0.06, "#fde3a7"], *SCALE[1:]]


def heat_figure(heat: Heat) -> dict[str, Any]:
    """Return a plotly figure of images side by side, with one colour scale."""
    low, high = heat.limits()
    count = len(heat.images)
    columns = min(count, 4)
    rows = -(-count // columns)
    height = 60 + max(330, 17 * len(heat.y_ticks) + 120 * bool(len(heat.x_ticks) > 8)) * rows
    layout: dict[str, Any] = LAYOUT | {
        "height": height, "margin": {"l": 66, "r": 30, "t": 30, "b": 54}, "hovermode": "closest", "annotations": [],
        "coloraxis": {
            "cmin": np.log10(low) if heat.log else low, "cmax": np.log10(high) if heat.log else high,
            "colorscale": _BLUE_RED if heat.symmetric is not None else _WHITE,
            "colorbar": {"title": {"text": heat.unit, "side": "right"}, "thickness": 12, "outlinewidth": 0} | (_log_ticks(low, high) if heat.log else {}),
        },
    }  # fmt: skip
    data: list[dict[str, Any]] = []
    for number, image in enumerate(heat.images):
        row, column = divmod(number, columns)
        left, width = column / columns, 0.92 / columns
        base, share = 1.0 - (row + 1) / rows, (1.0 if rows == 1 else 0.82) / rows
        place = _Place(
            [left, left + width], [base, base + 0.94 * share], "" if number == 0 else str(number + 1)
        )
        values = np.asarray(image.values, float)
        shown = np.log10(np.where(values > 0, values, np.nan)) if heat.log else values
        if heat.polar:
            data.append(_wedges(heat, image.label, shown, values, place))
            layout[f"polar{place.tag}"] = _round(heat, place)
        else:
            data.append(_image(heat, image.label, shown, values, place))
            layout |= _axes(heat, place, column == 0)
        layout["annotations"].append({
            "text": image.label, "x": left + width / 2, "y": base + share, "xref": "paper", "yref": "paper",
            "yanchor": "bottom", "showarrow": False, "font": {"size": 12},
        })  # fmt: skip
    return {"data": data, "layout": layout}


@dataclass(frozen=True)
class _Place:
    """Where an image is drawn: its domains, from 0 to 1, and the number of its axes."""

    x: list[float]
    y: list[float]
    tag: str


def _image(heat: Heat, label: str, shown: Array, values: Array, place: _Place) -> dict[str, Any]:
    """Return a rectangular image; ``shown`` are the numbers of the colours."""
    return {
        "type": "heatmap", "x": packed(heat.x_edges), "y": packed(heat.y_edges), "z": packed(shown.T),
        "customdata": packed(values.T), "coloraxis": "coloraxis", "xaxis": f"x{place.tag}", "yaxis": f"y{place.tag}",
        "name": label, "hovertemplate": "%{x}, %{y}<br><b>%{customdata:.4r}</b><extra>" + label + "</extra>",
    }  # fmt: skip


def _axes(heat: Heat, place: _Place, first: bool) -> dict[str, Any]:
    """Return the axes of a rectangular image; only the ``first`` of a row has numbers at the vertical one."""
    x, y = heat.centres()
    x_axis = AXIS | {"domain": place.x, "anchor": f"y{place.tag}"} | titled(heat.x_label)
    y_axis = AXIS | {"domain": place.y, "anchor": f"x{place.tag}", "showticklabels": first}
    if first:
        y_axis |= titled(heat.y_label, 8)
    if place.tag:
        x_axis["matches"], y_axis["matches"] = "x", "y"
    named = {"tickfont": {"size": 10}, "minor": {}, "ticks": ""}
    for axis, ticks, at, edges in (
        (x_axis, heat.x_ticks, x, heat.x_edges),
        (y_axis, heat.y_ticks, y, heat.y_edges),
    ):
        if ticks:
            axis |= named | {"tickvals": at.tolist(), "ticktext": list(ticks)}
        elif whole_bins(edges):
            axis |= whole_numbers(len(at))
    if heat.x_ticks:
        x_axis["tickangle"] = -90
    return {f"xaxis{place.tag}": x_axis, f"yaxis{place.tag}": y_axis}


def _wedges(heat: Heat, label: str, shown: Array, values: Array, place: _Place) -> dict[str, Any]:
    """Return the bins of angle and radius as wedges."""
    known = np.isfinite(shown)
    angle, radius = (
        np.repeat(heat.centres()[0][:, None], shown.shape[1], 1),
        heat.y_edges[None, :-1] + 0 * shown,
    )
    widths, depths = np.diff(heat.x_edges)[:, None] + 0 * shown, np.diff(heat.y_edges)[None, :] + 0 * shown
    return {
        "type": "barpolar", "subplot": f"polar{place.tag}", "name": label,
        "theta": packed(np.degrees(angle[known])), "width": packed(np.degrees(widths[known])),
        "base": packed(radius[known]), "r": packed(depths[known]), "customdata": packed(values[known]),
        "marker": {"color": packed(shown[known]), "coloraxis": "coloraxis", "line": {"width": 0}},
        "hovertemplate": "φ %{theta:.0f}°, r from %{base:.4r} mm<br><b>%{customdata:.4r}</b><extra>" + label + "</extra>",
        "showlegend": False,
    }  # fmt: skip


def _round(heat: Heat, place: _Place) -> dict[str, Any]:
    """Return the axes of an image of angle and radius."""
    grid = {"showgrid": False, "linecolor": INK, "ticks": "", "tickfont": {"size": 10}}
    radial = grid | {
        "range": [0, float(heat.y_edges[-1])],
        "angle": 90,
        "tickangle": 90,
        "nticks": 4,
        "ticksuffix": " mm",
    }
    angular = grid | {"tickvals": [0, 90, 180, 270], "ticktext": ["φ = 0°", "90°", "180°", "270°"]}
    return {
        "domain": {"x": place.x, "y": place.y}, "bgcolor": "#ffffff", "bargap": 0,
        "radialaxis": radial, "angularaxis": angular,
    }  # fmt: skip


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    ticks = np.arange(np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9) + 1)
    if len(ticks) < 2:
        return {}
    return {"tickvals": ticks.tolist(), "ticktext": [f"10<sup>{int(tick)}</sup>" for tick in ticks]}
