"""The interactive 3-D event display, and displays side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.files import atomic_path, check_output
from caloforge.showers import ShowerFile, Showers, open_showers
from caloforge.validate.plots.event import (
    FACES,
    EventDrawing,
    HitBoxes,
    describe_shower,
    draw_event,
    energy_limits,
    event_png,
    format_energy,
    hit_boxes,
)
from caloforge.validate.report.images import LAYOUT, SCALE, packed
from caloforge.validate.report.page import Cell, Page, Plot, Section, Table

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["display_blocks", "event_drawings", "event_figure", "pick_showers", "view"]


_OPACITY = (0.3, 0.7, 1.0)  # of the lowest, middle and highest third of the colour scale


def event_figure(
    shower: Showers, threshold: float = 0.1, most: int = 4000, limits: tuple[float, float] | None = None,
    extent: NDArray[np.float64] | None = None, height: int = 560,
) -> dict[str, Any]:  # fmt: skip
    """Return a plotly figure (data and layout) of one shower.

    Arguments:
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
    data.append(_labels(boxes, shower.detector.order == "cylindrical"))
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
    extent = _extent([boxes]) if extent is None else extent
    x, y, z = extent.T.tolist()
    layout = LAYOUT | {
        "height": height, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "hovermode": "closest", "showlegend": False,
        "scene": {
            "xaxis": axis | {"title": {"text": "z, depth [mm]"}, "range": z},
            "yaxis": axis | {"title": {"text": "x [mm]"}, "range": x},
            "zaxis": axis | {"title": {"text": "y [mm]"}, "range": y},
            "aspectmode": "manual",
            "aspectratio": _aspect(extent),
            "camera": {"eye": {"x": -0.95, "y": -1.9, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.18}},
        },
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _extent(boxes: Sequence[HitBoxes]) -> NDArray[np.float64]:
    """Return the lowest and highest x, y, z (2, 3) of the corners, mm; 0 and 1 without any."""
    corners = np.concatenate([box.corners.reshape(-1, 3) for box in boxes])
    if not len(corners):
        return np.array([[0.0], [1.0]]) * np.ones(3)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


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


def _labels(boxes: HitBoxes, polar: bool) -> dict[str, Any]:
    """Return invisible points at the hits, whose labels have position (in r and angle where voxels are polar) and energy."""
    x, y = boxes.centres[:, 0], boxes.centres[:, 1]
    place = "x %{y:.1f}, y %{z:.1f}, z %{x:.1f} mm"
    columns = [boxes.hits, boxes.layers]
    if polar:
        place = "r %{customdata[2]:.1f} mm, φ %{customdata[3]:.0f}°, z %{x:.1f} mm"
        columns += [np.hypot(x, y), np.degrees(np.arctan2(y, x))]
    return {
        "type": "scatter3d",
        "mode": "markers",
        "x": packed(boxes.centres[:, 2]), "y": packed(boxes.centres[:, 0]), "z": packed(boxes.centres[:, 1]),
        "customdata": packed(np.stack(columns, axis=1)),
        "marker": {"size": 4, "opacity": 0.001, "color": "#000000"},
        "hovertemplate": f"layer %{{customdata[1]:.0f}}<br>{place}"
        "<br><b>%{customdata[0]:.3r} MeV</b><extra></extra>",
    }  # fmt: skip


def _aspect(extent: NDArray[np.float64]) -> dict[str, float]:
    """Return the true proportions of the drawn space, none below 0.45 of the longest."""
    size = extent[1] - extent[0]
    x, y, z = np.maximum(size / max(size.max(), 1e-9), 0.45) * 1.25
    return {"x": float(z), "y": float(x), "z": float(y)}


_MOST_HITS = 1200  # a display on the page
_NEAR = 5  # showers of nearly the same conditions, of which the most typical one is shown
_MOST_SAMPLES = 6  # WebGL contexts are scarce


def pick_showers(samples: Sequence[Sample]) -> list[Showers]:
    """Return one shower of each sample: the reference's of median energy, and those nearest in energy and angle.

    Of the five nearest ones always that with the median visible energy is taken.
    """
    reference = samples[0]
    energy = reference.observables.incident_energy
    theta = reference.observables.incident_theta
    wanted = float(np.sort(energy)[len(energy) // 2])
    angle = float(np.sort(theta[np.abs(energy - wanted) <= 0.1 * wanted])[-1])
    picked = []
    for sample in samples:
        first = np.abs(np.log(sample.observables.incident_energy / wanted))
        second = np.abs(sample.observables.incident_theta - angle) / 30.0
        order = np.argsort(first + second, kind="stable")
        near = order[:_NEAR]
        visible = sample.observables["visible_energy"][near]
        typical = near[np.argsort(visible, kind="stable")[len(near) // 2]]
        picked.append(sample.at(int(typical)))
        if sample is reference:
            wanted, angle = float(energy[typical]), float(theta[typical])
    return picked


def display_blocks(samples: Sequence[Sample], showers: Sequence[Showers], threshold: float) -> list[Plot]:
    """Return the interactive displays, all with the same colours."""
    boxes = [hit_boxes(shower, threshold, _MOST_HITS) for shower in showers]
    limits = energy_limits(np.concatenate([box.hits for box in boxes]), threshold)
    alike: dict[str, Any] = {"threshold": threshold, "most": _MOST_HITS, "limits": limits}
    extent = _extent(boxes)
    shown = list(zip(samples, showers, boxes, strict=True))[:_MOST_SAMPLES]
    return [
        Plot(
            event_figure(shower, extent=extent, height=420, **alike),
            describe_shower(shower, box),
            sample.label,
            still=event_png(shower, title=" ", **alike),
            key=f"event-{number}",
        )
        for number, (sample, shower, box) in enumerate(shown)
    ]


def event_drawings(
    samples: Sequence[Sample], showers: Sequence[Showers], threshold: float
) -> list[EventDrawing]:
    """Return the displays for paper: event_0 (the reference), event_1 and so on, all with the same colours."""
    boxes = [hit_boxes(shower, threshold) for shower in showers]
    limits = energy_limits(np.concatenate([box.hits for box in boxes]), threshold)
    drawings = []
    for number, (sample, shower, box) in enumerate(zip(samples, showers, boxes, strict=True)):
        title = f"{sample.label}: {describe_shower(shower, box)}"
        drawings.append(EventDrawing(f"event_{number}", shower, title, threshold, limits))
    return drawings


_FORMATS = (".html", ".png", ".pdf", ".svg")


def view(
    source: str | Path | Showers | ShowerFile,
    output: str | Path,
    event: int = 0,
    threshold: float = 0.1,
    detector: str | None = None,
    force: bool = False,
) -> Path:
    """Draw one shower.

    Arguments:
        output: ``.html`` for an interactive page that works offline; ``.png``, ``.pdf`` or ``.svg`` for paper.
        event: Which shower, from 0.
        threshold: A cell with more energy than this is drawn, MeV.
        detector: The detector of a file that does not name its own.

    Returns:
        The path written.

    Raises:
        InputError: When there is no such shower, or the ending is not known.
    """
    output = Path(output)
    if output.suffix.lower() not in _FORMATS:
        msg = f"{output}: an event display ends with one of {', '.join(_FORMATS)}"
        raise InputError(msg)
    check_output(output, force)
    if isinstance(source, str | Path):
        with open_showers(source, detector) as opened:
            shower = _pick(opened, event, str(source))
    else:
        shower = _pick(source, event, "these showers")
    if output.suffix.lower() == ".html":
        return _page(shower, event, threshold).write(output, force)
    with atomic_path(output, force) as part:
        draw_event(shower, {output.suffix.lower()[1:]: part}, threshold=threshold)
    return output


def _pick(source: Showers | ShowerFile, event: int, name: str) -> Showers:
    if not 0 <= event < len(source):
        msg = f"{name}: there is no shower {event}; expected 0 to {len(source) - 1}"
        raise InputError(msg)
    return source[event : event + 1]


def _page(shower: Showers, event: int, threshold: float) -> Page:
    """Return the interactive page: the display and the shower's layers."""
    boxes = hit_boxes(shower, threshold)
    cells = shower.cells[0].astype(float)
    rows: list[list[Cell | str | float]] = []
    for layer, members in zip(shower.detector.layers, shower.detector.layer_cells, strict=True):
        energy, hits = float(cells[members].sum()), int((cells[members] > threshold).sum())
        rows.append([len(rows), layer.name, energy, hits])
    facts = {
        "Detector": shower.detector.name,
        "Particle": shower.particle,
        "Incident energy": format_energy(float(shower.incident_energy[0])),
        "Visible energy": format_energy(float(cells.sum())),
        "Hits": f"{len(boxes.hits) + boxes.hidden} above {threshold:g} MeV",
        "Source": str(shower.source),
    }
    if shower.has_theta:
        facts["Angle"] = f"{float(shower.incident_theta[0]):.1f}°"
    display = Plot(event_figure(shower, threshold=threshold, height=600), wide=True, key="event")
    layers = Table(["Layer", "Name", "Energy [MeV]", "Hits"], rows)
    sections = [Section("Event display", [display]), Section("Layers", [layers], folded=len(rows) > 8)]
    return Page(f"Shower {event}", sections, describe_shower(shower, boxes), facts)
