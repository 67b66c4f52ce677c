"""The calibration gives generated showers the means and widths of the true ones, and keeps their order."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.base import condition_sizes
from caloforge.models.calibration.base import Calibration, Sample
from caloforge.models.calibration.showers import CellMaps, LayerMaps
from caloforge.models.nn.cell_networks import LayerSums
from caloforge.models.nn.conditions import BeamSymmetry

DETECTOR = get_detector("atlas-em-barrel")
COLUMNS = {
    name: slice(i, i + 1) for i, name in enumerate(("incident_energy", "alignment_phi", "alignment_eta"))
}
ENERGIES = (2e3, 32e3)


def _showers(n: int, seed: int, slope: float, wide: float) -> tuple[Tensor, Tensor]:
    """Sparse showers whose layers' parts and lateral widths depend on ``slope`` and ``wide``, and conditions."""
    rng = torch.Generator().manual_seed(seed)
    conditions = torch.stack(
        [
            torch.tensor(ENERGIES)[torch.arange(n) % 2],
            torch.randint(0, 4, (n,), generator=rng).float(),
            torch.randint(0, 2, (n,), generator=rng).float(),
        ],
        1,
    )
    centres = torch.as_tensor(DETECTOR.cell_centres[:, :2]).float()
    far = (centres / torch.tensor([60.0, 60.0])).square().sum(1)
    shape = torch.exp(-far / wide) * torch.rand(n, DETECTOR.n_cells, generator=rng).square()
    shape = torch.where(shape > 0.02, shape, torch.zeros_like(shape))
    layers = torch.tensor([0.05, 0.3, 0.6, 0.05]) * torch.tensor([1.0, slope, 1.0, 1.0])
    drawn = layers * torch.exp(0.2 * torch.randn(n, 4, generator=rng))
    response = 0.18 * (1.0 + 0.03 * slope * torch.randn(n, 1, generator=rng))
    energies = drawn / drawn.sum(1, keepdim=True) * response * conditions[:, :1]
    return LayerSums(DETECTOR).normalise(shape, energies), conditions


@cache
def _fitted() -> Calibration:
    assert set(COLUMNS) <= set(condition_sizes(DETECTOR))
    symmetry = BeamSymmetry(DETECTOR, COLUMNS)
    symmetry.allowed.copy_(torch.tensor([1.0, 1.0, 0.0]))
    calibration = Calibration(LayerMaps(DETECTOR), CellMaps(DETECTOR, COLUMNS, symmetry))
    calibration.fit(_sample(*_showers(1600, 0, 1.0, 1.0)), _sample(*_showers(3200, 1, 1.4, 2.0)))
    return calibration


def _sample(cells: Tensor, conditions: Tensor) -> Sample:
    return Sample(cells, conditions, conditions[:, 0], conditions)


def _calibrated(cells: Tensor, conditions: Tensor) -> Tensor:
    return _fitted()(_sample(cells, conditions))


def test_fractions_response_and_profile_become_those_of_the_training_showers() -> None:
    true, true_conditions = _showers(1600, 0, 1.0, 1.0)
    made, conditions = _showers(3200, 5, 1.4, 2.0)
    calibrated = _calibrated(made, conditions)
    sums = LayerSums(DETECTOR)
    assert calibrated.isfinite().all()
    assert (calibrated >= 0).all()
    for energy in ENERGIES:
        cells, ours, before = (
            x[c[:, 0] == energy]
            for x, c in ((true, true_conditions), (calibrated, conditions), (made, conditions))
        )
        parts = [(sums(x) / x.sum(1, keepdim=True)).mean(0) for x in (cells, ours, before)]
        assert (parts[1] - parts[0]).abs().max() < 0.004 < (parts[2] - parts[0]).abs().max()
        response = [x.sum(1) / energy for x in (cells, ours)]
        assert response[1].mean().item() == pytest.approx(response[0].mean().item(), rel=0.003)
        assert response[1].std().item() == pytest.approx(response[0].std().item(), rel=0.06)
        profile = [x.mean(0) / x.mean(0).sum() for x in (cells, ours, before)]
        distance = [0.5 * (p - profile[0]).abs().sum().item() for p in profile[1:]]
        assert distance[0] < 0.03 < 0.1 < distance[1]
        empty = [(x == 0).float().mean().item() for x in (cells, ours)]
        assert empty[1] == pytest.approx(empty[0], abs=0.03)


def test_mirrored_showers_are_calibrated_alike() -> None:
    symmetry = _fitted().steps[1]._symmetry[0]
    cells, conditions = _showers(60, 6, 1.4, 2.0)
    for signs in ((1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, -1.0)):
        turn = torch.tensor(signs).expand(60, 3)
        turned = _calibrated(*symmetry(cells, conditions, turn))
        expected, _ = symmetry(_calibrated(cells, conditions), conditions, turn)
        torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-4)


def test_a_shower_does_not_depend_on_its_batch() -> None:
    cells, conditions = _showers(30, 7, 1.4, 2.0)
    whole = _calibrated(cells, conditions)
    torch.testing.assert_close(_calibrated(cells[11:13], conditions[11:13]), whole[11:13])


def test_the_order_of_responses_stays() -> None:
    cells, conditions = _showers(200, 8, 1.4, 2.0)
    conditions[:, 0] = ENERGIES[1]
    total = cells.sum(1)
    order = torch.argsort(total)
    calibrated = _calibrated(cells, conditions).sum(1)[order]
    assert (calibrated.diff() > -1e-4 * calibrated[1:]).all()
