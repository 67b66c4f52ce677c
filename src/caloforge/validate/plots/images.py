"""Mean profiles, mean images and correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.validate.observables.base import AXIS_LABELS, OBSERVABLES
from caloforge.validate.plots.axes import plain_name
from caloforge.validate.plots.panel import Array, Heat, Image, Panel
from caloforge.validate.plots.spectra import common_names, mean_panel, with_unit

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["correlation_matrix", "correlations", "images", "layer_ticks", "profiles"]


_FEW_LAYERS = 8
_AXES = ("layer", "x", "y", "r")
_LOG = ("x", "y", "r")


def layer_ticks(detector: Detector) -> tuple[str, ...]:
    """Return the layers' names where there are few enough to write them out."""
    return tuple(layer.name for layer in detector.layers) if detector.n_layers <= _FEW_LAYERS else ()


def profiles(samples: Sequence[Sample], names: Sequence[str] | None = None) -> list[Panel]:
    """Return the mean over showers of every observable along an axis in space, or of some of them."""
    detector = samples[0].detector
    panels = []
    for name in common_names(samples):
        observable = OBSERVABLES[name]
        edges = observable.edges(detector)
        if observable.axis not in _AXES or edges is None or (names is not None and name not in names):
            continue
        text = name, f"Mean {observable.label}", with_unit(*AXIS_LABELS[observable.axis])
        values = [sample.observables[name] for sample in samples]
        ticks = layer_ticks(detector) if observable.axis == "layer" else ()
        labels = [sample.label for sample in samples]
        y_label = with_unit(f"{observable.label}, mean of the showers", observable.unit)
        log_y = observable.axis in _LOG
        panels.append(mean_panel(*text, y_label, _closed(edges), values, labels, ticks, log_y))
    return panels


def _closed(edges: Array) -> Array:
    """Return edges with an open last bin drawn as wide as the one before."""
    edges = edges.copy()
    if not np.isfinite(edges[-1]):
        edges[-1] = edges[-2] + (edges[-2] - edges[-3] if len(edges) > 2 else 1.0)
    return edges


_DIFFERENCE = 0.3  # ends of the colours of a difference of correlations


def correlation_matrix(values: Array) -> Array:
    """Return the correlations (k, k) of the columns of (N, k) over rows without a missing value; NaN for constant ones."""
    rows = values[np.isfinite(values).all(axis=1)]
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    norm = np.sqrt((centred**2).sum(axis=0))
    varying = norm > 1e-9 * (np.abs(rows).max(axis=0, initial=0.0) + 1e-300) * max(len(rows), 1) ** 0.5
    scale = np.where(varying, norm, np.nan)
    return np.asarray(centred.T @ centred / np.outer(scale, scale))


def correlations(samples: Sequence[Sample]) -> list[Heat]:
    """Return the reference's correlation matrices beside each sample's differences from them."""
    heats: list[Heat] = []
    scalars = [name for name in common_names(samples) if OBSERVABLES[name].is_scalar]
    names = [name for name in scalars if all(_usable(sample.observables[name]) for sample in samples)]
    if len(names) > 1:
        matrices = [correlation_matrix(np.stack([s.observables[n] for n in names], axis=1)) for s in samples]
        ticks = tuple(name.replace("_", " ") for name in names)
        heats += _pair("observables", "observables", "", samples, matrices, ticks)
    if samples[0].detector.n_layers > 1 and "layer_energy" in common_names(samples):
        matrices = [correlation_matrix(sample.observables["layer_energy"]) for sample in samples]
        ticks = layer_ticks(samples[0].detector)
        heats += _pair("layers", "layer energies", "layer", samples, matrices, ticks)
    return heats


def _usable(column: Array) -> bool:
    """Return whether an observable varies and is defined for most showers."""
    known = np.isfinite(column)
    return bool(known.mean() > 0.9 and np.ptp(column[known]) > 0)


def _pair(
    name: str, title: str, axis: str, samples: Sequence[Sample], matrices: list[Array], ticks: tuple[str, ...]
) -> list[Heat]:
    edges = np.arange(len(matrices[0]) + 1, dtype=np.float64) - 0.5
    place = axis, axis, edges, edges
    names: dict[str, Any] = {"x_ticks": ticks, "y_ticks": ticks}
    first = (Image(samples[0].label, matrices[0]),)
    labels = (f"{sample.label} − {plain_name(samples[0].label)}" for sample in samples[1:])
    rest = tuple(map(Image, labels, (matrix - matrices[0] for matrix in matrices[1:])))
    name, title = f"correlation_{name}", f"Correlation of {title}"
    whole = Heat(name, title, *place, first, "correlation", symmetric=1.0, **names)
    name, title = f"{name}_difference", f"{title}: difference from {plain_name(samples[0].label)}"
    return [
        whole,
        Heat(name, title, *place, rest, "difference", symmetric=_DIFFERENCE, **names),
    ]


_MOST_LAYERS = 4  # of a detector without a common grid
_RATIO = 0.5  # ends of the colours of ratio - 1


def images(samples: Sequence[Sample]) -> list[Heat]:
    """Return the mean images of all samples, each followed by its ratio to the reference."""
    detector = samples[0].detector
    heats, means = [], [sample.observables.cells.mean for sample in samples]
    reference = plain_name(samples[0].label)
    for view in _views(detector, means):
        axes = view.x_label, view.y_label, view.x_edges, view.y_edges
        shown = tuple(map(Image, (sample.label for sample in samples), view.parts))
        mean, unit = f"Mean energy, {view.title}", "mean energy [MeV]"
        heats.append(Heat(f"image_{view.name}", mean, *axes, shown, unit, log=True, polar=view.polar))
        below = view.parts[0]
        # above 1e-5 of the reference's largest value
        known = np.nan_to_num(below) > 1e-5 * np.nanmax(below, initial=0.0)
        safe = np.where(known, below, 1.0)
        ratios = [np.where(known, part / safe - 1.0, np.nan) for part in view.parts]
        labels = (f"{sample.label} / {reference} − 1" for sample in samples[1:])
        shown = tuple(map(Image, labels, ratios[1:]))
        name, title = f"image_{view.name}_ratio", f"Mean energy, model / {reference} − 1, {view.title}"
        unit = f"model / {reference} − 1"
        heats.append(Heat(name, title, *axes, shown, unit, symmetric=_RATIO, polar=view.polar))
    return heats


@dataclass(frozen=True)
class _View:
    """One view of the mean shower of every sample."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_edges: Array  # (nx + 1,)
    y_edges: Array  # (ny + 1,)
    parts: list[Array]  # (nx, ny) each; the reference first
    polar: bool = False  # columns are angles, rows radii


def _views(detector: Detector, means: list[Array]) -> list[_View]:
    """Return the views that fit the detector."""
    first = detector.layers[0]
    if isinstance(first, CylindricalLayer):
        return _cylinder(detector, means)
    if detector.order == "xyl":
        return _grid(detector, first, means)
    return _layered(detector, means)


def _edges(layer: ReadoutLayer) -> tuple[Any, Any]:
    x = layer.x_centre + (np.arange(layer.nx + 1) - layer.nx / 2) * layer.pitch_x
    y = layer.y_centre + (np.arange(layer.ny + 1) - layer.ny / 2) * layer.pitch_y
    return x, y


def _grid(detector: Detector, first: ReadoutLayer, means: list[Array]) -> list[_View]:
    x, y = _edges(first)
    cubes = [mean.reshape(detector.shape) for mean in means]
    front, side, top = ([cube.sum(axis=k) for cube in cubes] for k in (2, 0, 1))
    views = [_View("front", "summed over the layers", "x [mm]", "y [mm]", x, y, front)]
    if detector.n_layers > 1:
        z = np.arange(detector.n_layers + 1, dtype=np.float64) - 0.5
        views.append(_View("side", "summed over x", "layer", "y [mm]", z, y, [image.T for image in side]))
        views.append(_View("top", "summed over y", "layer", "x [mm]", z, x, [image.T for image in top]))
    return views


def _layered(detector: Detector, means: list[Array]) -> list[_View]:
    """Return the layers one by one, those with most energy if there are many."""
    views: list[_View] = []
    for number in _filled(detector, means[0]):
        layer = detector.layers[number]
        if isinstance(layer, ReadoutLayer):
            x, y = _edges(layer)
            parts = [mean[detector.layer_cells[number]].reshape(layer.nx, layer.ny) for mean in means]
            views.append(_View(f"layer{number}", layer.name, "x [mm]", "y [mm]", x, y, parts))
    return views


def _filled(detector: Detector, mean: Array) -> list[int]:
    """Return the layers with most energy, in order."""
    energy = [float(mean[cells].sum()) for cells in detector.layer_cells]
    return sorted(np.argsort(energy)[::-1][:_MOST_LAYERS].tolist())


def _cylinder(detector: Detector, means: list[Array]) -> list[_View]:
    """Return r and angle seen along the axis, and r against the layer; layers of different bins one by one along the axis.

    Where the rings of the layers differ, the view against the layer has all their edges, and a ring's energy in each part of it.
    """
    layers = [layer for layer in detector.layers if isinstance(layer, CylindricalLayer)]
    cells = [
        [
            mean[index].reshape(layer.n_alpha, layer.n_r)
            for layer, index in zip(layers, detector.layer_cells, strict=True)
        ]
        for mean in means
    ]
    views = []
    if all((layer.n_alpha, layer.r_edges) == (layers[0].n_alpha, layers[0].r_edges) for layer in layers):
        views.append(
            _wedges("front", "summed over the layers", layers[0], [np.sum(each, axis=0) for each in cells])
        )
    else:
        for number in _filled(detector, means[0]):
            name = f"layer {layers[number].name}" if layers[number].name.isdigit() else layers[number].name
            views.append(_wedges(f"layer{number}", name, layers[number], [each[number] for each in cells]))
    if len(layers) > 1:
        r = np.unique(np.concatenate([layer.r_edges for layer in layers]))
        z, parts = np.arange(len(layers) + 1, dtype=np.float64) - 0.5, []
        for each in cells:
            image = np.full((len(layers), len(r) - 1), np.nan)
            for number, (layer, values) in enumerate(zip(layers, each, strict=True)):
                ring = np.searchsorted(layer.r_edges, (r[1:] + r[:-1]) / 2) - 1
                inside = (ring >= 0) & (ring < layer.n_r)
                image[number, inside] = values.sum(axis=0)[ring[inside]]
            parts.append(image)
        views.append(_View("rings", "ring by ring, summed over the angle", "layer", "r [mm]", z, r, parts))
    return views


def _wedges(name: str, title: str, layer: CylindricalLayer, parts: list[Array]) -> _View:
    angles = np.linspace(-np.pi, np.pi, layer.n_alpha + 1)
    return _View(
        name, title, "x [mm]", "y [mm]", angles, np.asarray(layer.r_edges, np.float64), parts, polar=True
    )
