"""Densities of latent codes: normal, kernels, flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.bib_ae.latents import LatentFlow, LatentKde
from caloforge.models.bib_ae.settings import PAPER, BibAeConfig, FlowSettings


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestKernels:
    def test_weights_against_the_loop(self) -> None:
        codes, contexts = _normal(40, 2, seed=1), _normal(40, 2, seed=2)
        kde = LatentKde(2, 2)
        kde.fit(codes, contexts)
        query = torch.tensor([[0.3, -0.4]])
        covariance = torch.cov(contexts.T.double())
        inverse = torch.linalg.inv(covariance)
        h = 40 ** (-1.0 / 8.0)
        expected = torch.zeros(40, dtype=torch.float64)
        for i in range(40):
            d = (query[0] - kde.contexts[i]).double()
            expected[i] = math.exp(-0.5 * float(d @ inverse @ d) / h**2)
        found = kde.weights(query)[0].double()
        torch.testing.assert_close(found, expected / expected.sum(), rtol=1e-3, atol=1e-6)

    def test_conditional_of_a_normal_distribution(self) -> None:
        """Kernels on a joint normal (c, z) are one of covariance (1 + h^2) times larger, with the same slope."""
        n = 4000
        c, e = _normal(n, 1, seed=1), _normal(n, 2, seed=2)
        z = torch.cat([0.8 * c, -0.5 * c], 1) + torch.stack([0.6 * e[:, 0], 0.3 * e[:, 0] + 0.4 * e[:, 1]], 1)
        kde = LatentKde(2, 1, most=n)
        kde.fit(z, c)
        h2 = float(n ** (-2.0 / 7.0))
        query = torch.full((n, 1), 0.7)
        drawn = kde.draw(_normal(n, 2, seed=3), _normal(n, seed=4), query)
        assert torch.allclose(drawn.mean(0), torch.tensor([0.56, -0.35]), atol=0.05)
        expected = (1.0 + h2) * torch.tensor([[0.36, 0.18], [0.18, 0.25]])
        assert torch.allclose(torch.cov(drawn.T), expected, atol=0.04)

    def test_narrow_kernels_give_back_the_nearest_code(self) -> None:
        contexts = torch.linspace(-1, 1, 21)[:, None]
        codes = contexts**2 + torch.tensor([[0.0, 5.0]])
        kde = LatentKde(2, 1, bandwidth=1e-3)
        kde.fit(codes, contexts)
        drawn = kde.draw(_normal(21, 2), _normal(21, seed=1), contexts)
        assert torch.allclose(drawn, codes, atol=1e-2)

    def test_the_choice_rises_through_the_components(self) -> None:
        """Two clusters of contexts: each condition draws from its own, with the right frequency within it."""
        contexts = torch.cat([torch.full((100, 1), -3.0), torch.full((100, 1), 3.0)]) + 0.01 * _normal(200, 1)
        codes = torch.cat([torch.full((75, 1), -1.0), torch.full((25, 1), -2.0), torch.full((100, 1), 4.0)])
        kde = LatentKde(1, 1, bandwidth=0.01)
        kde.fit(codes + 0.001 * _normal(200, 1, seed=5), contexts)
        kde.slope.zero_()
        drawn = kde.draw(torch.zeros(2000, 1), _normal(2000, seed=6), torch.full((2000, 1), -3.0))
        assert (drawn < 0).all()
        assert kde.draw(torch.zeros(9, 1), _normal(9, seed=7), torch.full((9, 1), 3.0)).min() > 3.0

    def test_a_part_of_the_codes_is_kept(self) -> None:
        kde = LatentKde(3, 2, most=50)
        kde.fit(_normal(180, 3), _normal(180, 2, seed=1))
        assert kde.codes.shape == (45, 3)
        assert (kde.contexts[:, 0].diff() >= 0).all()

    def test_drawing_is_pure(self) -> None:
        kde = LatentKde(3, 2)
        kde.fit(_normal(60, 3), _normal(60, 2, seed=1))
        arguments = _normal(4, 3, seed=2), _normal(4, seed=3), _normal(4, 2, seed=4)
        whole = kde.draw(*arguments)
        single = torch.cat([kde.draw(*(a[i : i + 1] for a in arguments)) for i in range(4)])
        torch.testing.assert_close(single, whole)


class TestFlow:
    def flow(self) -> LatentFlow:
        torch.manual_seed(0)
        return LatentFlow(3, 2, FlowSettings(blocks=1, couplings=1, hidden=(16,), spline_hidden=(16,)))

    def test_published_blocks(self) -> None:
        flow = LatentFlow(25, 2, BibAeConfig.model_validate(PAPER).flow)
        couplings = [m for m in flow.modules() if type(m).__name__ == "GeneralCouplingTransform"]
        assert len(couplings) == 8 * 7
        assert [c.univariate.__name__ for c in couplings[:7]] == (
            3 * ["MonotonicAffineTransform"] + ["MonotonicRQSTransform"] + 3 * ["MonotonicAffineTransform"]
        )
        assert couplings[0].hyper[0].out_features == 250
        assert couplings[3].hyper[0].out_features == 100

    def test_density_follows_from_the_inverse(self) -> None:
        """-ln p(code) = |noise|^2 / 2 + 3/2 ln 2 pi + ln |d code / d noise|, codes standardised."""
        flow, noise, context = self.flow(), 0.5 * _normal(1, 3), _normal(1, 2, seed=1)
        flow.fit(2.0 * _normal(50, 3, seed=2) + 1.0, _normal(50, 2, seed=3))
        code = flow.draw(noise, noise[:, 0], context)
        jacobian = torch.autograd.functional.jacobian(
            lambda x: flow.draw(x[None], x[:1], context)[0] / flow.scale[:3], noise[0]
        )
        expected = (
            0.5 * noise.square().sum() + 1.5 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
        )
        assert flow.loss(code, context).item() == pytest.approx(float(expected), abs=1e-3)

    def test_it_learns_a_conditional_mean(self) -> None:
        flow = self.flow()
        c = _normal(512, 2, seed=1)
        z = torch.cat([c[:, :1], c[:, 1:], c[:, :1] - c[:, 1:]], 1) + 0.3 * _normal(512, 3, seed=2)
        flow.fit(z, c)
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        for _ in range(70):
            optimizer.zero_grad()
            flow.loss(z, c).backward()
            optimizer.step()
        query = torch.tensor([[1.0, -0.5]]).expand(2000, -1)
        with torch.no_grad():
            drawn = flow.draw(_normal(2000, 3, seed=3), torch.zeros(2000), query)
        assert torch.allclose(drawn.mean(0), torch.tensor([1.0, -0.5, 1.5]), atol=0.15)
        assert torch.allclose(drawn.std(0), torch.full((3,), 0.3), atol=0.1)
