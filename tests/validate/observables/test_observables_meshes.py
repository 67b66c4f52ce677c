"""One-hot voxels of the CaloChallenge's meshes land where the published definition puts them.

The expectation is built here from the edges and the order (layer, alpha, r; r fastest) alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.observables import OBSERVABLES, ShowerBatch
from caloforge.validate.observables.base import radial_edges

PHOTONS = [
    (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
    (10, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)),
    (10, (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400)),
    (1, (0, 50, 100, 200, 400, 600)),
    (1, (0, 100, 200, 400, 1000, 2000)),
]
PIONS = [
    (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
    (10, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200)),
    (10, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400)),
    (1, (0, 50, 100, 200, 400, 600)),
    (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000)),
    (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000)),
    (1, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000)),
]
MESHES = {
    "calochallenge-1-photons": PHOTONS,
    "calochallenge-1-pions": PIONS,
    "calochallenge-2": [(16, tuple(4.65 * k for k in range(10)))] * 45,
    "calochallenge-3": [(50, tuple(2.325 * k for k in range(19)))] * 45,
}


def voxels(name: str) -> Iterator[tuple[int, int, float, float, float]]:
    """Yield (flat index, layer, x, y, r) of every voxel, from the definition."""
    index = 0
    for layer, (n_alpha, edges) in enumerate(MESHES[name]):
        for alpha in range(n_alpha):
            angle = -math.pi + 2 * math.pi * (alpha + 0.5) / n_alpha
            for low, high in itertools.pairwise(edges):
                r = (low + high) / 2
                on = 1.0 if n_alpha > 1 else 0.0
                yield index, layer, on * r * math.cos(angle), on * r * math.sin(angle), r
                index += 1


@pytest.mark.parametrize(
    ("name", "n"), [(name, n) for name, n in zip(MESHES, (368, 533, 6480, 40500), strict=True)]
)
def test_a_voxel_for_every_layer_alpha_r(name: str, n: int) -> None:
    detector = get_detector(name)
    expected = list(voxels(name))
    assert len(expected) == n == detector.n_cells
    n_layers = detector.n_layers
    members = [[voxel for voxel in expected if voxel[1] == layer] for layer in range(n_layers)]
    # shower k holds the k-th voxel of every layer that has so many; layers do not see each other
    most = max(len(voxels_of) for voxels_of in members)
    cells = np.zeros((most, n), np.float32)
    wanted = {key: np.zeros((most, n_layers)) for key in ("energy", "x", "y", "r", "sparsity")}
    for layer, voxels_of in enumerate(members):
        wanted["sparsity"][:, layer] = 1.0
        for k, (index, _, x, y, r) in enumerate(voxels_of):
            cells[k, index] = 2.0 + layer
            for key, value in (("energy", 2.0 + layer), ("x", x), ("y", y), ("r", r)):
                wanted[key][k, layer] = value
            wanted["sparsity"][k, layer] = 1.0 - 1.0 / len(voxels_of)
    batch = ShowerBatch(Showers(detector, cells, np.full(most, 1e4)))
    for observable, key in (
        ("layer_energy", "energy"),
        ("layer_centre_x", "x"),
        ("layer_centre_y", "y"),
        ("layer_centre_r", "r"),
        ("layer_sparsity", "sparsity"),
    ):
        values = OBSERVABLES[observable].compute(batch)
        np.testing.assert_allclose(values, wanted[key], rtol=1e-12, atol=1e-9, err_msg=observable)
    for width in ("layer_width_x", "layer_width_y", "layer_width_r"):  # rounding of squares up to (2000 mm)^2
        np.testing.assert_allclose(OBSERVABLES[width].compute(batch), 0.0, atol=1e-4)


@pytest.mark.parametrize("name", ["calochallenge-1-photons", "calochallenge-1-pions", "calochallenge-2"])
def test_one_voxel_alone(name: str) -> None:
    detector = get_detector(name)
    n = detector.n_cells
    edges = radial_edges(detector)
    layer_energy, centre, radius, rings = [], [], [], []
    for start in range(0, n, 1000):
        rows = np.arange(start, min(start + 1000, n))
        cells = np.zeros((len(rows), n), np.float32)
        cells[np.arange(len(rows)), rows] = 3.0
        batch = ShowerBatch(Showers(detector, cells, np.full(len(rows), 1e4)))
        layer_energy.append(OBSERVABLES["layer_energy"].compute(batch))
        centre.append(np.stack(batch.centre[:2], axis=1))
        radius.append(OBSERVABLES["radius_90"].compute(batch))
        rings.append(OBSERVABLES["radial_profile"].compute(batch))
    _, layers, x, y, r = np.array(list(voxels(name))).T
    one_hot = np.zeros((n, detector.n_layers))
    one_hot[np.arange(n), layers.astype(int)] = 3.0
    np.testing.assert_array_equal(np.concatenate(layer_energy), one_hot)
    np.testing.assert_allclose(np.concatenate(centre), np.stack([x, y], axis=1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(np.concatenate(radius), r)
    ring = np.concatenate(rings)
    assert (ring.sum(axis=1) == 3.0).all()
    hit = ring.argmax(axis=1)
    assert (edges[hit] <= r).all()
    assert (r < edges[hit + 1]).all()


def test_a_full_ring_is_centred_and_as_wide_as_its_radius() -> None:
    detector = get_detector("calochallenge-2")
    cells = np.zeros((9, 45, 16, 9), np.float32)
    for ring in range(9):
        cells[ring, 7, :, ring] = 1.5
    batch = ShowerBatch(Showers(detector, cells.reshape(9, -1), np.full(9, 1e4)))
    radius = (np.arange(9) + 0.5) * 4.65
    for name in ("layer_centre_x", "layer_centre_y"):
        np.testing.assert_allclose(OBSERVABLES[name].compute(batch)[:, 7], 0.0, atol=1e-10)
    for name in ("layer_width_x", "layer_width_y"):  # mean of cos^2 over a ring is one half
        np.testing.assert_allclose(OBSERVABLES[name].compute(batch)[:, 7], radius / math.sqrt(2))
    np.testing.assert_allclose(OBSERVABLES["layer_centre_r"].compute(batch)[:, 7], radius)
