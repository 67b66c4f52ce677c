"""Displacements of a shower's axis: lines through layers, their covariance, the displacement that adds what is missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.bib_ae.axis import AxisDecoder, AxisMaps, AxisSpread


def _normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _conditions(n: int) -> tuple[Tensor, Tensor]:
    """Energies of 10 to 100 GeV and angles of 30 to 90 degrees."""
    random = torch.Generator().manual_seed(7)
    return 1e4 * 10.0 ** torch.rand(n, generator=random), 30.0 + 60.0 * torch.rand(n, generator=random)


def _root(*matrices: list[list[float]]) -> Tensor:
    return torch.linalg.cholesky(torch.tensor(matrices))


WANTED = torch.tensor([[[4.0, 0.06], [0.06, 0.01]], [[1.0, -0.05], [-0.05, 0.02]]])
"""Covariances of a (mm) and b in x and y at 50 GeV."""


def test_lines_are_least_squares_through_the_centres_of_the_layers() -> None:
    maps = AxisMaps(get_detector("ild-ecal-angled"))
    theta = torch.tensor([40.0, 75.0])
    cells = torch.rand(2, 30, 60, 30, generator=torch.Generator().manual_seed(1)) ** 8
    distances = maps.distances(theta)
    found = AxisSpread.lines(cells, distances, maps.z)
    z = maps.z.double().numpy()
    for row in range(2):
        for axis, distance in enumerate(distances):
            place = distance.expand(2, 30, 60, 30)[row].double().numpy()
            one = cells[row].double().numpy()
            layers = one.sum((0, 1))
            centres = (one * place).sum((0, 1)) / layers
            slope, at_zero = np.polyfit(z, centres, 1, w=np.sqrt(layers))
            depth = (layers * z).sum() / layers.sum()
            np.testing.assert_allclose(found[row, 2 * axis], at_zero + slope * depth, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(found[row, 2 * axis + 1], slope, rtol=1e-3, atol=1e-4)


def test_a_line_of_cells_along_the_axis_has_no_distance_and_no_slope() -> None:
    """One cell a layer, where the axis passes: within half a cell."""
    detector = get_detector("ild-ecal-angled")
    maps = AxisMaps(detector)
    theta = torch.tensor([50.0])
    dx, dy = (part.expand(1, 30, 60, 30) for part in maps.distances(theta))
    nearest = (dx.square() + dy.square()).flatten(1, 2).argmin(1)
    cells = torch.zeros(1, 1800, 30).scatter_(1, nearest[:, None], 1.0).view(1, 30, 60, 30)
    a_x, b_x, a_y, b_y = AxisSpread.lines(cells, maps.distances(theta), maps.z)[0].tolist()
    assert max(abs(a_x), abs(a_y)) < 2.6
    assert max(abs(b_x), abs(b_y)) < 0.03


def test_empty_showers_have_lines_of_zero() -> None:
    maps = AxisMaps(get_detector("ild-ecal-angled"))
    theta = torch.tensor([60.0])
    found = AxisSpread.lines(torch.zeros(1, 30, 60, 30), maps.distances(theta), maps.z)
    assert (found == 0).all()


def test_the_covariance_is_that_at_50_gev_without_the_trend() -> None:
    energy, angle = _conditions(20_000)
    root = _root(*WANTED.tolist())
    lines = torch.einsum("kij,nkj->nki", root, _normals(20_000, 2, 2)).flatten(1)
    lines = lines * torch.sqrt(50_000.0 / energy)[:, None]
    trend = torch.stack([0.01 * angle, 1e-4 * angle, torch.log(energy), 0.01 * torch.log(energy)], 1)
    found = AxisSpread.covariance(lines + trend, energy, angle)
    torch.testing.assert_close(found.float(), WANTED, rtol=0.05, atol=2e-3)


def test_outliers_do_not_decide_the_covariance() -> None:
    energy, angle = _conditions(5000)
    lines = _normals(5000, 4)
    plain = AxisSpread.covariance(lines, energy, angle)
    lines[0] = 50.0
    spoilt = AxisSpread.covariance(lines, energy, angle)
    torch.testing.assert_close(spoilt, plain, rtol=0.2, atol=0.02)


def test_displacements_have_the_fitted_covariance_and_fall_with_the_energy() -> None:
    spread = AxisSpread()
    spread.fit(WANTED, torch.tensor(60.0))
    z = torch.tensor([60.0, 160.0])
    n = 50_000
    for energy, factor in ((50_000.0, 1.0), (12_500.0, 4.0)):
        moved = spread(_normals(n, 4), torch.full((n,), energy), z)
        assert moved.shape == (2, n, 2)
        for axis in range(2):
            a, b = moved[axis, :, 0], (moved[axis, :, 1] - moved[axis, :, 0]) / 100.0
            found = torch.cov(torch.stack([a, b])) / factor
            torch.testing.assert_close(found, WANTED[axis], rtol=0.05, atol=1e-3)


def test_negative_covariances_are_not_added() -> None:
    """Where generated showers scatter more than the training showers nothing can be missing."""
    spread = AxisSpread()
    spread.fit(torch.stack([-WANTED[0], WANTED[1]]), torch.tensor(0.0))
    assert (spread.root[0] == 0).all()
    torch.testing.assert_close(spread.root[1] @ spread.root[1].T, WANTED[1])


def test_the_correction_makes_up_for_what_the_decoder_does_not_follow() -> None:
    spread = AxisSpread()
    before = 0.25 * WANTED
    spread.fit(WANTED - before, torch.tensor(0.0))
    followed = 0.5 * (WANTED - before)  # the decoder's showers move by less than their axis
    first = spread.root.clone()
    spread.correct(WANTED, before, before + followed)
    torch.testing.assert_close(spread.root, 2.0**0.5 * first)
    spread.correct(WANTED, before, before)  # no reaction at all: bounded
    torch.testing.assert_close(spread.root, 2.0**1.5 * first)


def test_without_a_fit_nothing_moves() -> None:
    detector = get_detector("ild-ecal-angled")
    spread, maps = AxisSpread(), AxisMaps(detector)
    theta = torch.tensor([45.0, 90.0])
    moved = spread(_normals(2, 4), torch.tensor([1e4, 1e5]), maps.z)
    assert (moved == 0).all()
    assert torch.equal(maps(theta, moved), maps(theta))


def test_a_displacement_by_one_cell_moves_the_maps_by_one_cell() -> None:
    maps = AxisMaps(get_detector("ild-ecal-angled"))
    theta = torch.tensor([90.0])
    moved = torch.zeros(2, 1, 30)
    moved[0], moved[1] = 5.0, -10.0
    plain, other = maps(theta)[0], maps(theta, moved)[0]
    torch.testing.assert_close(other[:, 1:, :-2], plain[:, :-1, 2:], rtol=1e-4, atol=1e-4)


def test_the_decoder_of_a_moved_axis_is_that_of_moved_maps() -> None:
    torch.manual_seed(0)
    decoder = AxisDecoder(get_detector("ild-ecal-angled"), inputs=6, features=2).eval()
    inputs, theta = _normals(2, 6), torch.tensor([60.0, 80.0])
    moved = _normals(2, 2, 30, seed=2)
    with torch.no_grad():
        shares, _ = decoder(inputs, theta, moved)
        still, _ = decoder(inputs, theta)
    assert not torch.allclose(shares, still)
    torch.testing.assert_close(torch.exp(shares).flatten(1).sum(1), torch.ones(2))
