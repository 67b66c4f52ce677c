"""Physics laws that Geant4's showers obey, whatever the detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers
from caloforge.simulate import simulate

pytestmark = pytest.mark.geant4


@pytest.fixture(scope="module")
def angled() -> Showers:
    """Photons at all angles around the normal."""
    return simulate("ild-ecal-angled", n=100, energy="1-5GeV", theta="50-130", seed=21)


@pytest.fixture(scope="module")
def barrel() -> Showers:
    return simulate("atlas-em-barrel", n=60, energy="4GeV", seed=22)


def test_less_energy_is_seen_than_came_in(angled: Showers, barrel: Showers) -> None:
    for showers in (angled, barrel):
        assert (showers.visible_energy < 0.5 * showers.incident_energy).all()
        assert (showers.cells >= 0).all()
        assert np.isfinite(showers.cells).all()
    mean = barrel.visible_energy.mean() / 4000.0
    assert mean == pytest.approx(barrel.detector.sampling_fraction, rel=0.1)


def test_the_response_is_linear(angled: Showers) -> None:
    upright = np.abs(angled.condition("incident_theta")[:, 0] - 90) < 25
    energy, seen = angled.incident_energy[upright], angled.visible_energy[upright]
    low = energy < 3000.0
    ratios = [(seen[part] / energy[part]) for part in (low, ~low)]
    error = np.hypot(*(ratio.std() / len(ratio) ** 0.5 for ratio in ratios))
    assert abs(ratios[0].mean() - ratios[1].mean()) < 4 * error
    assert error < 0.1 * ratios[0].mean()


def test_smaller_angles_lean_to_positive_y(angled: Showers) -> None:
    detector = angled.detector
    y, z = detector.cell_centres[:, 1], detector.cell_centres[:, 2]
    weight = angled.cells / angled.visible_energy[:, None]
    mean_y, mean_z = weight @ y, weight @ z
    theta = np.radians(angled.condition("incident_theta")[:, 0])
    inside = np.abs(np.degrees(theta) - 90) < 30
    expected = detector.beam.y + mean_z / np.tan(theta)
    assert np.median(np.abs(mean_y - expected)[inside]) < 5.0  # mm; the showers spread over tens
    assert np.corrcoef(mean_y[inside], expected[inside])[0, 1] > 0.95


def test_the_alignment_moves_the_cells(barrel: Showers) -> None:
    detector = barrel.detector
    shifts = detector.layer_shift(barrel.conditions)
    assert shifts is not None
    for number, layer in ((1, "front"), (2, "middle")):
        cells = detector.layer_cells[number]
        energy = barrel.cells[:, cells]
        hit = energy.sum(axis=1) > 1.0
        hottest = detector.cell_centres[cells][energy.argmax(axis=1), :2] + shifts[:, number]
        pitch = np.array([detector.layers[number].pitch_x, detector.layers[number].pitch_y])
        apart = np.abs(hottest - barrel.conditions["impact"]) / pitch
        assert (apart[hit] < 1.5).mean() > 0.9, layer
        assert np.median(apart[hit], axis=0).max() < 0.6, layer
    assert len(np.unique(barrel.conditions["alignment_phi"])) == 4


def entry_cells(showers: Showers) -> np.ndarray:
    """Return for each layer the cell (n_layers, 2) that holds most energy of all showers."""
    total = showers.grid().sum(axis=0)
    nx, ny, layers = total.shape
    return np.stack(np.unravel_index(total.reshape(nx * ny, layers).argmax(axis=0), (nx, ny)), axis=1)


@pytest.mark.parametrize(("name", "entry"), [("clic-ecal-wide", (25, 25)), ("tiny", (2, 9))])
def test_a_muon_goes_straight_through_its_cell(name: str, entry: tuple[int, int], tiny: Detector) -> None:
    detector: Any = tiny if name == "tiny" else get_detector(name)
    muons = simulate(detector, n=40, particle="mu-", energy="20GeV", theta="90", seed=23)
    assert (entry_cells(muons) == np.array(entry)).all()
    losses = np.stack([muons.cells[:, cells].sum(axis=1) for cells in detector.layer_cells], axis=1)
    mip = np.array([layer.mip for layer in detector.layers])
    assert np.median(losses, axis=0) == pytest.approx(0.9 * mip, rel=0.3)
    assert 0.7 < np.median(losses / mip) < 1.1  # the median of a Landau distribution lies below its mean


def test_the_cut_is_what_it_is_said_to_be(tiny: Detector) -> None:
    default, same, fine = (
        simulate(tiny, n=30, energy="1GeV", seed=24, production_cut=cut) for cut in (None, 1.0, 0.1)
    )
    cuts = [showers.attributes["production_cut_mm"] for showers in (default, same, fine)]
    assert cuts == [1.0, 1.0, 0.1]
    assert (same.cells == default.cells).all()
    assert (fine.cells != default.cells).any(axis=1).all()
    assert fine.visible_energy.mean() == pytest.approx(default.visible_energy.mean(), rel=0.3)
