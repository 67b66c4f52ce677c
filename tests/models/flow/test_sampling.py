"""Generation of cells by a network of posteriors: balanced or not, step by step; networks that see their layers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from feedbacks import Case, case
from flows import normals
from torch import Tensor

from caloforge.models.flow.networks import CellNetwork, LocalNetwork
from caloforge.models.flow.path import follow, time_grid
from caloforge.models.flow.sampling import CellSampler, repeated

every = pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-10x10"])
either = pytest.mark.parametrize("feedback", [True, False], ids=["feedback", "none"])


def _awake(it: Case) -> CellNetwork:
    """The network of the cells with a head, misses and neighbours that have left their zeros."""
    network = it.model.cell_net
    torch.manual_seed(4)
    with torch.no_grad():
        network.head.out.weight.normal_(0.0, 0.05)
        if network.local is not None:
            network.local.net[-1].weight.normal_(0.0, 0.05)
    return network


def _sampler(it: Case, filled: Tensor | None = None) -> CellSampler:
    return CellSampler(_awake(it), it.encoded, it.summary, it.to, filled)


def test_repeated_noise_is_the_same_numbers_in_other_cells_with_other_signs() -> None:
    noise = torch.randn(3, 5000, generator=torch.Generator().manual_seed(3))
    turns = [repeated(noise, turn) for turn in range(4)]
    for k, turn in enumerate(turns):
        torch.testing.assert_close(turn.abs().sort(1).values, noise.abs().sort(1).values)
        torch.testing.assert_close(turn[1:2], repeated(noise[1:2], k))  # each shower by itself
        for other in (noise, *turns[:k]):
            assert float((turn * other).mean(1).abs().max()) < 5.0 / math.sqrt(5000)
            assert float((turn.mean(1) - other.mean(1)).abs().min()) > 1e-4  # sums differ, too


@every
@either
def test_not_balanced_it_is_the_network(name: str, feedback: bool) -> None:
    it = case(name, feedback=feedback).rows(4)
    x = it.noisy(0.4)
    with torch.no_grad():
        found = _sampler(it).evaluated(x, 0.4)
        expected = it.model.cell_net.predicted(x, torch.full((4,), 0.4), it.encoded, it.summary, it.to)
    assert len(found) == 3
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every
@either
@pytest.mark.parametrize("time", [0.0, 0.6, 0.7])
def test_balanced_layers_expect_the_number_until_most_cells_are_decided(
    name: str, time: float, feedback: bool
) -> None:
    it = case(name, feedback=feedback).rows(6)
    x = it.noisy(time)
    wanted = 0.8 * it.to.filled + 0.5
    with torch.no_grad():
        plain, balanced = (_sampler(it, filled).evaluated(x, time) for filled in (None, wanted))
        before, after = (
            it.model.values.view(
                torch.sigmoid(it.posterior.posterior(x, torch.full((6,), time), some)[0])
            ).sum(2)
            for some in (plain, balanced)
        )
    if time > 0.65:
        assert torch.equal(plain[0], balanced[0])
        return
    assert not torch.equal(plain[0], balanced[0])
    assert all(torch.equal(*pair) for pair in zip(plain[1:], balanced[1:], strict=True))
    assert (after - wanted).abs().mean() < (0.1 if time == 0.0 else 0.7) * (before - wanted).abs().mean()


@either
def test_the_flow_is_followed_by_the_midpoint_method(feedback: bool) -> None:
    it = case("ild-ecal-10x10", feedback=feedback).rows(4)
    sampler, posterior = _sampler(it, it.to.filled), it.posterior
    x = noise = normals(*it.values.shape)
    times = time_grid(3, 0.8)
    with torch.no_grad():
        for start, end in pairwise(times):
            middle = 0.5 * (start + end)
            half = posterior.advance(x, sampler.evaluated(x, start), start, middle, 2)
            before, x = x, posterior.advance(x, sampler.evaluated(half, middle), start, end, 4)
            as_tensors = (
                torch.tensor(start),
                torch.tensor(end) if end < 1.0 else end,
            )  # as compiled steps have them
            torch.testing.assert_close(sampler.step(before, *as_tensors, 4), x, rtol=1e-4, atol=1e-4)
        found = follow(lambda x, start, end: sampler.step(x, start, end, 4), noise, times)
        torch.testing.assert_close(found, x)


@either
def test_drawn_cells_are_drawn_from_the_posterior_at_each_time(feedback: bool) -> None:
    it = case("ild-ecal-10x10", feedback=feedback).rows(4)
    sampler, posterior = _sampler(it, it.to.filled), it.posterior
    x = noise = normals(*it.values.shape)
    times = time_grid(4)
    with torch.no_grad():
        for turn, (start, end) in enumerate(pairwise(times)):
            x = posterior.draw(x, sampler.evaluated(x, start), start, end, repeated(noise, turn))
        torch.testing.assert_close(sampler.drawn(noise, times), x)


@every
@either
@pytest.mark.parametrize("draws", [0, 3])
def test_showers_do_not_depend_on_their_batch(name: str, draws: int, feedback: bool) -> None:
    it = case(name, feedback=feedback)
    _awake(it)
    model = it.model.choose({"summary_steps": 2, "steps": 3, "draws": draws})
    conditions = (
        model.condition_low + (model.condition_high - model.condition_low) * torch.linspace(0, 1, 5)[:, None]
    )
    conditions[:, 0] = torch.linspace(1e3, 4e3, 5)
    noise = normals(5, model.noise_size)
    with torch.no_grad():
        together = model.drawn(noise, conditions)[0]
        alone = torch.cat([model.drawn(noise[k : k + 1], conditions[k : k + 1])[0] for k in range(5)])
    off = ~torch.isclose(alone, together, rtol=1e-3, atol=1e-2)
    assert off.sum() <= 1e-3 * off.numel()  # rounding decides at an edge


@every
def test_a_network_with_feedback_sees_what_the_summary_says_of_the_layers(name: str) -> None:
    """Before training, when tokens do not see each other, a token sees the misses of the layers in its patch."""
    it = case(name, feedback=True).rows(4)
    network, time = _awake(it), torch.full((4,), 0.4)
    x = it.noisy(0.4)
    moments = it.to.moments.clone()
    fullest = int(it.to.filled.amin(0).argmax())
    assert it.to.filled[:, fullest].min() > 0
    moments[:, fullest, 0] += 0.2
    with torch.no_grad():
        estimates = [
            network(x, time, it.encoded, it.summary, to) for to in (it.to, it.to._replace(moments=moments))
        ]
    changed = ((estimates[0] - estimates[1]).abs() > 1e-5).any(0)
    layer = torch.from_numpy(it.model.detector.cell_layer)
    assert changed[layer == fullest].float().mean() > 0.5
    assert not changed[layer != fullest].any()
    with pytest.raises(AssertionError):
        network(x, time, it.encoded, it.summary)


@every
def test_a_network_without_feedback_needs_no_layers(name: str) -> None:
    it = case(name, feedback=False).rows(4)
    network, time = _awake(it), torch.full((4,), 0.4)
    x = it.noisy(0.4)
    assert network.misses is None
    assert network.feedback is None
    moved = it.to._replace(moments=it.to.moments + 0.2)
    with torch.no_grad():
        plain, *others = (network(x, time, it.encoded, it.summary, to) for to in (None, it.to, moved))
    assert all(torch.equal(plain, other) for other in others)


def test_neighbours_see_the_layers_only_through_the_tokens() -> None:
    """The inputs of the local network of a grid are those of one without feedback."""
    it = case("ild-ecal-10x10", feedback=True, local=4).rows(4)
    network, time = _awake(it), torch.full((4,), 0.4)
    assert isinstance(network.local, LocalNetwork)
    assert network.local.net[0].in_channels == 2 + LocalNetwork.features
    x, moved = it.noisy(0.4), it.to._replace(moments=it.to.moments + 0.2)
    weight = network.misses.weight.detach().clone()
    with torch.no_grad():
        for seen in (True, False):
            network.misses.weight.mul_(float(seen))
            first, second = (network(x, time, it.encoded, it.summary, to) for to in (it.to, moved))
            assert torch.equal(first, second) != seen
            assert not seen or (first - second).abs().max() > 1e-4
        network.misses.weight.copy_(weight)


def test_the_loss_of_a_network_with_feedback_reaches_all_that_it_learns() -> None:
    it = case("ild-ecal-10x10", feedback=True, local=4).rows(4)
    network = _awake(it)
    time = torch.full((4,), 0.4)
    network(it.noisy(0.4), time, it.encoded, it.summary, it.to, it.values).backward()
    assert (network.misses.weight.grad != 0).any()
    assert (network.local.net[0].weight.grad != 0).any()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    network.zero_grad()
