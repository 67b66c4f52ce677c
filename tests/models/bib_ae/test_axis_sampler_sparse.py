"""The cells that the networks of the sampler look at in generation."""

from __future__ import annotations

import torch

from caloforge.models.bib_ae.axis import CellSampler


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
