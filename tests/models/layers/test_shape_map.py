from __future__ import annotations

import torch

from caloforge.models.calibration.covariance import ShapeMap

RINGS, LAYERS = 3, 6


def tables(depth: float, compactness: float, seed: int, n: int = 6000) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables (n, rings, layers) of showers whose depth and compactness have these widths, and conditions (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.rand(n, 1, generator=generator) * 2.0 - 1.0
    centre = 2.5 + 0.3 * encoded + depth * torch.randn(n, 1, generator=generator)
    layers = torch.softmax(-0.4 * (torch.arange(LAYERS) - centre).square(), 1)
    steep = 1.0 + compactness * torch.randn(n, 1, generator=generator)
    rings = torch.softmax(-steep * torch.arange(RINGS), 1)
    local = torch.exp(0.1 * torch.randn(n, RINGS, LAYERS, generator=generator))
    return 100.0 * rings[:, :, None] * layers[:, None] * local, encoded


def fractions(table: torch.Tensor) -> torch.Tensor:
    total = table.sum((1, 2))[:, None]
    return torch.cat([table.sum(1), table.sum(2)], 1) / total


def test_means_and_widths_of_layers_and_rings_become_those_of_the_truth() -> None:
    true, made = tables(0.3, 0.1, 1), tables(0.12, 0.3, 2)
    shape = ShapeMap(RINGS, LAYERS, 1)
    shape.fit(true, made)
    table, encoded = tables(0.12, 0.3, 3)
    factors = shape(table, encoded)
    found, wanted, before = (fractions(x) for x in (table * factors, true[0], table))
    assert (before.std(0) / wanted.std(0) - 1.0).abs().max() > 0.4
    assert (found.std(0) / wanted.std(0) - 1.0).abs().max() < 0.12
    assert (found.mean(0) / wanted.mean(0) - 1.0).abs().max() < 0.02
    depth = [x[:, :LAYERS] @ torch.arange(float(LAYERS)) for x in (found, wanted)]
    assert abs(float(depth[0].std() / depth[1].std()) - 1.0) < 0.05
    high, low = encoded[:, 0] > 0.5, encoded[:, 0] < -0.5
    assert 0.2 < float(depth[0][high].mean() - depth[0][low].mean()) < 0.6


def test_right_showers_stay_as_they_are() -> None:
    shape = ShapeMap(RINGS, LAYERS, 1)
    shape.fit(tables(0.3, 0.1, 1), tables(0.3, 0.1, 2))
    factors = shape(*tables(0.3, 0.1, 3))
    assert float((factors - 1.0).abs().mean()) < 0.05


def test_with_one_ring_the_layers_alone_are_changed_and_total_energies_kept() -> None:
    (true, c), (made, d) = tables(0.3, 0.1, 1), tables(0.12, 0.1, 2)
    true, made = true.sum(1, keepdim=True), made.sum(1, keepdim=True)
    shape = ShapeMap(1, LAYERS, 1)
    shape.fit((true, c), (made, d))
    found = made * shape(made, d)
    torch.testing.assert_close(found.sum((1, 2)), made.sum((1, 2)), rtol=5e-3, atol=0.0)
    ratio = (found / found.sum(2, keepdim=True)).std(0) / (true / true.sum(2, keepdim=True)).std(0)
    assert (ratio - 1.0).abs().max() < 0.1


def test_empty_showers_stay_finite() -> None:
    shape = ShapeMap(RINGS, LAYERS, 1)
    shape.fit(tables(0.3, 0.1, 1), tables(0.12, 0.3, 2))
    assert torch.isfinite(shape(torch.zeros(2, RINGS, LAYERS), torch.zeros(2, 1))).all()
