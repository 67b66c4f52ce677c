"""The families of figures: which there are for which detector, and that their numbers are right."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.plots.families import FAMILIES, TITLES, all_figures
from caloforge.validate.plots.images import correlation_matrix
from caloforge.validate.plots.panel import Heat, Panel
from caloforge.validate.plots.spectra import angle_slices, energy_slices
from caloforge.validate.report.event import pick_showers
from caloforge.validate.sample import Sample


def made(detector: str, n: int = 60, seed: int = 0, vary: bool = True) -> Showers:
    """Return sparse showers whose cells are all alike."""
    rng = np.random.default_rng(seed)
    geometry = get_detector(detector)
    energy = rng.choice([10_000.0, 20_000.0, 40_000.0], n) if vary else np.full(n, 20_000.0)
    filled = min(0.3, 2000 / geometry.n_cells)
    cells = rng.gamma(0.5, 1.0, (n, geometry.n_cells)) * (rng.random((n, geometry.n_cells)) < filled)
    cells *= (0.02 * energy / cells.sum(axis=1))[:, None]
    conditions = {name: np.zeros((n, k), np.float32) for name, k in geometry.condition_sizes.items()}
    theta = rng.uniform(40, 90, n) if vary else None
    return Showers(geometry, cells.astype(np.float32), energy, theta, conditions, "gamma", "toy", seed)


def samples(detector: str, vary: bool = True) -> list[Sample]:
    return [Sample(made(detector, seed=k, vary=vary), f"s{k}") for k in range(3)]


@pytest.fixture(scope="module")
def atlas() -> list[Sample]:
    return samples("atlas-em-barrel")


DETECTORS = ["atlas-em-barrel", "ild-ecal-10x10", "ild-ecal", "calochallenge-1-photons", "calochallenge-2"]


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_figures(name: str) -> None:
    figures = all_figures(samples(name))
    detector = get_detector(name)
    missing = set() if detector.n_layers > 1 else {"layers"}
    missing |= set() if all(layer.mip > 0 for layer in detector.layers) else {"reconstructed"}
    assert set(figures) == set(FAMILIES.names()) - missing
    every = [figure for family in figures.values() for figure in family]
    names = [figure.name for figure in every]
    assert len(set(names)) == len(names)
    for figure in every:
        if isinstance(figure, Panel):
            assert len(figure.curves) == 3
            assert np.all(np.diff(figure.edges) > 0)
            assert all(len(curve.y) == len(curve.error) == len(figure.edges) - 1 for curve in figure.curves)
            assert figure.y_limits()[0] < figure.y_limits()[1]
        else:
            assert isinstance(figure, Heat)
            shape = (len(figure.x_edges) - 1, len(figure.y_edges) - 1)
            assert all(image.values.shape == shape for image in figure.images)
            assert figure.limits()[0] < figure.limits()[1]


def test_families_of_fixed_conditions_are_left_out() -> None:
    figures = all_figures(samples("ild-ecal-10x10", vary=False))
    assert "response" not in figures
    assert "energies" not in figures


def test_every_family_has_a_heading() -> None:
    assert set(TITLES) == set(FAMILIES.names())


def test_images_hold_the_mean_energy(atlas: list[Sample]) -> None:
    mean = np.array([chunk.cells.mean(axis=0) for chunk in atlas[1].source.chunks(1000)])[0]
    heats = [figure for figure in FAMILIES["images"](atlas) if "ratio" not in figure.name]
    assert len(heats) == 4
    for layer, heat in enumerate(heats):
        cells = atlas[0].detector.layer_cells[layer]
        np.testing.assert_allclose(heat.images[1].values.ravel(), mean[cells], rtol=1e-5)


def test_projections_keep_the_energy() -> None:
    sets = samples("ild-ecal")
    total = sets[0].source[:].cells.sum(axis=1, dtype=float).mean()
    heats = [figure for figure in FAMILIES["images"](sets) if "ratio" not in figure.name]
    assert [heat.name for heat in heats] == ["image_front", "image_side", "image_top"]
    for heat in heats:
        assert heat.images[0].values.sum() == pytest.approx(total, rel=1e-5)


def test_slices_are_the_energies_that_there_are(atlas: list[Sample]) -> None:
    slices = energy_slices(atlas)
    assert slices is not None
    assert slices.names == ("10 GeV", "20 GeV", "40 GeV")
    np.testing.assert_allclose(slices.middles, [1e4, 2e4, 4e4])
    for sample, member in zip(atlas, slices.members, strict=True):
        np.testing.assert_array_equal(np.array([1e4, 2e4, 4e4])[member], sample.incident_energy)
    angles = angle_slices(atlas)
    assert angles is not None
    counts = np.bincount(angles.members[0], minlength=6)
    assert counts.max() - counts.min() <= 1


def test_linearity_is_the_mean_response(atlas: list[Sample]) -> None:
    panel = next(figure for figure in FAMILIES["response"](atlas) if figure.name == "linearity_energy")
    np.testing.assert_allclose(panel.curves[0].y, 0.02, rtol=1e-4)
    np.testing.assert_allclose(panel.x, [10.0, 20.0, 40.0])


def test_correlations_agree_with_numpy_and_constants_have_none() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 3))
    np.testing.assert_allclose(correlation_matrix(values), np.corrcoef(values.T))
    with_constant = np.column_stack([values, np.full(100, 7.0)])
    with_constant[0, 0] = np.nan
    matrix = correlation_matrix(with_constant)
    np.testing.assert_allclose(matrix[:3, :3], np.corrcoef(values[1:].T))
    assert np.isnan(matrix[3]).all()


def test_showers_shown_side_by_side_have_the_same_energy(atlas: list[Sample]) -> None:
    showers = pick_showers(atlas)
    assert [len(shower) for shower in showers] == [1, 1, 1]
    assert {float(shower.incident_energy[0]) for shower in showers} == {
        float(np.sort(atlas[0].incident_energy)[30])
    }
