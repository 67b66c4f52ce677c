"""Folding of scored deposits into cells, against a slow loop and against the cells' own places."""

import math

import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import DETECTORS, CylindricalLayer, Detector, MeshReadout, Readout, get_detector

SIMULABLE = [name for name in DETECTORS if get_detector(name).simulable]


def atlas_cell(layer: int, ix: int, iy: int, phi: int, eta: int) -> int:
    """Fold one hit as the note's figure says: fine row 7 and column 3 (4 in the back) hold the impact."""
    offsets = [0, 21, 189, 238]
    nx, ny = [(7, 3), (56, 3), (7, 7), (4, 7)][layer]
    x, y = ix, iy
    if layer in (0, 1):
        y = (iy - 3 + phi) // 4
    if layer == 3:
        x = (ix - eta) // 2
    return offsets[layer] + x * ny + y if 0 <= x < nx and 0 <= y < ny else -1


def test_atlas_folding_against_a_slow_loop() -> None:
    readout = get_detector("atlas-em-barrel").readout
    assert readout is not None
    rng = np.random.default_rng(1)
    layer = rng.integers(0, 4, 4000)
    assert isinstance(readout, Readout)
    fine = readout.fine_layers
    ix = np.array([rng.integers(0, fine[k].nx) for k in layer])
    iy = np.array([rng.integers(0, fine[k].ny) for k in layer])
    phi, eta = rng.integers(0, 4, 4000), rng.integers(0, 2, 4000)
    cells = readout.fold(layer, ix, iy, {"alignment_phi": phi, "alignment_eta": eta})
    expected = [atlas_cell(*hit) for hit in zip(layer, ix, iy, phi, eta, strict=True)]
    np.testing.assert_array_equal(cells, expected)


@pytest.mark.parametrize("name", SIMULABLE)
def test_a_cell_holds_its_centre(name: str) -> None:
    detector = get_detector(name)
    assert detector.readout is not None
    conditions = {condition: np.array([1.0]) for condition, _ in detector.beam.alignments}
    centres = detector.cell_centres.copy()
    shift = detector.layer_shift(conditions)
    if shift is not None:
        centres[:, :2] += shift[0][detector.cell_layer]
    x, y = centres[:, 0] + 0.01, centres[:, 1] + 0.01
    cells = detector.readout.digitise(x, y, detector.cell_layer, conditions)
    np.testing.assert_array_equal(cells, np.arange(detector.n_cells))


@pytest.mark.parametrize("name", SIMULABLE)
def test_far_positions_belong_to_no_cell(name: str) -> None:
    detector = get_detector(name)
    assert detector.readout is not None
    conditions = {condition: np.array([0]) for condition, _ in detector.beam.alignments}
    far = np.array([1e5, -1e5, 1e30])
    cells = detector.readout.digitise(far, np.zeros(3), np.zeros(3, int), conditions)
    assert np.all(cells == -1)


MESHES = ["calochallenge-2", "calochallenge-3"]


def voxel_of(detector: Detector, x: float, y: float, z: float) -> int:
    """Look a place up among the edges of each layer, ring and angle."""
    r, alpha = math.sqrt(x * x + y * y), math.atan2(y, x)
    for number, layer in enumerate(detector.layers):
        assert isinstance(layer, CylindricalLayer)
        if not 3.4 * number < z <= 3.4 * (number + 1):
            continue
        for ia in range(layer.n_alpha):
            low, high = (-math.pi + 2 * math.pi * k / layer.n_alpha for k in (ia, ia + 1))
            for ir in range(layer.n_r):
                if low <= alpha < high and layer.r_edges[ir] <= r < layer.r_edges[ir + 1]:
                    return int(detector.layer_cells[number][ia * layer.n_r + ir])
    return -1


@pytest.mark.parametrize("name", MESHES)
def test_places_in_a_mesh_against_a_slow_search(name: str) -> None:
    detector = get_detector(name)
    assert isinstance(detector.readout, MeshReadout)
    rng = np.random.default_rng(5)
    r, alpha = 50.0 * rng.random(400) ** 2, 2 * np.pi * rng.random(400)
    x, y, z = r * np.cos(alpha), r * np.sin(alpha), rng.uniform(-5.0, 160.0, 400)
    found = detector.readout.locate(x, y, z)
    expected = [voxel_of(detector, *place) for place in zip(x, y, z, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert 20 < (found == -1).sum() < 200


@pytest.mark.parametrize("name", MESHES)
def test_every_voxel_of_a_mesh_has_a_place(name: str) -> None:
    detector = get_detector(name)
    assert isinstance(detector.readout, MeshReadout)
    np.testing.assert_array_equal(
        detector.readout.locate(*detector.cell_centres.T), np.arange(detector.n_cells)
    )


def test_edges_of_a_mesh() -> None:
    mesh = get_detector("calochallenge-2").readout
    assert isinstance(mesh, MeshReadout)
    # the angle pi is -pi again; the rear face of a layer is in it, the outer edge and the front are outside
    assert mesh.locate(-1.0, 0.0, 1.0) == mesh.locate(-1.0, -0.0, 1.0) == 0
    rear = [3.4 * k * (1 + 1e-15) for k in range(1, 46)]
    np.testing.assert_array_equal(mesh.locate(1.0, 0.1, rear) // 144, np.arange(45))
    np.testing.assert_array_equal(mesh.locate([41.85, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 153.1]), -1)


@pytest.mark.parametrize("name", MESHES)
def test_each_silicon_is_in_one_layer_of_the_mesh_wherever_it_is(name: str) -> None:
    detector = get_detector(name)
    mesh = detector.readout
    assert isinstance(mesh, MeshReadout)
    rng = np.random.default_rng(6)
    for slab in (slab for slab in detector.stack if slab.active):
        r, alpha = 0.9999 * mesh.radius * np.sqrt(rng.random(100)), 2 * np.pi * rng.random(100)
        radius = detector.inner_radius + slab.z + slab.thickness * rng.random(100)
        x, y = r * np.cos(alpha), r * np.sin(alpha)
        z = np.sqrt(radius**2 - y**2) - detector.inner_radius
        np.testing.assert_array_equal(mesh.locate(x, y, z), mesh.digitise(x, y, np.full(100, slab.layer)))


def test_shift_needs_its_conditions() -> None:
    detector = get_detector("atlas-em-barrel")
    with pytest.raises(IncompatibleError, match="needs the condition 'alignment_phi'"):
        detector.layer_shift({})


def test_shifts_average_to_nothing() -> None:
    detector = get_detector("atlas-em-barrel")
    phi, eta = np.meshgrid(np.arange(4), np.arange(2))
    conditions = {"alignment_phi": phi.reshape(-1, 1), "alignment_eta": eta.reshape(-1, 1)}
    shift = detector.layer_shift(conditions)
    assert shift is not None
    assert shift.shape == (8, 4, 2)
    np.testing.assert_allclose(shift.mean(axis=0), 0, atol=1e-12)
    assert get_detector("ild-ecal").layer_shift({}) is None
