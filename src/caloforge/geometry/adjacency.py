"""Which cells touch: the pairs that share a face, within a layer and across neighbouring layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry.layers import CylindricalLayer, ReadoutLayer

__all__ = ["face_neighbours"]

_TOLERANCE = 1e-6  # relative overlap below which two faces only touch along an edge


def face_neighbours(
    layers: Sequence[ReadoutLayer | CylindricalLayer], layer_cells: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the pairs of cells that share a face.

    Arguments:
        layers: Readout layers, front to back.
        layer_cells: Flat indices of each layer's cells.

    Returns:
        (n_edges, 2) flat indices, the smaller one first, sorted.
    """
    pairs: list[NDArray[np.int64]] = []
    for layer, cells in zip(layers, layer_cells, strict=True):
        pairs.append(cells[_within(layer)])
    for k in range(len(layers) - 1):
        local = _across(layers[k], layers[k + 1])
        pairs.append(np.stack([layer_cells[k][local[:, 0]], layer_cells[k + 1][local[:, 1]]], axis=1))
    edges = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(edges, axis=0)


def _within(layer: ReadoutLayer | CylindricalLayer) -> NDArray[np.int64]:
    """Return the pairs (E, 2) of one layer, in its own indices; alpha closes on itself."""
    if isinstance(layer, CylindricalLayer):
        n1, n2, closed = layer.n_alpha, layer.n_r, layer.n_alpha > 2
    else:
        n1, n2, closed = layer.nx, layer.ny, False
    index = np.arange(n1 * n2).reshape(n1, n2)
    steps = [(index[:-1], index[1:]), (index[:, :-1], index[:, 1:])]
    if closed:
        steps.append((index[-1:], index[:1]))
    return np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in steps])


def _across(
    front: ReadoutLayer | CylindricalLayer, back: ReadoutLayer | CylindricalLayer
) -> NDArray[np.int64]:
    """Return the pairs (E, 2) whose faces overlap, in the two layers' own indices."""
    a, b = front.boxes(), back.boxes()
    if a.shape == b.shape and np.array_equal(a, b):
        same = np.arange(len(a))
        return np.stack([same, same], axis=1)
    touching = np.ones((len(a), len(b)), bool)
    for low, high in ((0, 1), (2, 3)):
        overlap = np.minimum(a[:, None, high], b[None, :, high]) - np.maximum(
            a[:, None, low], b[None, :, low]
        )
        size = np.minimum((a[:, high] - a[:, low])[:, None], (b[:, high] - b[:, low])[None, :])
        touching &= overlap > _TOLERANCE * size
    return np.argwhere(touching)
