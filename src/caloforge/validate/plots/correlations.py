"""Linear correlations between observables and between layers, and how far they are from the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.registry import OBSERVABLES
from caloforge.validate.plots.panel import Array, Heat, Image
from caloforge.validate.plots.profiles import layer_ticks

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["correlation_matrix", "correlations"]

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
