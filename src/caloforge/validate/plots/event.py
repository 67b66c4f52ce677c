"""The event display for paper: the hit cells of a shower as boxes, in 3-D, from the side and from the front.

A rectangular cell is a box of its pitches; a polar voxel is a wedge, cut into several when it spans a wide
angle. Along z a box has the length of its layer's active slabs, and at least 0.6 of the distance to the
next layer, so that thin silicon can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError, require
from caloforge.geometry import Detector
from caloforge.geometry.draw import text_as_it_is
from caloforge.geometry.readout import CylindricalLayer
from caloforge.showers import Showers
from caloforge.units import plain_number
from caloforge.validate.plots.axes import fitted
from caloforge.validate.plots.panel import SEQUENTIAL, figure_style

__all__ = [
    "FACES", "EventDrawing", "HitBoxes", "describe_shower", "draw_event", "draw_solid", "energy_limits", "event_png",
    "format_energy", "hit_boxes", "layer_extents",
]  # fmt: skip


# Corners of a box count in binary: bit 2 is the first axis, bit 1 the second, bit 0 along z.
FACES = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]], dtype=np.int64
)
_FRONT, _FACE = (0, 1), (0, 2, 6, 4)  # the plane of x and y, and the corners of a box's front face in turn
_WEDGES = 16  # a full ring is drawn with this many
_FILL = 0.6


@dataclass(frozen=True)
class HitBoxes:
    """Boxes of one shower's hits, the most energetic last."""

    corners: NDArray[np.float64]  # (B, 8, 3) mm, as (x, y, z)
    energy: NDArray[np.float64]  # (B,) MeV of the cell that a box belongs to
    centres: NDArray[np.float64]  # (H, 3) mm of the hit cells
    hits: NDArray[np.float64]  # (H,) MeV of the hit cells
    layers: NDArray[np.int64]  # (H,) their layers
    hidden: int  # hits above the threshold that were left out to keep the drawing small


def layer_extents(detector: Detector) -> NDArray[np.float64]:
    """Return where each layer's boxes begin and end along z, (n_layers, 2) mm."""
    z = np.array([layer.z for layer in detector.layers])
    gap = np.abs(np.diff(z))
    near = np.full(len(z), 1.0)
    if len(gap):
        near = np.minimum(np.append(gap, np.inf), np.insert(gap, 0, np.inf))
    low, high = z - _FILL * near / 2, z + _FILL * near / 2
    for slab in detector.stack:
        if slab.active:
            low[slab.layer] = min(low[slab.layer], slab.z)
            high[slab.layer] = max(high[slab.layer], slab.z + slab.thickness)
    return np.stack([low, high], axis=1)


def hit_boxes(shower: Showers, threshold: float = 0.1, most: int = 4000) -> HitBoxes:
    """Return the boxes of one shower's hits.

    Arguments:
        threshold: A cell with more energy than this is a hit, MeV.
        most: Most hits drawn; the least energetic ones are left out and counted.

    Raises:
        InputError: When it is not exactly one shower.
    """
    if len(shower) != 1:
        msg = f"an event display shows one shower, not {len(shower)}"
        raise InputError(msg)
    detector = shower.detector
    energy = np.asarray(shower.cells[0], np.float64)
    cells = np.flatnonzero(energy > threshold)
    cells = cells[np.argsort(energy[cells], kind="stable")]
    dropped = cells[: max(0, len(cells) - most)]
    cells = cells[len(dropped) :]
    layers = detector.cell_layer[cells]
    shift = detector.layer_shift(shower.conditions)
    offset = np.zeros((len(cells), 2)) if shift is None else shift[0][layers]
    centres = detector.cell_centres[cells].copy()
    centres[:, :2] += offset
    corners, owner = _corners(detector, cells)
    corners[:, :, :2] += offset[owner][:, None, :]
    order, hits = np.argsort(owner, kind="stable"), energy[cells]
    return HitBoxes(corners[order], hits[owner[order]], centres, hits, layers, len(dropped))


def _corners(detector: Detector, cells: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the corners (B, 8, 3) and, for each box, the position (B,) in ``cells`` of its cell."""
    extents = layer_extents(detector)
    position = np.empty(detector.n_cells, np.int64)
    for members in detector.layer_cells:
        position[members] = np.arange(len(members))
    boxes, owners = [], []
    for number, layer in enumerate(detector.layers):
        owner = np.flatnonzero(detector.cell_layer[cells] == number)
        extent = layer.boxes()[position[cells[owner]]]
        if isinstance(layer, CylindricalLayer):
            pieces = -(-_WEDGES // layer.n_alpha)
            steps = np.arange(pieces) / pieces
            width = (extent[:, 1] - extent[:, 0])[:, None]
            low = (extent[:, :1] + width * steps).ravel()
            extent, owner = np.repeat(extent, pieces, axis=0), np.repeat(owner, pieces)
            extent[:, 0], extent[:, 1] = low, low + width.repeat(pieces, axis=1).ravel() / pieces
        boxes.append(_box(extent, extents[number], isinstance(layer, CylindricalLayer)))
        owners.append(owner)
    return np.concatenate(boxes), np.concatenate(owners)


def _box(extent: NDArray[np.float64], z: NDArray[np.float64], polar: bool) -> NDArray[np.float64]:
    """Return the corners (B, 8, 3) of boxes with extents (B, 4) in x, y or, when polar, alpha, r."""
    corners = np.empty((len(extent), 8, 3))
    for bit in range(8):
        first, second = extent[:, bit >> 2], extent[:, 2 + (bit >> 1 & 1)]
        corners[:, bit, 0] = second * np.cos(first) if polar else first
        corners[:, bit, 1] = second * np.sin(first) if polar else second
        corners[:, bit, 2] = z[bit & 1]
    return corners


def format_energy(energy: float) -> str:
    """Return an energy in MeV as people write it."""
    for unit, size in (("TeV", 1e6), ("GeV", 1e3), ("MeV", 1.0)):
        if energy >= size:
            return f"{plain_number(energy / size, 4)} {unit}"
    return f"{plain_number(energy * 1e3)} keV"


def energy_limits(hits: NDArray[np.float64], threshold: float) -> tuple[float, float]:
    """Return the ends of a colour scale in MeV: at least one decade, from the threshold up."""
    low = threshold if threshold > 0 else float(hits.min(initial=1e-3))
    return low, max(float(hits.max(initial=0.0)), 10.0 * low)


def describe_shower(shower: Showers, boxes: HitBoxes) -> str:
    """Return a line on one shower: particle, energy, angle, detector, hits."""
    angle = f", {float(shower.incident_theta[0]):.0f}°" if shower.has_theta else ""
    particle = {"gamma": "photon", "e-": "electron"}.get(shower.particle, shower.particle)
    text = (
        f"{format_energy(float(shower.incident_energy[0]))} {particle}{angle} in {shower.detector.name}: "
        f"{len(boxes.hits) + boxes.hidden} hits, {format_energy(float(shower.visible_energy[0]))} visible"
    )
    return f"{text} ({boxes.hidden} smallest not drawn)" if boxes.hidden else text


@dataclass(frozen=True, eq=False)
class EventDrawing:
    """An event display that is to be drawn."""

    name: str  # file name of the figure
    shower: Showers  # one shower
    title: str
    threshold: float  # a cell with more energy than this is drawn, MeV
    limits: tuple[float, float]  # ends of the colour scale, MeV

    def draw(self, outputs: Mapping[str, Path | BytesIO]) -> None:
        """Draw it; see :func:`draw_event`."""
        draw_event(self.shower, outputs, self.title, self.threshold, limits=self.limits)


def draw_event(
    shower: Showers, outputs: Mapping[str, Path | BytesIO], title: str = "", threshold: float = 0.1,
    most: int = 3000, limits: tuple[float, float] | None = None, projections: bool = True,
) -> None:  # fmt: skip
    """Draw one shower into files or buffers.

    Arguments:
        outputs: Format (``png``, ``pdf`` or ``svg``) to the file or buffer that it is written to.
        title: A line above it; by default what the shower is.
        threshold: A cell with more energy than this is drawn, MeV.
        most: Most hits drawn, the most energetic ones.
        limits: Ends of the colour scale, MeV.
        projections: Draw the side and front views beside the 3-D one.
    """
    boxes = hit_boxes(shower, threshold, most)
    with figure_style() as pyplot:
        colors = require("matplotlib.colors", extra="report")
        norm = colors.LogNorm(*(limits if limits is not None else energy_limits(boxes.hits, threshold)))
        scale = colors.LinearSegmentedColormap.from_list("energy", SEQUENTIAL)
        figure = pyplot.figure(figsize=(12.5, 6.2) if projections else (6.4, 5.2), layout="none")
        if projections:
            grid = figure.add_gridspec(2, 2, width_ratios=(1.75, 1), hspace=0.42, wspace=0.16)
            places: list[Any] = [grid[:, 0], grid[0, 1], grid[1, 1]]
        else:
            places = [111]
        solid = figure.add_subplot(places[0], projection="3d", computed_zorder=False)
        draw_solid(solid, boxes, norm, scale)
        for place, plane in zip(places[1:], ((2, 1), _FRONT), strict=False):
            _draw_flat(figure.add_subplot(place), boxes, plane, norm, scale)
        mappable = pyplot.cm.ScalarMappable(norm=norm, cmap=scale)
        pad = 0.03 if projections else 0.1
        bar = figure.colorbar(mappable, ax=figure.axes, fraction=0.02, pad=pad, shrink=0.8)
        bar.set_label("cell energy [MeV]")
        width = float(figure.get_size_inches()[0])
        title, size = fitted(title or describe_shower(shower, boxes), 0.94 * width)
        figure.suptitle(title, fontsize=size, y=0.97, va="bottom")
        text_as_it_is(figure)
        for ending, output in outputs.items():
            undated = {"metadata": {"CreationDate": None}} if ending == "pdf" else {}
            figure.savefig(output, dpi=130, bbox_inches="tight", format=ending, **undated)


def event_png(shower: Showers, **options: Any) -> bytes:
    """Return the bytes of the 3-D view as PNG; options as for :func:`draw_event`."""
    buffer = BytesIO()
    draw_event(shower, {"png": buffer}, projections=False, **options)
    return buffer.getvalue()


def draw_solid(axes: Any, boxes: HitBoxes, norm: Any, scale: Any) -> None:
    """Draw the boxes with depth along the horizontal axis."""
    art3d = require("mpl_toolkits.mplot3d.art3d", extra="report")
    ticker = require("matplotlib.ticker", extra="report")
    corners = boxes.corners[:, :, [2, 0, 1]]
    colour = scale(norm(boxes.energy))
    colour[:, 3] = np.clip(0.08 + 0.92 * np.asarray(norm(boxes.energy), float), 0.0, 1.0)
    faces = corners[:, FACES].reshape(-1, 4, 3)
    if len(faces):
        tinted = np.repeat(colour[:, None, :], 6, axis=1)
        tinted[:, :, :3] *= np.array([1.0, 0.8, 0.9, 0.9, 0.8, 1.0])[None, :, None]
        axes.add_collection3d(art3d.Poly3DCollection(faces, facecolors=tinted.reshape(-1, 4), linewidths=0.0))
        low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axes.set_box_aspect(tuple(np.maximum((high - low) / (high - low).max(), 0.45)), zoom=0.92)
    axes.set_xlabel("z [mm]", labelpad=8, loc="center", fontsize=12)
    axes.set_ylabel("x [mm]", labelpad=8, loc="center", fontsize=12)
    axes.set_zlabel("y [mm]", labelpad=6, fontsize=12)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(ticker.MaxNLocator(5))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_pane_color((0.96, 0.97, 0.98, 1.0))
        axis._axinfo["grid"].update(color="#d9dee4", linewidth=0.6)
    axes.tick_params(labelsize=10, pad=1)
    axes.view_init(elev=20, azim=-62)


def _draw_flat(axes: Any, boxes: HitBoxes, plane: tuple[int, int], norm: Any, scale: Any) -> None:
    """Draw the boxes' outlines in a plane, the most energetic ones on top; the front view has the same scale along both axes."""
    collections = require("matplotlib.collections", extra="report")
    points = boxes.corners[:, :, list(plane)]
    low, high = points.min(axis=1), points.max(axis=1)
    (left, bottom), (right, top) = low.T, high.T
    if plane == _FRONT:
        outline = points[:, _FACE]  # wedges of polar voxels as what they are
    else:
        outline = np.stack([left, bottom, right, bottom, right, top, left, top], 1).reshape(-1, 4, 2)
    drawn = collections.PolyCollection(outline, facecolors=scale(norm(boxes.energy)), linewidths=0.0)
    axes.add_collection(drawn)
    axes.autoscale_view()
    if plane == _FRONT:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"{'xyz'[plane[0]]} [mm]", fontsize=12)
    axes.set_ylabel(f"{'xyz'[plane[1]]} [mm]", fontsize=12)
    axes.tick_params(labelsize=10)
    if len(points):
        span = np.ptp(points.reshape(-1, 2), axis=0)
        axes.set_xlim(left.min() - 0.03 * span[0], right.max() + 0.03 * span[0])
        axes.set_ylim(bottom.min() - 0.03 * span[1], top.max() + 0.03 * span[1])
