"""Networks of columns: their loss at a known truth, their turns, and the showers that they draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flows import normals
from small_grids import CELLS, SHAPE, small_grid, woken
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.flow import columns
from caloforge.models.flow.columns import ColumnNetwork, ColumnNetworks, Context, FaintCells, is_columns
from caloforge.models.flow.fixed_time import log_odds, shares
from caloforge.models.flow.path import EMPTY, CellAverages
from caloforge.models.flow.sampling import repeated

ROWS, KINDS, CONDITIONS = SHAPE[2] + 1, 7, 1


def _networks(times: tuple[float, ...] = (0.0, 0.4), kernel: int = 3) -> ColumnNetworks:
    """Networks with averages; outputs are 0."""
    torch.manual_seed(3)
    networks = ColumnNetworks(small_grid(), times, ROWS, KINDS, CONDITIONS, 16, 1, kernel)
    averages = networks.posterior
    averages.logit.copy_(normals(CELLS, seed=1) - 1.5)
    averages.centre.copy_(2.0 + 0.2 * normals(CELLS, seed=2))
    averages.spread.copy_(0.2 + 0.3 * torch.special.ndtr(normals(CELLS, seed=3)))
    return networks


def _context(n: int, seed: int = 20) -> Context:
    layers = SHAPE[2]
    encoded, summary = normals(n, CONDITIONS, seed=seed), normals(n, ROWS, KINDS, seed=seed + 1)
    return Context(
        encoded, summary, 0.2 * normals(n, layers, seed=seed + 2), 0.2 * normals(n, layers, seed=seed + 3)
    )


def _data(n: int, averages: CellAverages, seed: int) -> Tensor:
    """Independent cells with just these averages."""
    generator = torch.Generator().manual_seed(seed)
    filled = torch.rand(n, CELLS, generator=generator) < torch.sigmoid(averages.logit)
    values = averages.centre + averages.spread * torch.randn(n, CELLS, generator=generator)
    return torch.where(filled, values, EMPTY)


def _entropy(averages: CellAverages, time: float) -> float:
    """Mean entropy of a cell's value given its noisy one, by a sum over noisy values, without ln(2 pi) / 2 of filled cells."""
    logit, centre, spread = (
        part.double().numpy() for part in (averages.logit, averages.centre, averages.spread)
    )
    x = np.linspace(-8.0, 8.0, 4001)[:, None]
    p, noise = 1.0 / (1.0 + np.exp(-logit)), (1.0 - time) ** 2
    variance = time**2 * spread**2 + noise
    slab = p * np.exp(-0.5 * (x - time * centre) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    spike = (1 - p) * np.exp(-0.5 * (x - time * EMPTY) ** 2 / noise) / np.sqrt(2 * np.pi * noise)
    whole = slab + spike
    w = np.clip(slab / whole, 1e-300, 1 - 1e-16)
    occupied = -(w * np.log(w) + (1 - w) * np.log1p(-w))
    value = w * 0.5 * (1.0 + np.log(spread**2 * noise / variance))
    return float(((occupied + value) * whole).sum(0).mean() * (x[1, 0] - x[0, 0]))


@pytest.mark.parametrize("turn", [0, 1])
def test_at_the_truth_the_loss_is_the_entropy(turn: int) -> None:
    """Independent cells are described without outputs: their loss is the entropy and no parameter has a mean gradient."""
    networks, n, parts = _networks(), 100, 24
    time = networks.times[turn]
    network = networks.networks[turn]
    assert isinstance(network, ColumnNetwork)
    context = _context(n)
    losses, gradients = [], []
    for part in range(parts):
        data = _data(n, networks.posterior, seed=100 + part)
        x = torch.lerp(normals(n, CELLS, seed=200 + part), data, time)
        loss = network(x, networks.posterior, context, networks.distance(context), data)
        network.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        of = network.posterior.by_layer, network.occupied.bias, network.valued.bias, network.by_layer.bias
        gradients.append(torch.cat([p.grad.flatten() for p in of]).double())
    error = np.std(losses) / np.sqrt(parts)
    assert np.mean(losses) == pytest.approx(_entropy(networks.posterior, time), abs=4.0 * error + 2e-4)
    found = torch.stack(gradients)
    mean, scatter = found.mean(0), found.std(0) / np.sqrt(parts)
    moves = scatter > 0  # the noise of the first turn says nothing, but its slope is learned
    assert moves.float().mean() > 0.9
    pulls = (mean / scatter)[moves]
    assert pulls.abs().max() < 6.0
    assert pulls.square().mean() < 1.6


def test_showers_are_drawn_from_the_posterior_whose_loss_is_trained() -> None:
    """The mean gradient of the loss at showers that a network draws itself is 0, for all its parameters (score identity)."""
    networks, n, parts = woken(_networks((0.0,))), 100, 40
    (network,) = networks.networks
    context, gradients = _context(n), []
    for part in range(parts):
        noise = normals(n, CELLS, seed=300 + part)
        with torch.no_grad():
            data = networks.draw(noise, context)
        networks.zero_grad()
        x = repeated(noise, 1)
        network(x, networks.posterior, context, networks.distance(context), data).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]).double())
    found = torch.stack(gradients)
    scatter = found.std(0) / np.sqrt(parts)
    moves = scatter > 1e-12
    pulls = (found.mean(0) / scatter)[moves]
    assert moves.float().mean() > 0.8
    assert pulls.square().mean() < 1.3
    assert (pulls.abs() > 3.0).float().mean() < 0.02


@pytest.mark.parametrize("number", range(4))
def test_any_other_posterior_has_a_larger_loss(number: int) -> None:
    """Log odds, slope in x, mean and width."""
    networks, n = _networks(), 400
    network, context = networks.networks[1], _context(n)
    data = _data(n, networks.posterior, seed=5)
    x = torch.lerp(normals(n, CELLS, seed=6), data, 0.4)
    found = []
    for change in (0.0, 0.4, -0.4):
        with torch.no_grad():
            network.posterior.by_layer[number] = change
            found.append(float(network(x, networks.posterior, context, networks.distance(context), data)))
    assert found[0] < min(found[1:]) - 1e-3


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rows_of_a_batch_take_the_turns_one_after_the_other(n: int) -> None:
    networks = woken(_networks((0.0, 0.3, 0.6)))
    data, noise, context = _data(n, networks.posterior, 4), normals(n, CELLS, seed=5), _context(n)
    with torch.no_grad():
        found = networks(data, noise, context)
        losses = []
        for row in range(n):
            own = Context(*(part[row : row + 1] for part in context))
            time = networks.times[row % 3]
            x = (1.0 - time) * noise[row : row + 1] + time * data[row : row + 1]
            network = networks.networks[row % 3]
            losses.append(network(x, networks.posterior, own, networks.distance(own), data[row : row + 1]))
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


def test_every_turn_learns_from_a_batch() -> None:
    networks = woken(_networks((0.0, 0.3, 0.6)))
    networks(_data(6, networks.posterior, 4), normals(6, CELLS, seed=5), _context(6)).backward()
    for name, parameter in networks.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_distances_are_those_of_a_loop() -> None:
    networks, context = _networks(), _context(2)
    found = networks.distance(context).view(2, *SHAPE)
    (nx, ny, layers), pitch = SHAPE, 6.0
    centres = small_grid().cell_centres.reshape(*SHAPE, 3)[..., :2] / pitch
    middle = (centres[0, 0, 0] + centres[-1, -1, 0]) / 2.0
    half = np.array([nx - 1, ny - 1]) / 2.0
    for row in range(2):
        for layer in range(layers):
            at = middle + half * np.array([float(context.x[row, layer]), float(context.y[row, layer])])
            square = ((centres[:, :, layer] - at) ** 2).sum(2)
            expected = 0.5 * np.log(square + 0.25)
            np.testing.assert_allclose(found[row, :, :, layer].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_a_column_knows_its_place_in_proportion_to_its_most_filled_cell() -> None:
    networks = _networks()
    network = networks.networks[0]
    with torch.no_grad():
        before = network.places(networks.posterior)
        network.own.copy_(normals(*network.own.shape))
        change = network.places(networks.posterior) - before
    share = shares(networks.posterior).view(SHAPE).max(2).values
    torch.testing.assert_close(change, share[:, :, None] * network.own, rtol=1e-4, atol=1e-5)


def test_a_network_of_the_first_turn_sees_no_noise() -> None:
    """Its outputs follow conditions, summary and centres alone."""
    networks, n = woken(_networks()), 3
    context, noise = _context(n), normals(n, CELLS)
    distance = networks.distance(context)
    for network, sees in zip(networks.networks, (False, True), strict=True):
        with torch.no_grad():
            places = network.places(networks.posterior)
            first, second = (network.outputs(x, places, context, distance)[0] for x in (noise, -noise))
        assert torch.equal(first, second) is not sees


def test_showers_do_not_depend_on_how_they_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, by which a cell may fall on the other side of its level."""
    networks, n = woken(_networks()), 11
    noise, context, filled = (
        normals(n, CELLS),
        _context(n),
        torch.floor(5.0 + normals(n, SHAPE[2], seed=8).abs()),
    )
    for wanted in (None, filled):
        made = []
        for rows in (1, 4, 100):
            monkeypatch.setattr(columns, "_CACHED", rows * CELLS)
            with torch.no_grad():
                made.append(networks.draw(noise, context, wanted))
        for other in made[1:]:
            off = ~torch.isclose(made[0], other, rtol=1e-3, atol=1e-3)
            assert off.sum() <= 2


def test_drawing_leaves_its_arguments_as_they_were() -> None:
    networks, n = woken(_networks()), 4
    parts = noise, *context = normals(n, CELLS), *_context(n)
    kept = [part.clone() for part in parts]
    with torch.no_grad():
        first, second = (networks.draw(noise, Context(*context), torch.full((n, 4), 9.0)) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(*pair) for pair in zip(parts, kept, strict=True))


def test_a_graph_for_export_draws_the_same_showers(monkeypatch: pytest.MonkeyPatch) -> None:
    networks, n = woken(_networks()), 5
    noise, context, filled = normals(n, CELLS), _context(n), torch.full((n, 4), 12.0)
    with torch.no_grad():
        sparse = networks.draw(noise, context, filled)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        dense = networks.draw(noise, context, filled)
    assert (~torch.isclose(sparse, dense, rtol=1e-3, atol=1e-3)).sum() <= 2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_layers_have_as_many_filled_cells_as_are_wanted(turns: int) -> None:
    """Exactly, apart from cells that are equally likely within rounding; none and all, too."""
    networks, n, (nx, ny, layers) = woken(_networks((0.0, 0.3, 0.6)[:turns])), 300, SHAPE
    filled = torch.floor(25.0 * torch.special.ndtr(normals(n, layers, seed=8)))
    filled[:20], filled[20:40, 1], filled[40:60, 2] = 0.0, nx * ny, nx * ny - 1
    with torch.no_grad():
        values = networks.draw(normals(n, CELLS), _context(n), filled)
    off = ((values != EMPTY).view(n, -1, layers).sum(1) - filled).abs()
    assert off.max() <= 1
    assert (off == 0).float().mean() > 0.998


def test_filled_are_the_cells_that_exceed_their_levels_the_most() -> None:
    """Of one turn without outputs, whose log odds are those of the averages."""
    networks, n = _networks((0.0,)), 40
    noise = normals(n, CELLS)
    filled = torch.floor(15.0 * torch.special.ndtr(normals(n, SHAPE[2], seed=8)))
    with torch.no_grad():
        found = (networks.draw(noise, _context(n), filled) != EMPTY).view(n, -1, SHAPE[2])
    excess = (networks.posterior.logit - log_odds(noise)).view(n, -1, SHAPE[2])
    rank = excess.argsort(1, descending=True).argsort(1)
    assert torch.equal(found, rank < filled[:, None])


def test_left_alone_cells_are_filled_as_often_as_the_averages_say() -> None:
    networks, n = _networks(), 2000
    with torch.no_grad():
        values = networks.draw(normals(n, CELLS), _context(n))
    p, filled = torch.sigmoid(networks.posterior.logit), values != EMPTY
    error = (p * (1.0 - p) / n).sqrt()
    pulls = (filled.float().mean(0) - p) / error
    assert pulls.abs().max() < 5.0
    assert pulls.square().mean() < 1.4
    mean = (torch.where(filled, values, 0.0).sum(0) / filled.sum(0).clamp_min(1))[p > 0.2]
    expected, width = networks.posterior.centre[p > 0.2], networks.posterior.spread[p > 0.2]
    pulls = (mean - expected) / width * (n * p[p > 0.2]).sqrt()
    assert pulls.abs().max() < 5.0
    assert pulls.square().mean() < 1.4


def test_only_grids_of_flat_layers_of_equal_cells_are_columns() -> None:
    found = {name for name in ("ild-ecal", "clic-ecal", "ild-ecal-10x10") if is_columns(get_detector(name))}
    assert found == {"ild-ecal", "clic-ecal", "ild-ecal-10x10"}
    assert is_columns(small_grid())
    for name in ("atlas-em-barrel", "calochallenge-2", "calochallenge-1-photons"):
        assert not is_columns(get_detector(name))


def test_layers_have_exactly_as_many_faint_cells_as_given_with_their_own_values() -> None:
    """Faint cells are exactly as many; they have the values of the table, others lie above the edge, by lists of cells and densely."""
    networks, n = _networks(), 200
    layers = SHAPE[2]
    generator = torch.Generator().manual_seed(7)
    filled = torch.randint(0, 9, (n, layers), generator=generator).float()
    faint = torch.minimum(torch.randint(0, 5, (n, layers), generator=generator).float(), filled)
    edge = torch.full((CELLS,), 1.8)
    noise, context = normals(n, CELLS, seed=30), _context(n)

    def value(quantile: Tensor) -> Tensor:
        return 0.5 + quantile

    def rows(x: Tensor) -> Tensor:
        return x.view(n, -1, layers)

    with torch.no_grad():
        data = networks.draw(noise, context, filled, FaintCells(faint, edge, value))
        free = networks.draw(noise, context, filled)
    full = rows(data) > EMPTY
    assert torch.equal(full.sum(1).float(), filled)
    assert torch.equal(full, rows(free) > EMPTY)
    is_faint = full & (rows(data) < 1.5 + 1e-6)
    assert (is_faint.sum(1) == faint).float().mean() > 0.99
    hits = full & ~is_faint
    assert float(rows(data)[hits].min()) > 1.8 - 1e-3
    quantile = rows(data)[is_faint] - 0.5
    assert abs(float(quantile.mean()) - 0.5) < 4 * (1 / 12 / len(quantile)) ** 0.5 + 0.02
    agree = is_faint == (full & (rows(free) < 1.8))
    assert (
        agree.float().mean() > 0.9
    )  # faint cells are those which would be so in any case, as far as the numbers allow


def test_faint_cells_are_drawn_alike_from_lists_and_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    networks, n = _networks(), 50
    filled = torch.full((n, SHAPE[2]), 6.0)
    faint, edge = torch.full((n, SHAPE[2]), 2.0), torch.full((CELLS,), 1.9)
    edge[::3] = -torch.inf  # never faint
    noise, context = normals(n, CELLS, seed=31), _context(n)
    with torch.no_grad():
        cells = FaintCells(faint, edge, torch.special.ndtri)
        listed = networks.draw(noise, context, filled, cells)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        dense = networks.draw(noise, context, filled, cells)
    torch.testing.assert_close(listed, dense, rtol=1e-4, atol=1e-4)
    assert not ((listed[:, ::3] > EMPTY) & (listed[:, ::3] < 0.5)).any()
