"""Laws that every registered detector obeys, and the dimensions of the published ones."""

import dataclasses

import numpy as np
import pytest

from caloforge.errors import IncompatibleError, UnknownNameError
from caloforge.geometry import DETECTORS, CylindricalLayer, Detector, get_detector, get_material, project

SIMULABLE = [name for name in DETECTORS if get_detector(name).simulable]


@pytest.fixture(params=DETECTORS.names())
def detector(request: pytest.FixtureRequest) -> Detector:
    return get_detector(request.param)


def slow_neighbours(detector: Detector) -> set[tuple[int, int]]:
    """Compare every pair of cells of one layer, and of two neighbouring layers, box by box."""
    pairs = set()
    boxes = [layer.boxes() for layer in detector.layers]
    for k, box in enumerate(boxes):
        polar = isinstance(detector.layers[k], CylindricalLayer)
        for i in range(len(box)):
            for j in range(i + 1, len(box)):
                if share_edge(box[i], box[j], polar):
                    pairs.add(tuple(sorted((detector.layer_cells[k][i], detector.layer_cells[k][j]))))
            if k + 1 < len(boxes):
                for j in range(len(boxes[k + 1])):
                    if area(box[i], boxes[k + 1][j]) > 1e-6:
                        cells = (detector.layer_cells[k][i], detector.layer_cells[k + 1][j])
                        pairs.add(tuple(sorted(cells)))
    return pairs


def overlap(a: np.ndarray, b: np.ndarray, axis: int) -> float:
    return min(a[2 * axis + 1], b[2 * axis + 1]) - max(a[2 * axis], b[2 * axis])


def area(a: np.ndarray, b: np.ndarray) -> float:
    return max(overlap(a, b, 0), 0) * max(overlap(a, b, 1), 0)


def share_edge(a: np.ndarray, b: np.ndarray, polar: bool) -> bool:
    shifts = (0.0, 2 * np.pi, -2 * np.pi) if polar else (0.0,)
    for shift in shifts:
        moved = a + np.array([shift, shift, 0, 0])
        first, second = overlap(moved, b, 0), overlap(moved, b, 1)
        if (abs(first) < 1e-6 and second > 1e-6) or (abs(second) < 1e-6 and first > 1e-6):
            return True
    return False


def test_cells_are_counted_once(detector: Detector) -> None:
    cells = np.concatenate(detector.layer_cells)
    assert sorted(cells) == list(range(detector.n_cells))
    assert int(np.prod(detector.shape)) == detector.n_cells
    assert detector.cell_centres.shape == (detector.n_cells, 3)


def test_layer_of_a_cell_has_its_depth(detector: Detector) -> None:
    depths = np.array([layer.z for layer in detector.layers])
    np.testing.assert_array_equal(detector.cell_centres[:, 2], depths[detector.cell_layer])
    assert np.all(np.diff(depths) > 0)


@pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-10x10", "calochallenge-1-photons"])
def test_neighbours_agree_with_a_slow_comparison(name: str) -> None:
    detector = get_detector(name)
    assert {tuple(pair) for pair in detector.neighbours} == slow_neighbours(detector)


def test_neighbours_of_a_grid_are_counted() -> None:
    detector = get_detector("ild-ecal")
    n = 30
    assert len(detector.neighbours) == 3 * (n - 1) * n * n
    assert np.all(detector.neighbours[:, 0] < detector.neighbours[:, 1])


@pytest.mark.parametrize("name", SIMULABLE)
def test_slabs_follow_each_other(name: str) -> None:
    detector = get_detector(name)
    end = 0.0
    for slab in detector.stack:
        assert slab.z >= end - 1e-9
        end = slab.z + slab.thickness
    assert detector.length == pytest.approx(end)
    active = {slab.layer for slab in detector.stack if slab.active}
    assert active == set(range(detector.n_layers))


def test_ild_dimensions() -> None:
    detector = get_detector("ild-ecal")
    tungsten = [slab.thickness for slab in detector.stack if slab.material.name == "G4_W"]
    assert tungsten == [2.1] * 20 + [4.2] * 10
    assert detector.length == pytest.approx(20 * 5.4 + 10 * 7.5)
    by_hand = (20 * 2.1 + 10 * 4.2) / 3.50418 + 30 * 0.525 / 93.6607 + 30 * 2.775 / 303921
    assert detector.depth_x0 == pytest.approx(by_hand)
    assert detector.cell_centres[(15 * 30 + 15) * 30 + 4, :2] == pytest.approx([2.5, 2.5])
    assert (detector.beam.x, detector.beam.y) == (2.5, 2.5)
    assert detector.stack[1].half_x == pytest.approx(95.0)
    assert detector.layers[0].mip == pytest.approx(0.2, rel=0.05)


def test_clic_dimensions() -> None:
    detector = get_detector("clic-ecal-wide")
    tungsten = [slab.thickness for slab in detector.stack if slab.material.name == "G4_W"]
    assert tungsten == [2.4] * 17 + [4.8] * 8
    assert detector.shape == (51, 51, 25)
    assert (detector.beam.x, detector.beam.y) == (pytest.approx(0), pytest.approx(0))
    assert get_detector("clic-ecal").stack[0].half_x == pytest.approx(45 * 5.1 / 2)


def test_atlas_dimensions() -> None:
    detector = get_detector("atlas-em-barrel")
    assert [layer.n_cells for layer in detector.layers] == [21, 168, 49, 28]
    units = [sum(slab.layer == layer for slab in detector.stack) for layer in range(4)]
    assert units == [1, 13, 49, 6]
    assert detector.stack[0].thickness / detector.stack[0].material.x0 == pytest.approx(1.7, abs=0.02)
    assert detector.length == pytest.approx(161 + 68 * (1.53 + 0.4 + 4.2 + 0.27) - 0.27)
    front, middle = detector.layers[1], detector.layers[2]
    assert front.pitch_x == pytest.approx(middle.pitch_x / 8)
    assert front.pitch_y == pytest.approx(middle.pitch_y * 4)


def test_par04_dimensions() -> None:
    two, three = get_detector("calochallenge-2"), get_detector("calochallenge-3")
    assert two.stack == three.stack
    assert [slab.material.name for slab in two.stack] == ["G4_W", "G4_Si"] * 90
    assert [slab.layer for slab in two.stack if slab.active] == [k // 2 for k in range(90)]
    assert two.length == pytest.approx(153.0)
    assert two.depth_x0 == pytest.approx(90 * (1.4 / 3.50418 + 0.3 / 93.6607))
    outer = 800.0 + two.length
    assert (two.inner_radius, two.stack[-1].half_x) == (800.0, 1000.0)
    assert two.stack[-1].half_y == pytest.approx(outer)
    for detector in (two, three):
        assert detector.readout is not None
        assert detector.readout.radius == pytest.approx(41.85)
        # the sum over a mesh's layers and voxels covers the stack: no silicon is cut by a boundary between layers
        sagitta = 800.0 - np.sqrt(800.0**2 - detector.readout.radius**2)
        first = detector.stack[1]
        assert 0 < sagitta < first.z
        assert detector.evaluation_cut == pytest.approx(0.01515, rel=1e-3)
        assert str(detector.beam.energy) == "1-1000GeV:log"


def test_cylinders_need_a_mesh() -> None:
    with pytest.raises(IncompatibleError, match="'ild-ecal': concentric cylinders need a mesh"):
        dataclasses.replace(get_detector("ild-ecal"), inner_radius=800.0)


def test_what_distinguishes_detectors() -> None:
    one = get_detector("calochallenge-2")
    for change in (
        {"inner_radius": 900.0},
        {"medium": get_material("G4_lAr")},
        {"readout": dataclasses.replace(one.readout, energy_scale=1.0)},
        {"stack": one.stack[:-1]},
    ):
        assert dataclasses.replace(one, **change) != one
    assert dataclasses.replace(one, beam=get_detector("calochallenge-3").beam) == one


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("calochallenge-1-photons", 368),
        ("calochallenge-1-pions", 533),
        ("calochallenge-2", 6480),
        ("calochallenge-3", 40500),
    ],
)
def test_mesh_sizes(name: str, cells: int) -> None:
    assert get_detector(name).n_cells == cells


def test_mesh_order_is_layer_alpha_r() -> None:
    detector = get_detector("calochallenge-2")
    layer, alpha, r = 7, 3, 5
    index = layer * 16 * 9 + alpha * 9 + r
    radius, angle = 4.65 * (r + 0.5), -np.pi + (alpha + 0.5) * 2 * np.pi / 16
    expected = [radius * np.cos(angle), radius * np.sin(angle), 3.4 * (layer + 0.5)]
    np.testing.assert_allclose(detector.cell_centres[index], expected)


def test_projection_keeps_energy_and_place() -> None:
    source, image = get_detector("ild-ecal"), get_detector("ild-ecal-10x10")
    rng = np.random.default_rng(0)
    cells = rng.exponential(size=(3, source.n_cells)).astype(np.float32)
    flat = project(cells, source, image)
    slow = np.zeros((3, 10, 10))
    for ix in range(30):
        for iy in range(30):
            slow[:, ix // 3, iy // 3] += cells.reshape(3, 30, 30, 30)[:, ix, iy].sum(axis=1)
    np.testing.assert_allclose(flat, slow.reshape(3, 100), rtol=1e-5)
    with pytest.raises(IncompatibleError, match="cannot be projected"):
        project(cells, source, get_detector("clic-ecal"))


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown detector 'ild'; known: ild-ecal, .*\.toml"):
        get_detector("ild")


def test_flat_detectors_have_no_cylinders() -> None:
    for name in ("ild-ecal", "clic-ecal", "ild-ecal-10x10", "atlas-em-barrel"):
        assert get_detector(name).is_flat
    assert not get_detector("calochallenge-2").is_flat


def test_absorber_ratios_follow_from_the_stack() -> None:
    for name, single in (("ild-ecal", 20), ("clic-ecal", 17)):
        detector = get_detector(name)
        expected = np.where(np.arange(detector.n_layers) < single, 1.0, 2.0)
        np.testing.assert_allclose(detector.absorber_ratios, expected, rtol=1e-4)
        passive = sum(slab.thickness / slab.material.x0 for slab in detector.stack if not slab.active)
        assert detector.sampled_depth(active=False).sum() == pytest.approx(passive)
        assert detector.sampled_depth().sum() == pytest.approx(detector.depth_x0)
    cylinders = get_detector("calochallenge-2")
    np.testing.assert_allclose(cylinders.absorber_ratios, 1.0)
    assert cylinders.sampled_depth().sum() == pytest.approx(cylinders.depth_x0)
    mesh = get_detector("calochallenge-1-photons")
    np.testing.assert_array_equal(mesh.absorber_ratios, 1.0)
    np.testing.assert_array_equal(mesh.sampled_depth(), 0.0)


def test_relative_depth_goes_from_first_to_last_layer_by_the_absorber() -> None:
    depths = get_detector("ild-ecal").relative_depth
    assert depths[[0, -1]].tolist() == [-1.0, 1.0]
    assert np.diff(depths)[25] == pytest.approx(2 * np.diff(depths)[5], rel=1e-3)
    np.testing.assert_allclose(get_detector("calochallenge-2").relative_depth, np.linspace(-1, 1, 45))
    np.testing.assert_array_equal(get_detector("ild-ecal-10x10").relative_depth, [-1.0])
