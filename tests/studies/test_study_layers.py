"""Layers: profiles against a slow sum over cells, fractions and deviations of known answer, the whole study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError
from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.simulate.run import simulate
from caloforge.studies import run_study
from caloforge.studies.layers.measure import deviation, layer_axes, layer_profiles
from caloforge.studies.page import paper
from caloforge.validate.resolution import EnergySlices

ATLAS = "atlas-em-barrel"


@pytest.fixture(scope="module")
def showers() -> Showers:
    return simulate(ATLAS, 360, engine="gflash", seed=3)


# -- axes and profiles ---------------------------------------------------------------------------------------


def test_bins_of_moving_cells_are_as_narrow_as_their_steps() -> None:
    axes = {(axis.layer, axis.name): axis for axis in layer_axes(get_detector(ATLAS))}
    assert len(axes) == 8
    front = axes[1, "y"]
    assert (front.parts, front.step) == (4, pytest.approx(36.8))
    assert axes[3, "x"].parts == 2
    assert axes[2, "x"].step == axes[2, "y"].step == 0.0
    assert len(axes[1, "x"].edges) == 57


def _slow_profile(showers: Showers, layer: int, coordinate: int, edges: np.ndarray) -> np.ndarray:
    """Share the energy of every cell, shower by shower, among the bins that it overlaps."""
    detector = showers.detector
    shape = detector.layers[layer]
    pitch = (shape.pitch_x, shape.pitch_y)[coordinate]
    shift = detector.layer_shift(showers.conditions)
    out = np.zeros(len(edges) - 1)
    for row in range(len(showers)):
        moved = 0.0 if shift is None else shift[row, layer, coordinate]
        for cell in detector.layer_cells[layer]:
            low = detector.cell_centres[cell, coordinate] + moved - pitch / 2
            overlap = np.clip(np.minimum(edges[1:], low + pitch) - np.maximum(edges[:-1], low), 0, None)
            out += showers.cells[row, cell] * overlap / pitch
    return out


def test_profiles_agree_with_a_sum_over_cells(showers: Showers) -> None:
    some = showers[:12]
    profiles = layer_profiles(some, np.zeros(12, np.int64), 1)
    for profile in profiles:
        axis = profile.axis
        slow = _slow_profile(some, axis.layer, axis.coordinate, axis.edges)
        np.testing.assert_allclose(profile.mean[0], slow / slow.sum(), rtol=1e-5, atol=1e-9)


def test_profiles_of_meshes_and_grids_sum_to_one() -> None:
    rng = np.random.default_rng(2)
    for name in ("calochallenge-1-photons", "clic-ecal"):
        detector = get_detector(name)
        cells = rng.exponential(1.0, (6, detector.n_cells))
        profiles = layer_profiles(Showers(detector, cells, np.full(6, 1e4)), np.zeros(6, np.int64), 1)
        assert len(profiles) == 2 * detector.n_layers
        for profile in profiles:
            assert profile.mean.sum() == pytest.approx(1.0)


def test_the_error_of_a_profile_is_its_spread_over_samples() -> None:
    detector = get_detector(ATLAS)
    rng = np.random.default_rng(8)
    means, errors = [], []
    for _ in range(60):
        total = rng.lognormal(0.0, 1.0, (50, 1))
        cells = rng.gamma(0.5, 1.0, (50, detector.n_cells)) * total
        conditions = {
            "alignment_phi": np.zeros(50),
            "alignment_eta": np.zeros(50),
            "impact": np.zeros((50, 2)),
        }
        found = layer_profiles(
            Showers(detector, cells, np.full(50, 1e4), None, conditions), np.zeros(50, int), 1
        )
        means.append(found[4].mean[0])
        errors.append(found[4].error[0])
    np.testing.assert_allclose(np.std(means, axis=0), np.mean(errors, axis=0), rtol=0.35)


def test_a_bin_that_is_ten_percent_up_is_seen(showers: Showers) -> None:
    member = np.zeros(len(showers), np.int64)
    cells = showers.cells.copy()
    middle = showers.detector.layer_cells[2].reshape(7, 7)
    cells[:, middle[2]] *= 1.1
    before, after = (layer_profiles(s, member, 1)[4] for s in (showers, showers.replace(cells=cells)))
    share = before.mean[0]
    expected = share * np.where(np.arange(7) == 2, 1.1, 1.0)
    np.testing.assert_allclose(after.mean[0], expected / expected.sum(), rtol=1e-5)
    largest, error, mean = deviation(before, after, 0)
    assert largest == pytest.approx(1.1 / expected.sum() - 1, rel=1e-4)
    assert 0 < error < 0.2
    assert 0 < mean < largest
    assert deviation(before, before, 0)[0] == 0.0


def test_slices_are_the_energies_where_there_are_few() -> None:
    energy = 1024.0 * 2.0 ** np.repeat(np.arange(9), 5)
    slices = EnergySlices.of(energy, 4)
    assert len(slices) == 9
    assert slices.nearest(65e3) == 6
    assert (np.bincount(slices.members(energy)) == 5).all()
    assert slices.members(np.array([10.0, 1e9])).tolist() == [-1, -1]
    smooth = EnergySlices.of(np.random.default_rng(0).uniform(1e4, 1e5, 1000), 4)
    assert len(smooth) == 4


# -- the study -----------------------------------------------------------------------------------------------


def test_known_changes_come_out_of_the_study(showers: Showers) -> None:
    louder = showers.replace(cells=1.02 * showers.cells)
    cells = showers.cells.copy()
    front = showers.detector.layer_cells[1]
    cells[:, front] = 0.0
    result = run_study(
        "layers",
        showers,
        showers,
        louder,
        showers.replace(cells=cells),
        labels=["same", "louder", "no front"],
    )
    reference, same, loud, none = (result.data[name] for name in ("reference", "same", "louder", "no front"))
    np.testing.assert_allclose(np.sum(reference["fractions"]["mean"], axis=1), 1.0)
    for key in ("fractions", "response", "centres_mm", "widths_mm"):
        np.testing.assert_equal(same[key], reference[key])
    np.testing.assert_allclose(
        loud["response"]["response"], 1.02 * np.array(reference["response"]["response"])
    )
    np.testing.assert_allclose(loud["response"]["resolution"], reference["response"]["resolution"], rtol=1e-4)
    np.testing.assert_allclose(loud["fractions"]["mean"], reference["fractions"]["mean"], rtol=1e-5)
    np.testing.assert_allclose(none["fractions"]["mean"][:, 1], 0.0)
    energies = showers.cells.reshape(len(showers), -1)
    chosen = np.isclose(showers.incident_energy, result.data["energies_mev"][4], rtol=1e-3)
    total = energies[chosen].sum(axis=1)
    by_hand = (energies[chosen][:, front].sum(axis=1) / total).mean()
    assert reference["fractions"]["mean"][4, 1] == pytest.approx(by_hand, rel=1e-5)


def test_rows_stand_beside_the_notes_numbers(showers: Showers) -> None:
    result = run_study("layers", showers, showers.replace(cells=1.02 * showers.cells), labels=["louder"])
    rows = {(row.sample, row.quantity): row for row in result.rows}
    middle = rows["reference", "energy in the middle, 65.5 GeV"]
    assert middle.paper == "layers.geant4_middle"
    assert paper(middle.paper).value == 79.3
    assert 60.0 < middle.ours < 95.0
    response = rows["louder", "largest deviation, mean response, all energies"]
    assert response.ours == pytest.approx(2.0, abs=1e-3)
    lateral = rows["louder", "largest deviation, lateral profiles, 65.5 GeV"]
    assert lateral.ours == pytest.approx(0.0, abs=1e-3)
    assert lateral.paper == "layers.lateral"


def test_a_sample_called_reference_does_not_hide_the_reference(showers: Showers) -> None:
    louder = showers.replace(cells=1.02 * showers.cells)
    result = run_study("layers", showers, louder, labels=["reference"])
    trusted, other = (
        result.data[name]["response"]["response"] for name in ("reference showers", "reference")
    )
    np.testing.assert_allclose(other, 1.02 * np.array(trusted))


def test_one_layer_is_refused() -> None:
    image = Showers("ild-ecal-10x10", np.ones((30, 100)), np.full(30, 5e4))
    with pytest.raises(InputError, match="has one layer; it needs reference showers of a detector of two"):
        run_study("layers", image, image)


def test_a_grid_of_many_layers_and_two_samples_of_it() -> None:
    truth, fake = (
        simulate("clic-ecal", 80, energy="50-80GeV", engine="gflash", seed=seed) for seed in (1, 2)
    )
    result = run_study("layers", truth, fake, settings={"bins": 2}, labels=["fake"])
    assert len(result.data["energies_mev"]) == 2
    assert len(result.data["fake"]["profiles"]) == 50
    shift = next(row for row in result.rows if row.quantity == "largest shift of the shower depth")
    assert shift.ours < 5 * shift.uncertainty


def test_slices_of_too_few_showers_say_so(showers: Showers, tmp_path: Path) -> None:
    result = run_study("layers", showers[:30], showers[30:60], output=tmp_path / "out", labels=["fake"])
    rows = {row.quantity: row for row in result.rows if row.sample == "fake"}
    assert rows["largest shift of the shower depth"].ours is None
    assert rows["largest shift of the shower depth"].note == "too few showers"
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == len(result.figures)


def test_the_command_line_writes_the_study(showers: Showers, tmp_path: Path) -> None:
    truth, fake = showers.save(tmp_path / "truth.h5"), tmp_path / "fake.h5"
    showers.replace(cells=showers.cells * 0.97).save(fake)
    arguments = ["study", "layers", str(truth), str(fake), "-o", str(tmp_path / "out"), "--set", "energy=8"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert content["data"]["energies_mev"][content["data"]["shown_slice"]] == pytest.approx(8192.0)
    rows = {row["quantity"]: row for row in content["rows"] if row["sample"] == "fake"}
    assert rows["largest deviation, mean response, all energies"]["ours"] == pytest.approx(3.0, abs=1e-3)
    assert (tmp_path / "out" / "figures" / "profile_y.png").is_file()
    assert "VAE (note)" in (tmp_path / "out" / "report.html").read_text()
