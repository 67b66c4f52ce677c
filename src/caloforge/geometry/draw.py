"""A side view of a detector: its plates along the beam, and where the readout cells are; and the cells of a shower."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import OutputError, require
from caloforge.files import atomic_path
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.readout import CylindricalLayer, MeshReadout, ReadoutLayer

__all__ = ["MATHEMATICS", "draw_cells", "draw_detector", "text_as_it_is"]

MATHEMATICS = "mathematics"
"""Group (``gid``) of a text in a figure that is a formula between dollar signs."""

_PASSIVE = ("#4a5568", "#8d99ae", "#b8a58a", "#c9d1dc")
_AROUND = 2.0  # how far beyond a mesh its slabs are drawn, in its radii
_FORMATS = (".png", ".pdf", ".svg")
_GAP = "#eef1f5"
_ACTIVE = "#e4572e"
_SCORED = "#1d70b8"
_FAINT = 1e-4  # of the highest energy of a cell: below it, colours do not tell cells apart


def draw_detector(detector: Detector, path: str | Path, force: bool = False) -> Path:
    """Draw the stack from the side (z to the right, y upwards, mm) and save it.

    Arguments:
        detector: What to draw; meshes without a known stack show their layers and radial extent.
        path: Image file; the ending names the format (png, pdf, svg).

    Raises:
        OutputError: When the ending is not one of those.
        OutputExistsError: When it exists and ``force`` is not set.
        MissingExtraError: When matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(f"{path}: a drawing ends with one of {', '.join(_FORMATS)}")
    figure_module = require("matplotlib.figure", extra="report")
    finest = max(detector.layers, key=lambda layer: layer.n_cells)
    round_ = isinstance(finest, CylindricalLayer)
    figure = figure_module.Figure(figsize=(12.5 if round_ else 9.0, 4.8), layout="constrained")
    if isinstance(finest, CylindricalLayer):
        axes, front = figure.subplots(1, 2, width_ratios=(1.7, 1))
        _draw_rings(front, finest)
    else:
        axes = figure.add_subplot()
    if detector.stack:
        _draw_stack(axes, detector)
    else:
        _draw_layers(axes, detector)
    measured = bool(detector.stack)
    axes.set_xlabel("z [mm]" if measured else "layer")
    figure.suptitle(
        textwrap.fill(f"{detector.name}: {detector.description}", 110), fontsize=10, x=0.01, ha="left"
    )
    handles, labels = axes.get_legend_handles_labels()
    if round_:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    else:
        axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    text_as_it_is(figure)
    with atomic_path(path, force) as part:
        figure.savefig(part, dpi=150, format=path.suffix.removeprefix(".").lower())
    return path


def draw_cells(detector: Detector, cells: NDArray[np.float32], title: str = "") -> Any:
    """Return a figure of matplotlib of the cells (n_cells,) of one shower, MeV: from the side, from the front, and the sums of the layers.

    A cell with energy is a dot at its centre, whose colour and size say its energy; dots that are behind each other are drawn with the largest in front.

    Raises:
        MissingExtraError: When matplotlib is not installed.
    """
    require("matplotlib.pyplot", extra="report")  # which teaches notebooks to show figures
    figure_module, colors = (require(f"matplotlib.{name}", extra="report") for name in ("figure", "colors"))
    figure = figure_module.Figure(figsize=(11.0, 3.6), layout="constrained")
    layers, side, front = figure.subplots(1, 3)
    filled = np.flatnonzero(cells > 0)
    filled = filled[np.argsort(cells[filled])]
    energies, (x, y, z) = np.asarray(cells[filled], np.float64), detector.cell_centres[filled].T
    if len(filled):
        low, high = max(float(energies.min()), _FAINT * float(energies.max())), float(energies.max())
        size = 4.0 + 26.0 * np.clip(np.log(energies / low) / max(np.log(high / low), 1e-9), 0.0, 1.0)
        style = {
            "c": energies,
            "s": size,
            "cmap": "viridis",
            "norm": colors.LogNorm(low, high if high > low else 1.01 * low),
            "linewidths": 0,
        }
        shown = side.scatter(z, y, **style)
        front.scatter(x, y, **style)
        figure.colorbar(shown, ax=[side, front], label="energy of a cell (MeV)")
    low, high = detector.cell_centres.min(0), detector.cell_centres.max(0)
    margin = 0.03 * (high - low).max()
    for axes, (across, up), labels in (
        (side, (2, 1), ("z (mm)", "y (mm)")),
        (front, (0, 1), ("x (mm)", "y (mm)")),
    ):
        axes.set(
            xlim=(low[across] - margin, high[across] + margin),
            ylim=(low[up] - margin, high[up] + margin),
            xlabel=labels[0],
            ylabel=labels[1],
        )
    sums = [float(np.asarray(cells[one], np.float64).sum()) for one in detector.layer_cells]
    layers.bar(np.arange(detector.n_layers), sums, width=1.0, color=_SCORED)
    layers.set(xlabel="layer", ylabel="energy of a layer (MeV)", xlim=(-0.6, detector.n_layers - 0.4))
    layers.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    text_as_it_is(figure)
    return figure


def text_as_it_is(figure: Any) -> None:
    """Let a finished figure of matplotlib draw its texts as they are: names may have dollar signs and backslashes.

    Numbers at the axes, which matplotlib writes as formulas itself, and texts of the group :data:`MATHEMATICS` stay formulas.
    """
    text, axis = (require(f"matplotlib.{name}", extra="report") for name in ("text", "axis"))
    formatters = require("matplotlib.ticker", extra="report")
    named = formatters.FixedFormatter, formatters.FuncFormatter  # of ticks with given names
    numbers: set[int] = set()
    for one in figure.findobj(axis.Axis):
        if not isinstance(one.get_major_formatter(), named):
            numbers |= {id(each) for each in one.findobj(text.Text) if each is not one.label}
    for each in figure.findobj(text.Text):
        if id(each) not in numbers and each.get_gid() != MATHEMATICS:
            each.set_parse_math(False)


def _draw_stack(axes: Any, detector: Detector) -> None:
    by_material: dict[tuple[str, bool], list[Slab]] = defaultdict(list)
    for slab in detector.stack:
        by_material[slab.material.name, slab.active].append(slab)
    colours = iter(_PASSIVE * len(by_material))
    for (name, active), slabs in by_material.items():
        half = max(slab.half_y for slab in slabs)
        if isinstance(detector.readout, MeshReadout):
            half = min(half, _AROUND * detector.readout.radius)
        spans = [(slab.z, slab.thickness) for slab in slabs]
        gap = slabs[0].material.density < 0.1
        colour = _ACTIVE if active else _GAP if gap else next(colours)
        label = f"{name.removeprefix('G4_')}{' (active)' if active else ''}"
        axes.broken_barh(spans, (-half, 2 * half), facecolor=colour, linewidth=0, label=label)
    for layer in range(detector.n_layers):
        _draw_scored_area(axes, detector, layer)
    beam = detector.beam
    reach = 0.1 * max(detector.length, 1.0)
    style = {"arrowstyle": "->", "color": "black", "lw": 1.5}
    axes.annotate("", xy=(0, beam.y), xytext=(-reach, beam.y), arrowprops=style)
    label = f"beam: {beam.particle} {beam.energy}"
    axes.plot([], [], color="black", marker=">", ls="-", label=label)
    axes.set_xlim(-1.1 * reach, 1.02 * detector.length)
    axes.set_ylabel("r, both sides of the axis [mm]" if detector.order == "cylindrical" else "y [mm]")


def _draw_scored_area(axes: Any, detector: Detector, layer: int) -> None:
    """Mark the upper and lower edge of the cells of one layer, over the layer's active slabs; all rings, and all cells where layers differ."""
    active = [slab for slab in detector.stack if slab.layer == layer]
    if not active:
        return
    edges = _edges(detector.layers[layer])
    first, last = active[0].z, active[-1].z + active[-1].thickness
    margin = 0.003 * detector.length
    label = "edge of the readout cells" if layer == 0 else None
    ends = (edges[0], edges[-1])
    axes.hlines(ends, first - margin, last + margin, color=_SCORED, lw=2.5, label=label)
    if _differs(detector) or detector.order == "cylindrical":
        label = "boundaries of cells" if layer == 0 else None
        axes.hlines(edges[1:-1], first - margin, last + margin, color=_SCORED, lw=0.8, label=label)


def _draw_layers(axes: Any, detector: Detector) -> None:
    for number, layer in enumerate(detector.layers):
        label = "layers" if number == 0 else None
        edges = _edges(layer)
        axes.vlines(layer.z, edges[0], edges[-1], color=_SCORED, lw=2, label=label)
        if detector.order == "layered":
            places = [layer.z] * len(edges)
            label = "boundaries of cells" if number == 0 else None
            axes.plot(places, edges, color=_SCORED, marker="_", ls="none", label=label)
    axes.set_ylabel("r, both sides of the axis [mm]" if detector.order == "cylindrical" else "y [mm]")


def _draw_rings(axes: Any, layer: CylindricalLayer) -> None:
    """Draw the voxels of a polar layer as seen along the beam: rings of radius, sectors of angle."""
    turn = np.linspace(-np.pi, np.pi, 181)
    for radius in layer.r_edges:
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=_SCORED, lw=0.8)
    if layer.n_alpha > 1:
        ends = np.array([layer.r_edges[0], layer.r_edges[-1]])
        for angle in np.linspace(-np.pi, np.pi, layer.n_alpha, endpoint=False):
            axes.plot(ends * np.cos(angle), ends * np.sin(angle), color=_SCORED, lw=0.8)
    axes.set_aspect("equal")
    axes.set(xlabel="x [mm]", ylabel="y [mm]")
    where = f"layer {layer.name}" if layer.name.isdigit() else layer.name
    axes.set_title(f"voxels of {where}: {layer.n_r} in r, {layer.n_alpha} in φ", fontsize=9, loc="left")


def _differs(detector: Detector) -> bool:
    """Whether cells differ from layer to layer along the y axis."""
    first = _edges(detector.layers[0])
    return any(not np.array_equal(_edges(layer), first) for layer in detector.layers)


def _edges(layer: ReadoutLayer | CylindricalLayer) -> NDArray[np.float64]:
    """Return where the cells of a layer begin and end along the y axis, mm; rings on both sides of the beam."""
    if isinstance(layer, CylindricalLayer):
        radii = np.asarray(layer.r_edges)
        return np.unique(np.concatenate([-radii, radii]))
    _, rows = layer.intervals()
    return np.append(rows[:, 0], rows[-1, 1])
