from __future__ import annotations

import torch

from caloforge.models.calibration.gains import Features, ShareGains, fit_gains


def shares(n: int = 4000, parts: int = 30, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded conditions (n, 1), and shares (n, parts) that change with them and fluctuate."""
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(n, 1, generator=generator)
    size = torch.rand(parts, generator=generator) + 0.5
    values = size * torch.exp(0.1 * encoded + noise * torch.randn(n, parts, generator=generator))
    return encoded, values


def test_gains_are_one_before_the_fit_and_bounded_after_it() -> None:
    encoded, values = shares()
    gains = ShareGains(1, 30, 1, most=2.0)
    assert (gains(encoded) == 1).all()
    gains.fit(values, values / 10.0, encoded)
    assert torch.allclose(gains(encoded), torch.tensor(2.0))


def test_a_known_distortion_is_found() -> None:
    encoded, values = shares()
    wanted = torch.linspace(-0.4, 0.4, 30), torch.linspace(0.2, -0.2, 30)
    factor = torch.exp(wanted[0] + wanted[1] * encoded.clamp(-2.0, 2.0))
    noise = torch.exp(0.2 * torch.randn(values.shape, generator=torch.Generator().manual_seed(2)))
    inside = encoded.clamp(-2.0, 2.0)
    gains = ShareGains(1, 30, 1)
    gains.fit(values, values / factor * noise, inside)
    assert (gains.weights[0] - wanted[0] + 0.02).abs().max() < 0.03  # the noise has a mean of 1.02
    assert (gains.weights[1] - wanted[1]).abs().max() < 0.03


def test_means_agree_with_and_without_each_feature() -> None:
    encoded, values = shares()
    made = values.flip(1) * torch.exp(0.3 * encoded.square() - 0.2)
    features = Features(1, 2)
    features.fit(encoded)
    phi = features(encoded).double()
    a = fit_gains(values.double(), made.double(), phi, shrink=False)
    rest = values - made * (phi @ a).exp()
    assert ((phi.T @ rest) / len(phi)).abs().max() < 1e-6


def test_fluctuations_are_taken_back() -> None:
    encoded, values = shares(n=200, noise=0.8)
    trend = torch.exp(0.1 * encoded)
    encoded, values, other = encoded[:100], values[:100], values[100:] / trend[100:] * trend[:100]
    phi = torch.cat([torch.ones_like(encoded), encoded], 1).double()
    free, shrunk = (fit_gains(values.double(), other.double(), phi, shrink=s) for s in (False, True))
    assert shrunk.square().mean() < 0.3 * free.square().mean()


def test_parts_without_energy_are_left_alone() -> None:
    encoded, values = shares(parts=3)
    empty = values.clone()
    empty[:, 1] = 0.0
    gains = ShareGains(1, 3, 1)
    gains.fit(values, empty, encoded)
    assert (gains.weights[:, 1] == 0).all()
    assert torch.isfinite(gains.weights).all()
