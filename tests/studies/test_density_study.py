"""Density estimators against the truth that they were fitted to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.showers import read_showers
from caloforge.statistics.density import ESTIMATORS
from caloforge.studies import run_study
from caloforge.studies.amplification.curves import QUANTITIES, Observed, TruthCurves
from caloforge.studies.amplification.density import fit_all
from caloforge.studies.cache import Cache

SETTINGS = {"train_sizes": [200], "sets": 2, "draws": 2_000, "sizes": [200]}


def _normal(n: int, seed: int) -> Observed:
    """Return showers whose observables are Gaussian."""
    values = np.random.default_rng(seed).normal(size=(n, 4)) * [90.0, 47.0, 1.0, 1.0] + [
        1075.0,
        650.0,
        0.0,
        0.0,
    ]
    return Observed(values, np.zeros(0, np.float32), np.zeros(n, np.int64))


def test_estimators_of_a_gaussian_beat_their_training_set() -> None:
    # A smooth estimate of a smooth density is worth more than the values it saw; exact truth, many of it.
    truth = [TruthCurves((_normal(20_000, 1), _normal(20_000, 2)), QUANTITIES[0], [1_000], 5)]
    sets = {200: [_normal(200, 10 + number) for number in range(5)]}
    fits = fit_all(truth, sets, 50_000, 0, Cache(None), [])
    assert [fit.estimator for fit in fits] == ESTIMATORS.names()
    for fit in fits:
        curve = fit.curves[0]
        level = 5  # 64 quantiles
        size = curve.formula(level)
        assert size.low > 200
        assert fit.choices.shape == (1, 5)
        assert (fit.choices > 0).all()
    assert fits[0].label == "histogram of 200"


def test_smoothness_is_what_cross_validation_chose() -> None:
    values = np.random.default_rng(0).normal(size=300)
    for name in ESTIMATORS.names():
        estimator = ESTIMATORS[name]().fit(values)
        assert estimator.smoothness == getattr(estimator, {"kde": "bandwidth", "histogram": "n_bins"}[name])


def test_the_study_from_end_to_end(gflash_images: Path, other_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["study", "density", gflash_images, other_images, "-o", out, "--json"]
    for key, value in SETTINGS.items():
        words += ["--set", f"{key}={value}"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    content = json.loads((out / "study.json").read_text())
    data: dict[str, Any] = content["data"]
    assert data["training"] == {"200": 2}
    assert data["n_truth"] == 600
    assert {one["estimator"] for one in data["estimators"]} == set(ESTIMATORS.names())
    quantities = [one.name for one in QUANTITIES if one.columns]
    for one in data["estimators"]:
        assert list(one["quantities"]) == quantities
        for entry in one["quantities"].values():
            assert len(entry["chosen"]) == 2
            assert np.isfinite(entry["divergence"]).all()
    labels = {row["sample"] for row in content["rows"]}
    assert labels == {"histogram of 200", "KDE of 200", "same"}
    assert "1,600 GFlash showers (paper: 218,000): 2 x 200 for training" in content["texts"][0]
    assert (out / "figures" / "divergence_200.png").stat().st_size > 1_000
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "cache").glob("kde-*.npz")}
    assert len(kept) == 2 * len(quantities)
    again = CliRunner().invoke(app, [str(word) for word in words])  # everything is in the cache
    assert again.exit_code == 0
    assert json.loads((out / "study.json").read_text())["data"] == data
    assert {path.name: path.stat().st_mtime_ns for path in (out / "cache").glob("kde-*.npz")} == kept


def test_training_sets_and_truth_are_disjoint(gflash_images: Path) -> None:
    result = run_study(
        "density", gflash_images, settings=SETTINGS | {"train_sizes": [100, 800], "draws": 1_000}
    )
    assert result.data["training"] == {"100": 2, "800": 1}
    assert result.data["n_truth"] == 400  # 1600 without the 800 that train, halved


def test_too_few_showers_are_refused(gflash_images: Path, tmp_path: Path) -> None:
    few = read_showers(gflash_images)[:700].save(tmp_path / "few.h5")
    done = CliRunner().invoke(app, ["study", "density", str(few), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "700 reference showers are too few; it needs a file of Geant4 showers" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["draws=10", "train_sizes=[5]", "bandwidth=1"])
def test_wrong_settings_are_refused(gflash_images: Path, tmp_path: Path, setting: str) -> None:
    words = ["study", "density", str(gflash_images), "-o", str(tmp_path / "out"), "--set", setting]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert setting.partition("=")[0] in done.stderr
