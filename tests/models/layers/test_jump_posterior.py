"""Estimates of cells at one time, against the general form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.posterior import JumpPosterior, SpikeSlab

N, CELLS = 200, 50
every = pytest.mark.parametrize("time", [0.0, 0.25, 0.5, 0.9])


def _normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pair(time: float) -> tuple[JumpPosterior, SpikeSlab]:
    """Both with the same averages."""
    jump, general = JumpPosterior(CELLS, time), SpikeSlab(CELLS)
    general.logit.copy_(2.0 * _normals(CELLS, seed=1) - 2.0)
    general.centre.copy_(1.0 + 0.2 * _normals(CELLS, seed=2))
    general.spread.copy_(torch.rand(CELLS, generator=torch.Generator().manual_seed(3)) + 0.1)
    for name in ("logit", "centre", "spread"):
        getattr(jump, name).copy_(getattr(general, name))
    return jump, general


@every
def test_before_training_they_are_those_of_the_general_form(time: float) -> None:
    jump, general = _pair(time)
    x, change, none = _normals(N, CELLS, seed=4), _normals(N, CELLS, seed=5), torch.zeros(N, CELLS)
    t = torch.full((N,), time)
    expected = general(x, t, (change, none, none))
    torch.testing.assert_close(jump(x, t, (change, none)), expected, rtol=1e-3, atol=1e-3)


@every
def test_learnt_numbers_of_a_cell_are_those_that_the_general_form_takes_for_each(time: float) -> None:
    """Change of the logit, of the mean and of the width."""
    jump, general = _pair(time)
    x, t, none = _normals(N, CELLS, seed=4), torch.full((N,), time), torch.zeros(N, CELLS)
    change, shift, stretch = (0.5 * _normals(CELLS, seed=seed) for seed in (6, 7, 8))
    with torch.no_grad():
        jump.changes[0], jump.changes[2], jump.changes[3] = change, shift, stretch
    expected = general(x, t, tuple(part.expand(N, -1) for part in (change, shift, stretch)))
    torch.testing.assert_close(jump(x, t, (none, none)), expected, rtol=1e-3, atol=1e-3)


def test_the_network_moves_the_mean_of_filled_cells() -> None:
    jump, general = _pair(0.5)
    jump.logit.fill_(40.0)
    general.logit.fill_(40.0)
    x, shift, none = _normals(N, CELLS, seed=4), _normals(N, CELLS, seed=5), torch.zeros(N, CELLS)
    t = torch.full((N,), 0.5)
    expected = general(x, t, (none, shift, none))
    torch.testing.assert_close(jump(x, t, (none, shift)), expected, rtol=1e-3, atol=1e-3)


def test_a_cell_can_follow_a_way_that_no_posterior_mean_does() -> None:
    """From noise straight to N(1, 1/4): x -> 1 + x / 2, which needs the learnt slope at t = 0."""
    jump = JumpPosterior(1, 0.0)
    jump.logit.fill_(40.0)
    x = _normals(4000, 1)
    none = torch.zeros_like(x)
    optimiser = torch.optim.Adam(jump.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        (jump(x, none[:, 0], (none, none)) - (1.0 + 0.5 * x)).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(jump(x, none[:, 0], (none, none)), 1.0 + 0.5 * x, rtol=0, atol=1e-2)
