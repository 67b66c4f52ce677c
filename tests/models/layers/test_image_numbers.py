"""Four numbers of an image: by hand, and changed to others exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.images import ImageNumbers

DETECTOR = get_detector("ild-ecal-10x10")
NUMBERS = ImageNumbers(DETECTOR)


def _images(n: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
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
    cells, energy = _images(n, seed=1)
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


def test_changed_images_have_the_numbers_that_were_asked_for() -> None:
    cells, energy = _images()
    own, other = NUMBERS(cells, energy), _wanted(100)
    wanted = own + 0.02 * (other - own)
    changed = NUMBERS.change(cells, energy, wanted)
    torch.testing.assert_close(NUMBERS(changed, energy), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        changed.sum(1), wanted[:, 0] * energy * DETECTOR.sampling_fraction, rtol=1e-5, atol=1e-3
    )


def test_an_image_s_own_numbers_leave_it_alone() -> None:
    cells, energy = _images()
    torch.testing.assert_close(
        NUMBERS.change(cells, energy, NUMBERS(cells, energy)), cells, rtol=1e-3, atol=1e-3
    )


def test_cells_stay_positive_and_empty_ones_empty_whatever_is_asked_for() -> None:
    cells, energy = _images()
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
    cells, energy = _images()
    whole = NUMBERS.change(cells, energy, _wanted(100))
    part = NUMBERS.change(cells[30:40], energy[30:40], _wanted(100)[30:40])
    torch.testing.assert_close(part, whole[30:40], rtol=1e-5, atol=1e-5)
