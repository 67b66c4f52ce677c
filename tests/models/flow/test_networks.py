"""Networks of the flow: attention against a slow one, modulation, time; patches: every cell once, neighbours together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.flow.networks import LocalNetwork, TimeEmbedding, Transformer
from caloforge.models.flow.patches import CellPatches, PatchLinear

WIDTH, HEADS, TOKENS = 16, 4, 5


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _awake(blocks: int = 2, repeats: int = 1) -> Transformer:
    """A transformer whose weights have all left their zeros."""
    torch.manual_seed(0)
    body = Transformer(WIDTH, blocks, repeats, HEADS)
    with torch.no_grad():
        for p in body.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return body


def _norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()


def _slow_block(body: Transformer, number: int, x: Tensor, condition: Tensor) -> Tensor:
    """One shower, (T, width), head by head and token by token."""
    block = body.blocks[number]
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
        body.modulation(condition * torch.sigmoid(condition)).view(6, WIDTH) + block.table
    )
    h = _norm(x) * (1 + scale_a) + shift_a
    q, k, v = block.qkv(h).split(WIDTH, 1)
    size, heads = WIDTH // HEADS, []
    for head in range(HEADS):
        where = slice(head * size, (head + 1) * size)
        normed = [
            part[:, where] / (part[:, where].square().mean(1, keepdim=True) + 1e-6).sqrt() * norm.weight
            for part, norm in ((q, block.norm_q), (k, block.norm_k))
        ]
        rows = []
        for one in normed[0]:
            weights = torch.softmax(torch.stack([one @ other for other in normed[1]]) / math.sqrt(size), 0)
            rows.append(weights @ v[:, where])
        heads.append(torch.stack(rows))
    x = x + (1 + gate_a) * block.out(torch.cat(heads, 1))
    h = _norm(x) * (1 + scale_m) + shift_m
    a, b = block.gate(h).chunk(2, 1)
    return x + (1 + gate_m) * block.down(a * torch.sigmoid(a) * b)


@pytest.mark.parametrize("repeats", [1, 3])
def test_it_is_the_slow_one(repeats: int) -> None:
    body = _awake(2, repeats)
    tokens, condition = _normal(3, TOKENS, WIDTH), _normal(3, WIDTH, seed=1)
    with torch.no_grad():
        found = body(tokens, condition)
        for row in range(3):
            x = tokens[row]
            for _ in range(repeats):
                for number in range(2):
                    x = _slow_block(body, number, x, condition[row])
            torch.testing.assert_close(found[row], x, rtol=1e-4, atol=1e-4)


def test_at_first_no_token_sees_another() -> None:
    """Outputs of attention and MLP begin at zero weights: all tokens are moved alike."""
    body, tokens = Transformer(WIDTH, 3, 2, HEADS), _normal(2, TOKENS, WIDTH)
    with torch.no_grad():
        moved = body(tokens, _normal(2, WIDTH)) - tokens
    torch.testing.assert_close(moved, moved[:1, :1].expand_as(moved))


def test_tokens_may_come_in_any_order() -> None:
    """Positions come from outside: exchanged tokens give exchanged results."""
    body, tokens, condition = _awake(), _normal(2, TOKENS, WIDTH), _normal(2, WIDTH, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(body(tokens[:, order], condition), body(tokens, condition)[:, order])


def test_repeats_cost_no_weights() -> None:
    once, thrice = (Transformer(WIDTH, 2, repeats, HEADS) for repeats in (1, 3))
    assert sum(p.numel() for p in once.parameters()) == sum(p.numel() for p in thrice.parameters())


def test_conditions_and_all_tokens_matter() -> None:
    body = _awake()
    tokens = _normal(1, TOKENS, WIDTH).requires_grad_()
    condition = _normal(1, WIDTH, seed=1).requires_grad_()
    body(tokens, condition)[0, 0].square().sum().backward()
    assert (tokens.grad.abs().sum(2) > 0).all()
    assert (condition.grad != 0).all()
    assert all((p.grad != 0).any() for p in body.parameters())


def test_times_are_told_apart_at_all_scales() -> None:
    torch.manual_seed(0)
    embed = TimeEmbedding(8, 16)
    time = torch.tensor([0.0, 1e-3, 0.3, 0.301, 1.0])
    found = embed(time)
    assert found.shape == (5, 8)
    assert (torch.cdist(found, found) + torch.eye(5)).min() > 1e-3
    assert embed.rates[[0, -1]].tolist() == pytest.approx([1.0, 1000.0], rel=1e-4)
    slow = torch.cat([torch.cos(embed.rates * 0.3), torch.sin(embed.rates * 0.3)])
    torch.testing.assert_close(found[2], embed.net(slow))


@pytest.mark.parametrize("patches", [7, 2000])
def test_patches_have_a_matrix_each_when_there_are_few(patches: int) -> None:
    torch.manual_seed(0)
    layer = PatchLinear(patches, 25, 8)
    own = patches == 7
    assert layer.kinds == (7 if own else 1)
    x = _normal(2, patches, 25)
    torch.nn.init.normal_(layer.bias)
    found = layer(x)
    assert found.shape == (2, patches, 8)
    for patch in (0, 3, patches - 1):
        weight = layer.weight[patch] if own else layer.weight
        bias = layer.bias[patch] if own else layer.bias[0]
        torch.testing.assert_close(found[:, patch], x[:, patch] @ weight + bias, rtol=1e-4, atol=1e-5)


def test_patches_of_a_kind_share_a_matrix() -> None:
    torch.manual_seed(0)
    layer, x = PatchLinear(1200, 20, 10, kinds=3), _normal(2, 1200, 20)
    assert layer.weight.shape == (3, 20, 10)
    found = layer(x)
    for patch in (0, 1, 2, 3, 1199):
        expected = x[:, patch] @ layer.weight[patch % 3] + layer.bias[patch % 3]
        torch.testing.assert_close(found[:, patch], expected, rtol=1e-4, atol=1e-5)


def test_tokens_of_normal_numbers_are_of_order_1_or_0() -> None:
    torch.manual_seed(0)
    x = _normal(400, 6, 30)
    assert float(PatchLinear(6, 30, 10)(x).detach().std()) == pytest.approx(1.0, rel=0.1)
    assert (PatchLinear(6, 30, 10, zero=True)(x) == 0).all()


SHAPES = {
    "ild-ecal": (216, 125),  # 6 x 6 x 6 boxes of 5 x 5 x 5
    "clic-ecal-wide": (605, 125),  # 11 x 11 x 5, the last of x and y padded
    "atlas-em-barrel": (38, 7),  # 3 + 3 x 8 + 7 + 4 pieces of rows
    "calochallenge-2": (135, 48),  # 15 x 9 rings of 16 angles in three layers
    "calochallenge-3": (540, 75),  # 15 x 18 rings in two halves of 25 angles
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


@pytest.mark.parametrize(("name", "rings"), [("calochallenge-2", 9), ("calochallenge-3", 18)])
def test_patches_of_a_mesh_are_rings_whose_radius_is_their_kind(name: str, rings: int) -> None:
    detector, patches = get_detector(name), _patches(name)
    index = patches(torch.arange(float(detector.n_cells))[None], fill=-1.0)[0].long().numpy()
    ring = np.arange(detector.n_cells) % rings
    assert patches.kinds == rings
    for number, row in enumerate(index):
        assert set(ring[row[row >= 0]]) == {number % rings}


def test_convolutions_of_a_mesh_do_not_see_where_its_angles_begin() -> None:
    torch.manual_seed(0)
    shape = (5, 8, 4)
    net = LocalNetwork(shape, 8, 3, ring=True)
    torch.nn.init.normal_(net.net[-1].weight)
    x = _normal(2, 6, *shape)
    for turn in (1, 3, 7):
        found = net(x.roll(turn, 3).flatten(2)).view(2, 3, *shape)
        expected = net(x.flatten(2)).view(2, 3, *shape).roll(turn, 3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = LocalNetwork(shape, 8, 3)
    plain.load_state_dict(net.state_dict())
    apart = (net(x.flatten(2)) - plain(x.flatten(2))).view(2, 3, *shape).abs().amax((0, 1, 2, 4))
    assert (apart[3:5] < 1e-4).all()  # out of the convolutions' reach of both ends
    assert (apart[[0, 7]] > 1e-2).all()


def test_nothing_of_it_is_stored_with_the_weights() -> None:
    assert not _patches("atlas-em-barrel").state_dict()
