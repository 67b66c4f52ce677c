"""Summaries of showers as normal numbers, and back to layer energies and hits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from caloforge.data import sample_path
from caloforge.geometry import get_detector
from caloforge.models.flow.summary import ShowerSummary
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.showers import Showers, read_showers

THRESHOLD = 0.1
COLUMNS = {"incident_energy": slice(0, 1)}


@cache
def _showers(name: str) -> Showers:
    """Geant4's showers in ATLAS; elsewhere blobs of 50 GeV photons, 2 % visible, 40 % of the cells empty."""
    if name == "atlas-em-barrel":
        return read_showers(sample_path())[::2]
    detector = get_detector(name)
    rng = np.random.default_rng(0)
    n = 400 if detector.n_cells < 2_000 else 150
    energy = np.geomspace(1e4, 1e5, n)
    x, y, z = detector.cell_centres.T
    depth = z - z.min() + 1.0
    shape = depth**3 * np.exp(-depth / 20.0) * np.exp(-np.hypot(x, y) / 15.0)
    cells = shape * rng.gamma(1.0, 1.0, (n, detector.n_cells)) * (rng.random((n, detector.n_cells)) > 0.4)
    cells *= (0.02 * energy * rng.normal(1.0, 0.05, n) / cells.sum(1))[:, None]
    return Showers(detector, np.where(cells > 0.01, cells, 0.0), energy)


@cache
def _fitted(name: str) -> tuple[ShowerSummary, Tensor, Tensor, Tensor]:
    """A summary with cells (N, n_cells), energies (N,) and encoded conditions (N, k)."""
    showers = _showers(name)
    energy = torch.from_numpy(showers.incident_energy).float()
    encoder = ConditionEncoder(showers.detector, COLUMNS)
    encoder.fit(energy[:, None])
    encoded, cells = encoder(energy[:, None]), torch.from_numpy(showers.cells)
    summary = ShowerSummary(showers.detector, 1, encoder.width, THRESHOLD)
    summary.fit(cells, energy, encoded, torch.Generator().manual_seed(0))
    return summary, cells, energy, encoded


def _uniform(summary: ShowerSummary, n: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.01 + 0.98 * torch.rand(n, summary.rows, summary.kinds, generator=generator)


every = pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-10x10", "clic-ecal"])


@every
def test_what_is_measured_is_what_a_loop_finds(name: str) -> None:
    summary, cells, energy, _ = _fitted(name)
    detector = _showers(name).detector
    found = summary.measure(cells[:6], energy[:6]).numpy()
    assert found.shape == (6, detector.n_layers + 1, summary.kinds)
    for row in range(6):
        own = cells[row].double().numpy()
        total, parts, xs, ys = own.sum(), [], [], []
        for layer, members in enumerate(detector.layer_cells):
            e, centres = own[members], detector.cell_centres[members, :2]
            middle = (centres.min(0) + centres.max(0)) / 2
            place = (centres - middle) / np.maximum(np.ptp(centres, axis=0) / 2, 1e-6)
            x, y = (np.average(p, weights=e) if e.sum() > 0 else 0.0 for p in place.T)
            widths = np.sqrt((e[:, None] * (place - [x, y]) ** 2).sum(0) / max(e.sum(), 1e-9))
            hits, faint = (e > THRESHOLD).sum(), ((e > 0) & (e <= THRESHOLD)).sum()
            expected = [np.log((e.sum() + 1e-6) / total), hits + faint, faint, x, y, *widths]
            np.testing.assert_allclose(found[row, layer], expected, rtol=1e-3, atol=1e-3)
            parts.append(e.sum() / total)
            xs.append(x)
            ys.append(y)
        number = np.arange(detector.n_layers)
        depth = np.dot(parts, number)
        whole = [
            np.log(total / float(energy[row])),
            (own > 0).sum(),
            ((own > 0) & (own <= THRESHOLD)).sum(),
            *(np.dot(parts, v) for v in (number, xs, ys)),
            np.sqrt(np.dot(parts, (number - depth) ** 2)),
        ]
        np.testing.assert_allclose(found[row, -1], whole, rtol=1e-3, atol=1e-3)


def test_summaries_of_the_training_showers_are_standard_normal() -> None:
    """Column by column, and among the low as among the high energies: the trend has been taken off."""
    summary, cells, energy, encoded = _fitted("atlas-em-barrel")
    z = summary(cells, energy, encoded, _uniform(summary, len(cells))).flatten(1)
    assert z.abs().max() <= 5.0
    for column in z.T:
        assert stats.kstest(column.numpy(), "norm").statistic < 0.04
    high = energy > energy.median()
    assert (z[high].mean(0) - z[~high].mean(0)).abs().max() < 0.5
    raw = summary.measure(cells, energy).flatten(1)
    raw = (raw - raw.mean(0)) / raw.std(0)
    assert (raw[high].mean(0) - raw[~high].mean(0)).abs().max() > 1.5


@every
def test_layer_energies_come_back(name: str) -> None:
    summary, cells, energy, encoded = _fitted(name)
    z = summary(cells, energy, encoded, _uniform(summary, len(cells)))
    sums = summary.decode(z, energy, encoded).sums
    true = summary.view(cells).sum(2)
    inside = (z.abs() < 5.0).flatten(1).all(1)
    assert inside.float().mean() > 0.6  # few showers make steep ends of the tables
    off = (sums - true).abs()[inside] / (1e-3 * true.sum(1, keepdim=True)[inside])
    assert off.max() < 1.0
    torch.testing.assert_close(sums[inside], true[inside], rtol=2e-3, atol=2e-3)


@every
def test_hits_come_back_in_all_exactly_and_in_layers_within_one(name: str) -> None:
    summary, cells, energy, encoded = _fitted(name)
    z = summary(cells, energy, encoded, _uniform(summary, len(cells)))
    hits = summary.decode(z, energy, encoded).hits
    true = (summary.view(cells) > THRESHOLD).sum(2)
    inside = (z.abs() < 5.0).flatten(1).all(1) & (true.sum(1) > 0)
    assert torch.equal(hits, hits.round())
    assert (hits >= 0).all()
    assert torch.equal(hits.sum(1)[inside], true.sum(1)[inside].float())
    assert (hits - true)[inside].abs().max() <= 1


def test_hits_without_spread_come_back_exactly() -> None:
    """The middle of [n, n + 1): nothing is rounded."""
    summary, cells, energy, encoded = _fitted("atlas-em-barrel")
    z = summary(cells, energy, encoded, torch.full((len(cells), summary.rows, summary.kinds), 0.5))
    hits = summary.decode(z, energy, encoded).hits
    true = (summary.view(cells) > THRESHOLD).sum(2)
    inside = (z.abs() < 5.0).flatten(1).all(1)
    assert torch.equal(hits[inside], true[inside].float())


@every
def test_any_normal_numbers_give_possible_energies_and_hits(name: str) -> None:
    """Layer energies sum to E_vis and hits to the shower's, whatever the layers alone would say."""
    summary, _, energy, encoded = _fitted(name)
    n = len(energy)
    z = 1.5 * torch.randn(n, summary.rows, summary.kinds, generator=torch.Generator().manual_seed(3))
    sums, hits, faint = summary.decode(z, energy, encoded)[:3]
    assert torch.isfinite(sums).all()
    filled = hits + faint
    assert (filled <= summary.most).all()
    assert (faint >= 0).all()
    assert (sums >= 0).all()
    assert (hits >= 0).all()
    assert torch.equal(hits, hits.round())
    raw = summary.trend.inverse(summary.table.inverse(z.flatten(1)), encoded).view(
        n, summary.rows, summary.kinds
    )
    torch.testing.assert_close(sums.sum(1), raw[:, -1, 0].exp() * energy, rtol=1e-4, atol=0)
    asked = raw[:, -1, 1].floor().clamp_min(0.0)
    between = (filled < summary.most) & ((filled > summary.fewest) | (summary.fewest == 0))
    some = (raw[:, :-1, 1] >= 1.0).any(1) & between.all(1)
    assert some.any()
    assert torch.equal(filled.sum(1)[some], asked[some])


def test_normal_numbers_give_the_showers_response() -> None:
    summary, cells, energy, encoded = _fitted("atlas-em-barrel")
    z = torch.randn(len(cells), summary.rows, summary.kinds, generator=torch.Generator().manual_seed(4))
    sums = summary.decode(z, energy, encoded).sums
    response, made = cells.sum(1) / energy, sums.sum(1) / energy
    for value in energy.unique():
        part = energy == value
        assert made[part].mean() == pytest.approx(float(response[part].mean()), rel=0.03)
        assert made[part].std() == pytest.approx(float(response[part].std()), rel=0.4)


def test_an_empty_shower_stays_finite() -> None:
    summary, cells, energy, encoded = _fitted("atlas-em-barrel")
    z = summary(torch.zeros_like(cells[:3]), energy[:3], encoded[:3], _uniform(summary, 3))
    assert torch.isfinite(z).all()
    assert all(torch.isfinite(part).all() for part in summary.decode(z, energy[:3], encoded[:3]))


@every
def test_centres_and_widths_come_back(name: str) -> None:
    """Within the spread of a part of a cell, divided by the hits."""
    summary, cells, energy, encoded = _fitted(name)
    z = summary(cells, energy, encoded, _uniform(summary, len(cells)))
    targets = summary.decode(z, energy, encoded)
    true = summary.measure(cells, energy)[:, :-1]
    inside = (z.abs() < 5.0).flatten(1).all(1)
    pitch, filled, faint = summary.pitch.amax(1), true[:, :, 1], true[:, :, 2]
    blur = 0.3 * pitch / (filled - faint).clamp_min(1.0)
    allowed = (0.01 + 2.0 * blur)[inside]
    for kind, found in enumerate(targets[3:], 3):
        near = (found - true[:, :, kind])[inside].abs() <= allowed
        assert near[filled[inside] > 0].float().mean() > 0.99


@every
def test_rounding_decides_nothing(name: str) -> None:
    """Centres of single cells are frequent values, which another machine computes with other last digits."""
    summary, cells, energy, encoded = _fitted(name)
    uniform = _uniform(summary, len(cells))
    noise = torch.randn(cells.shape, generator=torch.Generator().manual_seed(8))
    moved = cells * (1.0 + 1e-6 * noise)
    moved = torch.where((cells > THRESHOLD) == (moved > THRESHOLD), moved, cells)
    change = summary(moved, energy, encoded, uniform) - summary(cells, energy, encoded, uniform)
    assert change.abs().quantile(0.9999) < 0.02


@every
def test_empty_layers_come_back_empty_and_others_do_not(name: str) -> None:
    summary, cells, energy, encoded = _fitted(name)
    targets = summary.decode(summary(cells, energy, encoded, _uniform(summary, len(cells))), energy, encoded)
    filled = (summary.view(cells) > 0).sum(2)
    whole = filled.sum(1) > 0
    made = targets.hits + targets.faint
    assert ((made > 0) == (filled > 0))[whole].float().mean() > 0.999
    assert torch.equal(targets.sums[whole] > 0, (made > 0)[whole])
    assert (targets.width_x[made <= 1] == 0).all()


def test_what_is_not_defined_is_normal_and_says_nothing() -> None:
    """Layers of no cell, and the widths of one cell: their numbers follow from the uniform ones alone."""
    summary, cells, energy, encoded = _fitted("atlas-em-barrel")
    uniform = _uniform(summary, len(cells))
    z = summary(cells, energy, encoded, uniform)
    filled = (summary.view(cells) > 0).sum(2)
    for most, kinds in ((0, [0, 3, 4, 5, 6]), (1, [5, 6])):
        rows = filled <= most
        assert rows.sum() > 100
        for kind in kinds:
            found, drawn = z[:, :-1, kind][rows], uniform[:, :-1, kind][rows]
            torch.testing.assert_close(found, torch.special.ndtri(drawn))


def test_a_layer_that_is_never_filled_does_no_harm() -> None:
    _, cells, energy, encoded = _fitted("atlas-em-barrel")
    detector = _showers("atlas-em-barrel").detector
    cells = cells.clone()
    cells[:, detector.layer_cells[3]] = 0.0
    summary = ShowerSummary(detector, 1, encoded.shape[1], THRESHOLD)
    summary.fit(cells, energy, encoded, torch.Generator().manual_seed(0))
    z = summary(cells, energy, encoded, _uniform(summary, len(cells)))
    assert torch.isfinite(z).all()
    targets = summary.decode(z, energy, encoded)
    assert all(torch.isfinite(part).all() for part in targets)
    assert (targets.sums[cells.sum(1) > 0, 3] == 0).all()


def test_a_layer_that_is_always_filled_stays_filled() -> None:
    """Whatever a network's tail says: as many cells as every training shower had."""
    summary, cells, energy, encoded = _fitted("clic-ecal")
    fewest = (summary.view(cells) > 0).sum(2).amin(0)
    assert torch.equal(summary.fewest, fewest.float())
    assert (fewest > 0).any()
    z = torch.full((len(energy), summary.rows, summary.kinds), -4.9)
    targets = summary.decode(z, energy, encoded)
    assert ((targets.hits + targets.faint) >= fewest).all()


@every
def test_a_shower_cannot_contradict_its_layer_energies(name: str) -> None:
    """Mean layer and spread over layers follow from them: the summary does not have them."""
    summary, cells, energy, encoded = _fitted(name)
    uniform = _uniform(summary, len(cells))
    normal = torch.special.ndtri(uniform)[:, -1]
    found = summary(cells, energy, encoded, uniform)[:, -1]
    assert torch.equal(found[:, [3, 6]], normal[:, [3, 6]])
    assert not torch.allclose(found, normal)
