"""A generator with wrong widths and correlations is repaired, by few numbers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.images import ImageCalibration

DETECTOR = get_detector("ild-ecal-10x10")
ENERGIES = (10e3, 50e3)


def _images(n: int, seed: int, narrow: float) -> tuple[Tensor, Tensor]:
    """Blobs of two energies whose sum, width and centre fluctuate ``narrow`` times as much as they should.

    The sum is skewed, and where it is low the blob is narrow.
    """
    rng = torch.Generator().manual_seed(seed)
    energy = torch.tensor(ENERGIES)[torch.arange(n) % 2]
    drawn = torch.randn(4, n, generator=rng)
    loss = 1.0 - 0.08 * narrow * (torch.exp(0.4 * drawn[0]) - 1.0)
    wide = 10.0 + narrow * (1.5 * drawn[1] - 1.0 * drawn[0])
    x, y = 4.0 + narrow * drawn[2:, :, None]
    centres = torch.as_tensor(DETECTOR.cell_centres, dtype=torch.float32)
    far = (centres[:, 0] - x).square() + (centres[:, 1] - y).square()
    shape = torch.exp(-far / wide.clamp_min(4.0)[:, None].square())
    shape = shape * (1.0 + 0.3 * torch.rand(n, 100, generator=rng))
    shape = torch.where(shape > 1e-3, shape, torch.zeros_like(shape))
    return shape / shape.sum(1, keepdim=True) * (0.02 * energy * loss.clamp_min(0.1))[:, None], energy


@cache
def _fitted() -> ImageCalibration:
    calibration = ImageCalibration(DETECTOR)
    calibration.fit(_images(2000, 0, 1.0), _images(10_000, 1, 0.7))
    return calibration


def _numbers(images: tuple[Tensor, Tensor], energy: float) -> Tensor:
    rows = images[1] == energy
    return _fitted().numbers(images[0][rows], images[1][rows])


@pytest.mark.parametrize("energy", ENERGIES)
def test_means_widths_and_correlations_are_repaired(energy: float) -> None:
    """Against as many true images as were fitted to and others, none of which was seen."""
    made, all_energies = _images(10_000, 5, 0.7)
    carried = _fitted()(made, all_energies), all_energies
    truth, before, after = (
        _numbers(x, energy) for x in (_images(20_000, 6, 1.0), (made, all_energies), carried)
    )
    ratio = truth.std(0)
    assert ((before.std(0) / ratio - 1).abs() > 0.2).all()
    assert ((after.std(0) / ratio - 1).abs() < 0.1).all()
    assert ((after.mean(0) - truth.mean(0)).abs() < 0.12 * ratio).all()
    wanted = torch.corrcoef(truth.T)
    assert (torch.corrcoef(after.T) - wanted).abs().max() < 0.12


def test_skewness_is_repaired() -> None:
    def skewness(images: tuple[Tensor, Tensor]) -> float:
        x = _numbers(images, ENERGIES[0])[:, 0]
        return float(((x - x.mean()) ** 3).mean() / x.std() ** 3)

    made, energy = _images(10_000, 5, 0.7)
    flat = made / made.sum(1, keepdim=True) * (0.02 * energy * 0.95)[:, None]
    narrow = flat * (1.0 + 0.03 * torch.randn(len(flat), 1, generator=torch.Generator().manual_seed(1)))
    calibration = ImageCalibration(DETECTOR)
    calibration.fit(_images(2000, 0, 1.0), (narrow, energy))
    before, after = skewness((narrow, energy)), skewness((calibration(narrow, energy), energy))
    assert abs(before) < 0.2
    assert after < -0.7


def test_images_keep_their_empty_cells_and_have_energy() -> None:
    made, energy = _images(200, 7, 0.7)
    carried = _fitted()(made, energy)
    assert carried.isfinite().all()
    assert (carried >= 0).all()
    assert (carried[made == 0] == 0).all()
    assert (carried.sum(1) > 0).all()


def test_an_image_far_out_in_a_tail_keeps_energy() -> None:
    made, energy = _images(200, 7, 0.7)
    for factor in (0.01, 0.2, 5.0):
        ratio = _fitted()(factor * made, energy).sum(1) / (factor * made).sum(1)
        assert (ratio > 0.499).all()
        assert (ratio < 2.001).all()


def test_the_training_images_give_few_numbers() -> None:
    """Four maps of four and six slopes; means and widths only set the units."""
    calibration = _fitted()
    assert calibration.maps.terms.numel() == 16
    assert int((calibration.slopes != 0).sum()) == 6
    assert calibration.slopes.triu().abs().sum() == 0


def test_state_is_saved_and_loaded() -> None:
    made, energy = _images(50, 8, 0.7)
    state = _fitted().state_dict()
    other = ImageCalibration(DETECTOR)
    assert not other.fitted
    for name, value in state.items():  # as ShowerModel.load_weights does: fitting decides shapes
        owner = other.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], torch.empty_like(value))
    other.load_state_dict(state)
    assert other.fitted
    torch.testing.assert_close(other(made, energy), _fitted()(made, energy))


def test_numbers_without_width_are_left_alone() -> None:
    """All images have one sum: rounding is not stretched, and the batch does not matter."""
    true, energy = _images(400, 0, 1.0)
    made, many = _images(2000, 1, 0.7)
    true, made = (x / x.sum(1, keepdim=True) * 0.02 * e[:, None] for x, e in ((true, energy), (made, many)))
    calibration = ImageCalibration(DETECTOR)
    calibration.fit((true, energy), (made, many))
    whole = calibration(made[:60], many[:60])
    single = torch.cat([calibration(made[i : i + 1], many[i : i + 1]) for i in range(60)])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(whole.sum(1), 0.02 * many[:60], rtol=1e-4, atol=1e-3)


def test_empty_images_stay_empty_and_do_not_matter() -> None:
    made, energy = _images(3000, 1, 0.7)
    made[::100] = 0.0
    calibration = ImageCalibration(DETECTOR)
    calibration.fit(_images(2000, 0, 1.0), (made, energy))
    carried = calibration(made, energy)
    assert (carried[::100] == 0).all()
    assert carried.isfinite().all()
