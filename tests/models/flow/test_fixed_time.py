"""The posterior at a fixed time: against the general one, against loops, and the numbers drawn from it."""

from __future__ import annotations

import math

import pytest
import torch
from flows import normals
from torch import Tensor

from caloforge.models.flow.fixed_time import FixedTimePosterior, Layers, Numbers, drawn, log_odds, shares
from caloforge.models.flow.path import EMPTY, CellAverages, SpikeSlab

N, COLUMNS, LAYERS, KINDS = 60, 15, 4, 3
CELLS = COLUMNS * LAYERS
every = pytest.mark.parametrize("time", [0.0, 0.3, 0.5, 0.9])


def _pair(time: float) -> tuple[FixedTimePosterior, SpikeSlab]:
    """The posterior and the general one, with averages."""
    general = SpikeSlab(CELLS)
    general.logit.copy_(2.0 * normals(CELLS, seed=1) - 2.0)
    general.centre.copy_(1.0 + 0.2 * normals(CELLS, seed=2))
    general.spread.copy_(torch.special.ndtr(normals(CELLS, seed=3)) + 0.1)
    return FixedTimePosterior(COLUMNS, LAYERS, KINDS, time), general


def _found(
    fixed: FixedTimePosterior, averages: CellAverages, x: Tensor, *outputs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log odds, mean and variance for outputs u, v, w and the logarithm of the distance."""
    u, v, w, distance = outputs
    numbers = Numbers(*fixed.numbers(averages).unbind(0))
    mean, log = fixed.value(x, v, w, distance, numbers)
    return fixed.odds(x, u, distance, numbers), mean, log.exp().expand_as(x)


def _close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Whether log odds (up to 40, where the general ones end), mean and variance agree."""
    odds, *rest = found
    for one, other in zip((odds.clamp(-40.0, 40.0), *rest), expected, strict=True):
        torch.testing.assert_close(one, other.expand_as(one), rtol=1e-3, atol=1e-3)


def test_log_odds_are_those_of_the_normal_distribution() -> None:
    z = torch.linspace(-6.0, 6.0, 2001, dtype=torch.float64)
    exact = torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)
    kept = z.clone()
    torch.testing.assert_close(log_odds(z), exact, rtol=0, atol=2.5e-3)
    assert torch.equal(z, kept)
    assert torch.equal(log_odds(-z), -log_odds(z))
    assert (log_odds(z).diff() > 0).all()


def test_shares_of_a_cell_rise_with_its_occupancy() -> None:
    averages = CellAverages(4)
    p = torch.tensor([0.0005, 0.05, 0.5, 0.95])
    averages.logit.copy_(torch.logit(p))
    odds = p / (1 - p)
    torch.testing.assert_close(shares(averages), (odds / (odds + 0.05) - 0.1).clamp_min(0.0) / 0.9)
    assert float(shares(averages)[0]) == 0.0  # rare cells learn nothing for themselves


@every
def test_without_outputs_it_is_the_general_posterior(time: float) -> None:
    fixed, general = _pair(time)
    x, none = normals(N, CELLS, seed=4), torch.zeros(N, CELLS)
    found = _found(fixed, general, x, none, none, none, normals(N, CELLS, seed=5))
    _close(found, general.posterior(x, torch.full((N,), time), (none, none, none)))


@every
def test_outputs_change_log_odds_mean_and_width(time: float) -> None:
    """u as the general one's logit, v as its mean in widths, which here moves no odds, w bounded."""
    fixed, general = _pair(time)
    x, none, t = normals(N, CELLS, seed=4), torch.zeros(N, CELLS), torch.full((N,), time)
    u, v, w = (normals(N, CELLS, seed=seed) for seed in (5, 6, 7))
    odds, _, variance = general.posterior(x, t, (u, none, none))
    mean = general.posterior(x, t, (none, v, none))[1]
    wider = variance * torch.exp(3.0 * torch.tanh(w / 3.0))
    _close(_found(fixed, general, x, u, v, w, none), (odds, mean, wider))


@every
@pytest.mark.parametrize("whose", ["layer", "cell"])
def test_learned_changes_are_those_of_the_general_form(time: float, whose: str) -> None:
    """Of the logit, mean and width; those of a cell in proportion to its share."""
    fixed, general = _pair(time)
    x, none = normals(N, CELLS, seed=4), torch.zeros(N, CELLS)
    shape = (3, 1, LAYERS) if whose == "layer" else (3, COLUMNS, LAYERS)
    changes = 0.5 * normals(*shape, seed=8)
    with torch.no_grad():
        (fixed.by_layer if whose == "layer" else fixed.by_cell)[[0, 2, 3]] = changes
    if whose == "cell":
        changes = changes * shares(general).view(COLUMNS, LAYERS)
    parts = tuple(part.expand(COLUMNS, LAYERS).reshape(-1).expand(N, -1) for part in changes)
    with torch.no_grad():
        found = _found(fixed, general, x, none, none, none, none)
    _close(found, general.posterior(x, torch.full((N,), time), parts))


def test_learned_slopes_in_noise_and_distance_are_added() -> None:
    fixed, general = _pair(0.3)
    x, r, none = normals(N, CELLS, seed=4), normals(N, CELLS, seed=5), torch.zeros(N, CELLS)
    before = _found(fixed, general, x, none, none, none, r)
    b, f, g, k, m = changes = 0.5 * normals(5, LAYERS, seed=8)
    with torch.no_grad():
        fixed.by_layer[[1, 4, 5, 6, 7], 0] = changes
        odds, mean, variance = _found(fixed, general, x, none, none, none, r)
    b, f, g, k, m = (part.repeat(COLUMNS) for part in (b, f, g, k, m))
    expected = before[0] + b * x + g * r + k * r**2, before[1] + f * x + m * r, before[2]
    _close((odds, mean, variance), expected)


def test_own_changes_of_rare_cells_are_learned_slowly() -> None:
    """The gradient for the same error is in proportion to the share."""
    fixed = FixedTimePosterior(3, 1, KINDS, 0.0)
    averages = CellAverages(3)
    averages.logit.copy_(torch.tensor([-9.0, -3.0, 3.0]))
    fixed.numbers(averages)[0].sum().backward()
    torch.testing.assert_close(fixed.by_cell.grad[0, :, 0], shares(averages))
    assert fixed.by_cell.grad[0, 0, 0] < 0.01 * fixed.by_cell.grad[0, 2, 0]


def test_weights_of_rare_cells_are_shrunk() -> None:
    """Those of the layer's row of the summary, in proportion to the share of the cell."""
    fixed, averages = _pair(0.3)
    assert not fixed.weights(averages).any()
    with torch.no_grad():
        fixed.linear.copy_(normals(*fixed.linear.shape, seed=4))
    expected = fixed.linear.view(CELLS, KINDS) * shares(averages)[:, None]
    torch.testing.assert_close(fixed.weights(averages), expected)


def test_what_layers_add_is_that_of_a_loop() -> None:
    layers, r, weights = _layers(N), normals(N, CELLS, seed=5), normals(CELLS, KINDS, seed=6)
    found = layers.added(r, weights).flatten(1)
    for row in range(0, N, 7):
        for cell in range(CELLS):
            layer = cell % LAYERS
            expected = layers.bias[row, layer] + layers.slope[row, layer] * r[row, cell]
            expected = expected + layers.rows[row, layer] @ weights[cell]
            torch.testing.assert_close(found[row, cell], expected, rtol=1e-4, atol=1e-5)


def _layers(n: int) -> Layers:
    return Layers(*normals(3, n, LAYERS, seed=5), normals(n, LAYERS, KINDS, seed=7))


_Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Layers, Tensor, Tensor]


def _inputs(n: int = 7) -> _Inputs:
    """Arguments of ``drawn``, of which a third is filled."""
    nx, ny = 3, 5
    x, odds, r = normals(n, CELLS), 2.0 * normals(n, CELLS, seed=1) - 1.0, normals(n, CELLS, seed=2)
    level = log_odds(normals(n, CELLS, seed=3))
    rest = normals(n, nx, ny, 2 * LAYERS, seed=4)
    return x, odds, level, r, rest, _layers(n), normals(10, CELLS, seed=6), normals(CELLS, KINDS, seed=8)


def test_drawn_values_are_those_of_a_loop() -> None:
    x, odds, level, r, rest, layers, numbers, weights = inputs = _inputs()
    found, n = drawn(*inputs), Numbers(*numbers)
    for row in range(len(x)):
        for cell in range(CELLS):
            if odds[row, cell] <= level[row, cell]:
                assert found[row, cell] == EMPTY
                continue
            column, layer = divmod(cell, LAYERS)
            own = rest[row].view(COLUMNS, 2, LAYERS)[column, :, layer]
            bias, slope, width, rows = (part[row, layer] for part in layers)
            v = own[0] + bias + slope * r[row, cell] + rows @ weights[cell]
            w = own[1] + width
            mean = n.e[cell] + n.f[cell] * x[row, cell] + n.h[cell] * v + n.m[cell] * r[row, cell]
            log = n.d[cell] + 3.0 * torch.tanh(w / 3.0)
            inside = (torch.sigmoid(level[row, cell]) / torch.sigmoid(odds[row, cell])).clamp(1e-6, 1 - 1e-6)
            expected = mean + torch.exp(0.5 * log) * torch.special.ndtri(inside)
            torch.testing.assert_close(found[row, cell], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 60.0, -60.0], ids=["some", "all", "none"])
def test_a_graph_for_export_draws_the_same(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """There all cells have values, of which the filled ones are taken."""
    x, odds, *others = _inputs()
    sparse = drawn(x, odds + shift, *others)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    dense = drawn(x, odds + shift, *others)
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)
    filled = (sparse > EMPTY).float().mean()
    assert filled == 0 if shift < 0 else filled > 0.2


@pytest.mark.parametrize("odds", [-3.0, -0.5, 2.0])
def test_cells_are_filled_with_their_probability_and_values_normal(odds: float) -> None:
    n, cells, mean, width = 2000, 100, 1.3, 0.4
    zeros = torch.zeros(n, cells)
    numbers = torch.zeros(10, cells)
    numbers[3], numbers[6] = mean, 2.0 * math.log(width)
    rest, layers = torch.zeros(n, cells, 1, 2), Layers(*torch.zeros(3, n, 1), torch.zeros(n, 1, KINDS))
    level = log_odds(normals(n, cells, seed=11))
    found = drawn(zeros, zeros + odds, level, zeros, rest, layers, numbers, torch.zeros(cells, KINDS))
    p = 1.0 / (1.0 + math.exp(-odds))
    filled = found[found != EMPTY]
    error = math.sqrt(p * (1.0 - p) / found.numel())
    assert len(filled) / found.numel() == pytest.approx(p, abs=4.0 * error)
    error = width / math.sqrt(len(filled))
    assert float(filled.mean()) == pytest.approx(mean, abs=4.0 * error)
    assert float(filled.std()) == pytest.approx(width, abs=4.0 * error)
    z = (filled - mean) / width
    for quantile in (0.05, 0.25, 0.75, 0.95):
        border = torch.special.ndtri(torch.tensor(quantile))
        assert float((z < border).float().mean()) == pytest.approx(quantile, abs=2.5 / math.sqrt(len(filled)))
