"""Folding of scored deposits into cells, against a slow loop and against the cells' own places."""

import numpy as np
import pytest

from caloforge.errors import IncompatibleError
from caloforge.geometry import DETECTORS, get_detector

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
