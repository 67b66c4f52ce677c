"""Mean shower images: the mean energy of each cell, projected or layer by layer, and its ratio to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.validate.plots.panel import Array, Heat, Image

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["images"]

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
