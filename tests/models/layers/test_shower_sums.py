"""Visible and weighted energies, and showers brought to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.conditional_quantiles import ShowerSums, Sums


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


def test_showers_are_brought_to_both_energies() -> None:
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


def test_drawn_energies_are_those_of_the_showers_they_were_told_of() -> None:
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
