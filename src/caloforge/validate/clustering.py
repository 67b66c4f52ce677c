"""Clusters of neighbouring hits, for a whole batch of showers at once.

Grids are labelled by :func:`scipy.ndimage.label` on (N, nx, ny, n_layers) with a structure that connects within a shower
only. Other detectors are graphs: the cells of each shower are nodes, the detector's pairs of neighbours are
edges where both cells are hit, and :func:`scipy.sparse.csgraph.connected_components` finds the clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from caloforge.validate.observables.batch import ShowerBatch

__all__ = ["label_clusters", "leading_cluster"]


def label_clusters(batch: ShowerBatch, corners: bool = True) -> NDArray[np.int64]:
    """Return the cluster (H,) of each hit; no cluster spans two showers.

    Arguments:
        batch: Showers; their hits are all cells above the batch's cut.
        corners: Whether cells of a grid that share only an edge or a corner are neighbours, too.
    """
    return _label_grid(batch, corners) if batch.detector.is_grid else _label_graph(batch)


def leading_cluster(batch: ShowerBatch, corners: bool = True) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Find the cluster of the highest energy in each shower.

    Returns:
        Whether each hit (H,) belongs to it, and the number of clusters of each shower (N,).
    """
    label = label_clusters(batch, corners)
    if len(label) == 0:
        return np.zeros(0, bool), np.zeros(batch.n, np.int64)
    label = np.unique(label, return_inverse=True)[1]
    energy = np.bincount(label, batch.energy)
    shower = np.empty(len(energy), np.int64)
    shower[label] = batch.shower
    n_clusters = np.bincount(shower, minlength=batch.n)
    order = np.lexsort((energy, shower))
    leading = order[np.cumsum(n_clusters)[n_clusters > 0] - 1]
    chosen = np.zeros(len(energy), bool)
    chosen[leading] = True
    return chosen[label], n_clusters


def _label_grid(batch: ShowerBatch, corners: bool) -> NDArray[np.int64]:
    hit = np.zeros((batch.n, batch.detector.n_cells), bool)
    hit[batch.shower, batch.cell] = True
    structure = np.zeros((3, 3, 3, 3), bool)
    structure[1] = ndimage.generate_binary_structure(3, 3 if corners else 1)
    labels, _ = ndimage.label(hit.reshape(batch.n, *batch.detector.shape), structure)
    return np.asarray(labels.reshape(hit.shape)[batch.shower, batch.cell], np.int64)


def _label_graph(batch: ShowerBatch) -> NDArray[np.int64]:
    number = np.full((batch.n, batch.detector.n_cells), -1, np.int64)
    number[batch.shower, batch.cell] = np.arange(len(batch.cell))
    edges = batch.detector.neighbours
    starts, ends = number[:, edges[:, 0]], number[:, edges[:, 1]]
    both = (starts >= 0) & (ends >= 0)
    size = len(batch.cell)
    graph = coo_array((np.ones(int(both.sum()), np.int8), (starts[both], ends[both])), (size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
