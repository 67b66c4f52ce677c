"""The last step of a calibration: spectrum of the cells, number of filled cells, and energies of the layers."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.calibration.base import Calibration, Sample
from caloforge.models.calibration.spectrum import CUT, RESERVE, SpectrumMap
from caloforge.models.nn.cell_networks import LayerSums

DETECTOR = get_detector("atlas-em-barrel")
SUMS = LayerSums(DETECTOR)
N = 400


def _sample(cells: Tensor, energy: Tensor) -> Sample:
    return Sample(cells, energy[:, None], energy, energy[:, None])


def _energy(n: int) -> Tensor:
    return torch.tensor([1000.0, 16000.0]).repeat_interleave(n // 2)


def _true(seed: int, n: int = N) -> Tensor:
    """Return cells with a sharp lower edge of most of them, some faint ones, and more filled cells at the higher energy."""
    generator = torch.Generator().manual_seed(seed)
    shape = n, DETECTOR.n_cells
    bright = 0.2 * torch.exp(torch.randn(shape, generator=generator).abs() * 1.5)
    faint = 0.2 * torch.rand(shape, generator=generator) + 2 * CUT
    cells = torch.where(torch.rand(shape, generator=generator) < 0.2, faint, bright)
    filled = torch.where(_energy(n) > 5000.0, 0.6, 0.3)[:, None]
    return torch.where(torch.rand(shape, generator=generator) < filled, cells, torch.zeros_like(cells))


def _made(seed: int, filled: float, n: int = N) -> Tensor:
    """Return cells whose edge is washed out, ``filled`` times as many, with reserves in others; layers have the right energies."""
    generator = torch.Generator().manual_seed(1000 + seed)
    true = _true(seed, n)
    cells = true * torch.exp(0.4 * torch.randn(true.shape, generator=generator)) ** 0.8
    order = torch.rand(true.shape, generator=generator)
    full = true > 0
    kept = full & (order < filled)
    share = full.float().mean(1, keepdim=True)
    added = ~full & (order < (filled - 1.0) * share / (1.0 - share))
    cells = torch.where(kept, cells, torch.where(added, 0.1 * order, torch.zeros_like(cells)))
    cells = SUMS.normalise(cells, SUMS(true))
    return cells + torch.where(cells > 0, 0.0, RESERVE * torch.sigmoid(-10.0 * order))


@cache
def _fitted(filled: float) -> SpectrumMap:
    step = SpectrumMap(DETECTOR)
    step.fit(_sample(_true(1), _energy(N)), _sample(_made(2, filled, 2 * N), _energy(2 * N)), 0)
    return step


def _same_conditions(n: int) -> Tensor:
    return _energy(n)


@pytest.mark.parametrize("filled", [0.8, 1.3], ids=["too few cells", "too many cells"])
def test_spectrum_and_filled_cells_become_those_of_the_training_showers(filled: float) -> None:
    energy, true, made = _same_conditions(2 * N), _true(3, 2 * N), _made(4, filled, 2 * N)
    found = _fitted(filled)(_sample(made, energy)).cells
    edges = torch.tensor([CUT, 0.05, 0.1, 0.19, 0.25, 0.4, 0.8, 1.6, 3.2])
    for rows in (energy < 5000.0, energy > 5000.0):
        counts = [torch.histc(torch.bucketize(x[rows], edges).float(), 9, 0, 8) for x in (true, made, found)]
        wanted, before, after = (x[1:] / x[1:].sum() for x in counts)
        assert (before / wanted - 1.0).abs().max() > 0.3
        assert (after / wanted - 1.0).abs().max() < 0.15
        numbers = [float((x[rows] > 0).float().sum(1).mean()) for x in (true, found)]
        assert numbers[1] == pytest.approx(numbers[0], rel=0.02)


def test_no_cell_is_between_zero_and_the_cut_and_empty_showers_stay_empty() -> None:
    made = _made(5, 1.3)
    made[7] = 0.0
    found = _fitted(1.3)(_sample(made, _energy(N))).cells
    assert torch.isfinite(found).all()
    assert ((found == 0) | (found >= CUT)).all()
    assert not found[7].any()


def test_layers_with_bright_cells_keep_their_energy() -> None:
    made = _true(6) * 1.1  # nearly right, so that the bounded factor suffices
    step = SpectrumMap(DETECTOR)
    step.fit(_sample(_true(1), _energy(N)), _sample(made, _energy(N)), 0)
    found = step(_sample(made, _energy(N))).cells
    middle = (SUMS(found) / SUMS(made).clamp_min(1.0))[_energy(N) > 5000.0, 2]  # many cells
    assert ((middle - 1.0).abs() < 0.02).float().mean() > 0.98
    torch.testing.assert_close(found.sum(1), made.sum(1), rtol=1e-4, atol=0.0)


def test_faint_cells_do_not_depend_on_the_energy_of_their_layer() -> None:
    """The edge of the MIP and the threshold of a hit stay where the map has put them."""
    made = _true(8)
    step = SpectrumMap(DETECTOR)
    step.fit(_sample(_true(1), _energy(N)), _sample(made, _energy(N)), 0)
    rows = _energy(N) > 5000.0
    brighter = torch.where(made > 1.0, 1.2 * made, made)
    one, other = (step(_sample(x, _energy(N))).cells[rows] for x in (made, brighter))
    faint = (one > 0) & (one < 0.29)
    assert (other.sum(1) > 1.1 * one.sum(1)).all()
    torch.testing.assert_close(one[faint], other[faint], rtol=2e-3, atol=1e-5)


def test_showers_do_not_depend_on_their_batch_and_rise_with_the_generated_energy() -> None:
    made, energy = _made(9, 1.3, 10), _energy(10)
    whole = _fitted(1.3)(_sample(made, energy)).cells
    single = torch.cat([_fitted(1.3)(_sample(made[i : i + 1], energy[i : i + 1])).cells for i in range(10)])
    torch.testing.assert_close(whole, single)
    x = torch.logspace(-7, 3, 200)
    grid = torch.zeros(200, DETECTOR.n_cells)
    grid[:, 100] = x
    step = _fitted(1.3)
    found = [step(_sample(row[None], torch.tensor([e]))).cells[0, 100] for row in grid for e in (4000.0,)]
    assert (torch.stack(found).diff() >= -1e-6).all()


def test_bright_cells_stay_where_the_map_fades() -> None:
    step = SpectrumMap(DETECTOR, bright=(2.0, 4.0), fade=(2.0, 4.0))
    made = _made(2, 1.3)
    step.fit(_sample(_true(1), _energy(N)), _sample(made, _energy(N)), 0)
    kept = (step.table.float() + math.log(1e-8) + 0.1 * torch.arange(step.table.shape[2])).sinh() * 1e-2
    x = (math.log(1e-8) + 0.1 * torch.arange(step.table.shape[2])).exp()
    bright = x > 4.0
    torch.testing.assert_close(kept[..., bright], x[bright].expand_as(kept[..., bright]), rtol=0.02, atol=0.0)
    assert ((kept[..., (x > 0.3) & (x < 1.0)] / x[(x > 0.3) & (x < 1.0)] - 1.0).abs() > 0.1).any()


def test_before_the_fit_only_what_is_below_the_cut_is_emptied() -> None:
    made = _made(2, 0.8)
    found = SpectrumMap(DETECTOR)(_sample(made, _energy(N))).cells
    assert torch.equal(found, torch.where(made < CUT, torch.zeros_like(made), made))
    assert (found != made).any()


def test_a_calibration_fits_it_to_what_the_other_steps_leave() -> None:
    calibration = Calibration(last=SpectrumMap(DETECTOR))
    true, made = _sample(_true(1), _energy(N)), _sample(_made(2, 0.8, 2 * N), _energy(2 * N))
    calibration.fit(true, made)
    assert torch.equal(calibration(made), _fitted(0.8)(made).cells)
