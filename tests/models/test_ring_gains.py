from __future__ import annotations

import numpy as np
import pytest
import torch
from grids import grid_showers

from caloforge.geometry import ReadoutLayer, get_detector
from caloforge.models.calibration.gains import _EDGES, RingGains
from caloforge.models.nn.layer_sums import LayerView


@pytest.mark.parametrize("name", ["clic-ecal", "ild-ecal", "ild-ecal-angled"])
@pytest.mark.parametrize("theta", [90.0, 55.0])
def test_rings_are_those_of_the_distance_from_the_axis(name: str, theta: float) -> None:
    detector = get_detector(name)
    view, gains = LayerView(detector), RingGains(detector, 1)
    shape = (1, view.n_layers, view.width)
    found = gains.ring(view.x.expand(shape), view.y.expand(shape), torch.tensor([theta]))
    found = view.cells(found)[0].numpy()
    centres, layer = detector.cell_centres, detector.cell_layer
    parts = [part for part in detector.layers if isinstance(part, ReadoutLayer)]
    z, pitch = np.array([part.z for part in parts]), parts[0].pitch_x
    axis = detector.beam.y + z / np.tan(np.radians(theta))
    away = np.hypot(centres[:, 0] - detector.beam.x, centres[:, 1] - axis[layer]) / pitch
    clear = np.abs(away[:, None] - np.array(_EDGES)).min(1) > 1e-3
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], np.searchsorted(np.array(_EDGES), away)[clear])


def test_shares_hold_all_energy_and_gains_undo_a_known_distortion() -> None:
    showers = grid_showers(n=40)
    view, gains = LayerView(showers.detector), RingGains(showers.detector, 1)
    cells = torch.from_numpy(showers.cells)
    theta = torch.full((len(cells),), 90.0)
    encoded = torch.linspace(-1.5, 1.5, len(cells))[:, None]
    x, y = (table.expand(len(cells), -1, -1) for table in (view.x, view.y))
    torch.testing.assert_close(gains(x, y, theta, encoded), torch.ones_like(x))
    true = gains.shares(cells, view, theta)
    torch.testing.assert_close(true.sum(1), torch.ones(len(cells)))
    ring = gains.ring(x, y, theta)
    wrong = torch.where(ring >= 4, 1.3 + 0.1 * encoded[:, :, None], torch.ones(1))
    changed = view.cells(view(cells) * wrong)
    made = gains.shares(changed, view, theta) * (changed.sum(1) / cells.sum(1))[:, None]
    gains.fit(true, made, encoded)
    undone = view(changed) * gains(x, y, theta, encoded)
    mended = gains.shares(view.cells(undone), view, theta).mean(0).view(-1, gains.rings).sum(0)
    expected = true.mean(0).view(-1, gains.rings).sum(0)
    before = gains.shares(changed, view, theta).mean(0).view(-1, gains.rings).sum(0)
    assert (mended / expected - 1).abs().max() < 0.01 < (before / expected - 1).abs().max()
