"""Mean profiles, mean images and correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.validate.observables.base import AXIS_LABELS, OBSERVABLES
from caloforge.validate.plots.panel import Array, Heat, Image, Panel
from caloforge.validate.plots.spectra import mean_panel, with_unit

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
    tables = [sample.observables for sample in samples]
    panels = []
    for name in tables[0].names:
        if names is not None and name not in names:
            continue
        observable = OBSERVABLES[name]
        if observable.axis not in _AXES or not all(name in table.names for table in tables):
            continue
        edges = observable.edges(detector)
        if edges is None:
            continue
        x_label = with_unit(*AXIS_LABELS[observable.axis])
        panels.append(
            mean_panel(
                name,
                f"Mean {observable.label}",
                x_label,
                with_unit("mean", observable.unit),
                _closed(edges),
                [np.asarray(table[name]) for table in tables],
                [sample.label for sample in samples],
                layer_ticks(detector) if observable.axis == "layer" else (),
                log_y=observable.axis in _LOG,
            )
        )
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
    names = _columns(samples)
    if len(names) > 1:
        tables = [sample.observables for sample in samples]
        matrices = [
            correlation_matrix(np.stack([np.asarray(t[n], float) for n in names], axis=1)) for t in tables
        ]
        ticks = tuple(name.replace("_", " ") for name in names)
        heats += _pair("observables", "observables", "", samples, matrices, ticks)
    layer = "layer_energy"
    if samples[0].detector.n_layers > 1 and all(layer in sample.observables.names for sample in samples):
        matrices = [correlation_matrix(np.asarray(sample.observables[layer], float)) for sample in samples]
        heats += _pair(
            "layers", "layer energies", "layer", samples, matrices, layer_ticks(samples[0].detector)
        )
    return heats


def _columns(samples: Sequence[Sample]) -> list[str]:
    """Return the observables with one number a shower that vary and are defined for most showers of each sample."""
    names = []
    for name in samples[0].observables.names:
        if not OBSERVABLES[name].is_scalar:
            continue
        columns = [np.asarray(s.observables[name], float) for s in samples if name in s.observables.names]
        if len(columns) == len(samples) and all(_usable(column) for column in columns):
            names.append(name)
    return names


def _usable(column: Array) -> bool:
    known = np.isfinite(column)
    return bool(known.mean() > 0.9 and np.ptp(column[known]) > 0)


def _pair(
    name: str, title: str, axis: str, samples: Sequence[Sample], matrices: list[Array], ticks: tuple[str, ...]
) -> list[Heat]:
    edges = np.arange(len(matrices[0]) + 1, dtype=np.float64) - 0.5
    first = Image(samples[0].label, matrices[0])
    rest = tuple(
        Image(f"{sample.label} − reference", matrix - matrices[0])
        for sample, matrix in zip(samples[1:], matrices[1:], strict=True)
    )
    return [
        Heat(f"correlation_{name}", f"Correlation of {title}", axis, axis, edges, edges, (first,), "correlation", symmetric=1.0, x_ticks=ticks, y_ticks=ticks),
        Heat(
            f"correlation_{name}_difference", f"Correlation of {title}: difference from the reference", axis, axis, edges, edges,
            rest, "difference", symmetric=_DIFFERENCE, x_ticks=ticks, y_ticks=ticks,
        ),
    ]  # fmt: skip


_MOST_LAYERS = 4  # of a detector without a common grid
_RATIO = 0.5  # ends of the colours of ratio - 1


def images(samples: Sequence[Sample]) -> list[Heat]:
    """Return the mean images of all samples, each followed by its ratio to the reference."""
    detector = samples[0].detector
    means = [np.asarray(sample.observables.cell_mean, float) for sample in samples]
    heats: list[Heat] = []
    for name, title, x_label, y_label, x_edges, y_edges, parts in _views(detector, means):
        shown = tuple(Image(sample.label, part) for sample, part in zip(samples, parts, strict=True))
        heats.append(
            Heat(
                f"image_{name}",
                f"Mean energy, {title}",
                x_label,
                y_label,
                x_edges,
                y_edges,
                shown,
                "mean energy [MeV]",
                log=True,
            )
        )
        heats.append(_ratio(heats[-1], name, title))
    return heats


def _ratio(heat: Heat, name: str, title: str) -> Heat:
    """Return generated over reference minus one, where the reference holds more than 1e-5 of its largest value."""
    below = heat.images[0].values
    known = below > 1e-5 * below.max(initial=0.0)
    shown = tuple(
        Image(
            f"{image.label} / reference − 1",
            np.where(known, image.values / np.where(known, below, 1.0) - 1.0, np.nan),
        )
        for image in heat.images[1:]
    )
    return Heat(
        f"image_{name}_ratio", f"Ratio to the reference, {title}", heat.x_label, heat.y_label, heat.x_edges, heat.y_edges,
        shown, "ratio − 1", symmetric=_RATIO,
    )  # fmt: skip


_View = tuple[str, str, str, str, Any, Any, list[Any]]


def _views(detector: Detector, means: list[Array]) -> list[_View]:
    """Return (name, title, axis titles, edges, one image a sample) of each view that fits the detector."""
    first = detector.layers[0]
    if isinstance(first, CylindricalLayer):
        return _polar(detector, means)
    if detector.order == "xyl":
        return _grid(detector, first, means)
    return _layered(detector, means)


def _edges(layer: ReadoutLayer) -> tuple[Any, Any]:
    x = layer.x_centre + (np.arange(layer.nx + 1) - layer.nx / 2) * layer.pitch_x
    y = layer.y_centre + (np.arange(layer.ny + 1) - layer.ny / 2) * layer.pitch_y
    return x, y


def _grid(detector: Detector, first: ReadoutLayer, means: list[Array]) -> list[_View]:
    """Return the three projections of a regular grid."""
    x, y = _edges(first)
    cubes = [mean.reshape(detector.shape) for mean in means]
    views: list[_View] = [
        ("front", "seen from the front", "x [mm]", "y [mm]", x, y, [cube.sum(axis=2) for cube in cubes])
    ]
    if detector.n_layers > 1:
        z = np.arange(detector.n_layers + 1) - 0.5
        views.append(
            ("side", "seen from the side", "layer", "y [mm]", z, y, [cube.sum(axis=0).T for cube in cubes])
        )
        views.append(
            ("top", "seen from above", "layer", "x [mm]", z, x, [cube.sum(axis=1).T for cube in cubes])
        )
    return views


def _layered(detector: Detector, means: list[Array]) -> list[_View]:
    """Return the layers one by one, those with most energy if there are many."""
    energy = [float(means[0][cells].sum()) for cells in detector.layer_cells]
    chosen = sorted(np.argsort(energy)[::-1][:_MOST_LAYERS].tolist())
    views: list[_View] = []
    for number in chosen:
        layer = detector.layers[number]
        if isinstance(layer, ReadoutLayer):
            x, y = _edges(layer)
            parts = [mean[detector.layer_cells[number]].reshape(layer.nx, layer.ny) for mean in means]
            views.append((f"layer{number}", layer.name, "x [mm]", "y [mm]", x, y, parts))
    return views


def _polar(detector: Detector, means: list[Array]) -> list[_View]:
    """Return radius against layer, summed over the angle; rings are numbered from the axis out."""
    most = max(layer.n_r for layer in detector.layers if isinstance(layer, CylindricalLayer))
    parts = []
    for mean in means:
        image = np.full((detector.n_layers, most), np.nan)
        for number, (layer, cells) in enumerate(zip(detector.layers, detector.layer_cells, strict=True)):
            if isinstance(layer, CylindricalLayer):
                image[number, : layer.n_r] = mean[cells].reshape(layer.n_alpha, layer.n_r).sum(axis=0)
        parts.append(image)
    z, r = np.arange(detector.n_layers + 1) - 0.5, np.arange(most + 1) - 0.5
    return [("rings", "layers and rings", "layer", "ring", z, r, parts)]
