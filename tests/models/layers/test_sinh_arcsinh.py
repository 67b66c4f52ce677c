"""The map of four numbers: what it leaves alone, what it finds again, that it rises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.models.calibration.energy_maps import SinhArcsinh


def _normals(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def _map(terms: tuple[float, float, float, float]) -> SinhArcsinh:
    module = SinhArcsinh(1)
    module.terms = torch.tensor([terms])
    return module


def test_it_is_not_fitted_at_first_and_its_state_says_so() -> None:
    module = SinhArcsinh(3)
    assert not module.fitted
    assert module.state_dict()["terms"].shape == (0, 4)


def test_neutral_terms_leave_numbers_alone() -> None:
    x = _normals(200, 0)
    torch.testing.assert_close(_map((0.0, 1.0, 0.0, 1.0))(x, 0), x)


@pytest.mark.parametrize("terms", [(5.0, 3.0, 0.0, 1.0), (-1.0, 0.5, -0.2, 1.2), (2.0, 10.0, 0.3, 0.8)])
def test_the_fit_finds_a_known_map_again(terms: tuple[float, float, float, float]) -> None:
    module = SinhArcsinh(1)
    module.fit(_normals(40_000, 1)[:, None], _map(terms)(_normals(40_000, 2), 0)[:, None])
    x = torch.linspace(-2.5, 2.5, 51)
    wanted = _map(terms)(x, 0)
    assert module.fitted
    assert (module(x, 0) - wanted).abs().max() < 0.05 * wanted.std()


def test_each_number_has_its_own_map() -> None:
    made = torch.stack([_normals(5000, 1), _normals(5000, 2)], 1)
    module = SinhArcsinh(2)
    module.fit(made, torch.stack([2.0 * made[:, 0] + 7.0, -4.0 + 0.1 * made[:, 1]], 1))
    for column, (mean, width) in enumerate(((7.0, 2.0), (-4.0, 0.1))):
        carried = module(made[:, column], column)
        assert carried.mean().item() == pytest.approx(mean, abs=0.05 * width)
        assert carried.std().item() == pytest.approx(width, rel=0.02)


def test_a_thousand_skewed_numbers_tell_the_map_to_their_errors() -> None:
    """A gamma distribution of 1,000 numbers from normal ones: its mean, width and skewness within their errors."""
    truth = torch.from_numpy(np.random.default_rng(3).gamma(6.0, 1.0, 1000))
    module = SinhArcsinh(1)
    module.fit(_normals(20_000, 4)[:, None], truth[:, None])
    carried = module(_normals(100_000, 5), 0)
    assert carried.mean().item() == pytest.approx(6.0, abs=3 * 6.0**0.5 / 1000**0.5)
    assert carried.std().item() == pytest.approx(6.0**0.5, rel=3 * 0.03)
    skewness = ((carried - carried.mean()) ** 3).mean() / carried.std() ** 3
    assert skewness.item() == pytest.approx(2 / 6.0**0.5, abs=0.3)


@pytest.mark.parametrize("n", [10, 40, 1000])
def test_it_rises_whatever_it_was_fitted_to(n: int) -> None:
    rng = torch.Generator().manual_seed(n)
    for made, true in (
        (torch.randn(300, generator=rng), torch.rand(n, generator=rng)),
        (torch.rand(300, generator=rng), torch.randn(n, generator=rng).exp()),
        (torch.zeros(300), torch.rand(n, generator=rng)),
        (torch.randn(300, generator=rng), torch.full((n,), 3.0)),
    ):
        module = SinhArcsinh(1)
        module.fit(made[:, None], true[:, None])
        carried = module(torch.linspace(-4, 4, 100), 0)
        assert carried.isfinite().all()
        assert (carried.diff() >= 0).all()
