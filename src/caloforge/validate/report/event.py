"""The interactive 3-D event display: one box a hit cell, coloured by its energy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.showers import Showers
from caloforge.validate.boxes import FACES, HitBoxes, hit_boxes
from caloforge.validate.plots.event import energy_limits
from caloforge.validate.report.packing import LAYOUT, SCALE, packed

__all__ = ["event_figure"]

_OPACITY = (0.3, 0.7, 1.0)  # of the lowest, middle and highest third of the colour scale


def event_figure(
    shower: Showers,
    threshold: float = 0.1,
    most: int = 4000,
    limits: tuple[float, float] | None = None,
    extent: NDArray[np.float64] | None = None,
    height: int = 560,
) -> dict[str, Any]:
    """Return a plotly figure (data and layout) of one shower.

    Arguments:
        shower: One shower.
        threshold: A cell with more energy than this is drawn, MeV.
        most: Most hits drawn; the others are the least energetic ones.
        limits: Ends of the colour scale, MeV, so that several displays share one.
        extent: (2, 3) lowest and highest x, y, z of the axes, mm, so that several displays share them.
        height: Pixels.
    """
    boxes = hit_boxes(shower, threshold, most)
    low, high = np.log10(limits if limits is not None else energy_limits(boxes.hits, threshold))
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    colour = np.log10(boxes.energy)
    third = np.clip(((colour - low) / (high - low) * len(_OPACITY)).astype(int), 0, len(_OPACITY) - 1)
    data: list[dict[str, Any]] = []
    for number, opacity in enumerate(_OPACITY):
        chosen = np.flatnonzero(third == number)
        if len(chosen):
            data.append(_mesh(boxes, chosen) | {"opacity": opacity, "cmin": low, "cmax": high})
    data.append(_labels(boxes))
    if len(data) > 1:
        names = [f"{10.0**tick:g}" for tick in ticks]
        data[-2] |= {
            "showscale": True,
            "colorbar": {
                "title": {"text": "E [MeV]", "side": "right"}, "tickvals": ticks.tolist(), "ticktext": names,
                "thickness": 12, "len": 0.65, "x": 1.0, "outlinewidth": 0,
            },
        }  # fmt: skip
    axis = {"backgroundcolor": "#f5f7f9", "gridcolor": "#d9dee4", "zeroline": False, "showspikes": False}
    if extent is None:
        corners = boxes.corners.reshape(-1, 3)
        extent = (
            np.stack([corners.min(axis=0), corners.max(axis=0)])
            if len(corners)
            else np.array([[0.0], [1.0]]) * np.ones(3)
        )
    x, y, z = extent.T.tolist()
    layout = LAYOUT | {
        "height": height,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "hovermode": "closest",
        "showlegend": False,
        "scene": {
            "xaxis": axis | {"title": {"text": "z, depth [mm]"}, "range": z},
            "yaxis": axis | {"title": {"text": "x [mm]"}, "range": x},
            "zaxis": axis | {"title": {"text": "y [mm]"}, "range": y},
            "aspectmode": "manual",
            "aspectratio": _aspect(extent),
            "camera": {"eye": {"x": -0.95, "y": -1.9, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.18}},
        },
    }
    return {"data": data, "layout": layout}


def _mesh(boxes: HitBoxes, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    """Return one mesh of the chosen boxes: two triangles a face."""
    corners = boxes.corners[chosen].reshape(-1, 3)
    triangles = np.concatenate([FACES[:, [0, 1, 2]], FACES[:, [0, 2, 3]]])
    index = (np.arange(len(chosen))[:, None, None] * 8 + triangles).reshape(-1, 3)
    return {
        "type": "mesh3d",
        "x": packed(corners[:, 2]), "y": packed(corners[:, 0]), "z": packed(corners[:, 1]),
        "i": packed(index[:, 0]), "j": packed(index[:, 1]), "k": packed(index[:, 2]),
        "intensity": packed(np.log10(boxes.energy[chosen]).repeat(8)),
        "colorscale": SCALE, "showscale": False, "flatshading": True, "hoverinfo": "skip",
        "lighting": {"ambient": 0.88, "diffuse": 0.4, "specular": 0.05, "roughness": 0.9},
    }  # fmt: skip


def _labels(boxes: HitBoxes) -> dict[str, Any]:
    """Return invisible points at the hits that say where they are and what they hold."""
    return {
        "type": "scatter3d",
        "mode": "markers",
        "x": packed(boxes.centres[:, 2]), "y": packed(boxes.centres[:, 0]), "z": packed(boxes.centres[:, 1]),
        "customdata": packed(np.stack([boxes.hits, boxes.layers], axis=1)),
        "marker": {"size": 4, "opacity": 0.001, "color": "#000000"},
        "hovertemplate": "layer %{customdata[1]:.0f}<br>x %{y:.1f}, y %{z:.1f}, z %{x:.1f} mm"
        "<br><b>%{customdata[0]:.3g} MeV</b><extra></extra>",
    }  # fmt: skip


def _aspect(extent: NDArray[np.float64]) -> dict[str, float]:
    """Return the true proportions of the drawn space, none below 0.45 of the longest."""
    size = extent[1] - extent[0]
    x, y, z = np.maximum(size / max(size.max(), 1e-9), 0.45) * 1.25
    return {"x": float(z), "y": float(x), "z": float(y)}
