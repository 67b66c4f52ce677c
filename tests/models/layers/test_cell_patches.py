"""Cells as patches: every cell once, neighbours together, padding at the edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.geometry import get_detector
from caloforge.models.flow.networks import CellPatches

SHAPES = {
    "ild-ecal": (216, 125),  # 6 x 6 x 6 boxes of 5 x 5 x 5
    "clic-ecal-wide": (605, 125),  # 11 x 11 x 5, the last of x and y padded
    "atlas-em-barrel": (38, 7),  # 3 + 3 x 8 + 7 + 4 pieces of rows
    "calochallenge-2": (1215, 7),  # 45 layers of 9 rings of 16 angles, three pieces each
    "ild-ecal-10x10": (25, 4),
}
"""Patches and places."""
every_detector = pytest.mark.parametrize("name", SHAPES)


def _patches(name: str, box: tuple[int, ...] = ()) -> CellPatches:
    return CellPatches(get_detector(name), box)


@every_detector
def test_back_and_forth_is_the_identity(name: str) -> None:
    patches = _patches(name)
    cells = 1.0 + torch.arange(2.0 * patches.n_cells).view(2, -1)
    assert torch.equal(patches.cells(patches(cells)), cells)


@every_detector
def test_every_cell_is_in_one_patch_and_the_rest_is_padding(name: str) -> None:
    patches = _patches(name)
    cells = torch.arange(float(patches.n_cells))[None]
    places = patches(cells, fill=-1.0)[0].flatten()
    assert torch.equal(places[places >= 0].sort().values, cells[0])
    assert len(places) == patches.n_patches * patches.places


@every_detector
def test_numbers_of_patches_and_places(name: str) -> None:
    patches = _patches(name)
    assert (patches.n_patches, patches.places) == SHAPES[name]
    assert patches(torch.zeros(3, patches.n_cells)).shape == (3, patches.n_patches, patches.places)


@every_detector
def test_layers_are_those_of_the_cells(name: str) -> None:
    detector = get_detector(name)
    patches = _patches(name)
    layer = torch.from_numpy(detector.cell_layer).float()[None]
    for found, row in zip(patches.layers.tolist(), patches(layer, fill=-1.0)[0].tolist(), strict=True):
        assert set(found) == {int(value) for value in row if value >= 0}


def test_boxes_are_the_grids_own_blocks() -> None:
    """Against slices of the grid, one after the other."""
    detector = get_detector("ild-ecal")
    cells = torch.arange(27000.0)[None]
    seen = _patches("ild-ecal")(cells)[0]
    grid, number = cells.view(30, 30, 30), 0
    for x in range(0, 30, 5):
        for y in range(0, 30, 5):
            for z in range(0, 30, 5):
                assert torch.equal(seen[number], grid[x : x + 5, y : y + 5, z : z + 5].flatten())
                number += 1
    assert number == len(seen)
    assert detector.shape == (30, 30, 30)


@pytest.mark.parametrize("box", [(3, 3, 5), (4, 7, 2), (51, 1, 1)])
def test_a_box_of_any_sides_loses_nothing(box: tuple[int, ...]) -> None:
    patches = _patches("clic-ecal-wide", box)
    cells = torch.arange(float(patches.n_cells))[None]
    assert patches.places == np.prod(box)
    assert patches.n_patches == np.prod([-(-n // b) for n, b in zip((51, 51, 25), box, strict=True)])
    assert torch.equal(patches.cells(patches(cells)), cells)


def test_rows_of_layers_hold_cells_side_by_side() -> None:
    detector = get_detector("atlas-em-barrel")
    patches = _patches("atlas-em-barrel", (8,))
    index = patches(torch.arange(266.0)[None], fill=-1.0)[0].long()
    for row in index.tolist():
        cells = [cell for cell in row if cell >= 0]
        layers = {int(detector.cell_layer[cell]) for cell in cells}
        assert len(layers) == 1
        (layer,) = layers
        centres = detector.cell_centres[cells]
        face = detector.layers[layer]
        along = 0 if face.nx >= face.ny else 1
        if face.nx == face.ny:
            along = int(np.ptp(centres[:, 1]) > np.ptp(centres[:, 0]))
        assert np.ptp(centres[:, 1 - along]) == pytest.approx(0.0, abs=1e-6)
        pitch = (face.pitch_x, face.pitch_y)[along]
        np.testing.assert_allclose(np.diff(centres[:, along]), pitch, rtol=1e-4)


def test_pieces_of_rings_lie_at_one_radius() -> None:
    detector = get_detector("calochallenge-2")
    index = _patches("calochallenge-2")(torch.arange(6480.0)[None], fill=-1.0)[0].long().numpy()
    radius = np.hypot(*detector.cell_centres[:, :2].T)
    for row in index[:54]:
        assert np.ptp(radius[row[row >= 0]]) == pytest.approx(0.0, abs=1e-6)


def test_nothing_of_it_is_stored_with_the_weights() -> None:
    assert not _patches("atlas-em-barrel").state_dict()
