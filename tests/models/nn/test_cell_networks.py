from __future__ import annotations

import numpy as np
import pytest
import torch
from adversaries import atlas_showers
from torch import nn

from caloforge.models.atlas.wgan_gp import SparseSigmoid
from caloforge.models.calibration.moments import EnergyMoments
from caloforge.models.nn.cell_networks import CELL_NETWORKS, LayerEnergies


def test_the_sparse_sigmoid_is_zero_below_zero_and_below_one_above() -> None:
    out = SparseSigmoid()(torch.tensor([-50.0, -0.1, 0.0, 0.2, 3.0]))
    assert out[:3].tolist() == [0.0, 0.0, 0.0]
    assert out[3].item() == pytest.approx(np.tanh(0.1), rel=1e-5)
    assert 0.0 < out[4].item() < 1.0


def test_the_scale_takes_each_energy_of_a_beam_by_itself() -> None:
    rng = np.random.default_rng(0)
    energy = torch.tensor(np.repeat([1e3, 4e3, 16e3], 400))
    values = torch.tensor(rng.normal(size=(1200, 2)) * np.sqrt(1e3 / energy.numpy())[:, None] + 5.0)
    scale = EnergyMoments(2)
    scale.fit(values, energy)
    mean, std = scale(torch.tensor([1e3, 4e3, 16e3, 2e3, 1e9]))
    for i, level in enumerate((1e3, 4e3, 16e3)):
        chosen = values[energy == level]
        assert mean[i].tolist() == pytest.approx(chosen.mean(0).tolist(), rel=1e-5)
        assert std[i].tolist() == pytest.approx(chosen.std(0, unbiased=False).tolist(), rel=1e-4)
    torch.testing.assert_close(std[3], (std[0] + std[1]) / 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(std[4], std[2])


def test_the_scale_of_a_wide_beam_follows_the_energy() -> None:
    rng = np.random.default_rng(0)
    energy = torch.tensor(np.exp(rng.uniform(np.log(1e4), np.log(1e5), 9000)))
    values = torch.log(energy)[:, None] + torch.tensor(rng.normal(size=(9000, 1))) * 0.01
    scale = EnergyMoments(1)
    scale.fit(values, energy)
    mean, _ = scale(torch.tensor([2e4, 5e4]))
    assert mean[:, 0].tolist() == pytest.approx([np.log(2e4), np.log(5e4)], abs=0.02)


def test_energies_become_numbers_and_come_back() -> None:
    showers = atlas_showers()
    cells, energy = torch.from_numpy(showers.cells), torch.from_numpy(showers.incident_energy).float()
    energies = LayerEnergies(showers.detector)
    energies.fit(cells, energy)
    numbers = energies(cells, energy)
    assert numbers.shape == (300, 5)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(5), atol=2e-2, rtol=0)
    back = energies.inverse(numbers, energy)
    slow = np.stack([showers.cells[:, c].sum(1) for c in showers.detector.layer_cells], axis=1)
    np.testing.assert_allclose(back.numpy(), slow, rtol=2e-3, atol=2e-3 * showers.visible_energy.max() / 1e3)
    wild = energies.inverse(100.0 * torch.randn(300, 5), energy)
    assert (wild >= 0).all()
    assert wild.isfinite().all()


@pytest.mark.parametrize("kind", list(CELL_NETWORKS))
def test_cells_are_sparse_and_not_negative_and_views_scale(kind: str) -> None:
    torch.manual_seed(0)
    showers = atlas_showers()
    cells, energy = torch.from_numpy(showers.cells), torch.from_numpy(showers.incident_energy).float()
    networks = CELL_NETWORKS[kind](showers.detector, lambda outputs: nn.Linear(6, outputs), SparseSigmoid())
    networks.fit(cells, energy)
    made = networks.make(3.0 * torch.randn(300, 6), energy)
    assert made.shape == (300, 266)
    assert made.isfinite().all()
    assert (made >= 0).all()
    assert 0.1 < (made == 0).float().mean().item() < 0.9
    view = networks.view(cells, energy)
    assert view.shape == (300, networks.width)
    assert (networks.width - networks.extras) % 266 == 0
    assert view.abs().mean() < 3.0


def test_a_layered_shower_holds_the_energies_that_were_asked_for() -> None:
    torch.manual_seed(0)
    showers = atlas_showers()
    cells, energy = torch.from_numpy(showers.cells), torch.from_numpy(showers.incident_energy).float()
    networks = CELL_NETWORKS["layered"](
        showers.detector, lambda outputs: nn.Linear(6, outputs), SparseSigmoid()
    )
    networks.fit(cells, energy)
    inputs = torch.randn(300, 6)
    asked = networks.energies.inverse(networks.net(inputs)[:, :5], energy)
    made = networks.make(inputs, energy)
    got = torch.stack([made[:, torch.from_numpy(c)].sum(1) for c in showers.detector.layer_cells], dim=1)
    torch.testing.assert_close(got, asked, rtol=1e-3, atol=1e-3)
