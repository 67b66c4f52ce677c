"""Calibration of showers on a grid: the laws of the whole, on showers whose distortion is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from grids import grid_showers
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.grids import GridCalibration, cell_orbits

CLIC = get_detector("clic-ecal")
ALL, NONE = torch.ones(3), torch.zeros(3)


def encoded_of(energy: Tensor) -> Tensor:
    return ((energy.log() - 10.5) / 1.2)[:, None].float()


@cache
def showers(seed: int, n: int = 120) -> tuple[Tensor, Tensor]:
    made = grid_showers("clic-ecal", n, seed)
    return torch.from_numpy(made.cells), torch.from_numpy(made.incident_energy).float()


def distorted(cells: Tensor, energy: Tensor) -> Tensor:
    """Showers less deep, too compact, their cells off by a factor that is the same for cells of an orbit."""
    grid = cells.view(-1, 25, 25, 25)
    layer = torch.arange(25.0)
    away = torch.from_numpy(np.hypot(*np.meshgrid(np.arange(25) - 12.0, np.arange(25) - 12.0))).float()
    odd = 1.0 + 0.3 * torch.cos(2.0 * away)[:, :, None] * torch.cos(layer)
    factor = odd * torch.exp(-0.05 * away)[:, :, None] * torch.exp(-0.03 * layer)
    trend = torch.exp(0.02 * encoded_of(energy)[:, :, None, None] * away[None, :, :, None])
    found = grid * factor * trend
    return (found * (grid.sum((1, 2, 3)) / found.sum((1, 2, 3)))[:, None, None, None]).flatten(1)


@cache
def fitted() -> GridCalibration:
    true, energy = showers(1)
    # the same conditions twice, showers of other numbers
    made = torch.cat([distorted(true, energy), distorted(true, energy)])
    calibration = GridCalibration(CLIC, 1, False)
    calibration.fit(true, made, encoded_of(energy), energy, ALL)
    return calibration


def test_before_the_fit_showers_are_untouched() -> None:
    cells, energy = showers(2, 12)
    calibration = GridCalibration(CLIC, 1, False)
    assert not calibration.fitted
    assert calibration(cells, encoded_of(energy)) is cells


def test_sums_are_kept_empty_cells_stay_empty_and_rows_are_independent() -> None:
    cells, energy = showers(2, 12)
    made = distorted(cells, energy)
    made[3] = 0.0
    found = fitted()(made, encoded_of(energy))
    torch.testing.assert_close(found.sum(1), made.sum(1), rtol=1e-5, atol=1e-3)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert (found[made == 0] == 0).all()
    single = torch.cat([fitted()(made[i : i + 1], encoded_of(energy[i : i + 1])) for i in range(12)])
    torch.testing.assert_close(single, found, rtol=1e-3, atol=1e-3)


def test_a_known_distortion_is_undone() -> None:
    true, energy = showers(1)
    made = distorted(true, energy)
    found = fitted()(made, encoded_of(energy))
    high = (encoded_of(energy)[:, 0] > 0).nonzero()[:, 0]
    for rows in (torch.arange(len(true)), high):
        means = [x[rows].mean(0).view(25, 25, 25)[10:15, 10:15, 4:18] for x in (true, made, found)]
        off, left = ((mean / means[0] - 1.0).abs() for mean in means[1:])
        assert off.mean() > 0.15
        assert left.mean() < 0.25 * off.mean()
    profiles = [x.view(-1, 625, 25).sum(1).mean(0) for x in (true, made, found)]
    assert (profiles[1] - profiles[0]).abs().max() > 5 * (profiles[2] - profiles[0]).abs().max()


def test_right_showers_are_hardly_changed() -> None:
    true, energy = showers(1)
    calibration = GridCalibration(CLIC, 1, False)
    calibration.fit(true, true.clone(), encoded_of(energy), energy, ALL)
    found = calibration(true, encoded_of(energy))
    assert (found - true).abs().sum() < 0.04 * true.sum()


def test_narrow_cells_are_widened() -> None:
    true, energy = showers(1)
    share = true / true.sum(1, keepdim=True)
    mean = share.mean(0)
    narrow = torch.where(true > 0, mean * (share / mean.clamp_min(1e-12)) ** 0.75, 0.0)
    made = narrow * (true.sum(1) / narrow.sum(1))[:, None]
    calibration = GridCalibration(CLIC, 1, False)
    calibration.fit(true, made, encoded_of(energy), energy, ALL)
    found = calibration(made, encoded_of(energy))
    core = calibration.core.cells
    ratios = [
        ((x / x.sum(1, keepdim=True))[:, core].std(0) / share[:, core].std(0)).mean() for x in (made, found)
    ]
    assert ratios[0] < 0.85
    assert abs(float(ratios[1]) - 1.0) < 0.05


def test_orbits_are_what_the_symmetries_turn_into_one_another() -> None:
    def slow(x: int, y: int, layer: int) -> tuple[int, int, int]:
        a, b = min(x, 24 - x), min(y, 24 - y)
        return min(a, b), max(a, b), layer

    orbits = cell_orbits((25, 25, 25), ALL).tolist()
    names: dict[int, tuple[int, int, int]] = {}
    for flat, orbit in enumerate(orbits):
        name = slow(flat // 625, flat // 25 % 25, flat % 25)
        assert names.setdefault(orbit, name) == name
    assert len(names) == len(set(names.values())) == 91 * 25
    assert len(cell_orbits((25, 25, 25), NONE).unique()) == 15625


def test_with_angles_the_layers_alone_are_carried() -> None:
    made = grid_showers("clic-ecal-wide", 24, upright=False)
    detector = made.detector
    cells, energy = torch.from_numpy(made.cells), torch.from_numpy(made.incident_energy).float()
    encoded = torch.cat(
        [encoded_of(energy), torch.from_numpy((made.incident_theta - 90.0) / 6.0)[:, None]], 1
    )
    tilted = (cells.view(24, -1, 25) * torch.exp(0.05 * torch.arange(25.0))).flatten(1)
    tilted *= (cells.sum(1) / tilted.sum(1))[:, None]
    calibration = GridCalibration(detector, 2, True)
    calibration.fit(cells, tilted, encoded.float(), energy, torch.tensor([1.0, 1.0, 0.0]))
    assert calibration.rings.rings == 1
    found = calibration(tilted, encoded.float())
    torch.testing.assert_close(found.sum(1), cells.sum(1), rtol=1e-4, atol=1e-2)
    profiles = [x.view(24, -1, 25).sum(1).mean(0) for x in (cells, tilted, found)]
    off, left = ((p - profiles[0]).abs().sum() for p in profiles[1:])
    assert left < 0.3 * off


@pytest.mark.parametrize("angled", [False, True])
def test_a_new_one_takes_the_constants_of_the_fit(angled: bool) -> None:
    calibration = GridCalibration(CLIC, 1, angled)
    assert all(torch.isfinite(value).all() for value in calibration.state_dict().values())
    assert not any(name.startswith("rings") for name in calibration.state_dict())
