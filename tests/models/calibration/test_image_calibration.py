"""A generator with wrong widths and correlations is repaired, by few numbers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.base import Sample
from caloforge.models.calibration.images import CellWidths, Exchange, ImageCalibration, ImageNumbers

DETECTOR = get_detector("ild-ecal-10x10")
ENERGIES = (10e3, 50e3)


def _sample(cells: Tensor, energy: Tensor) -> Sample:
    return Sample(cells, energy[:, None], energy, energy[:, None])


def _fit(true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> ImageCalibration:
    calibration = ImageCalibration(DETECTOR)
    calibration.fit(_sample(*true), _sample(*made))
    return calibration


def _calibrated(calibration: ImageCalibration, cells: Tensor, energy: Tensor) -> Tensor:
    return calibration(_sample(cells, energy))


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
    return _fit(_images(2000, 0, 1.0), _images(10_000, 1, 0.7))


def _numbers(images: tuple[Tensor, Tensor], energy: float) -> Tensor:
    rows = images[1] == energy
    return _fitted().steps[1].numbers(images[0][rows], images[1][rows])


@pytest.mark.parametrize("energy", ENERGIES)
def test_means_widths_and_correlations_are_repaired(energy: float) -> None:
    """Against as many true images as were fitted to and others, none of which was seen."""
    made, all_energies = _images(10_000, 5, 0.7)
    calibrated = _calibrated(_fitted(), made, all_energies), all_energies
    truth, before, after = (
        _numbers(x, energy) for x in (_images(20_000, 6, 1.0), (made, all_energies), calibrated)
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
    calibration = _fit(_images(2000, 0, 1.0), (narrow, energy))
    before, after = skewness((narrow, energy)), skewness((_calibrated(calibration, narrow, energy), energy))
    assert abs(before) < 0.2
    assert after < -0.7


def test_images_keep_their_empty_cells_and_have_energy() -> None:
    made, energy = _images(200, 7, 0.7)
    calibrated = _calibrated(_fitted(), made, energy)
    assert calibrated.isfinite().all()
    assert (calibrated >= 0).all()
    assert (calibrated[made == 0] == 0).all()
    assert (calibrated.sum(1) > 0).all()


def test_an_image_far_out_in_a_tail_keeps_energy() -> None:
    made, energy = _images(200, 7, 0.7)
    for factor in (0.01, 0.2, 5.0):
        ratio = _calibrated(_fitted(), factor * made, energy).sum(1) / (factor * made).sum(1)
        assert (ratio > 0.499).all()
        assert (ratio < 2.001).all()


def test_the_training_images_give_few_numbers() -> None:
    """Trends of three, four and five; tables follow about four numbers each, means and widths only set the units."""
    trends = _fitted().steps[1].true.trends
    assert [trend.weights.numel() for trend in trends] == [3, 4, 5]


def _turned(images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return images with x and y exchanged."""
    return images[0].view(-1, 10, 10).transpose(1, 2).reshape(-1, 100), images[1]


def test_where_x_and_y_are_exchangeable_the_constants_are_the_same_for_both() -> None:
    images = _images(2000, 0, 1.0)
    orders = Exchange(DETECTOR).orders(_sample(*images))
    assert len(orders) == 2
    torch.testing.assert_close(orders[1], _turned(images)[0])
    step = _fitted().steps[1]
    torch.testing.assert_close(step.reference.mean[:, 2], step.reference.mean[:, 3])
    torch.testing.assert_close(step.true.single.x[0, 0, 2], step.true.single.x[0, 0, 3])
    widths = _fitted().steps[0].reference.mean[0]
    torch.testing.assert_close(widths.view(10, 10), widths.view(10, 10).T)


def test_images_that_tell_x_from_y_are_not_exchanged() -> None:
    """A shower that leans along y, or is wider along it."""
    cells, energy = _images(1000, 0, 1.0)
    image = cells.view(-1, 10, 10)
    leaning = torch.cat([image[:, :, :1], image[:, :, :-1]], 2).reshape(-1, 100)
    assert len(Exchange(DETECTOR).orders(_sample(leaning, energy))) == 1
    far = torch.arange(10.0) - 4.5
    sign = torch.where(torch.arange(len(cells)) % 2 == 0, 1.0, -1.0)[:, None, None]
    wide = (image * torch.exp(0.2 * sign * far)).reshape(-1, 100)
    assert len(Exchange(DETECTOR).orders(_sample(wide, energy))) == 1


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
    torch.testing.assert_close(_calibrated(other, made, energy), _calibrated(_fitted(), made, energy))


def test_numbers_without_width_are_left_alone() -> None:
    """All images have one sum: rounding is not stretched, and the batch does not matter."""
    true, energy = _images(400, 0, 1.0)
    made, many = _images(2000, 1, 0.7)
    true, made = (x / x.sum(1, keepdim=True) * 0.02 * e[:, None] for x, e in ((true, energy), (made, many)))
    calibration = _fit((true, energy), (made, many))
    whole = _calibrated(calibration, made[:60], many[:60])
    single = torch.cat([_calibrated(calibration, made[i : i + 1], many[i : i + 1]) for i in range(60)])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(whole.sum(1), 0.02 * many[:60], rtol=1e-4, atol=1e-3)


def test_empty_images_stay_empty_and_do_not_matter() -> None:
    made, energy = _images(3000, 1, 0.7)
    made[::100] = 0.0
    calibration = _fit(_images(2000, 0, 1.0), (made, energy))
    calibrated = _calibrated(calibration, made, energy)
    assert (calibrated[::100] == 0).all()
    assert calibrated.isfinite().all()


def _changed(step: CellWidths, cells: Tensor, energy: Tensor) -> Tensor:
    return step(_sample(cells, energy)).cells


def _nine_cells(n: int, seed: int, slope: float, width: float) -> tuple[Tensor, Tensor]:
    """Nine cells, the middle one the peak; parts fall outwards by ``slope`` and fluctuate by ``width``."""
    rng = torch.Generator().manual_seed(seed)
    energy = torch.tensor([10e3, 50e3])[torch.arange(n) % 2]
    means = torch.exp(-slope * (torch.arange(9) - 4.0).abs())
    cells = means * (1.0 + width * torch.randn(n, 9, generator=rng).clamp(-3, 3))
    cells[:, 0] = torch.where(torch.rand(n, generator=rng) < 0.3, 0.0, cells[:, 0])
    cells[:, 4] = 5.0 + 0.5 * torch.rand(n, generator=rng)
    return cells.clamp_min(0.0) * energy[:, None] / 500.0, energy


def _rest(images: tuple[Tensor, Tensor], energy: float) -> Tensor:
    rest = images[0][images[1] == energy].clone()
    rest[:, 4] = 0.0
    return rest / rest.sum(1, keepdim=True)


def _fitted_widths() -> CellWidths:
    module = CellWidths(9)
    module.fit(_sample(*_nine_cells(4000, 0, 0.5, 0.3)), _sample(*_nine_cells(8000, 1, 0.6, 0.2)), 0)
    return module


def test_means_and_widths_of_cells_are_repaired() -> None:
    made, energies = _nine_cells(8000, 2, 0.6, 0.2)
    calibrated = _changed(_fitted_widths(), made, energies), energies
    for energy in (10e3, 50e3):
        truth, before, after = (
            _rest(x, energy)[:, [1, 2, 3, 5, 6, 7, 8]]
            for x in (_nine_cells(8000, 3, 0.5, 0.3), (made, energies), calibrated)
        )
        assert (before.std(0) / truth.std(0) - 1).abs().max() > 0.2
        assert (after.std(0) / truth.std(0) - 1).abs().max() < 0.08
        assert ((after.mean(0) - truth.mean(0)).abs() / truth.std(0)).max() < 0.08


def test_sums_peaks_and_empty_cells_are_kept() -> None:
    made, energies = _nine_cells(500, 2, 0.6, 0.2)
    calibrated = _changed(_fitted_widths(), made, energies)
    torch.testing.assert_close(calibrated.sum(1), made.sum(1))
    torch.testing.assert_close(calibrated[:, 4], made[:, 4])
    assert (calibrated >= 0).all()
    assert (calibrated[made == 0] == 0).all()


def test_before_the_fit_images_are_left_alone() -> None:
    made, energies = _nine_cells(100, 2, 0.6, 0.2)
    torch.testing.assert_close(_changed(CellWidths(9), made, energies), made)


def test_images_of_one_cell_or_none_are_left_alone() -> None:
    cells = torch.zeros(2, 9)
    cells[1, 4] = 3.0
    torch.testing.assert_close(_changed(_fitted_widths(), cells, torch.full((2,), 10e3)), cells)


NUMBERS = ImageNumbers(DETECTOR)


def _gev_images(n: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blobs near the middle, of about 1 GeV, with empty cells; and incident energies."""
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.as_tensor(DETECTOR.cell_centres[:, :2], dtype=torch.float32).T
    at = 3.0 * torch.randn(2, n, 1, generator=rng)
    wide = 8.0 + 4.0 * torch.rand(n, 1, generator=rng)
    shape = torch.exp(-((x - at[0]).square() + (y - at[1]).square()) / wide.square())
    shape = shape * (0.5 + torch.rand(n, DETECTOR.n_cells, generator=rng))
    shape = torch.where(shape > 1e-3, shape, torch.zeros_like(shape))
    total = 1075.0 + 90.0 * torch.randn(n, 1, generator=rng)
    return shape / shape.sum(1, keepdim=True) * total, torch.full((n,), 50_000.0)


def _wanted(n: int) -> Tensor:
    """Numbers of real images, in another order."""
    cells, energy = _gev_images(n, seed=1)
    return NUMBERS(cells, energy)


def test_the_numbers_are_those_by_hand() -> None:
    cells = torch.zeros(1, 10, 10)
    cells[0, 4, 5], cells[0, 6, 5] = 300.0, 100.0
    layer = DETECTOR.layers[0]
    total, share, x, y = NUMBERS(cells.view(1, 100), torch.tensor([50_000.0]))[0].tolist()
    assert total == pytest.approx(400.0 / 50_000.0 / DETECTOR.sampling_fraction)
    assert share == pytest.approx(0.75)
    centres = DETECTOR.cell_centres.reshape(10, 10, -1)
    assert x == pytest.approx((0.75 * centres[4, 5, 0] + 0.25 * centres[6, 5, 0]) / layer.pitch_x, rel=1e-5)
    assert y == pytest.approx(centres[4, 5, 1] / layer.pitch_y, rel=1e-5)


def test_changed_images_have_the_new_numbers() -> None:
    cells, energy = _gev_images()
    own, other = NUMBERS(cells, energy), _wanted(100)
    wanted = own + 0.02 * (other - own)
    changed = NUMBERS.change(cells, energy, wanted)
    torch.testing.assert_close(NUMBERS(changed, energy), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        changed.sum(1), wanted[:, 0] * energy * DETECTOR.sampling_fraction, rtol=1e-5, atol=1e-3
    )


def test_an_image_s_own_numbers_leave_it_alone() -> None:
    cells, energy = _gev_images()
    torch.testing.assert_close(
        NUMBERS.change(cells, energy, NUMBERS(cells, energy)), cells, rtol=1e-3, atol=1e-3
    )


def test_cells_stay_positive_and_empty_ones_empty_for_any_numbers() -> None:
    cells, energy = _gev_images()
    for factor in (-1.0, 0.0, 3.0, 100.0):
        changed = NUMBERS.change(cells, energy, factor * _wanted(100))
        assert changed.isfinite().all()
        assert (changed >= 0).all()
        assert (changed[cells == 0] == 0).all()


def test_images_without_freedom_keep_their_shape() -> None:
    """One without cells stays empty, one of a single cell takes all energy, one in a line is not tilted."""
    cells = torch.zeros(3, 10, 10)
    cells[1, 3, 3] = 7.0
    cells[2, 4, 2:6] = torch.tensor([1.0, 9.0, 2.0, 1.0])
    energy = torch.full((3,), 50_000.0)
    wanted = torch.tensor([1.0, 0.5, 0.3, 0.3]).expand(3, 4)
    changed = NUMBERS.change(cells.view(3, 100), energy, wanted)
    total = 50_000.0 * DETECTOR.sampling_fraction
    assert (changed[0] == 0).all()
    assert changed[1].view(10, 10)[3, 3].item() == pytest.approx(total, rel=1e-5)
    line = changed[2].view(10, 10)[4, 2:6] / total
    torch.testing.assert_close(line, torch.tensor([0.125, 0.5, 0.25, 0.125]), rtol=1e-4, atol=1e-4)


def test_each_image_depends_on_its_row_alone() -> None:
    cells, energy = _gev_images()
    whole = NUMBERS.change(cells, energy, _wanted(100))
    part = NUMBERS.change(cells[30:40], energy[30:40], _wanted(100)[30:40])
    torch.testing.assert_close(part, whole[30:40], rtol=1e-5, atol=1e-5)
