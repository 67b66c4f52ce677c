"""Geant4 showers made wrong on purpose are each seen, and Geant4 against Geant4 is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.data import sample_path
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.two_sample_data import half_mip, pair_data
from caloforge.validate.sample import Sample

QUICK = Settings(device="cpu", quick=True)
SIZE = 400
TESTS = ("auc_cells", "auc_observables", "auc_spectrum", "auc_strongest")


@cache
def showers(part: int, size: int = SIZE) -> Showers:
    """Return a part of the packaged Geant4 showers of atlas-em-barrel; parts have no shower in common."""
    with open_showers(sample_path()) as file:
        order = np.random.default_rng(5).permutation(len(file))
        return file[:].take(order[part * size : (part + 1) * size])


def measured(generated: Showers, *names: str, settings: Settings = QUICK, part: int = 0) -> dict:
    reference = showers(part, len(generated))
    return compute_metrics(Sample(reference, "reference"), Sample(generated, "generated"), settings, names)


def moved_to_the_threshold(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=np.where((s.cells > 0.05) & (s.cells < 0.15), np.float32(0.1001), s.cells))


def without_faint_cells(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=np.where(s.cells < 0.05, np.float32(0.0), s.cells))


def smeared_by_half_a_mip(s: Showers, rng: np.random.Generator) -> Showers:
    sigma = half_mip(s.detector)[s.detector.cell_layer]
    noise = rng.standard_normal(s.cells.shape) * sigma
    return s.replace(cells=np.where(s.cells > 0, np.maximum(s.cells + noise, 0.0), 0.0))


def smeared_by_100_kev(s: Showers, rng: np.random.Generator) -> Showers:
    noise = 0.1 * rng.standard_normal(s.cells.shape)
    return s.replace(cells=np.where(s.cells > 0, np.maximum(s.cells + noise, 0.0), 0.0))


def neighbours_swapped(s: Showers, rng: np.random.Generator) -> Showers:
    """Swap one cell of the middle layer's core with its neighbour, another one in each shower."""
    cells = s.cells.copy()
    middle = np.flatnonzero(s.detector.cell_layer == 2).reshape(7, 7)
    for row in cells:
        i, j = rng.integers(2, 5, 2)
        pair = middle[i, j], middle[i + rng.choice([-1, 1]), j]
        row[list(pair)] = row[list(pair[::-1])]
    return s.replace(cells=cells)


def middle_layer_dimmed(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=s.cells * np.where(s.detector.cell_layer == 2, 0.95, 1.0))


def collapsed_to_100_showers(s: Showers, rng: np.random.Generator) -> Showers:
    return s.take(rng.integers(0, 100, len(s)))


def residues_of_1e_16_mev(s: Showers, rng: np.random.Generator) -> Showers:
    few = (s.cells == 0) & (rng.random(s.cells.shape) < 0.02)
    return s.replace(cells=np.where(few, np.float32(1e-16), s.cells))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (moved_to_the_threshold, "auc_spectrum"),
        (without_faint_cells, "auc_spectrum"),
        (smeared_by_half_a_mip, "auc_spectrum"),
        (smeared_by_100_kev, "auc_spectrum"),
        (neighbours_swapped, "auc_observables"),
        (middle_layer_dimmed, "auc_observables"),
        (collapsed_to_100_showers, "auc_cells"),
        (residues_of_1e_16_mev, "auc_spectrum"),
    ],
)
def test_what_is_made_wrong_on_purpose_is_seen(
    wrong: Callable[[Showers, np.random.Generator], Showers], name: str
) -> None:
    entry = measured(wrong(showers(1), np.random.default_rng(7)), name)[name]
    error = max(entry["uncertainty"], 1e-3)
    assert entry["value"] > 0.55
    assert (entry["value"] - 0.5) / error > 4
    assert (entry["value"] - entry["floor"]) / np.hypot(error, entry["floor_uncertainty"]) > 4
    if wrong in (moved_to_the_threshold, without_faint_cells):  # the spectrum sees a threshold completely
        assert entry["value"] > 0.98
        assert entry["detail"]["classifier"] == "gradient boosting, threshold 0"


@pytest.mark.parametrize("part", [1, 2, 3])
def test_geant4_is_not_told_from_geant4(part: int) -> None:
    metrics = measured(showers(part), *TESTS)
    for name in TESTS:
        entry = metrics[name]
        assert abs(entry["value"] - 0.5) < 3.5 * entry["uncertainty"]
        assert abs(entry["floor"] - 0.5) < 3.5 * entry["floor_uncertainty"]
        assert entry["uncertainty"] < 0.06


@pytest.mark.parametrize("wrong", [neighbours_swapped, moved_to_the_threshold])
def test_the_strongest_is_as_strong_as_the_set_that_sees_it(wrong) -> None:
    metrics = measured(wrong(showers(1), np.random.default_rng(7)), *TESTS)
    best = max(metrics[name]["value"] for name in TESTS[:3])
    strongest = metrics["auc_strongest"]
    assert strongest["value"] > best - 2 * strongest["uncertainty"] - 0.03
    every = strongest["detail"]["classifiers"]
    assert {name.partition(":")[0] for name in every} == {"cells", "observables", "spectrum"}
    assert set(strongest["detail"]["chosen_by_fold"]) <= set(every)
    for entry in every.values():
        assert set(entry) == {"value", "uncertainty", "validation", "threshold"}


def test_networks_take_part_and_each_test_names_its_classifiers() -> None:
    metrics = measured(showers(1, 120), *TESTS, settings=Settings(device="cpu"))
    assert set(metrics["auc_cells"]["detail"]["classifiers"]) == {
        f"{kind}, threshold {threshold}"
        for kind in ("gradient boosting", "network")
        for threshold in ("0", "half a MIP")
    }
    assert set(metrics["auc_observables"]["detail"]["classifiers"]) == {"gradient boosting", "network"}
    assert metrics["auc_cells"]["detail"]["n_used"] == 120


def test_the_3d_network_takes_part_on_grids_when_it_is_asked_for() -> None:
    a, b = (Sample(toy_showers("ild-ecal-10x10", 60, seed), str(seed)) for seed in (1, 2))
    settings = Settings(device="cpu", cnn=True, cnn_epochs=1)
    found = compute_metrics(a, b, settings, ["auc_cells"])["auc_cells"]["detail"]["classifiers"]
    assert "3-D network, threshold 0" in found


def test_the_threshold_is_half_a_mip() -> None:
    np.testing.assert_allclose(half_mip(get_detector("ild-ecal")), 0.1018, atol=1e-3)
    np.testing.assert_allclose(half_mip(get_detector("ild-ecal-10x10")), 0.1)


def test_features_are_what_they_say() -> None:
    a, b = showers(0, 60), showers(1, 60)
    data = pair_data(Sample(a, "a"), Sample(b, "b"), QUICK)
    for index, least in enumerate((np.zeros(4), half_mip(a.detector))):
        above = a.cells > least[a.detector.cell_layer]
        features = data.spectrum_features(None, index)
        whole = [k for k, name in enumerate(features.names) if name.endswith("whole shower")]
        by_layer = [k for k, name in enumerate(features.names) if name.endswith("layer 2")]
        assert (len(whole), len(by_layer)) == (98, 26)
        np.testing.assert_allclose(
            np.expm1(features.reference[:, whole]).sum(axis=1), above.sum(axis=1), rtol=1e-4
        )
        np.testing.assert_allclose(
            np.expm1(features.reference[:, by_layer]).sum(axis=1),
            above[:, a.detector.cell_layer == 2].sum(axis=1),
            rtol=1e-4,
            atol=1e-4,
        )
    assert "impact[0]" not in data.condition_names
    assert "alignment_phi" in data.condition_names


def test_precision_of_the_conditions_does_not_tell_samples_apart() -> None:
    """Energies that one file keeps in single and the other in double precision are equal."""
    s = showers(1).replace(incident_energy=np.full(SIZE, 10_123.4567891))
    single = s.incident_energy.astype(np.float32).astype(np.float64)
    data = pair_data(Sample(s, "a"), Sample(s.replace(incident_energy=single), "b"), QUICK)
    np.testing.assert_array_equal(data.reference.conditions, data.generated.conditions)
