"""All metrics on whole samples: keys, ranges, repeatability, and what they do with unusual input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.errors import TooFewShowersError, UnknownNameError
from caloforge.validate.metrics import METRICS, Settings, compute_metrics
from caloforge.validate.sample import Sample

TRAINED = ("auc_cells", "auc_strongest", "detectability", "attribution")
QUICK = tuple(name for name in METRICS.names() if not name.startswith("classifier") and name not in TRAINED)
SINGLE = ("fpd", "kpd", "shape_mse", "layer_fractions", "covariance_distance")


@pytest.fixture(scope="module")
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"quick": True})


@pytest.fixture(scope="module")
def equal(pair: tuple[Sample, Sample], settings: Settings) -> dict[str, Any]:
    return compute_metrics(*pair, settings)


@pytest.fixture(scope="module")
def different(pair: tuple[Sample, Sample], shifted: Sample, quick: Settings) -> dict[str, Any]:
    return compute_metrics(pair[0], shifted, quick, QUICK)


def numbers(entry: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(entry, dict):
        return []
    if "value" in entry:
        return [(path, entry)]
    return [item for key, value in entry.items() for item in numbers(value, f"{path}/{key}")]


def test_every_key_is_there_or_skipped_with_a_reason(equal: dict[str, Any]) -> None:
    assert equal["n_reference"] == equal["n_generated"] == 240
    for _, metric in METRICS.items():
        for key in metric.keys:
            assert (key.find(equal) is not None) != (key.top in equal["skipped"])
    assert set(equal["skipped"]) == {"ssim", "auc_cnn", "auc_cnn_floor", "jsd_cnn", "reconstructed"}
    assert "regular x-y grid" in equal["skipped"]["ssim"]
    json.dumps(equal, allow_nan=False)


def test_every_statistic_has_an_uncertainty_and_where_it_means_something_a_floor(
    equal: dict[str, Any],
) -> None:
    for path, value in numbers(equal):
        if value["value"] is None or "reason" in value.get("detail", {}):
            assert value["detail"]["reason"], path
            continue
        assert np.isfinite(value["value"]), path
        assert value["uncertainty"] is not None, path
        assert value["uncertainty"] >= 0, path
        own = ("/sampling_fraction/", "/auc_low_floor", "/auc_high_floor", "/attribution", "/detectability")
        if not path.startswith(own):
            assert value["floor"] is not None, path


def test_equal_samples_look_equal(equal: dict[str, Any]) -> None:
    for name in ("auc_low", "auc_high"):
        assert abs(equal[name]["value"] - 0.5) < 4 * equal[name]["uncertainty"]
        assert equal[f"{name}_floor"]["value"] == equal[name]["floor"]
    for name in ("cell_mean_ratio", "cell_std_ratio"):
        assert abs(equal[name]["value"] - 1) < 5 * equal[name]["uncertainty"]
    assert equal["ks"]["visible_energy"]["detail"]["p"] > 0.001
    assert equal["coverage"]["value"] > 0.8


def test_different_samples_are_told_apart(equal: dict[str, Any], different: dict[str, Any]) -> None:
    for name in SINGLE[:3]:
        assert different[name]["value"] > 2 * equal[name]["value"], name
    for name in ("separation_power", "ks", "wasserstein", "quantile_jsd"):
        assert different[name]["visible_energy"]["value"] > 3 * equal[name]["visible_energy"]["value"]
    assert different["cell_mean_ratio"]["value"] == pytest.approx(1.3, abs=0.1)
    assert different["cell_std_ratio"]["value"] == pytest.approx(1.3, abs=0.1)
    assert different["sampling_fraction"]["ratio"]["value"] == pytest.approx(1.3, abs=0.02)
    bins = different["sampling_fraction"]["ratio"]["detail"]["bins"]
    assert [row["n_reference"] for row in bins] == [240]
    assert different["layer_fractions"]["value"] < 3.0
    assert different["ks"]["visible_energy"]["detail"]["p"] < 1e-6


def test_same_seed_same_numbers(
    pair: tuple[Sample, Sample], equal: dict[str, Any], settings: Settings
) -> None:
    names = ["distances", "fpd", "prdc", "classifier_high"]
    again = compute_metrics(*pair, settings, names)
    for key in ("ks", "wasserstein", "fpd", "recall", "auc_high", "jsd_high"):
        assert again[key] == equal[key]
    other = compute_metrics(*pair, settings.model_copy(update={"seed": 1}), ["fpd"])
    assert other["fpd"] != equal["fpd"]


def test_joint_divergences_are_there(equal: dict[str, Any]) -> None:
    names = [name for name in equal["quantile_jsd"] if "*" in name]
    assert {name.count("*") + 1 for name in names} >= {2, 3, 4}
    entry = equal["quantile_jsd"]["visible_energy*peak_energy"]
    assert entry["detail"]["expected"] == pytest.approx(15 / 8 * (2 / 240))


def test_grid_metrics_and_the_convolutional_classifier(settings: Settings) -> None:
    a, b = (Sample(toy_showers("clic-ecal", 60, seed), str(seed)) for seed in (1, 2))
    chosen = settings.model_copy(update={"cnn": True, "cnn_epochs": 1, "max_bytes": 60 * 4 * 25**3})
    result = compute_metrics(a, b, chosen, ["ssim", "classifier_cnn", "core_cells", "covariance_distance"])
    assert set(result["ssim"]) == {"ref_ref", "gen_gen", "ref_gen"}
    assert 0.0 <= result["auc_cnn"]["value"] <= 1.0
    assert result["auc_cnn_floor"]["value"] is None
    assert "too few" in result["auc_cnn_floor"]["detail"]["reason"]
    assert result["cell_mean_ratio"]["detail"]["cells"] == 343
    assert result["covariance_distance"]["detail"]["cells"] == 500


def test_a_detector_of_one_layer(quick: Settings) -> None:
    a, b = (Sample(toy_showers("ild-ecal-10x10", 120, seed), str(seed)) for seed in (1, 2))
    result = compute_metrics(a, b, quick, QUICK)
    assert "several layers" in result["skipped"]["layer_fractions"]
    assert "11 x 11" in result["skipped"]["ssim"]
    assert np.isfinite(result["fpd"]["value"])
    assert set(result["shape_mse"]["detail"]) >= {"x", "y"}


@pytest.mark.parametrize("detector", ["calochallenge-1-photons"])
def test_a_mesh(detector: str, quick: Settings) -> None:
    a, b = (Sample(toy_showers(detector, 120, seed), str(seed)) for seed in (1, 2))
    result = compute_metrics(a, b, quick, QUICK)
    spectrum = result["separation_power"]["cell_spectrum"]["detail"]
    assert spectrum["cut"] == 1.0
    assert spectrum["bins"] == 49
    assert spectrum["dropped_reference"] == 0  # voxels below the cut are empty, not dropped
    assert result["separation_power"]["response"]["detail"]["bins"] == 100


def test_few_showers_are_named_or_skipped(pair: tuple[Sample, Sample], quick: Settings) -> None:
    few = pair[0].part(np.arange(6))
    result = compute_metrics(few, few, quick)
    assert {"fpd", "kpd", "precision", "auc_low", "quantile_jsd"} <= set(result["skipped"])
    assert "needs at least 100" in result["skipped"]["fpd"]
    assert "value" in result["ks"]["visible_energy"]
    with pytest.raises(TooFewShowersError, match="fpd"):
        compute_metrics(few, few, quick, ["fpd"])
    with pytest.raises(TooFewShowersError, match="64 bins need 640"):
        compute_metrics(*pair, quick.model_copy(update={"n_quantiles": 64}), ["quantile_jsd"])
    two = pair[0].part(np.arange(2))
    assert compute_metrics(two, two, quick)["n_reference"] == 2


def test_empty_showers_are_counted(pair: tuple[Sample, Sample], quick: Settings) -> None:
    showers = toy_showers("atlas-em-barrel", 120, 5)
    cells = showers.cells.copy()
    cells[:10] = 0.0
    holes = Sample(showers.replace(cells=cells), "holes")
    result = compute_metrics(pair[0], holes, quick, QUICK)
    assert result["ks"]["shower_depth"]["detail"]["not_finite_generated"] == 10
    assert result["layer_fractions"]["detail"]["without_energy_generated"] == 10
    nothing = Sample(showers.replace(cells=0 * cells), "nothing")
    result = compute_metrics(pair[0], nothing, quick)
    json.dumps(result, allow_nan=False)
    assert result["ks"]["shower_depth"]["value"] is None
    assert "no finite value in the generated" in result["ks"]["shower_depth"]["detail"]["reason"]
    assert result["sampling_fraction"]["generated"]["value"] == 0.0
    assert result["precision"]["value"] == 0.0
    reverse = compute_metrics(nothing, pair[0], quick, QUICK)
    json.dumps(reverse, allow_nan=False)
    assert reverse["cell_mean_ratio"]["value"] is None
    assert reverse["shape_mse"]["detail"]["reason"]


def test_constant_observables(pair: tuple[Sample, Sample], quick: Settings) -> None:
    same = Sample(pair[0].source.take(np.zeros(120, int)), "one shower, many times")
    result = compute_metrics(same, same, quick, QUICK)
    json.dumps(result, allow_nan=False)
    assert result["ks"]["visible_energy"]["value"] == 0.0
    assert result["wasserstein"]["visible_energy"]["value"] == 0.0
    assert "constant" in result["wasserstein"]["visible_energy"]["detail"]["reason"]
    assert result["separation_power"]["visible_energy"]["value"] == 0.0
    assert result["quantile_jsd"]["visible_energy"]["value"] == 0.0
    other = compute_metrics(same, pair[1], quick, ["distances", "separation_power"])
    assert other["wasserstein"]["visible_energy"]["value"] is None
    assert other["wasserstein"]["visible_energy"]["detail"]["raw"] > 0
    assert other["separation_power"]["visible_energy"]["detail"]["dropped_generated"] > 0.9


def test_unknown_metric_and_progress(pair: tuple[Sample, Sample], settings: Settings) -> None:
    with pytest.raises(UnknownNameError, match="fpdd"):
        compute_metrics(*pair, settings, ["fpdd"])
    seen: list[tuple[str, int, int]] = []
    compute_metrics(*pair, settings, ["kpd", "core_cells"], progress=lambda *step: seen.append(step))
    assert seen == [("kpd", 0, 2), ("core_cells", 1, 2), ("", 2, 2)]
