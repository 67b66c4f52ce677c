"""A Gaussian copula makes images like those it was fitted to, and does not repeat them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.data import packed_projections
from caloforge.errors import IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models import MODELS
from caloforge.models.image_gan.copula import ImageCopula, ImageCopulaConfig
from caloforge.showers import Showers, read_showers
from caloforge.train.dataset import CellDataset

DETECTOR = get_detector("ild-ecal-10x10")
N = 1000


@cache
def _geant4() -> Showers:
    path = packed_projections()
    assert path is not None
    return read_showers(path)[:5000]


@cache
def _fitted(calibrate: bool = True) -> ImageCopula:
    showers = _geant4()[:N]
    model = ImageCopula(DETECTOR, ImageCopulaConfig(calibrate=calibrate))
    model.fit_transforms(showers)
    data = CellDataset.of(showers, model, torch.device("cpu"))
    for stage in model.stages():
        assert stage.fit is not None
        stage.fit(data, torch.Generator().manual_seed(0))
    return model.eval()


@cache
def _generated(calibrate: bool = True) -> Tensor:
    return _fitted(calibrate).draw(torch.full((10_000, 1), 50e3), seed=1)


def _numbers(cells: Tensor) -> Tensor:
    return _fitted().numbers(cells, torch.full((len(cells),), 50e3))


def _others() -> Tensor:
    """Images that the copula was not fitted to."""
    return torch.from_numpy(_geant4().cells[N:])


def test_numbers_have_means_widths_and_correlations() -> None:
    truth, made = _numbers(_others()), _numbers(_generated())
    assert ((made.mean(0) - truth.mean(0)).abs() < 0.12 * truth.std(0)).all()
    assert ((made.std(0) / truth.std(0) - 1.0).abs() < 0.1).all()
    assert (torch.corrcoef(made.T) - torch.corrcoef(truth.T)).abs().max() < 0.1


def test_visible_energy_is_skewed_by_leakage() -> None:
    def skewness(cells: Tensor) -> float:
        x = cells.sum(1).double()
        return float(((x - x.mean()) ** 3).mean() / x.std() ** 3)

    assert skewness(_others()) < -1.2
    assert skewness(_generated()) < -1.0


@pytest.mark.parametrize("calibrate", [True, False])
def test_cells_have_means_and_widths(calibrate: bool) -> None:
    truth, made = _others(), _generated(calibrate)
    bright = truth.mean(0) > 0.5
    assert bright.sum() > 40
    assert ((made.mean(0) / truth.mean(0) - 1.0)[bright].abs() < 0.12).all()
    assert ((made.std(0) / truth.std(0) - 1.0)[bright].abs() < 0.4).all()


def test_cells_are_correlated_as_in_truth() -> None:
    truth, made = (torch.corrcoef(torch.log(x[:, 44:46] + 1.0).T)[0, 1] for x in (_others(), _generated()))
    assert abs(truth) > 0.1
    assert abs(made - truth) < 0.1


def test_x_and_y_are_exchangeable() -> None:
    """The mean image of many is the same with x and y exchanged, though that of the training images is not."""
    made = _generated().mean(0).view(10, 10)
    error = _generated().std(0).view(10, 10) / 100.0
    assert ((made - made.T).abs() < 5.0 * (error + error.T)).all()


def test_new_images_are_not_the_training_images() -> None:
    """The nearest training image is as far as it is for other images of Geant4."""
    train = torch.log(torch.from_numpy(_geant4().cells[:N]) + 0.1)
    near = [torch.cdist(torch.log(x[:500] + 0.1), train).amin(1).median() for x in (_others(), _generated())]
    assert near[1] > 0.8 * near[0]


def test_without_calibration_the_copula_alone_is_drawn() -> None:
    model = _fitted()
    conditions = torch.full((100, 1), 50e3)
    calibrated = model.draw(conditions, seed=1)
    bare = model.choose({"calibrated": False}).draw(conditions, seed=1)
    model.choose({})
    assert not torch.equal(calibrated, bare)
    torch.testing.assert_close(bare, _fitted(False).draw(conditions, seed=1))


def test_energy_scales_the_image() -> None:
    """Fitted at two energies, it has the response of each."""
    one = _geant4()[:N]
    energy = np.where(np.arange(N) % 2 == 0, 50e3, 10e3)
    showers = one.replace(
        cells=one.cells * (energy / 50e3)[:, None].astype(np.float32), incident_energy=energy
    )
    model = ImageCopula(DETECTOR, ImageCopulaConfig(calibrate=False))
    model.fit_transforms(showers)
    model.fit_copula(CellDataset.of(showers, model, torch.device("cpu")), torch.Generator().manual_seed(0))
    for value in (10e3, 50e3):
        visible = model.draw(torch.full((2000, 1), value), seed=1).sum(1).mean()
        assert float(visible) / value == pytest.approx(float(one.cells.sum(1).mean()) / 50e3, rel=0.02)


def test_only_images_are_accepted() -> None:
    assert MODELS["image-copula"] is ImageCopula
    with pytest.raises(IncompatibleError, match="image-copula makes images of one layer"):
        ImageCopula(get_detector("ild-ecal"), ImageCopulaConfig())
