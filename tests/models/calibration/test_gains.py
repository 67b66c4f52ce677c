"""Gains of groups of cells, and of rings about the shower axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grids import grid_showers

from caloforge.geometry import ReadoutLayer, get_detector
from caloforge.models.calibration.moments import _EDGES, Gains, RingGains, fit_gains
from caloforge.models.calibration.regression import Polynomial
from caloforge.models.nn.cell_networks import LayerView


def shares(n: int = 4000, parts: int = 30, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded conditions (n, 1), and shares (n, parts) that change with them and fluctuate."""
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(n, 1, generator=generator)
    size = torch.rand(parts, generator=generator) + 0.5
    values = size * torch.exp(0.1 * encoded + noise * torch.randn(n, parts, generator=generator))
    return encoded, values


def test_gains_are_one_before_the_fit_and_bounded_after_it() -> None:
    encoded, values = shares()
    gains = Gains(1, 30, most=2.0)
    assert (gains(encoded) == 1).all()
    gains.fit(values, values / 10.0, encoded)
    assert torch.allclose(gains(encoded), torch.tensor(2.0))


def test_a_known_distortion_is_found() -> None:
    encoded, values = shares()
    wanted = torch.linspace(-0.4, 0.4, 30), torch.linspace(0.2, -0.2, 30)
    factor = torch.exp(wanted[0] + wanted[1] * encoded.clamp(-2.0, 2.0))
    noise = torch.exp(0.2 * torch.randn(values.shape, generator=torch.Generator().manual_seed(2)))
    inside = encoded.clamp(-2.0, 2.0)
    gains = Gains(1, 30)
    gains.fit(values, values / factor * noise, inside)
    assert (gains.weights[0] - wanted[0] + 0.02).abs().max() < 0.03  # the noise has a mean of 1.02
    assert (gains.weights[1] - wanted[1]).abs().max() < 0.03


def test_means_agree_with_and_without_each_feature() -> None:
    encoded, values = shares()
    made = values.flip(1) * torch.exp(0.3 * encoded.square() - 0.2)
    features = Polynomial(1, 1, 2)
    features.fit(encoded)
    phi = features(encoded).double()
    a = fit_gains(values.double(), made.double(), phi, shrink=False)
    rest = values - made * (phi @ a).exp()
    assert ((phi.T @ rest) / len(phi)).abs().max() < 1e-6


def test_coefficients_of_noise_are_shrunk() -> None:
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
    gains = Gains(1, 3)
    gains.fit(values, empty, encoded)
    assert (gains.weights[:, 1] == 0).all()
    assert torch.isfinite(gains.weights).all()


@pytest.mark.parametrize("name", ["clic-ecal", "ild-ecal", "ild-ecal-angled"])
@pytest.mark.parametrize("theta", [90.0, 55.0])
def test_rings_are_those_of_the_distance_from_the_axis(name: str, theta: float) -> None:
    detector = get_detector(name)
    view, gains = LayerView(detector), RingGains(detector, 1)
    shape = (1, view.n_layers, view.width)
    found = gains.ring(view.x.expand(shape), view.y.expand(shape), torch.tensor([theta]))
    found = view.cells(found)[0].numpy()
    centres, layer = detector.cell_centres, detector.cell_layer
    parts = [part for part in detector.layers if isinstance(part, ReadoutLayer)]
    z, pitch = np.array([part.z for part in parts]), parts[0].pitch_x
    axis = detector.beam.y + z / np.tan(np.radians(theta))
    away = np.hypot(centres[:, 0] - detector.beam.x, centres[:, 1] - axis[layer]) / pitch
    clear = np.abs(away[:, None] - np.array(_EDGES)).min(1) > 1e-3
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], np.searchsorted(np.array(_EDGES), away)[clear])


@pytest.mark.parametrize("radial", [1.0, 0.5])
def test_rings_of_a_mesh_are_its_own(radial: float) -> None:
    detector = get_detector("calochallenge-2")
    view, gains = LayerView(detector, radial), RingGains(detector, 1, radial)
    shape = (1, view.n_layers, view.width)
    found = gains.ring(view.x.expand(shape), view.y.expand(shape), torch.tensor([90.0]))
    assert gains.rings == 9
    np.testing.assert_array_equal(view.cells(found)[0].numpy(), np.arange(6480) % 9)


def test_shares_hold_all_energy_and_gains_undo_a_known_distortion() -> None:
    showers = grid_showers(n=40)
    view, gains = LayerView(showers.detector), RingGains(showers.detector, 1)
    cells = torch.from_numpy(showers.cells)
    theta = torch.full((len(cells),), 90.0)
    encoded = torch.linspace(-1.5, 1.5, len(cells))[:, None]
    x, y = (table.expand(len(cells), -1, -1) for table in (view.x, view.y))
    torch.testing.assert_close(gains(x, y, theta, encoded), torch.ones_like(x))
    true = gains.shares(view(cells), view.x, view.y, theta)
    torch.testing.assert_close(true.sum(1), torch.ones(len(cells)))
    ring = gains.ring(x, y, theta)
    wrong = torch.where(ring >= 4, 1.3 + 0.1 * encoded[:, :, None], torch.ones(1))
    changed = view.cells(view(cells) * wrong)
    made = gains.shares(view(changed), view.x, view.y, theta) * (changed.sum(1) / cells.sum(1))[:, None]
    gains.gains.fit(true, made, encoded)
    undone = view(changed) * gains(x, y, theta, encoded)
    mended = gains.shares(undone, view.x, view.y, theta).mean(0).view(-1, gains.rings).sum(0)
    expected = true.mean(0).view(-1, gains.rings).sum(0)
    before = gains.shares(view(changed), view.x, view.y, theta).mean(0).view(-1, gains.rings).sum(0)
    assert (mended / expected - 1).abs().max() < 0.01 < (before / expected - 1).abs().max()
