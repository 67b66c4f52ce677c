"""The summary's student: a network for each jump, which learns the way of its teacher."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from flows import normals
from small_grids import context_of, fitted_grid, grid_showers, trained_grid
from torch import Tensor, nn

from caloforge.models.flow.path import integrate, jump, preconditioned, time_grid
from caloforge.models.flow.students import JumpNetworks, SummaryPerceptron, follow_jumps


class _Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.factor * x + time[:, None] + condition


@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_rows_take_turns(n: int) -> None:
    networks = JumpNetworks([_Scaled(factor) for factor in (1.0, 10.0, 100.0)])
    x, time, condition = normals(n, 4), normals(n, seed=1), normals(n, 4, seed=2)
    found = networks(x, time, condition)
    for row in range(n):
        expected = 10.0 ** (row % 3) * x[row] + time[row] + condition[row]
        torch.testing.assert_close(found[row], expected)


def test_each_jump_is_its_own_networks() -> None:
    """From its time, all rows together: an Euler step of the velocity that its estimate gives."""
    factors, times = (0.5, 2.0), (0.0, 0.3, 1.0)
    networks = JumpNetworks([_Scaled(factor) for factor in factors])
    x = noise = normals(6, 4)
    condition = normals(6, 4, seed=2)
    for factor, (start, end) in zip(factors, pairwise(times), strict=True):
        velocity = (factor * x + start + condition - x) / (1.0 - start)
        x = x + (end - start) * velocity
    torch.testing.assert_close(networks.jumps(noise, times, condition), x)
    torch.testing.assert_close(follow_jumps(networks, noise, times, condition), x)


def test_a_single_network_makes_all_jumps() -> None:
    network, times = _Scaled(0.5), (0.0, 0.2, 0.7, 1.0)
    x = noise = normals(6, 4)
    condition = normals(6, 4, seed=2)
    for start, end in pairwise(times):
        x = jump(lambda x, t: network(x, t, condition), x, start, end)
    torch.testing.assert_close(follow_jumps(network, noise, times, condition), x)
    copies = JumpNetworks([network] * 3)
    torch.testing.assert_close(follow_jumps(copies, noise, times, condition), x)


def test_as_many_networks_as_jumps_are_needed() -> None:
    networks = JumpNetworks([_Scaled(1.0)])
    with pytest.raises(ValueError, match="zip"):
        networks.jumps(normals(2, 4), (0.0, 0.5, 1.0), normals(2, 4))


@pytest.mark.parametrize("time", [0.0, 0.25, 0.75])
def test_an_untrained_perceptron_is_the_best_linear_estimate(time: float) -> None:
    torch.manual_seed(2)
    network, x = SummaryPerceptron(3, 5, 2, 16, 2), normals(7, 3, 5)
    t = torch.full((7,), time)
    found = network(x, t, normals(7, 2, seed=1))
    torch.testing.assert_close(found, preconditioned(x, t, torch.zeros_like(x)))


def test_a_perceptron_sees_all_numbers_and_conditions() -> None:
    torch.manual_seed(2)
    network = SummaryPerceptron(3, 5, 2, 16, 2)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.5)
    x, encoded = normals(1, 3, 5).requires_grad_(), normals(1, 2, seed=1).requires_grad_()
    network(x, torch.zeros(1), encoded)[0, 0, 0].backward()
    assert x.grad.all()
    assert encoded.grad.all()


def test_the_summary_of_a_shower_is_made_by_its_student() -> None:
    model = fitted_grid(summary_jumps=3)
    assert isinstance(model.summary_student, JumpNetworks)
    assert len(model.summary_student.networks) == 3
    assert model.summary_times == time_grid(3)
    torch.manual_seed(4)
    with torch.no_grad():
        for network in model.summary_student.networks:
            network.out.weight.normal_(0.0, 0.05)
        x = noise = normals(5, model.summary.rows, model.summary.kinds)
        encoded = context_of(model, noise).encoded
        for network, (start, end) in zip(model.summary_student.networks, pairwise(time_grid(3)), strict=True):
            estimate = network(x, torch.full((5,), start), encoded)
            x = x + (end - start) / (1.0 - start) * (estimate - x)
        torch.testing.assert_close(model.summarise(noise, encoded), x, rtol=1e-4, atol=1e-5)


def test_training_brings_it_closer_to_its_teacher() -> None:
    model = trained_grid()
    encoded = model.encoder(model.condition_matrix(grid_showers())[:60])
    noise = normals(60, model.summary.rows, model.summary.kinds, seed=8)
    untrained = fitted_grid()
    with torch.no_grad():
        goal = integrate(model.summary_denoiser(encoded), noise, time_grid(24))
        far = (model.summarise(noise, encoded) - goal).square().mean()
        before = (untrained.summarise(noise, encoded) - goal).square().mean()
    assert far < 0.8 * before
