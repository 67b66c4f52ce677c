from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caloforge.errors import IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models.calibration.conditional_quantiles import VisibleEnergy
from caloforge.models.grid_gan.conv2d import N_BRANCHES, from_images, to_images
from caloforge.models.grid_gan.discriminator import (
    CELL_SCALES,
    GridProfiles,
    MeasuredAngle,
    cell_scale,
    cell_sum,
)
from caloforge.models.grid_gan.settings import glorot
from caloforge.models.nn.adversarial import ADVERSARIAL, gradient_square, labels, percentage_error
from caloforge.models.nn.mlp import Pad, SamePad
from caloforge.models.nn.symmetry import GridSymmetry


@pytest.mark.parametrize("kind", sorted(CELL_SCALES))
@pytest.mark.parametrize("power", [1.0, 0.85, 0.5])
def test_scale_comes_back_is_odd_and_keeps_empty_cells(kind: str, power: float) -> None:
    scale = cell_scale(kind, 10.0, power)
    energies = torch.tensor([-50.0, -1e-3, 0.0, 1e-3, 0.3, 400.0], requires_grad=True)
    values = scale(energies)
    torch.testing.assert_close(scale.inverse(values), energies, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(scale(-energies), -values)
    assert values[2] == 0
    (gradient,) = torch.autograd.grad(scale.inverse(values).sum() + values.sum(), energies)
    assert torch.isfinite(gradient).all()


def test_linear_scale_is_gev_times_hundred() -> None:
    assert cell_scale("power", 10.0, 1.0)(torch.tensor(1000.0)) == pytest.approx(100.0)


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
    assert cell_sum(grid).item() == pytest.approx(sum(1.0 + layer % 5 for layer in range(25)))


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


@pytest.mark.parametrize("branch", range(N_BRANCHES))
def test_axis_permutation_and_its_inverse(branch: int) -> None:
    grid = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    images = to_images(grid, branch)
    assert images.shape == [(2, 5, 3, 4), (2, 3, 4, 5), (2, 4, 3, 5)][branch]
    assert torch.equal(from_images(images, branch), grid)
    # the channels are layer, x and y in turn
    assert torch.equal(images[:, 1], [grid[..., 1], grid[:, 1], grid[:, :, 1]][branch])


@pytest.mark.parametrize("kernel", [(5, 5, 5), (6, 6, 8), (2, 3, 4)])
def test_same_padding_keeps_the_size(kernel: tuple[int, int, int]) -> None:
    x = torch.rand(1, 2, 7, 8, 9)
    conv = torch.nn.Conv3d(2, 1, kernel)
    assert conv(SamePad(kernel)(x)).shape == (1, 1, 7, 8, 9)
    # a kernel that is 1 in its middle looks at the cell itself
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[0, 1, (kernel[0] - 1) // 2, (kernel[1] - 1) // 2, (kernel[2] - 1) // 2] = 1.0
    torch.testing.assert_close(conv(SamePad(kernel)(x))[:, 0], x[:, 1])
    assert Pad((2, 1, 0))(x).shape == (1, 2, 11, 10, 9)


def test_symmetries_move_single_cells_and_keep_the_sum() -> None:
    symmetry = GridSymmetry()
    grid = torch.rand(8, 5, 5, 3)
    flags = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], dtype=torch.bool)
    moved = symmetry(grid, flags)
    torch.testing.assert_close(moved.sum((1, 2)), grid.sum((1, 2)))
    for old, new, (mx, my, swap) in zip(grid, moved, flags.tolist(), strict=True):
        x, y = (3, 1) if swap else (1, 3)
        x, y = (4 - x if mx else x), (4 - y if my else y)
        assert torch.equal(new[x, y], old[1, 3])
    assert len({tuple(m.flatten().tolist()) for m in symmetry(grid[:1].expand(8, -1, -1, -1), flags)}) == 8


def test_only_allowed_symmetries_are_flagged() -> None:
    symmetry = GridSymmetry()
    assert not symmetry.flags(torch.ones(4, 3)).any()
    symmetry.allow(True, False, True)
    assert symmetry.flags(torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])).tolist() == [
        [True, False, True],
        [False, False, True],
    ]


def test_visible_energy_finds_mean_and_resolution() -> None:
    rng = np.random.default_rng(0)
    energy = torch.from_numpy(np.exp(rng.uniform(np.log(2e3), np.log(5e5), 20000)))
    encoded = ((torch.log(energy) - 11.0) / 1.5)[:, None].float()
    mean = 0.017 - 0.0005 * encoded[:, 0].double()
    sigma = torch.sqrt(0.003**2 * 1e3 / energy + 0.0004**2)
    normal = torch.from_numpy(rng.normal(size=20000))
    fitted = VisibleEnergy(1, 0.0165)
    fitted.fit(encoded, energy, energy * (mean + sigma * normal))
    torch.testing.assert_close(fitted.mean(encoded, energy), mean * energy, rtol=0.005, atol=0)
    assert fitted.terms.sqrt().tolist() == pytest.approx([0.003, 0.0004], rel=0.05)
    drawn = fitted.draw(torch.from_numpy(rng.normal(size=20000)), encoded, energy) / energy
    pull = (drawn - mean) / sigma
    assert float(pull.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(pull.std()) == pytest.approx(1.0, abs=0.03)


def test_visible_energy_rises_with_its_number_and_with_energy() -> None:
    fitted = VisibleEnergy(1, 0.0165)
    energy = torch.full((30,), 5e4, dtype=torch.float64)
    fitted.fit(torch.zeros(30, 1), energy, 0.0165 * energy * torch.linspace(0.9, 1.1, 30))
    numbers = torch.linspace(-5, 5, 101)
    drawn = fitted.draw(numbers, torch.zeros(101, 1), torch.full((101,), 5e4))
    assert (drawn.diff() >= 0).all()
    assert drawn.min() > 0
    two = fitted.mean(torch.zeros(2, 1), torch.tensor([1e4, 1e5]))
    assert float(two[1] / two[0]) == pytest.approx(10.0)


def test_labels_flip_the_wanted_fraction() -> None:
    uniform = torch.rand(40000, generator=torch.Generator().manual_seed(0))
    flipped = labels(uniform, 0.9, 0.0, 0.05)
    assert flipped.unique().tolist() == pytest.approx([0.0, 0.9])
    assert float((flipped == 0).float().mean()) == pytest.approx(0.05, abs=0.004)
    assert (labels(uniform, 1.0, 0.0, 0.0) == 1.0).all()


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_losses_want_the_right_sign(name: str) -> None:
    loss = ADVERSARIAL[name]
    good, bad = torch.tensor([3.0, 2.5]), torch.tensor([-3.0, -2.5])
    real, fake = torch.ones(2), torch.zeros(2)
    assert loss.discriminator(good, real) < loss.discriminator(bad, real)
    assert loss.discriminator(bad, fake) < loss.discriminator(good, fake)
    assert loss.generator(good, real) < loss.generator(bad, real)


def test_bce_and_percentage_are_analytic() -> None:
    s = torch.tensor([0.3])
    expected = -math.log(1 / (1 + math.exp(-0.3)))
    assert float(ADVERSARIAL["bce"].discriminator(s, torch.ones(1))) == pytest.approx(expected, rel=1e-5)
    assert float(percentage_error(torch.tensor([1.1, 1.8]), torch.tensor([1.0, 2.0]))) == pytest.approx(10.0)


def test_gradient_square_of_a_linear_function_is_its_weights() -> None:
    weights = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x = torch.rand(4, 3, requires_grad=True)
    penalty = gradient_square(x @ weights, x)
    assert penalty.item() == pytest.approx(14.0)
    (gradient,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(gradient, 2 * weights)


def test_glorot_has_its_variance_and_no_bias() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(300, 500), torch.nn.Conv3d(8, 64, (3, 3, 8)))
    glorot(layers)
    for part, fans in zip(layers, (300 + 500, (8 + 64) * 72), strict=True):
        assert part.weight.var().item() == pytest.approx(2.0 / fans, rel=0.02)
        assert part.weight.abs().max().item() <= math.sqrt(6.0 / fans)
        assert not part.bias.any()
