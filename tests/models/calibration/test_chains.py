"""Dependent numbers become independent normal ones and come back, with few parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.calibration.chains import FewTerms, NormalChain


def _numbers(n: int, seed: int) -> Tensor:
    """A skewed number, one that falls with its square, and two exchangeable ones that follow the second."""
    g = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    first = 1.0 - torch.exp(0.4 * g[:, 0])
    second = 0.6 * g[:, 1] - 0.15 * g[:, 0].square() + 0.3 * g[:, 0]
    return torch.stack([first, second, g[:, 2] + 0.5 * g[:, 1], g[:, 3] + 0.5 * g[:, 1]], 1)


def _moments(z: Tensor) -> Tensor:
    """Return the correlations of z (N, 4) and of z with the square of its first column, (4, 4) and a row."""
    square = (z[:, 0].square() - 1.0)[:, None]
    both = torch.corrcoef(torch.cat([z, square], 1).T)
    return both - torch.diag(both.diagonal())


@pytest.mark.parametrize("few", [True, False])
def test_numbers_become_independent_normal_ones(few: bool) -> None:
    chain = NormalChain(4, few)
    chain.fit(_numbers(5000, 0))
    z = chain(_numbers(20_000, 1))
    assert _moments(_numbers(20_000, 1)).abs().max() > 0.3
    assert _moments(z).abs().max() < 0.05
    assert (z.mean(0).abs() < 0.05).all()
    assert ((z.std(0) - 1.0).abs() < 0.05).all()


@pytest.mark.parametrize("few", [True, False])
def test_the_inverse_brings_the_numbers_back(few: bool) -> None:
    chain = NormalChain(4, few)
    chain.fit(_numbers(5000, 0))
    values = _numbers(1000, 2)
    torch.testing.assert_close(chain.inverse(chain(values)), values, rtol=1e-3, atol=1e-3)


def test_new_numbers_have_the_dependences() -> None:
    chain = NormalChain(4, few=True)
    chain.fit(_numbers(2000, 0))
    new = chain.inverse(torch.randn(50_000, 4, generator=torch.Generator().manual_seed(4)))
    truth = _numbers(50_000, 1)
    assert (torch.corrcoef(new.T) - torch.corrcoef(truth.T)).abs().max() < 0.06
    levels = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98])
    found, wanted = (x.quantile(levels, dim=0) for x in (new, truth))
    assert ((found - wanted).abs() < 0.2 * truth.std(0)).all()


def test_new_numbers_do_not_repeat_the_training_sample() -> None:
    """Of 64 equally probable bins, the density of new numbers is nearer to the truth than that of the 1,000 that were fitted."""
    train, truth = _numbers(1000, 0), _numbers(200_000, 1)
    chain = NormalChain(4, few=True)
    chain.fit(train)
    new = chain.inverse(torch.randn(200_000, 4, generator=torch.Generator().manual_seed(4)))
    edges = truth.quantile(torch.arange(1, 64) / 64, dim=0)

    def misfit(sample: Tensor, column: int) -> float:
        bins = torch.bucketize(sample[:, column].contiguous(), edges[:, column].contiguous())
        return float((torch.bincount(bins, minlength=64) / len(sample) * 64 - 1.0).square().mean())

    for column in range(4):
        assert misfit(new, column) < 0.35 * misfit(train, column)


def test_exchangeable_numbers_share_their_constants() -> None:
    chain = NormalChain(4, few=True)
    values = _numbers(2000, 0)
    chain.fit(values, exchangeable=True)
    swapped = values[:, [0, 1, 3, 2]]
    assert torch.equal(chain.single.x[0, 0, 2], chain.single.x[0, 0, 3])
    torch.testing.assert_close(chain(swapped)[:, 2], chain.rest(_rest(chain, swapped))[:, 2])
    other = NormalChain(4, few=True)
    other.fit(swapped, exchangeable=True)
    torch.testing.assert_close(chain.trends[1].weights, other.trends[1].weights, rtol=0.05, atol=0.01)


def _rest(chain: NormalChain, values: Tensor) -> Tensor:
    z = chain.single(values)
    columns = [
        z[:, :1],
        *(chain.trends[k](z[:, k + 1 : k + 2], z[:, : k + 1].clamp(-2.5, 2.5)) for k in range(3)),
    ]
    return torch.cat(columns, 1)


def test_a_number_without_width_is_left_alone() -> None:
    values = _numbers(1000, 0)
    values[:, 1] = 0.0
    chain = NormalChain(4, few=True)
    chain.fit(values)
    back = chain.inverse(chain(values))
    torch.testing.assert_close(back, values, rtol=1e-3, atol=1e-3)


def test_before_the_fit_nothing_changes() -> None:
    values = torch.linspace(-3.0, 3.0, 40).view(10, 4)
    torch.testing.assert_close(NormalChain(4, few=True)(values), values)
    torch.testing.assert_close(FewTerms(2)(values[:, :1], values[:, 1:3]), values[:, :1])
