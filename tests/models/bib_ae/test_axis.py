"""The decoder along the axis and the sampler of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.bib_ae.axis import AxisDecoder, AxisMaps, CellSampler


def _sampler() -> CellSampler:
    torch.manual_seed(0)
    return CellSampler(features=2, conditions=3, width=16)


def _inputs(n: int = 2, side: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (side, side, side)
    mean = torch.exp(2.0 * torch.randn(n, *shape, generator=generator) - 2.0)
    return mean, torch.randn(n, 2, *shape, generator=generator), torch.randn(n, 3, generator=generator)


def test_a_cell_is_hit_as_often_as_its_probability_says() -> None:
    sampler, (mean, maps, conditions) = _sampler(), _inputs(1, 4)
    with torch.no_grad():
        _, logit = sampler.describe(mean, maps, conditions)
        n = 4000
        noise = torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(2))
        cells = sampler(
            mean.expand(n, -1, -1, -1), maps.expand(n, -1, -1, -1, -1), conditions.expand(n, -1), noise
        )
    p = torch.sigmoid(logit[0])
    found = (cells > 0).float().mean(0)
    assert ((found - p).abs() < 5.0 * (p * (1 - p) / n).sqrt() + 1e-3).all()
    assert (cells >= 0).all()


def test_energies_of_hits_follow_the_quantiles() -> None:
    """Among the hits of one cell the normal number of the energy is standard normal again."""
    sampler, (mean, maps, conditions) = _sampler(), _inputs(1, 2)
    n = 6000
    noise = torch.randn(n, 2, 2, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, _ = sampler.describe(mean, maps, conditions)
        cells = sampler(
            mean.expand(n, -1, -1, -1), maps.expand(n, -1, -1, -1, -1), conditions.expand(n, -1), noise
        )[:, 0, 0, 0]
        levels = torch.linspace(0.1, 0.9, 9)
        normal = math.sqrt(2.0) * torch.erfinv(2.0 * levels - 1.0)
        here = found[:, :, :1, :1, :1].expand(9, -1, -1, -1, -1)
        energies = 0.2 * torch.exp(sampler.quantile(here, normal[:, None, None, None]))[:, 0, 0, 0]
    hits = cells[cells > 0]
    if energies[-1] < energies[0]:
        levels = 1.0 - levels
    for level, energy in zip(levels, energies, strict=True):
        assert (hits <= energy).float().mean() == pytest.approx(float(level), abs=0.03)


def test_losses_against_the_loop() -> None:
    sampler, (mean, maps, conditions) = _sampler(), _inputs(2, 3)
    cells = torch.where(torch.rand(2, 3, 3, 3) < 0.4, mean, 0.0)
    normal = torch.randn(2, 27)
    with torch.no_grad():
        losses = sampler.losses(mean, maps, conditions, cells, normal)
        found, logit = sampler.describe(mean, maps, conditions)
        hits = energies = 0.0
        for b in range(2):
            flat, order = cells[b].flatten(), cells[b].flatten().argsort(descending=True)
            for rank, i in enumerate(order.tolist()):
                p = torch.sigmoid(logit[b].flatten()[i])
                hits -= float(torch.log(p if flat[i] > 0 else 1 - p)) / 2
                if flat[i] > 0:
                    tau = 0.5 * (1 + math.erf(float(normal[b, rank]) / math.sqrt(2)))
                    cell = found[b].flatten(1)[:, i][None, :, None, None, None]
                    q = float(sampler.quantile(cell, normal[b, rank].view(1, 1, 1, 1)))
                    off = math.log(float(flat[i]) / 0.2) - q
                    energies += max(tau * off, (tau - 1) * off) / 2
    assert float(losses["hits"]) == pytest.approx(hits, rel=1e-4)
    assert float(losses["energies"]) == pytest.approx(energies, rel=1e-4)


def test_it_learns_a_distribution() -> None:
    """Cells that hit with probability 0.3, of energies around 0.25 MeV: the peak of a MIP."""
    sampler = CellSampler(features=0, conditions=1, width=16)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=4e-2)
    mean, maps, given = torch.full((8, 4, 4, 4), 0.08), torch.zeros(8, 0, 4, 4, 4), torch.zeros(8, 1)

    def truth() -> Tensor:
        hit = torch.rand(8, 4, 4, 4, generator=generator) < 0.3
        return hit * 0.25 * torch.exp(0.2 * torch.randn(8, 4, 4, 4, generator=generator))

    for _ in range(80):
        optimizer.zero_grad()
        losses = sampler.losses(mean, maps, given, truth(), torch.randn(8, 32, generator=generator))
        (losses["hits"] / 64 + losses["energies"] / 20).backward()
        optimizer.step()
    noise = torch.randn(20, 8, 4, 4, 4, generator=generator)
    with torch.no_grad():
        cells = torch.stack([sampler(mean, maps, given, n) for n in noise])
    hits = cells[cells > 0]
    assert (cells > 0).float().mean() == pytest.approx(0.3, abs=0.03)
    logs = torch.log(hits / 0.25)
    assert logs.mean() == pytest.approx(0.0, abs=0.08)
    assert logs.std() == pytest.approx(0.2, abs=0.08)


def test_gradients_pass_the_choice_of_hits() -> None:
    sampler, (mean, maps, conditions) = _sampler(), _inputs()
    mean.requires_grad_(True)
    sampler(mean, maps, conditions, torch.randn(2, 6, 6, 6)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sampler.parameters())
    assert mean.grad is not None
    assert (mean.grad != 0).float().mean() > 0.5


def test_axis_maps_measure_the_distance_to_the_axis() -> None:
    detector = get_detector("ild-ecal-angled")
    maps, theta = AxisMaps(detector), torch.tensor([90.0, 50.0])
    found = maps(theta)
    assert found.shape == (2, maps.size, 30, 60, 30)
    centres = detector.cell_centres
    point = np.array([detector.beam.x, detector.beam.y, 0.0])
    for row, angle in enumerate(theta.tolist()):
        direction = np.array([0.0, math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        away = np.linalg.norm(np.cross(centres - point, direction), axis=1)
        expected = np.log1p((away / 2.0) ** 2) / 4.0
        assert np.allclose(found[row, 0].flatten().numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("name", ["ild-ecal", "ild-ecal-angled", "clic-ecal"])
def test_shares_of_the_axis_decoder_sum_to_one(name: str) -> None:
    detector = get_detector(name)
    decoder = AxisDecoder(detector, 9, features=3, width=16, channels=4)
    with torch.no_grad():
        shares, maps = decoder(torch.randn(2, 9), torch.tensor([90.0, 60.0]))
    assert shares.shape == (2, *detector.shape)
    assert maps.shape == (2, 3, *detector.shape)
    assert torch.allclose(shares.exp().sum((1, 2, 3)), torch.ones(2), atol=1e-4)


def test_cells_that_may_be_hits_alone_give_the_same_showers() -> None:
    generator = torch.Generator().manual_seed(3)
    sampler = CellSampler(4, 2)
    shape = 5, 6, 7, 8
    mean = torch.exp(torch.randn(shape, generator=generator) * 4.0 - 6.0)
    maps = torch.randn((5, 4, *shape[1:]), generator=generator)
    conditions, noise = torch.randn(5, 2, generator=generator), torch.randn(shape, generator=generator)
    dense = sampler(mean, maps, conditions, noise)  # with gradients all cells are looked at
    with torch.no_grad():
        sparse = sampler(mean, maps, conditions, noise)
    assert dense.requires_grad
    assert 0.02 < float((sparse > 0).float().mean()) < 0.6
    torch.testing.assert_close(sparse, dense.detach(), rtol=1e-4, atol=1e-6)


def test_showers_without_any_hit_are_empty() -> None:
    sampler = CellSampler(4, 2)
    mean, noise = torch.full((2, 3, 3, 3), 1e-6), torch.full((2, 3, 3, 3), -3.0)
    with torch.no_grad():
        cells = sampler(mean, torch.zeros(2, 4, 3, 3, 3), torch.zeros(2, 2), noise)
    assert cells.shape == mean.shape
    assert not cells.any()
