"""The cell spectrum: merged bins, errors from the spread over showers, what is found and what it is called."""

from __future__ import annotations

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.features import cell_histograms
from caloforge.validate.metrics.spectrum import chi2_per_bin, deviance, merge_bins, say_ratio, z_scores
from caloforge.validate.observables.spectrum import FINE_EDGES, layer_groups
from caloforge.validate.sample import Sample

DETECTOR = "atlas-em-barrel"
LOW, HIGH = 0.1, 0.102


@pytest.fixture(scope="module")
def truth() -> Sample:
    return Sample(toy_showers(DETECTOR, 400, 1, energy=1000.0), "truth")


def changed(change: object, seed: int = 2) -> Sample:
    showers = toy_showers(DETECTOR, 400, seed, energy=1000.0)
    cells = showers.cells.copy()
    change(cells)  # type: ignore[operator]
    return Sample(showers.replace(cells=cells), "changed")


def measured(truth: Sample, other: Sample) -> dict[str, dict]:
    return compute_metrics(truth, other, Settings(n_bootstrap=10, n_halves=3), ["spectrum"])


def test_merged_bins_hold_enough_and_cover_everything() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(20.0, size=60).astype(float)
    place = merge_bins(counts, 50.0)
    assert np.all(np.diff(place) >= 0)
    assert set(place) == set(range(place.max() + 1))
    sums = np.bincount(place, counts)
    assert sums.min() >= 50
    assert sums.sum() == counts.sum()
    assert set(merge_bins(np.ones(10), 50.0)) == {0}


def test_chi2_is_one_for_equal_showers_whose_cells_fluctuate_together() -> None:
    rng = np.random.default_rng(1)
    values = []
    for _ in range(40):
        size = rng.gamma(4.0, 5.0, size=(2, 300, 1))  # common to all cells of a shower
        a, b = rng.poisson(size * np.linspace(0.2, 2.0, 30))
        values.append(chi2_per_bin(a.astype(float), b.astype(float)))
    assert np.mean(values) == pytest.approx(1.0, abs=0.35)


def test_z_is_the_difference_over_its_error() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.poisson(4.0, (500, 1)).astype(float), rng.poisson(5.0, (200, 1)).astype(float)
    error = np.sqrt(max(a.var(ddof=1), a.mean()) / 500 + max(b.var(ddof=1), b.mean()) / 200)
    assert z_scores(a, b)[0] == pytest.approx((b.mean() - a.mean()) / error)
    assert z_scores(np.zeros((5, 1)), np.zeros((5, 1)))[0] == 0.0


def test_the_deviance_is_zero_for_equal_means_and_finite_for_an_empty_bin() -> None:
    assert (deviance(2.0, 2.0), deviance(3.0, 0.0)) == pytest.approx((0.0, 6.0))
    assert deviance(1.0, 10.0) == pytest.approx(2 * (10 * np.log(10) - 9))
    assert (deviance(0.0, 1.0), deviance(0.0, 0.0)) == (np.inf, 0.0)


def test_histograms_agree_with_a_loop(truth: Sample) -> None:
    histograms = cell_histograms(truth)
    cells = truth.source[:3].cells
    layers = truth.detector.layer_cells
    counts = histograms.counts[:3].toarray().reshape(3, len(layers), -1)
    narrow = histograms.in_windows[:3].toarray().reshape(3, len(layers), -1)
    for shower in range(3):
        for number, members in enumerate(layers):
            energy = cells[shower, members].astype(float)
            filled = energy[energy > 0]
            expected = np.histogram(filled, FINE_EDGES)[0]
            np.testing.assert_array_equal(counts[shower, number, 1:-1], expected)
            assert counts[shower, number, 0] == (filled < FINE_EDGES[0]).sum()
            for k, window in enumerate(histograms.windows):
                inside = (filled >= window.low[number]) & (filled < window.high[number])
                assert narrow[shower, number, k] == inside.sum()


def test_many_layers_are_grouped() -> None:
    from caloforge.geometry import get_detector

    groups = layer_groups(get_detector("ild-ecal"))
    assert [layer for g in groups for layer in range(g.first, g.last + 1)] == list(range(30))
    assert groups[1].key == "layer[3-5]"
    assert [g.key for g in layer_groups(get_detector(DETECTOR))] == [f"layer[{k}]" for k in range(4)]


def test_other_showers_of_the_same_kind_are_not_found(truth: Sample) -> None:
    found = measured(truth, changed(lambda cells: None))
    assert found["spectrum_ratio"]["all"]["value"] == 1.0
    for entry in found["spectrum_ratio"].values():
        assert not entry["detail"]["significant"]
        assert entry["detail"]["findings"] == []
    for entry in found["spectrum_chi2"].values():
        assert entry["value"] == pytest.approx(1.0, abs=0.5)
        assert entry["floor"] == pytest.approx(1.0, abs=0.5)


def test_a_pile_up_above_the_threshold_is_found_and_named(truth: Sample) -> None:
    def pile_up(cells: np.ndarray) -> None:
        cells[(cells > 0.07) & (cells < LOW)] = 0.1001

    entry = measured(truth, changed(pile_up))["spectrum_ratio"]["all"]
    detail = entry["detail"]
    assert detail["energy_low"] == pytest.approx(LOW)
    assert detail["energy_high"] == pytest.approx(HIGH)
    assert detail["place"] == "directly above the hit threshold"
    assert entry["value"] > 3
    assert detail["significance"] > 4
    assert detail["finding"].endswith("cells between 0.100 and 0.102 MeV, directly above the hit threshold")


def test_a_deficit_is_found_where_it_is(truth: Sample) -> None:
    def remove(cells: np.ndarray) -> None:
        cells[cells < 0.05] = 0.0

    entry = measured(truth, changed(remove))["spectrum_ratio"]["all"]
    assert entry["value"] == 0.0
    assert entry["detail"]["energy_high"] <= 0.0562
    assert entry["detail"]["finding"].startswith("practically no cells")


def test_one_layer_is_named(truth: Sample) -> None:
    def dim(cells: np.ndarray) -> None:
        cells[:, truth.detector.layer_cells[2]] *= 0.5

    found = measured(truth, changed(dim))["spectrum_ratio"]
    assert found["layer[2]"]["detail"]["significant"]
    assert found["layer[2]"]["detail"]["finding"].count(" in middle") == 1
    assert not found["layer[1]"]["detail"]["significant"]
    assert found["layer[2]"]["detail"]["deviance"] > found["layer[1]"]["detail"]["deviance"]


def test_tiny_energies_count_as_underflow(truth: Sample) -> None:
    def leave(cells: np.ndarray) -> None:
        cells[cells == 0] = 1e-16

    detail = measured(truth, changed(leave))["spectrum_ratio"]["all"]["detail"]
    assert detail["underflow_reference"] == 0.0
    assert detail["underflow_generated"] > 0.1
    assert "below 0.0001 MeV" in detail["findings"][-1]
    assert not detail["significant"]  # the spectrum itself is right


def test_a_large_sample_is_thinned_to_the_most_allowed(truth: Sample) -> None:
    assert cell_histograms(truth, n_max=100).n == 100
    assert cell_histograms(truth, n_max=100) is cell_histograms(truth, n_max=100)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(12.8, "12.8 times too many"), (1.3, "30 % too many"), (0.65, "35 % too few"), (0.0, "practically no")],
)
def test_ratios_in_words(ratio: float, words: str) -> None:
    assert say_ratio(ratio) == words
