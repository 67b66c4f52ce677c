"""Reconstruction: digitisation, clusters against a flood fill, calibration, before and after."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.errors import IncompatibleError, InputError, TooFewShowersError
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers
from caloforge.showers.container import ShowerSource
from caloforge.validate.observables import OBSERVABLES, ShowerBatch
from caloforge.validate.reconstruction import (
    Reconstruction,
    label_clusters,
    layer_weights,
    mip_energies,
)
from caloforge.validate.sample import Sample


def _showers(name: str, n: int = 6, filled: float = 0.12, seed: int = 0) -> Showers:
    detector = get_detector(name)
    rng = np.random.default_rng(seed)
    cells = rng.lognormal(0.0, 1.5, (n, detector.n_cells)) * (rng.random((n, detector.n_cells)) < filled)
    cells[-1] = 0.0
    conditions = {key: rng.integers(0, count, (n, 1)) for key, count in detector.beam.alignments}
    return Showers(detector, cells, rng.uniform(1e3, 1e5, n), None, conditions, source="made up")


def _near(detector: Detector, corners: bool) -> dict[int, set[int]]:
    """Return each cell's neighbours, cell by cell."""
    near: dict[int, set[int]] = {cell: set() for cell in range(detector.n_cells)}
    if not detector.is_grid:
        for a, b in detector.neighbours:
            near[int(a)].add(int(b))
            near[int(b)].add(int(a))
        return near
    nx, ny, n_layers = detector.shape
    for x, y, z in np.ndindex(nx, ny, n_layers):
        for dx, dy, dz in np.ndindex(3, 3, 3):
            other = (x + dx - 1, y + dy - 1, z + dz - 1)
            steps = abs(dx - 1) + abs(dy - 1) + abs(dz - 1)
            inside = all(0 <= k < n for k, n in zip(other, (nx, ny, n_layers), strict=True))
            if inside and 0 < steps <= (3 if corners else 1):
                near[(x * ny + y) * n_layers + z].add((other[0] * ny + other[1]) * n_layers + other[2])
    return near


def _clusters(cells: np.ndarray, near: dict[int, set[int]]) -> list[set[int]]:
    """Flood-fill one shower."""
    left, found = set(np.flatnonzero(cells).tolist()), []
    while left:
        cluster, todo = set(), [left.pop()]
        while todo:
            cell = todo.pop()
            cluster.add(cell)
            fresh = near[cell] & left
            left -= fresh
            todo += fresh
        found.append(cluster)
    return found


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("name", "filled"),
    [("clic-ecal", 0.04), ("ild-ecal-10x10", 0.3), ("atlas-em-barrel", 0.2), ("calochallenge-1-pions", 0.3)],
)
def test_clusters_are_those_of_a_flood_fill(name: str, filled: float, corners: bool) -> None:
    showers = _showers(name, n=4, filled=filled)
    batch = ShowerBatch(showers, cut=0.0)
    labels = label_clusters(batch, corners)
    near = _near(showers.detector, corners)
    expected = {
        (index, frozenset(cluster)) for index in range(4) for cluster in _clusters(showers.cells[index], near)
    }
    found = set()
    for label in np.unique(labels):
        rows = set(batch.shower[labels == label].tolist())
        assert len(rows) == 1, "a cluster spans two showers"
        found.add((rows.pop(), frozenset(batch.cell[labels == label].tolist())))
    assert found == expected


@pytest.mark.parametrize("name", ["clic-ecal", "atlas-em-barrel"])
def test_the_cluster_of_the_highest_energy_is_kept(name: str) -> None:
    showers = _showers(name, filled=0.05, seed=3)
    reconstruction = Reconstruction(
        showers.detector, mip_energies(showers), threshold=0.0, saturation=None, calibration=2.0
    )
    found = reconstruction(showers)
    near = _near(showers.detector, corners=True)
    weights = layer_weights(showers.detector, reconstruction.mip)[showers.detector.cell_layer]
    for index, cells in enumerate(showers.cells):
        clusters = _clusters(cells, near)
        assert found.n_clusters[index] == len(clusters)
        best = sorted(max(clusters, key=lambda cluster: cells[list(cluster)].sum(dtype=float), default=set()))
        expected = np.zeros_like(cells)
        expected[best] = cells[best]
        np.testing.assert_array_equal(found.showers.cells[index], expected)
        assert found.energy[index] == pytest.approx(2.0 * float(expected @ weights), rel=1e-5)
        share = 1 - float(expected.sum(dtype=float)) / max(float(cells.sum(dtype=float)), 1e-9)
        assert found.outside[index] == pytest.approx(share if cells.any() else 0.0, abs=1e-6)
    assert found.energy[-1] == 0.0
    assert np.isnan(found.theta[-1])


def test_digitisation_cuts_and_saturates() -> None:
    detector = get_detector("atlas-em-barrel")
    reconstruction = Reconstruction(detector, np.array([1.0, 2.0, 4.0, 8.0]), threshold=0.5, saturation=100.0)
    unit = reconstruction.mip[detector.cell_layer]
    for n_mip, read in ((0.4, 0.0), (0.5, 0.5), (3.0, 3.0), (99.0, 99.0), (250.0, 100.0)):
        cells = (n_mip * unit)[None].astype(np.float32)
        np.testing.assert_allclose(reconstruction.digitise(cells)[0], read * unit, rtol=1e-6)
    unlimited = Reconstruction(detector, reconstruction.mip, saturation=None)
    assert unlimited.digitise((250 * unit)[None].astype(np.float32)).max() == pytest.approx(2000.0)


def test_layers_behind_twice_the_absorber_weigh_twice() -> None:
    detector = get_detector("ild-ecal")
    weights = layer_weights(detector, np.array([layer.mip for layer in detector.layers]))
    np.testing.assert_allclose(weights[:20], 1.0, atol=1e-4)
    np.testing.assert_allclose(weights[20:], 2.0, atol=0.05)
    mesh = get_detector("calochallenge-2")
    np.testing.assert_allclose(layer_weights(mesh, np.ones(45)), 1.0)


def test_the_calibration_is_the_least_squares_constant() -> None:
    showers = _showers("ild-ecal-10x10", n=50, filled=0.5)
    fitted = Reconstruction.fit(showers, mip=0.1)
    raw = Reconstruction(showers.detector, fitted.mip)(showers).energy

    def cost(c: float) -> float:
        return float(((c * raw - showers.incident_energy) ** 2 / showers.incident_energy).sum())

    c = fitted.calibration
    assert cost(c) < min(cost(0.999 * c), cost(1.001 * c))
    np.testing.assert_allclose(fitted(showers).energy, c * raw)


def test_energies_proportional_to_the_incident_one_come_out_exact() -> None:
    detector = get_detector("clic-ecal")
    shape = np.zeros(detector.shape)
    shape[10:15, 10:15, :20] = 1.0 + np.arange(20)
    incident = np.linspace(2e3, 4e5, 9)
    cells = incident[:, None] * shape.reshape(1, -1) / shape.sum() / 50
    showers = Showers(detector, cells, incident)
    fitted = Reconstruction.fit(showers, threshold=0.0, saturation=None)
    found = fitted(showers)
    np.testing.assert_allclose(found.energy, incident, rtol=1e-5)
    np.testing.assert_allclose(found.theta, 90.0, atol=0.01)
    assert (found.n_clusters == 1).all()
    assert not found.outside.any()


def test_every_observable_exists_before_and_after() -> None:
    showers = _showers("clic-ecal", n=12, filled=0.03)
    fitted = Reconstruction.fit(showers)
    source = fitted.of(showers)
    assert isinstance(source, ShowerSource)
    after = Sample(source, "after").observables
    direct = Sample(fitted(showers).showers, "direct").observables
    assert after.names == OBSERVABLES.names()
    for name in after.names:
        np.testing.assert_array_equal(after[name], direct[name], err_msg=name)
    np.testing.assert_array_equal(after["angle_axis"], fitted(showers).theta)
    assert (after["visible_energy"] <= Sample(showers, "before").observables["visible_energy"] + 1e-9).all()


def test_the_source_after_reads_like_the_one_before() -> None:
    showers = _showers("atlas-em-barrel", n=9)
    fitted = Reconstruction.fit(showers)
    source = fitted.of(showers)
    whole = fitted(showers).showers.cells
    assert len(source) == 9
    np.testing.assert_array_equal(source[2:5].cells, whole[2:5])
    np.testing.assert_array_equal(source.take([7, 1]).cells, whole[[7, 1]])
    np.testing.assert_array_equal(np.concatenate([c.cells for c in source.chunks(4)]), whole)
    np.testing.assert_array_equal(source.condition("alignment_phi"), showers.condition("alignment_phi"))
    np.testing.assert_array_equal(source.incident_energy, showers.incident_energy)
    np.testing.assert_array_equal(source.incident_theta, showers.incident_theta)
    assert (source.detector, source.source, source.particle) == (showers.detector, "made up", "")
    assert source.attributes["reconstruction_calibration"] == fitted.calibration
    assert (source.seed, source.has_theta) == (None, False)
    assert source.condition_names == showers.condition_names
    summary = fitted.summary(showers)
    np.testing.assert_array_equal(summary["energy"], fitted(showers).energy)
    assert set(summary) == {"energy", "theta", "n_clusters", "outside"}


def test_the_mip_is_measured_where_the_detector_does_not_know_it() -> None:
    rng = np.random.default_rng(3)
    detector = get_detector("calochallenge-2")
    shape = (60, detector.n_cells)
    soft = rng.exponential(1.0, shape) * 10.0 ** rng.uniform(-1, 2, shape)
    cells = np.where(rng.random(shape) < 0.4, np.abs(rng.normal(6.0, 1.0, shape)), soft)
    cells *= rng.random(shape) < 0.1
    showers = Showers(detector, cells, np.full(60, 1e4))
    np.testing.assert_allclose(mip_energies(showers), 6.0, rtol=0.06)
    silent = showers.replace(cells=np.zeros(shape))
    with pytest.raises(InputError, match="no MIP peak"):
        mip_energies(silent)


def test_what_cannot_be_reconstructed() -> None:
    showers = _showers("clic-ecal")
    fitted = Reconstruction.fit(showers)
    with pytest.raises(IncompatibleError, match="atlas-em-barrel"):
        fitted(_showers("atlas-em-barrel"))
    with pytest.raises(TooFewShowersError, match="nothing to calibrate on"):
        Reconstruction.fit(showers.replace(cells=np.zeros_like(showers.cells)))
    with pytest.raises(InputError, match="above 0"):
        Reconstruction.fit(showers, mip=0.0)
