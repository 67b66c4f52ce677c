"""Hits get the spectrum of true ones: edge, order, energies far from it, angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.distributions import CellSpectrum


def _hits(n: int, edge: float, width: float, seed: int) -> Tensor:
    """Energies of a smooth spectrum and of MIPs, whose edge is smeared by a factor of some width."""
    rng = np.random.default_rng(seed)
    smooth = np.exp(rng.normal(-1.0, 1.2, n // 2))
    mip = edge * (1.0 + rng.exponential(0.5, n // 2)) * np.exp(rng.normal(0.0, width, n // 2))
    return torch.from_numpy(np.concatenate([smooth, mip])).float()


def _angled(low: float, high: float, width: float, seed: int, n: int = 40_000) -> tuple[Tensor, Tensor]:
    """Hits of showers at 40 and 80 degrees with edges at these energies."""
    energies = torch.cat([_hits(n, low, width, seed), _hits(n, high, width, seed + 1)])
    angles = torch.rand(n, generator=torch.Generator().manual_seed(seed)) * 4.0
    return energies, torch.cat([38.0 + angles, 78.0 + angles])


def _fitted() -> CellSpectrum:
    spectrum = CellSpectrum()
    spectrum.fit(_angled(0.20, 0.14, 0.01, 1), _angled(0.20, 0.14, 0.2, 11))
    return spectrum


def _shares(energies: Tensor) -> np.ndarray:
    edges = np.geomspace(0.08, 0.5, 20)
    return np.histogram(energies.numpy(), edges)[0] / len(energies)


def test_nothing_changes_before_the_fit() -> None:
    cells = torch.rand(2, 3, 3, 2)
    spectrum = CellSpectrum()
    assert not spectrum.fitted
    assert torch.equal(spectrum(cells, torch.full((2,), 60.0)), cells)


def test_hits_of_each_angle_get_their_own_edge() -> None:
    spectrum = _fitted()
    for angle, edge, seed in ((40.0, 0.20, 21), (80.0, 0.14, 31)):
        true, made = _hits(40_000, edge, 0.01, seed), _hits(40_000, edge, 0.2, seed + 1)
        moved = spectrum(made[None], torch.tensor([angle]))[0]
        before, after = (np.abs(_shares(x) - _shares(true)).sum() for x in (made, moved))
        assert after < 0.35 * before


def test_order_and_empty_cells_stay_and_large_energies_do_not_move() -> None:
    spectrum = _fitted()
    cells = torch.zeros(1, 1000)
    cells[0, ::2] = torch.logspace(-3.5, 2.0, 500)
    moved = spectrum(cells, torch.tensor([60.0]))
    assert torch.equal(moved == 0, cells == 0)
    assert bool((moved[0, ::2].diff() > 0).all())
    assert torch.equal(moved[cells > 3.01], cells[cells > 3.01])
    assert not torch.allclose(moved, cells)


def test_equal_spectra_are_left_alone() -> None:
    spectrum = CellSpectrum()
    hits = _angled(0.2, 0.14, 0.05, 5)
    spectrum.fit(hits, hits)
    moved = spectrum(hits[0][None, :2000], torch.tensor([60.0]))[0]
    np.testing.assert_allclose(moved.numpy(), hits[0][:2000].numpy(), rtol=0.02)


def test_gradients_pass_to_hits_and_to_empty_cells() -> None:
    cells = torch.tensor([[0.0, 0.15, 0.4, 20.0]], requires_grad=True)
    _fitted()(cells, torch.tensor([50.0])).sum().backward()
    assert cells.grad is not None
    assert bool((cells.grad > 0).all())


def test_dense_maps_like_the_map_of_hits() -> None:
    spectrum = _fitted()
    cells = torch.logspace(-3.5, 2.0, 600).view(2, 3, 100).clone()
    cells[:, :, ::7] = 0.0
    angles = torch.tensor([41.0, 77.0])
    torch.testing.assert_close(spectrum.dense(cells, angles), spectrum(cells, angles))
    assert torch.equal(CellSpectrum().dense(cells, angles), cells)


def test_without_a_fade_bright_cells_follow_too_and_groups_need_hits() -> None:
    spectrum = CellSpectrum((1e-4, 1e3), None, 4, 30_000, 0.025)
    generator = torch.Generator().manual_seed(0)
    by = torch.rand(100_000, generator=generator)
    made = torch.exp(torch.randn(100_000, generator=generator) + by)
    spectrum.fit((made * 1.1, by), (made, by))
    assert len(spectrum.map.position) == 3
    middle = (made > 0.1) & (made < 20.0)
    moved = spectrum(made[:, None], by)[:, 0]
    torch.testing.assert_close(moved[middle], 1.1 * made[middle], rtol=0.02, atol=0.0)


@pytest.mark.parametrize("hits", [1_000, 5_000])
def test_few_hits_do_not_change_the_energy(hits: int) -> None:
    """The brightest hits have most of the energy; a map through their quantiles alone would miss it by several per cent."""
    generator = torch.Generator().manual_seed(hits)
    true, made = torch.exp(1.6 * torch.randn(2, hits, generator=generator))
    spectrum = CellSpectrum((1e-4, 1e4), None, 1, 100, 0.025)
    by = torch.zeros(hits)
    spectrum.fit((true, by), (made, by))
    assert abs(float(made.sum() / true.sum()) - 1) > 0.01
    assert float(spectrum(made[:, None], by).sum()) == pytest.approx(float(true.sum()), rel=2e-3)
    ordered = spectrum(made[:, None], by)[:, 0].sort().values
    torch.testing.assert_close(
        ordered[hits // 10 : hits // 2], true.sort().values[hits // 10 : hits // 2], rtol=0.1, atol=0.0
    )
