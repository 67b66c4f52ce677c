from __future__ import annotations

import math

import pytest
import torch
from grids import RecordingUpdater, batch_of, built, grid_showers
from torch import nn

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models.grid_gan.conv3d import ARCHITECTURES, Conv, Conv3dGan

WIDE = "clic-ecal-wide"


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _by_hand(inputs: int, seed: int, layers: tuple[Conv, ...], channels: int) -> int:
    total = (inputs + 1) * seed
    for index, layer in enumerate(layers):
        total += layer.channels * (channels * math.prod(layer.kernel) + layer.bias)
        total += 2 * layer.channels * (layer.norm and index < len(layers) - 1)
        channels = layer.channels
    return total


@pytest.mark.parametrize("preset", ["paper", "improved"])
def test_generator_has_the_published_parameters(preset: str) -> None:
    model = Conv3dGan(get_detector("clic-ecal"), Conv3dGan.resolve({"preset": preset}))
    assert _count(model.generator) == 872_808
    assert _count(model.generator.dense) == 630_336
    assert round(_count(model.generator) / 1e6, 2) == 0.87
    assert round(_count(model.generator.dense) / 1e6, 2) == 0.63
    wide = Conv3dGan(get_detector(WIDE), Conv3dGan.resolve({"preset": preset}))
    assert _count(wide.generator) == 1_364_983
    assert _count(wide.generator.dense) == 1_332_288


@pytest.mark.parametrize("shape", sorted(ARCHITECTURES))
def test_parameters_are_those_counted_by_hand(shape: tuple[int, int, int]) -> None:
    a = ARCHITECTURES[shape]
    model = Conv3dGan(
        get_detector("clic-ecal" if shape[0] == 25 else WIDE), Conv3dGan.resolve({"preset": "paper"})
    )
    seed = a.channels * math.prod(a.seed)
    assert _count(model.generator) == _by_hand(a.latent, seed, a.generator, a.channels)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((25, 25, 25), [(7, 7, 8), (13, 14, 9), (26, 26, 26), (25, 25, 25)]),
        (
            (51, 51, 25),
            [
                (49, 49, 41),
                (50, 50, 38),
                (51, 51, 35),
                (52, 52, 32),
                (52, 52, 28),
                (52, 52, 26),
                (51, 51, 25),
            ],
        ),
    ],
)
def test_each_stage_of_the_generator_has_its_size(
    shape: tuple[int, int, int], sizes: list[tuple[int, int, int]]
) -> None:
    a = ARCHITECTURES[shape]
    model = Conv3dGan(get_detector("clic-ecal" if shape[0] == 25 else WIDE), Conv3dGan.resolve())
    generator = model.generator.eval()
    with torch.no_grad():
        grid = generator.dense(torch.randn(1, a.latent)).view(1, a.channels, *a.seed)
        parts = [*generator.blocks, generator.last]
        for part, layer, expected in zip(parts, a.generator, sizes, strict=True):
            grid, convolution = part(grid), part if part is generator.last else part[0]
            assert tuple(grid.shape) == (1, layer.channels, *expected)
            assert convolution.size == expected


@pytest.mark.parametrize(
    ("name", "sizes", "features"),
    [
        ("clic-ecal", [(25, 25, 25), (25, 25, 23), (25, 25, 21), (25, 25, 19)], 8 * 12 * 12 * 9),
        (WIDE, [(51, 51, 25), (47, 46, 20), (43, 41, 15), (39, 36, 10)], 8 * 19 * 18 * 5),
    ],
)
def test_each_stage_of_the_discriminator_has_its_size(
    name: str, sizes: list[tuple[int, int, int]], features: int
) -> None:
    detector = get_detector(name)
    model = Conv3dGan(detector, Conv3dGan.resolve({"preset": "paper"}))
    body = model.discriminator.body.eval()
    grid = torch.rand(1, 1, *detector.shape)
    with torch.no_grad():
        for part, size in zip(body.blocks, sizes, strict=True):
            grid = part(grid)
            assert tuple(grid.shape[2:]) == size
        assert body(torch.rand(1, 1, *detector.shape)).shape == (1, features)
    assert body.features == features


def test_paper_latent_is_noise_times_energy() -> None:
    model = built(Conv3dGan, grid_showers(), preset="paper")
    noise = torch.randn(3, model.noise_size)
    conditions = torch.tensor([[2e3], [1e5], [5e5]])
    assert model.noise_size == 200
    latent = model.latent(noise, conditions)
    torch.testing.assert_close(latent, noise * torch.tensor([[0.02], [1.0], [5.0]]))


def test_angled_paper_latent_begins_with_energy_and_angle() -> None:
    model = built(Conv3dGan, grid_showers(WIDE, 4, upright=False), preset="paper-angled")
    assert model.noise_size == 254
    latent = model.latent(torch.zeros(1, 254), torch.tensor([[2.5e5, 60.0]]))
    assert latent.shape == (1, 256)
    assert latent[0, :2].tolist() == pytest.approx([2.5, math.pi / 3])


def test_one_step_trains_every_parameter_of_the_wide_networks() -> None:
    showers = grid_showers(WIDE, 4, upright=False)
    model = built(Conv3dGan, showers[:2], preset="paper-angled", generator_steps=1)
    updater = RecordingUpdater(model, rate=0.0)
    model.stages()[0].step(batch_of(model, showers[:2]), updater)
    assert updater.names == ["discriminator", "discriminator", "generator"]
    expected = {name for name, _ in model.named_parameters()}
    assert updater.reached["generator"] | updater.reached["discriminator"] == expected


def test_wide_showers_lean_as_their_condition_when_mirrored() -> None:
    showers = grid_showers(WIDE, 4, upright=False)
    model = built(Conv3dGan, showers)
    assert model.symmetry.allowed.tolist() == [1.0, 1.0, 0.0]
    batch = model.augment(batch_of(model, showers), torch.Generator().manual_seed(3))
    flipped = (batch.conditions[:, 1] - 90.0).sign() != (
        batch_of(model, showers).conditions[:, 1] - 90
    ).sign()
    assert flipped.any()
    assert not flipped.all()
    grid = batch.cells.view(-1, 51, 51, 25)
    measured = torch.rad2deg(model.discriminator.angle(grid))
    torch.testing.assert_close(measured, batch.conditions[:, 1], atol=2.0, rtol=0)


def test_other_grids_and_conditions_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="25 x 25 x 25, 51 x 51 x 25"):
        Conv3dGan(get_detector("ild-ecal"), Conv3dGan.resolve())
    with pytest.raises(ConfigError, match="incident_energy"):
        Conv3dGan(get_detector("clic-ecal"), Conv3dGan.resolve({"conditions": ["incident_theta"]}))
    with pytest.raises(ConfigError, match="preset"):
        Conv3dGan.resolve({"preset": "nothing"})
