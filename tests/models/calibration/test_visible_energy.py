from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.models.calibration.distributions import VisibleEnergy


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
