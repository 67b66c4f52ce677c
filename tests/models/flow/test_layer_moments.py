"""Energies that come near centres and widths: tilted, or in another order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.cells import LayerTargets, reordered, tilted

N, LAYERS, SIDE = 40, 3, 9


def _grid() -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1.0, 1.0, SIDE)
    x, y = torch.meshgrid(line, line, indexing="ij")
    return x.flatten().repeat(LAYERS, 1), y.flatten().repeat(LAYERS, 1)


def _energies(seed: int) -> tuple[Tensor, Tensor]:
    """Free energies, a Gaussian with fluctuations, and small fixed ones; (N, LAYERS, SIDE**2)."""
    generator = torch.Generator().manual_seed(seed)
    x, y = _grid()
    shape = torch.exp(-(x.square() + y.square()) / 0.1)
    free = shape * torch.exp(0.5 * torch.randn(N, LAYERS, SIDE**2, generator=generator))
    return 100.0 * free, 0.1 * torch.rand(N, LAYERS, SIDE**2, generator=generator)


def _moments(energy: Tensor) -> LayerTargets:
    x, y = _grid()
    held = energy.sum(2)
    cx, cy = (energy * x).sum(2) / held, (energy * y).sum(2) / held
    wx, wy = (
        ((energy * (place - middle[:, :, None]).square()).sum(2) / held).sqrt()
        for place, middle in ((x, cx), (y, cy))
    )
    return LayerTargets(held, held, held, cx, cy, wx, wy)


def test_centres_and_widths_become_those_asked_for() -> None:
    free, fixed = _energies(0)
    asked = _moments(sum(_energies(1)))
    found = tilted(free, fixed, *_grid(), asked)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(2), free.sum(2), rtol=1e-5, atol=0)
    made = _moments(found + fixed)
    for kind in ("x", "y", "width_x", "width_y"):
        before = (getattr(_moments(free + fixed), kind) - getattr(asked, kind)).abs().mean()
        after = (getattr(made, kind) - getattr(asked, kind)).abs().mean()
        assert before > 0.01
        assert after < 0.5 * before


def test_another_order_of_the_energies_brings_the_moments_near_and_keeps_the_spectrum() -> None:
    energy, _ = _energies(0)
    energy[:, :, ::3] = 0.0
    wanted = _moments(_energies(1)[0])
    found = reordered(energy, *_grid(), wanted)
    assert ((found > 0) == (energy > 0)).all()
    torch.testing.assert_close(found.sort(2).values, energy.sort(2).values)
    for kind in ("x", "y", "width_x", "width_y"):
        before = (getattr(_moments(energy), kind) - getattr(wanted, kind)).abs().mean()
        after = (getattr(_moments(found), kind) - getattr(wanted, kind)).abs().mean()
        assert after < 0.8 * before


def test_energies_that_have_the_asked_moments_stay() -> None:
    free, fixed = _energies(2)
    found = tilted(free, fixed, *_grid(), _moments(free + fixed))
    torch.testing.assert_close(found, free, rtol=1e-4, atol=1e-4)


def test_the_factor_is_an_exponential_of_the_place() -> None:
    """ln(found / free) is a number, and x, y, x^2, y^2 each times another."""
    free, fixed = (part.double() for part in _energies(3))
    x, y = (part.double() for part in _grid())
    wanted = _moments(sum(_energies(4)))
    asked = LayerTargets(*(part.double() for part in wanted))
    logs = torch.log(tilted(free, fixed, x, y, asked) / free)[0, 0]
    away = [x[0] - asked.x[0, 0], y[0] - asked.y[0, 0]]
    design = torch.stack([torch.ones_like(away[0]), *away, *(part.square() for part in away)], 1)
    small = logs.abs() < 0.1  # the bound bends larger ones
    solution = torch.linalg.lstsq(design[small], logs[small, None]).solution
    assert (design[small] @ solution - logs[small, None]).abs().max() < 0.02


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_few_cells_stay_finite_and_keep_their_sum(cells: int) -> None:
    free, _ = _energies(5)
    keep = torch.zeros_like(free)
    keep[:, :, 40 : 40 + cells] = 1.0
    free, fixed = free * keep, torch.zeros_like(free)
    middle = torch.full((N, LAYERS), 0.3)
    found = tilted(
        free, fixed, *_grid(), LayerTargets(middle, middle, middle, middle, -middle, middle, middle)
    )
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.sum(2), free.sum(2), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_reached_is_approached() -> None:
    free, fixed = _energies(6)
    far = torch.full((N, LAYERS), 0.9)
    found = tilted(free, fixed, *_grid(), LayerTargets(far, far, far, far, far, 0.5 * far, 0.5 * far))
    assert torch.isfinite(found).all()
    assert _moments(found + fixed).x.mean() > _moments(free + fixed).x.mean() + 0.005
