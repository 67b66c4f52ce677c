"""Distributions fitted under conditions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.distributions import (
    ConditionalDistribution,
    ShowerSums,
    Sums,
)
from caloforge.models.grid_gan.settings import VisibleEnergy


def _conditions(n: int, seed: int = 0) -> Tensor:
    return 2.0 * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) - 1.0


def _normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def _fitted(values: Tensor, conditions: Tensor) -> ConditionalDistribution:
    found = ConditionalDistribution(2, group=1)
    found.fit(conditions, values)
    return found


def test_mean_and_width_are_found_where_they_are_polynomials() -> None:
    c = _conditions(8_000)
    mean = 1.0 + 0.3 * c[:, 0] - 0.2 * c[:, 1] ** 3 + 0.1 * c[:, 0] * c[:, 1] ** 2
    std = torch.exp(-2.0 + 0.5 * c[:, 0] - 0.4 * c[:, 1])
    found = _fitted(mean + std * _normal(len(c), 1), c)
    assert torch.allclose(found.mean(c).float(), mean, atol=0.03)
    assert torch.allclose((found.std(c).float() / std).log(), torch.zeros_like(std), atol=0.15)


def test_drawn_numbers_have_the_moments_of_a_skew_distribution_at_each_condition() -> None:
    c = _conditions(8_000)

    def sample(seed: int) -> Tensor:
        tail = torch.distributions.Exponential(1.0).icdf(
            torch.rand(len(c), generator=torch.Generator().manual_seed(seed))
        )
        lean = 0.5 * (1.0 + c[:, 1])  # the tail grows with the second condition
        return 1.0 - 0.1 * (lean * tail + 0.3 * _normal(len(c), seed + 1))

    found = _fitted(sample(3), c)
    truth, drawn = sample(5), found.draw(_normal(len(c), 9), c)
    for low in (-1.0, -0.5, 0.0, 0.5):
        here = (c[:, 1] >= low) & (c[:, 1] < low + 0.5)
        assert drawn[here].mean() == pytest.approx(float(truth[here].mean()), abs=0.008)
        assert drawn[here].std() == pytest.approx(float(truth[here].std()), rel=0.08)
        assert drawn[here].quantile(0.02) == pytest.approx(float(truth[here].quantile(0.02)), abs=0.05)


def test_drawing_is_undone() -> None:
    c = _conditions(2_000)
    found = _fitted(torch.exp(0.3 * _normal(len(c), 1)) + c[:, 0], c)
    normal = _normal(len(c), 2).clamp(-3.4, 3.4)
    again = found.normal(found.draw(normal, c), c)
    assert (again - normal).abs().max() < 0.02
    values = found.draw(normal, c)
    assert torch.allclose(found.draw(found.normal(values, c), c), values, atol=1e-4)


@given(st.floats(-5.0, 5.0), st.floats(0.0, 2.0))
def test_numbers_rise_with_the_normal_number(start: float, step: float) -> None:
    c = _conditions(50)
    found = ConditionalDistribution(2, 0, 1.0, 0.2)
    low = found.draw(torch.full((50,), start), c)
    assert (found.draw(torch.full((50,), start + step), c) >= low).all()


def test_beyond_the_training_conditions_stop_at_their_edge() -> None:
    c = _conditions(1_000)
    found = _fitted(c[:, 0] ** 3 + 0.1 * _normal(1_000, 1), c)
    far = torch.tensor([[5.0, 0.0]])
    edge = torch.stack([c[:, 0].max(), torch.tensor(0.0)])[None]
    assert found.mean(far) == pytest.approx(float(found.mean(edge)))


def test_before_the_fit_it_is_normal() -> None:
    found = ConditionalDistribution(1, 0, mean=2.0, std=0.5)
    drawn = found.draw(torch.tensor([-1.0, 0.0, 1.0]), torch.zeros(3, 1))
    assert torch.allclose(drawn, torch.tensor([1.5, 2.0, 2.5]), atol=1e-5)


def test_one_group_for_one_condition() -> None:
    found = ConditionalDistribution(1, 0)
    found.fit(torch.zeros(400, 1), 3.0 + 0.1 * _normal(400, 1))
    assert found.mean(torch.zeros(1, 1)) == pytest.approx(3.0, abs=0.02)
    assert found.shape.y.shape == (1, 1, 1, 57)
    assert math.isfinite(float(found.draw(torch.tensor([3.0]), torch.zeros(1, 1))))


def _layers(n: int = 3_000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Layer energies of showers that start at random depths, incident energies, standardised conditions."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 2, generator=generator)
    energy = 1e4 + 9e4 * u[:, 0]
    ratios = torch.as_tensor(get_detector("ild-ecal-angled").absorber_ratios, dtype=torch.float32)
    depth = ratios.cumsum(0)
    start = torch.distributions.Exponential(0.5).icdf(torch.rand(n, generator=generator))
    t = (depth - start[:, None]).clamp_min(0.0) / 4.0
    profile = t**2 * torch.exp(-t)
    noise = 1.0 + 0.1 * torch.randn(n, 30, generator=generator)
    share = profile * noise.clamp_min(0.1)
    layers = 0.023 * energy[:, None] * share / (profile * ratios).sum(1, keepdim=True).clamp_min(1e-3)
    return layers, energy, torch.stack([2 * u[:, 0] - 1, 2 * u[:, 1] - 1], 1)


def test_showers_are_scaled_to_both_energies() -> None:
    layers, energy, conditions = _layers()
    sums = ShowerSums(get_detector("ild-ecal-angled"), 2, 1)
    sums.fit(layers, energy, conditions)
    layers = layers[((layers * sums.ratios).sum(1) / layers.sum(1) - 1.35).abs() < 0.3]
    near = sums.of(layers)
    moved = 0.05 * torch.randn(len(layers), 2, generator=torch.Generator().manual_seed(4))
    visible = near.visible * (1.0 + moved[:, 0])
    wanted = Sums(visible, visible * (near.weighted / near.visible + moved[:, 1]).clamp(1.03, 1.8))
    factors = sums.factors(layers, wanted)
    found = sums.of(layers * factors)
    torch.testing.assert_close(found.visible, wanted.visible, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.weighted, wanted.weighted, rtol=2e-2, atol=0)
    logs = factors.log()
    straight = logs[:, :1] + (logs[:, -1:] - logs[:, :1]) * (sums.depths + 1.0) / 2.0
    assert (logs - straight).abs().max() < 1e-3


def test_a_shower_that_has_its_energies_is_not_changed() -> None:
    layers, energy, conditions = _layers()
    sums = ShowerSums(get_detector("ild-ecal-angled"), 2, 1)
    sums.fit(layers, energy, conditions)
    assert (sums.factors(layers, sums.of(layers)) - 1.0).abs().max() < 1e-3


def test_energies_of_showers_come_back_from_their_normal_numbers() -> None:
    layers, energy, conditions = _layers()
    sums = ShowerSums(get_detector("ild-ecal-angled"), 2, 1)
    sums.fit(layers, energy, conditions)
    true = sums.of(layers)
    normals = sums.normals(true, energy, conditions)
    assert normals.mean(0).abs().max() < 0.05
    assert (normals.std(0) - 1.0).abs().max() < 0.05
    inside = (normals.abs() < 3.0).all(1)
    again = sums.draw(normals, energy, conditions)
    torch.testing.assert_close(again.visible[inside], true.visible[inside], rtol=1e-3, atol=0)
    torch.testing.assert_close(again.weighted[inside], true.weighted[inside], rtol=1e-3, atol=0)


def test_drawn_energies_have_mean_and_width_of_the_showers() -> None:
    layers, energy, conditions = _layers(6_000)
    sums = ShowerSums(get_detector("ild-ecal-angled"), 2, 1)
    sums.fit(layers, energy, conditions)
    true = sums.of(layers)
    drawn = sums.draw(
        torch.randn(len(layers), 2, generator=torch.Generator().manual_seed(6)), energy, conditions
    )
    for a, b in zip(true, drawn, strict=True):
        response, made = a / energy, b / energy
        assert made.mean() == pytest.approx(float(response.mean()), rel=0.005)
        assert made.std() == pytest.approx(float(response.std()), rel=0.05)


def test_one_thickness_of_absorber_has_one_energy() -> None:
    sums = ShowerSums(get_detector("calochallenge-2"), 1, 0)
    layers = torch.rand(5, 45) + 0.1
    wanted = sums.draw(torch.zeros(5, 2), torch.full((5,), 1e3), torch.zeros(5, 1))
    factors = sums.factors(layers, wanted)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors))
    assert torch.allclose(sums.of(layers * factors).visible, wanted.visible, rtol=1e-3)


def test_visible_energy_finds_mean_and_resolution() -> None:
    rng = np.random.default_rng(0)
    energy = torch.from_numpy(np.exp(rng.uniform(np.log(2e3), np.log(5e5), 20000)))
    encoded = ((torch.log(energy) - 11.0) / 1.5)[:, None].float()
    mean = 0.017 - 0.0005 * encoded[:, 0].double()
    sigma = torch.sqrt(0.003**2 * 1e3 / energy + 0.0004**2)
    normal = torch.from_numpy(rng.normal(size=20000))
    fitted = VisibleEnergy(1, 0.0165)
    fitted.fit(encoded, energy, energy * (mean + sigma * normal))
    torch.testing.assert_close(fitted.mean(encoded, energy), mean * energy, rtol=0.005, atol=0)
    assert fitted.resolution.sqrt().tolist() == pytest.approx([0.003, 0.0004], rel=0.05)
    drawn = fitted.draw(torch.from_numpy(rng.normal(size=20000)), encoded, energy) / energy
    pull = (drawn - mean) / sigma
    assert float(pull.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(pull.std()) == pytest.approx(1.0, abs=0.03)


def test_visible_energy_rises_with_its_number_and_with_energy() -> None:
    fitted = VisibleEnergy(1, 0.0165)
    energy = torch.full((30,), 5e4, dtype=torch.float64)
    fitted.fit(torch.zeros(30, 1), energy, 0.0165 * energy * torch.linspace(0.9, 1.1, 30))
    numbers = torch.linspace(-5, 5, 101)
    drawn = fitted.draw(numbers, torch.zeros(101, 1), torch.full((101,), 5e4))
    assert (drawn.diff() >= 0).all()
    assert drawn.min() > 0
    two = fitted.mean(torch.zeros(2, 1), torch.tensor([1e4, 1e5]))
    assert float(two[1] / two[0]) == pytest.approx(10.0)
