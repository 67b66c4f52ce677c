"""Cells as values of a flow, and values as cells of given layer energies and hits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.data import sample_path
from caloforge.geometry import Detector, get_detector
from caloforge.models.layers.cell_values import EMPTY, CellValues
from caloforge.models.layers.layer_moments import LayerTargets, tilted
from caloforge.showers import read_showers

CUT, THRESHOLD = 0.01, 0.1
N = 120


@cache
def _cells(name: str) -> tuple[Detector, Tensor]:
    """Geant4's showers in ATLAS; elsewhere lognormal cells over four orders of magnitude, most of them empty."""
    if name == "atlas-em-barrel":
        sample = read_showers(sample_path())
        sample = sample[np.linspace(0, len(sample) - 1, N).astype(int)]
        cells = torch.from_numpy(sample.cells)
        return sample.detector, torch.where(cells > CUT, cells, 0.0)
    detector = get_detector(name)
    generator = torch.Generator().manual_seed(0)
    n = N if detector.n_cells < 2_000 else 4
    logs = 2.0 * torch.randn(n, detector.n_cells, generator=generator) - 1.0
    filled = torch.rand(n, detector.n_cells, generator=generator) < 0.4
    filled[::7] = False
    cells = torch.where(filled, torch.exp(logs), 0.0)
    return detector, torch.where(cells > CUT, cells, 0.0)


@cache
def _fitted(name: str) -> CellValues:
    detector, cells = _cells(name)
    values = CellValues(detector, CUT, THRESHOLD, relative=not detector.is_grid)
    values.fit(cells, torch.Generator().manual_seed(0))
    return values


def _asked(layer: CellValues, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Layer energies and hits (B, n_layers) of cells."""
    view = layer.view(cells)
    return view.sum(2), (view > THRESHOLD).sum(2).float()


def _targets(layer: CellValues, sums: Tensor, hits: Tensor, cells: Tensor | None = None) -> LayerTargets:
    """Targets with the faint cells, centres and widths of cells, or with none of those and the middle of a layer."""
    if cells is None:
        none = torch.zeros_like(sums)
        return LayerTargets(sums, hits, none, none, none, none + 0.5, none + 0.5)
    view = layer.view(cells)
    held = view.sum(2).clamp_min(1e-9)
    faint = ((view > 0) & (view <= THRESHOLD)).sum(2).float()
    x, y = ((view * place).sum(2) / held for place in (layer.view.x, layer.view.y))
    wx, wy = (
        ((view * (place - middle[:, :, None]).square()).sum(2) / held).sqrt()
        for place, middle in ((layer.view.x, x), (layer.view.y, y))
    )
    return LayerTargets(sums, hits, faint, x, y, wx, wy)


def _possible(layer: CellValues, sums: Tensor, hits: Tensor) -> Tensor:
    """Where hits can be had: energy for each of them, and none that needs one more."""
    return (sums >= 1.001 * THRESHOLD * hits) & ((hits > 0) | (sums < THRESHOLD))


every = pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-10x10", "clic-ecal"])


@every
def test_empty_cells_are_the_least_values_and_rise_with_energy(name: str) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    values = layer(cells)
    assert (values[cells == 0] == EMPTY).all()
    assert (values[cells > 0] >= 1.2 - 0.6 * 2.6 - 1e-5).all()
    if not layer.relative:
        order = cells.flatten().argsort()
        assert (values.flatten()[order].diff() >= -1e-5).all()
        middle = cells[cells > 0].median()
        assert float(values[cells == middle].mean()) == pytest.approx(1.2, abs=0.05)


@every
def test_cells_come_back(name: str) -> None:
    """All of them within the table's rounding, but for those below its least value, which are raised to it."""
    _, cells = _cells(name)
    layer = _fitted(name)
    values = layer(cells)
    sums, hits = _asked(layer, cells)
    again = layer.decode(values, _targets(layer, sums, hits, cells))
    assert torch.equal(again > 0, cells > 0)
    raised = (values < -0.359) & (cells > 0)
    clear = ~raised & ((cells - THRESHOLD).abs() > 1e-3 * THRESHOLD)
    assert clear.float().mean() > 0.9
    off = (again[clear] - cells[clear]).abs() / (5e-3 * cells[clear] + 1e-5)
    assert (
        off <= 1.0
    ).float().mean() > 0.95  # centre and width are kept where small cells were raised: some others give way
    assert off.max() < 100.0
    if not layer.relative:
        return
    share = (again - cells).abs().sum(1) / cells.sum(1).clamp_min(1e-3)
    assert share.max() < 0.02


@every
def test_layer_energies_and_hits_are_those_asked_for_whatever_the_values(name: str) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    sums, hits = _asked(layer, cells)
    possible = _possible(layer, sums, hits)
    assert possible.float().mean() > 0.8
    generator = torch.Generator().manual_seed(1)
    for centre, width in ((0.0, 2.0), (1.0, 0.5), (-2.0, 0.1), (5.0, 0.01), (0.0, 0.0)):
        values = centre + width * torch.randn(cells.shape, generator=generator)
        made = layer.decode(values, _targets(layer, sums, hits))
        assert torch.isfinite(made).all()
        assert (made >= 0).all()
        found, counted = _asked(layer, made)
        torch.testing.assert_close(found, sums, rtol=1e-4, atol=1e-6)
        assert torch.equal(counted[possible], hits[possible])
        assert (made[cells.sum(1) == 0] == 0).all()
        assert (layer.view(made)[sums == 0] == 0).all()


def _slowly(layer: CellValues, values: Tensor, targets: LayerTargets) -> Tensor:
    """Decode with all cells of all layers, each sorted whole."""
    view = layer.view(values, -1e4)
    least, most = THRESHOLD * 1.0001, THRESHOLD * 0.9999
    hits = torch.maximum(targets.hits, (targets.sums > most * targets.faint).float())
    hits = torch.minimum(hits, (targets.sums / least).floor())
    count = torch.maximum(hits + targets.faint, (targets.sums > CUT).float())
    sums = targets.sums[:, :, None]
    order = view.argsort(2, descending=True)
    place = torch.arange(layer.view.width).expand_as(order)
    is_hit, filled = (
        torch.zeros_like(view, dtype=torch.bool).scatter(2, order, place < n[:, :, None]) & (view > -1e3)
        for n in (hits, count)
    )
    view = layer.carried(view)
    share = THRESHOLD / sums.clamp_min(1e-12) if layer.relative else torch.full_like(sums, THRESHOLD)
    border = layer._values(torch.log(share))
    chosen = torch.where(is_hit, torch.maximum(view, border), torch.minimum(view, border))
    energy = torch.where(filled, layer._energies(chosen, sums), 0.0)
    energy = torch.where(is_hit, energy.clamp_min(least), energy.clamp_max(most))
    energy = layer._balanced(torch.where(filled, energy, 0.0), sums, is_hit)
    fixed = torch.where(is_hit, least, energy)
    free = (energy - fixed).clamp_min(0.0)
    return layer.view.cells(fixed + tilted(free, fixed, layer.view.x, layer.view.y, targets))


@every
@pytest.mark.parametrize(("centre", "width"), [(-1.0, 0.1), (-1.2, 0.5), (0.0, 1.0)])
def test_a_few_cells_of_each_layer_make_the_showers_that_all_make(
    name: str, centre: float, width: float
) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    generator = torch.Generator().manual_seed(3)
    values = centre + width * torch.randn(cells.shape, generator=generator)
    sums, hits = _asked(layer, cells)
    hits = (hits * torch.rand(hits.shape, generator=generator)).floor()
    targets = _targets(layer, sums, hits, cells)
    found, expected = layer.decode(values, targets), _slowly(layer, values, targets)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=1e-5 * float(cells.max()))


def test_hits_are_the_cells_of_largest_value() -> None:
    detector, _ = _cells("atlas-em-barrel")
    layer = _fitted("atlas-em-barrel")
    values = torch.randn(30, detector.n_cells, generator=torch.Generator().manual_seed(2))
    sums = torch.tensor([[20.0, 300.0, 1000.0, 50.0]]).repeat(30, 1)
    hits = torch.tensor([[5.0, 60.0, 49.0, 0.0]]).repeat(30, 1)
    sums[:, 3] = 0.05
    made = layer.decode(values, _targets(layer, sums, hits))
    for number, cells in enumerate(detector.layer_cells):
        n = int(hits[0, number])
        for row in range(30):
            best = set(values[row, cells].argsort(descending=True)[:n].tolist())
            assert set(torch.nonzero(made[row, cells] > THRESHOLD)[:, 0].tolist()) == best


def test_more_hits_than_cells_fills_the_layer() -> None:
    detector, _ = _cells("atlas-em-barrel")
    values = torch.randn(3, detector.n_cells, generator=torch.Generator().manual_seed(2))
    layer = _fitted("atlas-em-barrel")
    made = layer.decode(values, _targets(layer, torch.full((3, 4), 900.0), torch.full((3, 4), 500.0)))
    assert (made > THRESHOLD).all()


def test_energy_too_small_for_the_hits_makes_as_many_as_it_allows() -> None:
    detector, _ = _cells("atlas-em-barrel")
    layer = _fitted("atlas-em-barrel")
    values = torch.randn(3, detector.n_cells, generator=torch.Generator().manual_seed(2))
    sums = torch.tensor([[0.0, 0.35, 0.05, 2.005]]).repeat(3, 1)
    found, hits = _asked(layer, layer.decode(values, _targets(layer, sums, torch.full((3, 4), 20.0))))
    torch.testing.assert_close(found, sums, rtol=1e-5, atol=1e-6)
    assert hits.tolist() == [[0.0, 3.0, 0.0, 20.0]] * 3


def test_a_layer_whose_values_are_all_empty_still_holds_its_energy() -> None:
    detector, _ = _cells("atlas-em-barrel")
    layer = _fitted("atlas-em-barrel")
    values = EMPTY - torch.rand(3, detector.n_cells, generator=torch.Generator().manual_seed(2))
    sums = torch.tensor([[0.05, 0.0, 0.001, 0.09]]).repeat(3, 1)
    view = layer.view(layer.decode(values, _targets(layer, sums, torch.zeros(3, 4))))
    torch.testing.assert_close(view.sum(2)[:, [0, 1, 3]], sums[:, [0, 1, 3]])
    assert ((view > 0).sum(2)[:, [0, 1, 3]] == torch.tensor([1, 0, 1])).all()
    assert (view[:, 2] == 0).all()  # below the cut


def test_energies_near_those_asked_for_change_all_cells_little() -> None:
    """Missing energy goes to the cells in proportion to their square, then centre and width are kept: the smallest move little."""
    _, cells = _cells("ild-ecal-10x10")
    cells = cells[cells.sum(1) > 0]
    layer = _fitted("ild-ecal-10x10")
    sums, hits = _asked(layer, cells)
    plain, more = (
        layer.decode(layer(cells), _targets(layer, factor * sums, hits, cells)) for factor in (1.0, 1.05)
    )
    ratio = torch.where(plain > 0, more / plain.clamp_min(1e-9), 1.0)
    assert (ratio > 0.9).all()
    assert ratio.max() < 1.3
    small = (plain > 0) & (plain < 0.05 * plain.amax(1, keepdim=True))
    assert ratio[small].max() < 1.15
