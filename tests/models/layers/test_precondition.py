"""The best linear estimate, against the posterior of Gaussian data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.layers.flow_path import flow_loss, integrate, time_grid
from caloforge.models.layers.precondition import Precondition

MEAN = torch.tensor([0.0, -1.0, 3.0, 0.5])
SPREAD = torch.tensor([1.0, 0.2, 2.0, 0.07])


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _fitted(n: int = 200_000) -> Precondition:
    layer = Precondition(4)
    layer.fit(MEAN + SPREAD * _normal(n, 4, seed=9))
    return layer


def _posterior(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and width of x_1 given x_t, by Bayes: precisions add up."""
    t = time[:, None]
    prior, seen = 1 / SPREAD**2, (t / (1 - t)) ** 2
    return (MEAN * prior + (x / t) * seen) / (prior + seen), (prior + seen).rsqrt()


def _inputs(n: int = 400) -> tuple[Tensor, Tensor]:
    time = 0.01 + 0.98 * torch.rand(n, generator=torch.Generator().manual_seed(1))
    data, noise = MEAN + SPREAD * _normal(n, 4, seed=2), _normal(n, 4, seed=3)
    return (1 - time[:, None]) * noise + time[:, None] * data, time


def test_means_and_widths_are_those_of_the_values() -> None:
    layer = _fitted()
    torch.testing.assert_close(layer.mean, MEAN, rtol=0, atol=0.02)
    torch.testing.assert_close(layer.spread, SPREAD, rtol=0.01, atol=0)
    constant = Precondition(2, 3)
    constant.fit(torch.full((10, 2, 3), 4.0))
    assert (constant.mean == 4.0).all()
    torch.testing.assert_close(constant.spread, torch.full((2, 3), 0.05))


def test_without_output_it_is_the_posterior_mean() -> None:
    x, time = _inputs()
    layer = _fitted()
    mean, _ = _posterior(x, time)
    torch.testing.assert_close(layer(x, time, torch.zeros_like(x)), mean, rtol=0, atol=0.02)


def test_an_output_counts_in_widths_of_the_posterior() -> None:
    x, time = _inputs()
    layer, output = _fitted(), _normal(400, 4, seed=5)
    _, width = _posterior(x, time)
    moved = layer(x, time, output) - layer(x, time, torch.zeros_like(x))
    torch.testing.assert_close(moved, width * output, rtol=0.02, atol=1e-3)


def test_at_the_ends_it_is_the_mean_and_the_value_itself() -> None:
    layer, x, output = _fitted(), _normal(5, 4), _normal(5, 4, seed=5)
    start = layer(x, torch.zeros(5), output)
    torch.testing.assert_close(start, layer.mean + layer.spread * output)
    torch.testing.assert_close(layer(x, torch.ones(5), output), x, rtol=1e-5, atol=1e-5)


def test_no_linear_estimate_has_a_smaller_error() -> None:
    """Least squares over many pairs of x_t and x_1 leave the same error as the layer."""
    n = 100_000
    data, noise, layer = MEAN + SPREAD * _normal(n, 4, seed=2), _normal(n, 4, seed=3), _fitted()
    for t in (0.2, 0.5, 0.9):
        x, time = (1 - t) * noise + t * data, torch.full((n,), t)
        mine = (layer(x, time, torch.zeros_like(x)) - data).square().mean(0)
        for column in range(4):
            design = torch.stack([torch.ones(n), x[:, column]], 1).double()
            target = data[:, column : column + 1].double()
            weights = torch.linalg.solve(design.T @ design, design.T @ target)
            least = (design @ weights - target).square().mean()
            assert float(mine[column]) == pytest.approx(float(least), rel=1e-3)


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_its_flow_ends_with_means_and_widths_of_the_data(shift: float) -> None:
    layer = _fitted()
    found = integrate(
        lambda x, t: layer(x, t, torch.zeros_like(x)), _normal(20_000, 4, seed=6), time_grid(200, shift)
    )
    torch.testing.assert_close(found.mean(0), MEAN, rtol=0, atol=0.05)
    torch.testing.assert_close(found.std(0), SPREAD, rtol=0.05, atol=0)
    torch.testing.assert_close(torch.corrcoef(found.T), torch.eye(4), rtol=0, atol=0.03)


def test_its_loss_is_that_of_the_posterior() -> None:
    """<|D - x_1|^2> / (1 - t)^2 is the posterior's variance over (1 - t)^2."""
    layer, n, t = _fitted(), 100_000, 0.6
    data, noise = MEAN + SPREAD * _normal(n, 4, seed=2), _normal(n, 4, seed=3)
    loss = flow_loss(lambda x, time: layer(x, time, torch.zeros_like(x)), data, noise, torch.full((n,), t))
    _, width = _posterior(torch.zeros(1, 4), torch.tensor([t]))
    assert float(loss) == pytest.approx(float((width / (1 - t)).square().mean()), rel=0.02)


def test_numbers_in_rows_are_taken_as_they_are() -> None:
    values = _normal(500, 2, 3, seed=4) * torch.arange(1.0, 7.0).view(2, 3)
    rows, flat = Precondition(2, 3), Precondition(6)
    rows.fit(values)
    flat.fit(values.flatten(1))
    x, time, output = _normal(8, 2, 3), torch.linspace(0, 1, 8), _normal(8, 2, 3, seed=5)
    assert torch.equal(rows(x, time, output).flatten(1), flat(x.flatten(1), time, output.flatten(1)))
