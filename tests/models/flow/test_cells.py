"""Cells as values of a flow, and values as cells of given layer energies and numbers of filled cells."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.data import sample_path
from caloforge.geometry import Detector, get_detector
from caloforge.models.flow.cells import CellValues, LayerTargets, reordered
from caloforge.models.flow.path import EMPTY
from caloforge.models.nn.cell_networks import NOTHING, topk_ragged
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
    values = CellValues(detector, CUT, relative=not detector.is_grid)
    values.fit(cells, torch.Generator().manual_seed(0))
    return values


def _sums_and_filled(layer: CellValues, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Layer energies and filled cells (B, n_layers) of cells."""
    view = layer.view(cells)
    return view.sum(2), (view > 0).sum(2).float()


def _targets(layer: CellValues, sums: Tensor, filled: Tensor, cells: Tensor | None = None) -> LayerTargets:
    """Targets with the centres and widths of cells, or with the middle of a layer; half of the filled cells are faint."""
    hits = (0.5 * filled).floor()
    if cells is None:
        none = torch.zeros_like(sums)
        return LayerTargets(sums, hits, filled - hits, none, none, none + 0.5, none + 0.5)
    view = layer.view(cells)
    held = view.sum(2).clamp_min(1e-9)
    x, y = ((view * place).sum(2) / held for place in (layer.view.x, layer.view.y))
    wx, wy = (
        ((view * (place - middle[:, :, None]).square()).sum(2) / held).sqrt()
        for place, middle in ((layer.view.x, x), (layer.view.y, y))
    )
    return LayerTargets(sums, hits, filled - hits, x, y, wx, wy)


def _filling(layer: CellValues, values: Tensor, filled: Tensor) -> Tensor:
    """Values (B, n_cells) moved layer by layer, so that ``filled`` cells of each (B, n_layers) lie above the boundary."""
    ordered = layer.view(values, NOTHING).sort(2, descending=True).values
    above, below = (
        torch.cat([ordered[:, :, :1] + 1.0, ordered], 2),
        torch.cat([ordered, ordered[:, :, -1:]], 2),
    )
    edges = above - 0.5 * (above - below).clamp_max(1.0)
    edges = edges.gather(2, filled.long()[:, :, None]).expand(-1, -1, layer.view.width)
    return values - layer.view.cells(edges) - 0.5


every = pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-10x10", "clic-ecal"])


@every
def test_empty_cells_are_the_least_values_and_rise_with_energy(name: str) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    values = layer(cells)
    assert (values[cells == 0] == EMPTY).all()
    assert (values[cells > 0] >= 2.0 - 0.6 * 4.0 - 1e-5).all()
    if not layer.relative:
        order = cells.flatten().argsort()
        assert (values.flatten()[order].diff() >= -1e-5).all()
        middle = cells[cells > 0].median()
        assert float(values[cells == middle].mean()) == pytest.approx(2.0, abs=0.05)


@every
def test_cells_come_back(name: str) -> None:
    """All of them within the table's rounding, but for those below its least value, which are raised to it."""
    _, cells = _cells(name)
    layer = _fitted(name)
    values = layer(cells)
    again = layer.decode(values, _targets(layer, *_sums_and_filled(layer, cells), cells))
    raised = (values < -0.359) & (cells > 0)
    clear = ~raised
    assert torch.equal((again > 0)[clear], (cells > 0)[clear])
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
def test_logarithms_are_those_of_the_cells_energies(name: str) -> None:
    """In MeV, or of the share of the layer's energy; without the calibration, and not for those raised to the least value."""
    _, cells = _cells(name)
    layer = _fitted(name)
    view = layer.view(cells)
    shares = view / view.sum(2, keepdim=True).clamp_min(1e-9) if layer.relative else view
    values = layer.view(layer(cells))
    seen = (values > -0.359) & (view > 0)
    assert seen.sum() > 0.8 * (cells > 0).sum()
    found = layer.logarithms(values)
    torch.testing.assert_close(found[seen], torch.log(shares[seen]), rtol=0, atol=5e-3)
    bent = deepcopy(layer)
    bent.calibrated.y.add_(0.3)
    assert torch.equal(bent.logarithms(values), found)
    assert not torch.equal(bent.calibrated(values), values)


@every
def test_the_number_of_filled_cells_is_that_of_the_values_above_the_boundary(name: str) -> None:
    """At least one where the layer has energy, none where it has not, whatever the summary's number is."""
    detector, cells = _cells(name)
    layer = _fitted(name)
    values = -1.0 + torch.randn(4, detector.n_cells, generator=torch.Generator().manual_seed(5))
    values[1] -= 10.0
    sums = torch.full((4, detector.n_layers), 2.0 * CUT)
    sums[3] = 0.5 * CUT
    for asked in (0.0, 7.0):
        found = layer.number(values, _targets(layer, sums, torch.full_like(sums, asked)))
        for row in range(4):
            for number, members in enumerate(detector.layer_cells):
                above = sum(value > -0.5 for value in values[row, members].tolist())
                assert float(found[row, number]) == (0 if row == 3 else max(above, 1))
    assert found.max() > 1
    assert torch.equal(
        layer.number(layer(cells), _targets(layer, *_sums_and_filled(layer, cells))),
        _sums_and_filled(layer, cells)[1],
    )


@every
def test_layer_energies_are_exact_and_cells_follow_the_table_whatever_the_values(name: str) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    sums, filled = _sums_and_filled(layer, cells)
    generator = torch.Generator().manual_seed(1)
    for centre, width in ((0.0, 2.0), (1.0, 0.5), (-2.0, 0.1), (5.0, 0.01), (0.0, 0.0)):
        values = centre + width * torch.randn(cells.shape, generator=generator)
        values = _filling(layer, values, filled)
        made = layer.decode(values, _targets(layer, sums, filled))
        assert torch.isfinite(made).all()
        assert ((made == 0) | (made > CUT)).all()
        found, counted = _sums_and_filled(layer, made)
        assert (counted <= filled).all()
        lost = filled - counted  # cells that fall below the cut
        assert ((sums - found).abs() <= CUT * lost + 1e-4 * sums + 1e-6).all()
        assert (made[cells.sum(1) == 0] == 0).all()
        assert (layer.view(made)[sums == 0] == 0).all()


def _slowly(layer: CellValues, values: Tensor, targets: LayerTargets) -> Tensor:
    """Decode with all cells of all layers, each sorted whole."""
    view = layer.view(values, -1e4)
    some = targets.sums > CUT
    count = torch.where(some, (view > -0.5).sum(2).clamp_min(1), 0)
    sums = targets.sums[:, :, None]
    order = view.argsort(2, descending=True)
    place = torch.arange(layer.view.width).expand_as(order)
    filled = torch.zeros_like(view, dtype=torch.bool).scatter(2, order, place < count[:, :, None])
    filled = filled & (view > -1e3)
    energy = torch.where(filled, layer._energies(layer.calibrated(view), sums), 0.0)
    energy = layer._scaled(energy, sums)
    energy = reordered(energy, layer.view.x, layer.view.y, targets)
    return layer.view.cells(torch.where(energy > CUT, energy, 0.0))


@every
@pytest.mark.parametrize(("centre", "width"), [(-1.0, 0.1), (-1.2, 0.5), (0.0, 1.0)])
def test_a_few_cells_of_each_layer_make_the_showers_that_all_make(
    name: str, centre: float, width: float
) -> None:
    _, cells = _cells(name)
    layer = _fitted(name)
    generator = torch.Generator().manual_seed(3)
    values = centre + width * torch.randn(cells.shape, generator=generator)
    sums, filled = _sums_and_filled(layer, cells)
    filled = (filled * torch.rand(filled.shape, generator=generator)).floor()
    filled[filled < 6] = 0  # fewer cells than moments: the weights of the moments are not determined
    values = _filling(layer, values, filled)
    targets = _targets(layer, sums, filled, cells)
    found, expected = layer.decode(values, targets), _slowly(layer, values, targets)
    same = (found > 0) == (expected > 0)
    assert (found + expected)[~same].lt(1.01 * CUT).all()  # on the edge of the cut
    torch.testing.assert_close(found[same], expected[same], rtol=5e-3, atol=1e-5 * float(cells.max()))


def test_the_filled_cells_are_those_of_largest_value() -> None:
    detector, _ = _cells("atlas-em-barrel")
    layer = _fitted("atlas-em-barrel")
    values = torch.randn(30, detector.n_cells, generator=torch.Generator().manual_seed(2))
    sums = torch.tensor([[20.0, 300.0, 1000.0, 0.5]]).repeat(30, 1)
    filled = torch.tensor([[5.0, 60.0, 49.0, 0.0]]).repeat(30, 1)
    values = _filling(layer, values, filled)
    made = layer.decode(values, _targets(layer, sums, filled))
    for number, cells in enumerate(detector.layer_cells):
        n = max(int(filled[0, number]), 1)  # a layer with energy has at least one
        for row in range(30):
            best = set(values[row, cells].argsort(descending=True)[:n].tolist())
            assert set(torch.nonzero(made[row, cells])[:, 0].tolist()) <= best
            assert (made[row, cells] > 0).sum() > 0.9 * n


@pytest.mark.parametrize("asked", [3.0, 500.0])
def test_values_above_the_boundary_fill_the_layer(asked: float) -> None:
    detector, _ = _cells("atlas-em-barrel")
    values = torch.randn(3, detector.n_cells, generator=torch.Generator().manual_seed(2)).abs()
    layer = _fitted("atlas-em-barrel")
    made = layer.decode(values, _targets(layer, torch.full((3, 4), 2000.0), torch.full((3, 4), asked)))
    assert (made > 0).float().mean() > 0.97


def test_nothing_piles_up_at_the_hit_threshold() -> None:
    """Numbers of hits and faint cells that contradict the values do not move cells across the threshold."""
    _, cells = _cells("ild-ecal-10x10")
    layer = _fitted("ild-ecal-10x10")
    targets = _targets(layer, *_sums_and_filled(layer, cells), cells)
    wrong = targets._replace(hits=targets.hits + targets.faint, faint=0.0 * targets.faint)
    made = layer.decode(layer(cells), wrong)
    assert torch.equal(made, layer.decode(layer(cells), targets))
    near = ((made > THRESHOLD) & (made < 1.02 * THRESHOLD)).sum()
    expected = ((cells > THRESHOLD) & (cells < 1.02 * THRESHOLD)).sum()
    assert near <= expected + 5 * float(expected) ** 0.5


def test_the_map_gives_faint_cells_the_training_showers_spectrum() -> None:
    """Values of training showers that were smeared: after the fit the spectrum is that of the showers, faint cells included."""
    _, cells = _cells("ild-ecal-10x10")
    layer = CellValues(get_detector("ild-ecal-10x10"), CUT, relative=False, moments=False)
    layer.fit(cells, torch.Generator().manual_seed(0))
    values = layer(cells)
    smeared = values + 0.3 * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    smeared = torch.where(cells > 0, smeared.clamp_min(-0.45), EMPTY)  # the same cells are filled
    sums, filled = _sums_and_filled(layer, cells)
    targets = _targets(layer, sums, filled, cells)
    edges = torch.tensor([CUT, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 100.0]).log()

    def spectrum(some: Tensor) -> Tensor:
        return torch.histogram(some[some > 0].log(), edges)[0]

    true, before = spectrum(cells), spectrum(layer.decode(smeared, targets))
    layer.calibrate([(smeared, filled)], cells)
    for _ in range(3):
        layer.refine(layer.decode(smeared, targets), cells)
    after = spectrum(layer.decode(smeared, targets))
    assert (after / true - 1.0).abs().max() < 0.1
    assert (after / true - 1.0).abs().mean() < 0.5 * (before / true - 1.0).abs().mean()


def test_a_layer_whose_values_are_all_empty_still_holds_its_energy() -> None:
    detector, _ = _cells("atlas-em-barrel")
    layer = _fitted("atlas-em-barrel")
    values = EMPTY - torch.rand(3, detector.n_cells, generator=torch.Generator().manual_seed(2))
    sums = torch.tensor([[0.05, 0.0, 0.001, 0.09]]).repeat(3, 1)
    view = layer.view(layer.decode(values, _targets(layer, sums, torch.zeros(3, 4))))
    torch.testing.assert_close(view.sum(2)[:, [0, 1, 3]], sums[:, [0, 1, 3]])
    assert ((view > 0).sum(2)[:, [0, 1, 3]] == torch.tensor([1, 0, 1])).all()
    assert (view[:, 2] == 0).all()  # below the cut


def test_a_small_change_of_the_layer_energy_changes_its_spectrum_little() -> None:
    """Missing energy goes to the cells in proportion to their square: the smallest energies change little. Which cell has them may change."""
    _, cells = _cells("ild-ecal-10x10")
    cells = cells[cells.sum(1) > 0]
    layer = _fitted("ild-ecal-10x10")
    sums, filled = _sums_and_filled(layer, cells)
    plain, more = (
        layer.decode(layer(cells), _targets(layer, factor * sums, filled, cells)) for factor in (1.0, 1.05)
    )
    plain, more = (some.sort(1, descending=True).values for some in (plain, more))
    ratio = torch.where(plain > 0, more / plain.clamp_min(1e-9), 1.0)
    assert (ratio > 0.9).all()
    assert ratio.max() < 1.3
    small = (plain > 0) & (plain < 0.05 * plain.amax(1, keepdim=True))
    assert ratio[small].max() < 1.15


BORDER = 1.5


def _rows(width: int) -> Tensor:
    values = torch.randn(6, 5, width, generator=torch.Generator().manual_seed(0))
    values[:, 2, width // 2 :] = NOTHING
    values[:, 3] = values[:, 3] - 10.0
    return values


@pytest.mark.parametrize("width", [3, 12, 100, 400])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 1.0])
def test_the_largest_values_of_rows_are_those_of_a_loop(width: int, share: float) -> None:
    values = _rows(width)
    uniform = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    needed = (share * width * uniform).ceil()
    for likely in (BORDER, -20.0, 20.0):
        found, places = topk_ragged(values, needed, likely)
        assert found.shape == places.shape == (6, 5, max(1, int(needed.max())))
        for shower in range(6):
            for layer in range(5):
                row, wanted = values[shower, layer], int(needed[shower, layer])
                best = row.sort(descending=True).values[:wanted]
                assert torch.equal(found[shower, layer, :wanted], best)
                own = places[shower, layer]
                real = own < width
                assert torch.equal(found[shower, layer][real], row[own[real]])
                assert len(set(own[real].tolist())) == int(real.sum())
                assert (found[shower, layer][~real] == NOTHING).all()
                assert (found[shower, layer].diff() <= 0).all()


def test_no_rows_have_one_column() -> None:
    assert topk_ragged(_rows(400)[:0], torch.zeros(0, 5), BORDER)[0].shape == (0, 5, 1)
