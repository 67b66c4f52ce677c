"""Symmetries of showers about the point that the beam hits."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.data import sample_path
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.models.nn.cell_networks import LayerView
from caloforge.models.nn.conditions import BeamSymmetry
from caloforge.models.stage import Batch
from caloforge.showers import read_showers
from caloforge.simulate import simulate

COLUMNS = {
    "incident_energy": slice(0, 1),
    "alignment_phi": slice(1, 2),
    "alignment_eta": slice(2, 3),
    "impact": slice(3, 5),
}
POSSIBLE = {
    "ild-ecal": [True, True, True],
    "ild-ecal-10x10": [False, False, True],  # the beam is a sixth of a cell beside a border
    "ild-ecal-angled": [True, False, False],  # in y 39 of 60 rows have no image
    "clic-ecal": [True, True, True],
    "atlas-em-barrel": [True, True, False],
}
X, Y, SWAP = 0, 1, 2


def _symmetry(name: str, theta: float = 90.0) -> tuple[BeamSymmetry, Detector]:
    detector = get_detector(name)
    layer = BeamSymmetry(detector, COLUMNS if name == "atlas-em-barrel" else {"incident_energy": slice(0, 1)})
    layer.allow(np.full(3, theta))
    return layer, detector


def _numbers(n: int, *operations: int) -> Tensor:
    numbers = -torch.ones(n, 3)
    numbers[:, list(operations)] = 1.0
    return numbers


def _cells(detector: Detector, n: int = 3) -> Tensor:
    return torch.rand(n, detector.n_cells, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_is_possible_and_what_an_angle_leaves(name: str) -> None:
    x, y, swap = POSSIBLE[name]
    upright, _ = _symmetry(name)
    assert upright.allowed.tolist() == [x, y, swap]
    leaning, _ = _symmetry(name, 70.0)
    assert leaning.allowed.tolist() == [x, False, False]


@pytest.mark.parametrize("name", POSSIBLE)
@pytest.mark.parametrize("operation", [X, Y, SWAP])
def test_twice_is_the_identity_and_layers_keep_their_energy(name: str, operation: int) -> None:
    layer, detector = _symmetry(name)
    cells, conditions = _cells(detector), 1.0 + torch.zeros(3, layer.factors.shape[1])
    once, moved = layer(cells, conditions, _numbers(3, operation))
    assert torch.equal(once.sort(1).values, cells.sort(1).values)
    assert torch.equal(once, cells) != POSSIBLE[name][operation]
    twice, back = layer(once, moved, _numbers(3, operation))
    assert torch.equal(twice, cells)
    torch.testing.assert_close(back, conditions)
    for own in detector.layer_cells:
        torch.testing.assert_close(once[:, own].sum(1), cells[:, own].sum(1))


@pytest.mark.parametrize("name", ["ild-ecal", "clic-ecal", "ild-ecal-angled", "ild-ecal-10x10"])
def test_on_a_grid_energy_moves_to_the_mirrored_place(name: str) -> None:
    """Against positions: x -> 2 x_beam - x, and (x, y) -> (y, x), for cells whose image is a cell."""
    layer, detector = _symmetry(name)
    centres, beam = torch.from_numpy(detector.cell_centres).float(), detector.beam
    at = {tuple(row): i for i, row in enumerate(centres.round(decimals=2).tolist())}
    images = {
        X: torch.stack([2 * beam.x - centres[:, 0], centres[:, 1], centres[:, 2]], 1),
        Y: torch.stack([centres[:, 0], 2 * beam.y - centres[:, 1], centres[:, 2]], 1),
        SWAP: centres[:, [1, 0, 2]],
    }
    cells = torch.arange(float(detector.n_cells))[None]
    for operation, places in images.items():
        if not layer.possible[operation]:
            continue
        order = [at.get(tuple(row), i) for i, row in enumerate(places.round(decimals=2).tolist())]
        found, _ = layer(cells, torch.zeros(1, 1), _numbers(1, operation))
        assert found[0].long().tolist() == order


def test_a_beam_on_cell_15_of_30_keeps_row_0() -> None:
    layer, detector = _symmetry("ild-ecal")
    cells = _cells(detector)
    mirrored, _ = layer(cells, torch.zeros(3, 1), _numbers(3, X))
    before, after = cells.view(3, 30, 30, 30), mirrored.view(3, 30, 30, 30)
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 15], before[:, 15])
    for i in range(1, 30):
        assert torch.equal(after[:, i], before[:, 30 - i])


def test_swapping_comes_before_the_mirrors() -> None:
    layer, detector = _symmetry("clic-ecal")
    cells, conditions = _cells(detector), torch.zeros(3, 1)
    both, _ = layer(cells, conditions, _numbers(3, X, SWAP))
    steps, _ = layer(layer(cells, conditions, _numbers(3, SWAP))[0], conditions, _numbers(3, X))
    assert torch.equal(both, steps)
    grid = cells.view(3, *detector.shape)
    assert torch.equal(both, grid.transpose(1, 2).flip(1).reshape(3, -1))


def test_nothing_moves_before_it_is_allowed() -> None:
    detector = get_detector("clic-ecal")
    layer, cells = BeamSymmetry(detector, {"incident_energy": slice(0, 1)}), _cells(detector)
    found, _ = layer(cells, torch.zeros(3, 1), _numbers(3, X, Y, SWAP))
    assert torch.equal(found, cells)


def test_alignments_and_impact_are_mirrored_with_the_cells() -> None:
    """x is eta, with two alignments; y is phi, with four: k becomes K - 1 - k, and the impact changes sign."""
    layer, _ = _symmetry("atlas-em-barrel")
    conditions = torch.tensor([[5e3, phi, eta, 1.5, -2.5] for phi in range(4) for eta in range(2)])
    cells = torch.rand(8, 266)
    eta = conditions * torch.tensor([1, 1, -1, -1, 1]) + torch.tensor([0.0, 0, 1, 0, 0])
    phi = conditions * torch.tensor([1, -1, 1, 1, -1]) + torch.tensor([0.0, 3, 0, 0, 0])
    assert torch.equal(layer(cells, conditions, _numbers(8, X))[1], eta)
    assert torch.equal(layer(cells, conditions, _numbers(8, Y))[1], phi)


def test_conditions_that_a_model_does_not_know_are_left_out() -> None:
    layer = BeamSymmetry(get_detector("atlas-em-barrel"), {"alignment_phi": slice(0, 1)})
    layer.allow(np.full(1, 90.0))
    _, moved = layer(torch.rand(2, 266), torch.tensor([[0.0], [1.0]]), _numbers(2, X, Y))
    assert moved.tolist() == [[3.0], [2.0]]


@cache
def _atlas(source: str) -> tuple[Tensor, Tensor]:
    """Cells over incident energy and conditions: quick showers, or Geant4's of the four highest energies."""
    if source == "gflash":
        showers = simulate("atlas-em-barrel", 1200, energy="2GeV", engine="gflash", seed=5)
    else:
        showers = read_showers(sample_path())
        showers = showers[showers.incident_energy > 30e3]
    conditions = np.concatenate([showers.condition(name) for name in COLUMNS], 1)
    cells = showers.cells / showers.incident_energy[:, None]
    return torch.from_numpy(cells).float(), torch.from_numpy(conditions).float()


def _pulls(left: Tensor, right: Tensor) -> Tensor:
    """Differences of the cells' means in units of their errors, where cells are often filled."""
    error = (left.var(0) / len(left) + right.var(0) / len(right)).sqrt()
    often = torch.maximum((left > 0).float().mean(0), (right > 0).float().mean(0)) > 0.3
    return ((left.mean(0) - right.mean(0)) / error)[often]


@pytest.mark.parametrize(
    ("source", "operation", "column", "first", "second"),
    [("gflash", Y, 1, 0, 3), ("geant4", Y, 1, 0, 3), ("geant4", Y, 1, 1, 2), ("geant4", X, 2, 0, 1)],
    ids=["gflash phi 0 and 3", "phi 0 and 3", "phi 1 and 2", "eta 0 and 1"],
)
def test_mirrored_showers_look_like_those_of_the_mirrored_alignment(
    source: str, operation: int, column: int, first: int, second: int
) -> None:
    """Means of the cells agree within their errors; without the mirror they do not."""
    layer, _ = _symmetry("atlas-em-barrel")
    cells, conditions = _atlas(source)
    mirrored, moved = layer(cells, conditions, _numbers(len(cells), operation))
    here, there = conditions[:, column] == first, conditions[:, column] == second
    assert (moved[here, column] == second).all()
    same, other = (_pulls(left[here], cells[there]) for left in (mirrored, cells))
    assert len(same) > 30
    assert same.square().mean() < 1.7
    assert same.abs().max() < 5.0
    assert other.abs().max() > 6.0


def test_where_the_angle_is_a_condition_the_mirror_in_y_changes_it() -> None:
    columns = {"incident_energy": slice(0, 1), "incident_theta": slice(1, 2)}
    detector = get_detector("clic-ecal-wide")
    layer = BeamSymmetry(detector, columns)
    layer.allow(np.array([60.0, 100.0]))
    assert layer.allowed.tolist() == [1.0, 1.0, 0.0]
    cells, conditions = _cells(detector, 2), torch.tensor([[5e3, 60.0], [5e3, 100.0]])
    mirrored, moved = layer(cells, conditions, _numbers(2, Y))
    assert moved.tolist() == [[5e3, 120.0], [5e3, 80.0]]
    assert torch.equal(mirrored.view(2, *detector.shape), cells.view(2, *detector.shape).flip(2))
    assert torch.equal(layer(cells, conditions, _numbers(2, X))[1], conditions)


def test_training_showers_are_changed_at_random_and_repeatably() -> None:
    layer, detector = _symmetry("clic-ecal")
    cells = _cells(detector, 1).expand(400, -1)
    batch = Batch(cells, torch.zeros(400, 1), torch.arange(400))
    made = [layer.augment(batch, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(made[0].cells, made[1].cells)
    assert torch.equal(made[0].indices, batch.indices)
    kinds, counts = made[0].cells[:, : 25 * 25].unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 25


@pytest.mark.parametrize(
    ("entry", "possible"), [([0.0, 0.0], True), ([10.0, 10.0], False), ([5.0, 0.0], False)]
)
def test_layers_of_other_cells_are_mirrored_at_the_beam(entry: list[float], possible: bool) -> None:
    unit = {"absorber": "G4_Pb", "absorber_mm": 6.0, "active": "G4_lAr", "active_mm": 5.0}
    content = {"name": "fine", "nx": [10, 20], "ny": [10, 20], "width": 200.0, "layers": [unit, unit]}
    detector = detector_from_definition(json.dumps({**content, "beam": {"entry_mm": entry}}))
    layer = BeamSymmetry(detector, {"incident_energy": slice(0, 1)})
    assert layer.possible[X] is possible
    assert layer.possible[SWAP] is False
    if possible:
        centres = torch.from_numpy(detector.cell_centres)
        mirrored = centres[layer.orders[X]]
        torch.testing.assert_close(mirrored * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64), centres)


def _mesh(n: int) -> tuple[BeamSymmetry, Tensor, Detector]:
    layer, detector = _symmetry("calochallenge-2")
    return layer, _cells(detector, n), detector


def test_a_mesh_turns_by_every_number_of_bins_and_is_mirrored() -> None:
    """Against angles: turned by k bins the cell at alpha comes to alpha + 2 pi k / 16, mirrored to -alpha."""
    layer, _, detector = _mesh(1)
    centres = torch.from_numpy(detector.cell_centres)
    radius, alpha = torch.hypot(*centres.T[:2]), torch.atan2(centres[:, 1], centres[:, 0])
    for k in range(16):
        for mirrored in (False, True):
            numbers = torch.tensor(
                [[1.0 if k >> bit & 1 else -1.0 for bit in range(4)] + [1.0 if mirrored else -1.0]]
            )
            found, _ = layer(torch.arange(float(detector.n_cells))[None], torch.zeros(1, 1), numbers)
            origin = found[0].long()  # the cell whose energy comes to each place
            turned = alpha[origin] + 2 * torch.pi * k / 16
            expected = -turned if mirrored else turned
            assert torch.cos(expected - alpha).min() > 1.0 - 1e-9
            torch.testing.assert_close(radius[origin], radius)
            assert torch.equal(centres[origin, 2], centres[:, 2])


def test_all_32_images_of_a_shower_on_a_mesh_are_equally_frequent() -> None:
    layer, cells, _ = _mesh(1)
    batch = Batch(cells.expand(3200, -1), torch.zeros(3200, 1), torch.arange(3200))
    ring = layer.augment(batch, torch.Generator().manual_seed(1)).cells[:, :144:9]
    kinds, counts = ring.unique(dim=0, return_counts=True)
    assert len(kinds) == 32
    assert ((counts - 100.0).square() / 100.0).sum() < 70.0  # chi2 of 31 degrees of freedom


def test_positions_on_a_mesh_drawn_in_to_the_axis_have_the_radius_in_their_squares() -> None:
    _, _, detector = _mesh(1)
    plain, drawn = LayerView(detector), LayerView(detector, 0.5)
    radius = torch.hypot(*torch.from_numpy(detector.cell_centres[:144, :2]).float().T)
    squares = drawn.x[0].square() + drawn.y[0].square()
    torch.testing.assert_close(squares / squares.max(), radius / radius.max())
    torch.testing.assert_close(torch.atan2(drawn.y, drawn.x), torch.atan2(plain.y, plain.x))


def test_a_mesh_of_data_set_1_has_no_symmetry() -> None:
    layer, detector = _symmetry("calochallenge-1-photons")
    cells = _cells(detector)
    assert not any(layer.possible)
    assert torch.equal(layer(cells, torch.zeros(3, 1), _numbers(3, X, Y, SWAP))[0], cells)
