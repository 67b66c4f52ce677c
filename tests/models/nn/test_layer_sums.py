"""Cells by layer: every cell once, nothing lost, padding where a layer is small."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.geometry import DETECTORS, Detector, get_detector
from caloforge.models.nn.cell_networks import LayerSums, LayerView

SOME = ("ild-ecal", "clic-ecal-wide", "atlas-em-barrel", "calochallenge-2", "ild-ecal-10x10")
every_detector = pytest.mark.parametrize("name", SOME)


def _numbers(detector: Detector, n: int = 2) -> torch.Tensor:
    """Different numbers in all cells, none 0."""
    return 1.0 + torch.arange(float(n * detector.n_cells)).view(n, -1)


@every_detector
def test_back_and_forth_is_the_identity(name: str) -> None:
    detector = get_detector(name)
    view, cells = LayerView(detector), _numbers(detector)
    assert torch.equal(view.cells(view(cells)), cells)


@every_detector
def test_each_layer_holds_its_cells_and_padding(name: str) -> None:
    detector = get_detector(name)
    view, cells = LayerView(detector), _numbers(detector)
    seen = view(cells, fill=-7.0)
    assert seen.shape == (2, detector.n_layers, view.width)
    for layer, own in enumerate(detector.layer_cells):
        assert torch.equal(seen[:, layer, : len(own)], cells[:, torch.from_numpy(own)])
        assert (seen[:, layer, len(own) :] == -7.0).all()
    assert int((seen[0] != -7.0).sum()) == detector.n_cells


@every_detector
def test_layer_sums_are_those_of_the_cells(name: str) -> None:
    """Against the slow sum over the layer number of each cell."""
    detector = get_detector(name)
    cells = torch.rand(2, detector.n_cells, generator=torch.Generator().manual_seed(0))
    slow = np.stack([np.bincount(detector.cell_layer, row, detector.n_layers) for row in cells.numpy()])
    np.testing.assert_allclose(LayerView(detector)(cells).sum(2).numpy(), slow, rtol=1e-4)


@every_detector
def test_positions_are_those_of_the_cells_in_half_widths(name: str) -> None:
    detector = get_detector(name)
    view = LayerView(detector)
    for positions, axis in ((view.x, 0), (view.y, 1)):
        for layer, own in enumerate(detector.layer_cells):
            found = positions[layer, : len(own)]
            centres = detector.cell_centres[own, axis]
            assert (positions[layer, len(own) :] == 0).all()
            if np.ptp(centres) < 1e-6:
                assert (found == 0).all()
                continue
            assert [float(found.min()), float(found.max())] == pytest.approx([-1.0, 1.0], abs=1e-5)
            ends = np.array([centres.min(), centres.max()])
            slow = np.interp(centres, ends, [-1.0, 1.0])
            np.testing.assert_allclose(found.numpy(), slow, atol=1e-5)


def test_nothing_of_it_is_stored_with_the_weights() -> None:
    assert not LayerView(get_detector("atlas-em-barrel")).state_dict()


@pytest.mark.parametrize("name", DETECTORS.names())
def test_layer_sums_against_the_loop(name: str) -> None:
    detector = get_detector(name)
    sums = LayerSums(detector)
    cells = torch.rand(2, detector.n_cells, dtype=torch.float64)
    expected = torch.stack([cells[:, detector.layer_cells[i]].sum(1) for i in range(detector.n_layers)], 1)
    assert torch.allclose(sums(cells), expected)
    values = torch.rand(2, detector.n_layers, dtype=torch.float64)
    assert torch.equal(sums.spread(values), values[:, torch.from_numpy(detector.cell_layer)])
    assert torch.allclose(sums(sums.normalise(cells, values)), values)
    assert not sums.normalise(torch.zeros_like(cells), values).any()
