"""Scales of cell energies, measured angle, profiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caloforge.errors import IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models.grid_gan.discriminator import CELL_SCALES, GridProfiles, MeasuredAngle


@pytest.mark.parametrize("kind", sorted(CELL_SCALES))
@pytest.mark.parametrize("power", [1.0, 0.85, 0.5])
def test_scale_comes_back_is_odd_and_keeps_empty_cells(kind: str, power: float) -> None:
    scale = CELL_SCALES[kind](10.0, power)
    energies = torch.tensor([-50.0, -1e-3, 0.0, 1e-3, 0.3, 400.0], requires_grad=True)
    values = scale(energies)
    torch.testing.assert_close(scale.inverse(values), energies, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(scale(-energies), -values)
    assert values[2] == 0
    (gradient,) = torch.autograd.grad(scale.inverse(values).sum() + values.sum(), energies)
    assert torch.isfinite(gradient).all()


def test_linear_scale_is_gev_times_hundred() -> None:
    assert CELL_SCALES["power"](10.0, 1.0)(torch.tensor(1000.0)) == pytest.approx(100.0)


@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.2])
def test_measured_angle_of_a_straight_shower_is_the_true_one(slope: float) -> None:
    detector = get_detector("clic-ecal-wide")
    measure = MeasuredAngle(detector)
    grid = torch.zeros(1, *detector.shape)
    pitch = float(measure.y.diff()[0])
    for layer, z in enumerate(measure.z.tolist()):
        # two cells share a layer's energy so that the barycentre lies exactly on the line
        place = (slope * z - float(measure.y[0])) / pitch
        left = math.floor(place)
        energy = 1.0 + layer % 5
        grid[0, 25, left, layer] = energy * (1.0 - (place - left))
        grid[0, 25, left + 1, layer] = energy * (place - left)
    assert measure.slope(grid).item() == pytest.approx(slope, abs=1e-4)
    assert math.degrees(measure(grid).item()) == pytest.approx(math.degrees(math.atan2(1, slope)), abs=0.01)


def test_measured_angle_is_the_slow_mean_over_layers() -> None:
    detector = get_detector("clic-ecal")
    measure = MeasuredAngle(detector)
    grid = torch.rand(3, *detector.shape) * (torch.rand(3, *detector.shape) < 0.01)
    y, z = measure.y.double().numpy(), measure.z.double().numpy()
    for shower, found in zip(grid.double().numpy(), measure.slope(grid).tolist(), strict=True):
        total = shower.sum()
        mean_y, mean_z = (shower.sum((0, 2)) @ y) / total, (shower.sum((0, 1)) @ z) / total
        top = bottom = 0.0
        for layer in range(25):
            energy = shower[:, :, layer].sum()
            if energy == 0 or abs(z[layer] - mean_z) < 0.5 * np.diff(z).min():
                continue
            centre = shower[:, :, layer].sum(0) @ y / energy
            top += z[layer] * (centre - mean_y) / (z[layer] - mean_z)
            bottom += z[layer]
        assert found == pytest.approx(top / bottom, rel=1e-3, abs=1e-4)


def test_measured_angle_of_nothing_is_upright_with_finite_gradient() -> None:
    measure = MeasuredAngle(get_detector("clic-ecal"))
    grid = torch.zeros(2, 25, 25, 25, requires_grad=True)
    theta = measure(grid)
    theta.sum().backward()
    assert theta.tolist() == pytest.approx([math.pi / 2] * 2)
    assert grid.grad is not None
    assert torch.isfinite(grid.grad).all()


def test_angle_needs_a_grid() -> None:
    with pytest.raises(IncompatibleError, match="atlas-em-barrel"):
        MeasuredAngle(get_detector("atlas-em-barrel"))


def test_profiles_are_the_sums() -> None:
    detector = get_detector("clic-ecal")
    profiles = GridProfiles(detector)
    grid = 5.0 * torch.rand(2, 25, 25, 25) * (torch.rand(2, 25, 25, 25) < 0.05)
    energy = torch.tensor([1e4, 2e5])
    found = profiles(grid, energy)
    assert found.shape == (2, profiles.width)
    expected = energy[:, None] * detector.sampling_fraction
    torch.testing.assert_close(found[:, :25], torch.sqrt(grid.sum((1, 2)) / expected + 1e-4))
    torch.testing.assert_close(found[:, 25:50], torch.sqrt(grid.sum((2, 3)) / expected + 1e-4))
    torch.testing.assert_close(found[:, 50:75], torch.sqrt(grid.sum((1, 3)) / expected + 1e-4))
    torch.testing.assert_close(found[:, 75], torch.log(grid.sum((1, 2, 3)) / expected[:, 0] + 1e-3))
    sharp = torch.where(grid > 0, torch.full_like(grid, 50.0), grid)
    share = (sharp > 0.1).float().mean((1, 2))
    torch.testing.assert_close(profiles(sharp, energy)[:, 76:], torch.sqrt(share + 1e-4))
