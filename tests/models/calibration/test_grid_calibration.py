"""Calibration of showers on a grid: the laws of the whole, on showers whose distortion is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from grids import grid_showers
from torch import Tensor

from caloforge.geometry import Detector, get_detector
from caloforge.models.calibration.base import Sample
from caloforge.models.calibration.grids import GridCalibration, GridParts, GridShowers, ShapeMap, cell_orbits
from caloforge.models.nn.conditions import BeamSymmetry

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


def unfitted(detector: Detector = CLIC, allowed: Tensor = ALL, angled: bool = False) -> GridCalibration:
    columns = {"incident_energy": slice(0, 1)} | ({"incident_theta": slice(1, 2)} if angled else {})
    symmetry = BeamSymmetry(detector, columns)
    symmetry.allowed.copy_(allowed)
    return GridCalibration(detector, len(columns), angled, symmetry)


def sample(cells: Tensor, energy: Tensor, encoded: Tensor | None = None) -> Sample:
    return Sample(cells, energy[:, None], energy, encoded_of(energy) if encoded is None else encoded)


def fitted_to(true: Tensor, made: Tensor, energy: Tensor) -> GridCalibration:
    calibration = unfitted()
    calibration.fit(sample(true, energy), sample(made, energy.repeat(len(made) // len(true))))
    return calibration


@cache
def fitted() -> GridCalibration:
    true, energy = showers(1)
    # the same conditions twice, showers of other numbers
    return fitted_to(true, torch.cat([distorted(true, energy), distorted(true, energy)]), energy)


def test_before_the_fit_showers_are_untouched() -> None:
    cells, energy = showers(2, 12)
    calibration = unfitted()
    assert not calibration.fitted
    torch.testing.assert_close(calibration(sample(cells, energy)), cells, rtol=1e-4, atol=1e-4)


def test_sums_are_kept_empty_cells_stay_empty_and_rows_are_independent() -> None:
    cells, energy = showers(2, 12)
    made = distorted(cells, energy)
    made[3] = 0.0
    found = fitted()(sample(made, energy))
    torch.testing.assert_close(found.sum(1), made.sum(1), rtol=1e-5, atol=1e-3)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert (found[made == 0] == 0).all()
    single = torch.cat([fitted()(sample(made[i : i + 1], energy[i : i + 1])) for i in range(12)])
    torch.testing.assert_close(single, found, rtol=1e-3, atol=1e-3)


def test_a_known_distortion_is_undone() -> None:
    true, energy = showers(1)
    made = distorted(true, energy)
    found = fitted()(sample(made, energy))
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
    found = fitted_to(true, true.clone(), energy)(sample(true, energy))
    assert (found - true).abs().sum() < 0.04 * true.sum()


def test_narrow_cells_are_widened() -> None:
    true, energy = showers(1)
    share = true / true.sum(1, keepdim=True)
    mean = share.mean(0)
    narrow = torch.where(true > 0, mean * (share / mean.clamp_min(1e-12)) ** 0.75, 0.0)
    made = narrow * (true.sum(1) / narrow.sum(1))[:, None]
    calibration = fitted_to(true, made, energy)
    found = calibration(sample(made, energy))
    core = calibration.parts.cells
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


def test_with_angles_the_layers_alone_are_calibrated() -> None:
    angled = grid_showers("clic-ecal-wide", 24, upright=False)
    detector = angled.detector
    cells, energy = torch.from_numpy(angled.cells), torch.from_numpy(angled.incident_energy).float()
    encoded = torch.cat(
        [encoded_of(energy), torch.from_numpy((angled.incident_theta - 90.0) / 6.0)[:, None]], 1
    )
    tilted = (cells.view(24, -1, 25) * torch.exp(0.05 * torch.arange(25.0))).flatten(1)
    tilted *= (cells.sum(1) / tilted.sum(1))[:, None]
    calibration = unfitted(detector, torch.tensor([1.0, 1.0, 0.0]), angled=True)
    true, made = (sample(x, energy, encoded.float()) for x in (cells, tilted))
    calibration.fit(true, made)
    assert calibration.parts.rings == 1
    found = calibration(made)
    torch.testing.assert_close(found.sum(1), cells.sum(1), rtol=1e-4, atol=1e-2)
    profiles = [x.view(24, -1, 25).sum(1).mean(0) for x in (cells, tilted, found)]
    off, left = ((p - profiles[0]).abs().sum() for p in profiles[1:])
    assert left < 0.3 * off


RINGS, LAYERS = 3, 6


class Parts(GridParts):
    """Rings and layers alone, without cells."""

    def __init__(self, rings: int) -> None:
        torch.nn.Module.__init__(self)
        self.rings, self.layers = rings, LAYERS

    def shares(self, showers: GridShowers) -> Tensor:
        return showers.others


def table_sample(table: Tensor, encoded: Tensor) -> GridShowers:
    layers = table.sum(1)
    return GridShowers(table[:, 0, :0], table / layers[:, None], layers, table, encoded, layers.sum(1))


def shape_map(true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor], rings: int = RINGS) -> ShapeMap:
    shape = ShapeMap(Parts(rings), 1)
    shape.fit(table_sample(*true), table_sample(*made), 0)
    return shape


def tables(depth: float, compactness: float, seed: int, n: int = 6000) -> tuple[Tensor, Tensor]:
    """Tables (n, rings, layers) of showers whose depth and compactness have these widths, and conditions (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.rand(n, 1, generator=generator) * 2.0 - 1.0
    centre = 2.5 + 0.3 * encoded + depth * torch.randn(n, 1, generator=generator)
    layers = torch.softmax(-0.4 * (torch.arange(LAYERS) - centre).square(), 1)
    steep = 1.0 + compactness * torch.randn(n, 1, generator=generator)
    rings = torch.softmax(-steep * torch.arange(RINGS), 1)
    local = torch.exp(0.1 * torch.randn(n, RINGS, LAYERS, generator=generator))
    return 100.0 * rings[:, :, None] * layers[:, None] * local, encoded


def fractions(table: Tensor) -> Tensor:
    total = table.sum((1, 2))[:, None]
    return torch.cat([table.sum(1), table.sum(2)], 1) / total


def test_means_and_widths_of_layers_and_rings_become_those_of_the_truth() -> None:
    true, made = tables(0.3, 0.1, 1), tables(0.12, 0.3, 2)
    table, encoded = tables(0.12, 0.3, 3)
    factors = shape_map(true, made).factors(table, encoded)
    found, wanted, before = (fractions(x) for x in (table * factors, true[0], table))
    assert (before.std(0) / wanted.std(0) - 1.0).abs().max() > 0.4
    assert (found.std(0) / wanted.std(0) - 1.0).abs().max() < 0.12
    assert (found.mean(0) / wanted.mean(0) - 1.0).abs().max() < 0.02
    depth = [x[:, :LAYERS] @ torch.arange(float(LAYERS)) for x in (found, wanted)]
    assert abs(float(depth[0].std() / depth[1].std()) - 1.0) < 0.05
    high, low = encoded[:, 0] > 0.5, encoded[:, 0] < -0.5
    assert 0.2 < float(depth[0][high].mean() - depth[0][low].mean()) < 0.6


def test_right_tables_stay_as_they_are() -> None:
    factors = shape_map(tables(0.3, 0.1, 1), tables(0.3, 0.1, 2)).factors(*tables(0.3, 0.1, 3))
    assert float((factors - 1.0).abs().mean()) < 0.05


def test_with_one_ring_the_layers_alone_are_changed_and_total_energies_kept() -> None:
    (true, c), (made, d) = tables(0.3, 0.1, 1), tables(0.12, 0.1, 2)
    true, made = true.sum(1, keepdim=True), made.sum(1, keepdim=True)
    found = made * shape_map((true, c), (made, d), rings=1).factors(made, d)
    torch.testing.assert_close(found.sum((1, 2)), made.sum((1, 2)), rtol=5e-3, atol=0.0)
    ratio = (found / found.sum(2, keepdim=True)).std(0) / (true / true.sum(2, keepdim=True)).std(0)
    assert (ratio - 1.0).abs().max() < 0.1


def test_empty_showers_stay_finite() -> None:
    shape = shape_map(tables(0.3, 0.1, 1), tables(0.12, 0.3, 2))
    assert torch.isfinite(shape.factors(torch.zeros(2, RINGS, LAYERS), torch.zeros(2, 1))).all()
