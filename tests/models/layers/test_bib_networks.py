"""Networks of the BIB-AE: published sizes, critics, the axis, the mirror."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from caloforge.geometry import get_detector
from caloforge.models.bib_ae.axis_maker import AxisDecoder, AxisMaps
from caloforge.models.bib_ae.critic import BatchStatistics, LatentCritic, ShowerCritic
from caloforge.models.bib_ae.networks import BibDecoder, BibEncoder, seed_size
from caloforge.models.nn.adversarial import CRITIC_LOSSES
from caloforge.models.nn.symmetry import BeamMirror

ANGLED = (30, 60, 30)


def test_decoder_passes_the_published_sizes() -> None:
    decoder = BibDecoder(ANGLED, 24 + 488 + 2)
    assert decoder.seed == (8, 7, 15, 7)
    assert [m.out_features for m in decoder.dense if isinstance(m, nn.Linear)] == [512, 800, 8 * 7 * 7 * 15]
    sizes, channels = [], []
    grid = torch.zeros(1, *decoder.seed)
    with torch.no_grad():
        for part in decoder.body:
            grid = part(grid)
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                sizes.append(tuple(grid.shape[2:]))
                channels.append(grid.shape[1])
    assert sizes[:3] == [(17, 32, 17), (36, 66, 36), (34, 64, 34)]
    assert sizes[4:] == 4 * [ANGLED]
    assert channels[2:] == [8, 8, 8, 16, 32, 16]
    assert decoder(torch.randn(1, 514)).shape == (1, *ANGLED)


@pytest.mark.parametrize("n", range(12, 61))
def test_seeds_reach_every_grid_and_are_the_smallest(n: int) -> None:
    seed, kernel = seed_size(n)

    def end(seed: int) -> int:
        return 2 * (2 * (seed - 1) + kernel - 1) + 4 - 6

    assert end(seed) >= n
    assert seed == 2 or end(seed - 1) < n


@pytest.mark.parametrize("shape", [(30, 30, 30), (25, 25, 25), (12, 14, 12)])
def test_networks_scale_with_the_grid(shape: tuple[int, int, int]) -> None:
    with torch.no_grad():
        assert BibDecoder(shape, 30)(torch.randn(2, 30)).shape == (2, *shape)
        for small in (False, True):
            mean, log_variance = BibEncoder(shape, 1, 2, 7, small=small)(
                torch.rand(2, 1, *shape), torch.rand(2, 2)
            )
            assert mean.shape == log_variance.shape == (2, 7)


def test_encoder_has_the_published_features() -> None:
    encoder = BibEncoder(ANGLED, 1, 2, 24)
    assert encoder.dense[0].in_features == 27 * 32 + 2
    kernels = [m.kernel_size for m in encoder.body if isinstance(m, nn.Conv3d)]
    assert kernels == [(2, 3, 2), (2, 2, 2), (4, 4, 4), (4, 4, 4)]
    assert [m.out_features for m in encoder.dense if isinstance(m, nn.Linear)] == [800, 512]


def test_batch_statistics_against_the_loop() -> None:
    statistics, cells = BatchStatistics(), torch.rand(5, 40)
    with torch.no_grad():
        found = statistics(cells)
        for b in range(5):
            rows = []
            for other in range(5):
                pair = [
                    cells[b].std(unbiased=False) - cells[other].std(unbiased=False),
                    cells[b].sum() - cells[other].sum(),
                ]
                rows.append(statistics.pairs(torch.stack(pair)))
            rows_ = torch.stack(rows)
            expected = torch.cat([rows_.mean(0), rows_.std(0, unbiased=False)])
            torch.testing.assert_close(found[b], expected, atol=2e-4, rtol=1e-3)


def test_latent_critic_judges_each_number_alone() -> None:
    critic, z = LatentCritic(4), torch.randn(3, 4)
    hessian = torch.autograd.functional.hessian(lambda x: critic(x[None])[0], z[0])
    assert torch.equal(hessian, torch.diag(hessian.diagonal()))
    assert sum(m.out_channels for m in critic.net if isinstance(m, nn.Conv1d)) == 4 * (50 + 100 + 50 + 1)


def test_critic_sees_differences_only_when_asked() -> None:
    shape, real, given = (8, 8, 8), torch.rand(2, 512), torch.rand(2, 1)
    for differences in (True, False):
        critic = ShowerCritic(shape, 1, differences, widths=(4, 4))
        changed = critic(real, real + 1.0, given)
        assert torch.equal(critic(real, real, given), changed) is not differences
    two = critic(torch.cat([real, real]), torch.cat([real, real]), torch.cat([given, given]), groups=2)
    torch.testing.assert_close(two[:2], two[2:])
    torch.testing.assert_close(two[:2], critic(real, real, given))


def test_losses_of_critics() -> None:
    real, made = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    assert CRITIC_LOSSES["wasserstein"].critic(real, made) == -1.0
    assert CRITIC_LOSSES["wasserstein"].maker(made + 1.0) == -1.0
    expected = sum(math.log1p(math.exp(-v)) for v in (2.0, 0.0)) / 2
    expected += sum(math.log1p(math.exp(v)) for v in (-1.0, 1.0)) / 2
    assert float(CRITIC_LOSSES["bce"].critic(real, made)) == pytest.approx(expected, rel=1e-5)
    x, weight = torch.randn(3, 4), torch.tensor([1.0, -2.0, 0.0, 2.0])
    penalty = CRITIC_LOSSES["bce"].penalty(lambda v: v @ weight, x, x, torch.rand(3, 1))
    assert float(penalty) == pytest.approx(0.5 * 9.0)
    penalty = CRITIC_LOSSES["wasserstein"].penalty(lambda v: v @ weight, x, x + 1, torch.rand(3, 1))
    assert float(penalty) == pytest.approx((3.0 - 1.0) ** 2, rel=1e-4)


def test_axis_maps_measure_the_distance_to_the_axis() -> None:
    detector = get_detector("ild-ecal-angled")
    maps, theta = AxisMaps(detector), torch.tensor([90.0, 50.0])
    found = maps(theta)
    assert found.shape == (2, maps.size, 30, 60, 30)
    centres = detector.cell_centres
    point = np.array([detector.beam.x, detector.beam.y, 0.0])
    for row, angle in enumerate(theta.tolist()):
        direction = np.array([0.0, math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        away = np.linalg.norm(np.cross(centres - point, direction), axis=1)
        expected = np.log1p((away / 2.0) ** 2) / 4.0
        assert np.allclose(found[row, 0].flatten().numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("name", ["ild-ecal", "ild-ecal-angled", "clic-ecal"])
def test_shares_of_the_axis_decoder_sum_to_one(name: str) -> None:
    detector = get_detector(name)
    decoder = AxisDecoder(detector, 9, features=3, width=16, channels=4)
    with torch.no_grad():
        shares, maps = decoder(torch.randn(2, 9), torch.tensor([90.0, 60.0]))
    assert shares.shape == (2, *detector.shape)
    assert maps.shape == (2, 3, *detector.shape)
    assert torch.allclose(shares.exp().sum((1, 2, 3)), torch.ones(2), atol=1e-4)


def test_mirror_maps_the_beam_onto_itself() -> None:
    mirror = BeamMirror(get_detector("ild-ecal"))
    assert mirror.holds
    grid = torch.rand(1, 30, 2, 2)
    turned = mirror(grid)
    assert torch.equal(turned[:, 15], grid[:, 15])
    assert torch.equal(turned[:, 14], grid[:, 16])
    assert torch.equal(turned[:, 0], grid[:, 0])
    assert torch.equal(mirror(turned), grid)
    assert BeamMirror(get_detector("clic-ecal")).order.tolist() == list(range(24, -1, -1))
