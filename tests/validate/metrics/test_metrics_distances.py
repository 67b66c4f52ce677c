from __future__ import annotations

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.errors import TooFewShowersError
from caloforge.statistics.distances import QuantileBins
from caloforge.statistics.feature_distances import PRDC
from caloforge.validate.metrics import Settings, compute_metrics, distances
from caloforge.validate.metrics.distances import QuantileDivergence, quantiles_for
from caloforge.validate.metrics.features import log_cells, make_column
from caloforge.validate.sample import Sample


def test_ten_showers_a_bin_are_required() -> None:
    with pytest.raises(TooFewShowersError, match="64 bins need 640"):
        quantiles_for(500, 64)
    with pytest.raises(TooFewShowersError):
        quantiles_for(19)
    assert [quantiles_for(n) for n in (20, 100, 159, 160, 10_000, 10**6)] == [2, 8, 8, 16, 256, 256]


@pytest.mark.parametrize("n_quantiles", [None, 12])
def test_the_halves_of_the_floor_have_ten_showers_a_bin(
    monkeypatch: pytest.MonkeyPatch, n_quantiles: int | None
) -> None:
    showers_a_bin = []

    class Seen(QuantileBins):
        def __init__(self, reference: np.ndarray, n_quant: int) -> None:
            super().__init__(reference, n_quant)
            showers_a_bin.append(len(reference) / n_quant)

    monkeypatch.setattr(distances, "QuantileBins", Seen)
    a, b = (Sample(toy_showers("atlas-em-barrel", 160, seed), str(seed)) for seed in (1, 2))
    settings = Settings(n_bootstrap=2, n_halves=2, n_quantiles=n_quantiles)
    entries = QuantileDivergence().compute(a, b, settings)["quantile_jsd"]
    assert min(showers_a_bin) >= 10
    value = entries["visible_energy"]
    assert value.detail["n_quantiles"] == (n_quantiles or 16)
    assert value.detail["floor_quantiles"] == 8


@pytest.mark.parametrize(("n", "dimensions"), [(160, 1), (160, 2), (319, 1), (40, 1)])
def test_the_floor_is_what_two_samples_of_the_truth_have(n: int, dimensions: int) -> None:
    rng = np.random.default_rng(n + dimensions)
    values, floors, errors = [], [], []
    for seed in range(120):
        a, b = rng.normal(size=(2, n, dimensions))
        found = distances._divergence(
            make_column("x", "x", a, b), Settings(n_bootstrap=2, n_halves=5, seed=seed)
        )
        values.append(found.value)
        floors.append(found.floor)
        errors.append(found.floor_uncertainty)
    error = np.hypot(np.std(values), np.std(floors)) / len(values) ** 0.5
    assert abs(np.mean(values) - np.mean(floors)) < 4 * error
    # the uncertainty of a floor is the spread of single comparisons; halves of one sample vary somewhat less
    assert 0.6 < np.mean(errors) / np.std(values) < 1.3


def test_too_few_showers_for_halves_have_no_floor() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    found = distances._divergence(make_column("x", "x", a, b), Settings(n_bootstrap=2))
    assert found.floor is None
    assert found.value >= 0


def test_cells_are_taken_relative_to_the_threshold() -> None:
    cells = np.array([[0.0, 0.05, 0.1, 10.0]], np.float32)
    np.testing.assert_allclose(log_cells(cells, 0.1), [[0.0, 0.0, 0.0, 2.0]], atol=1e-6)


def test_value_and_floor_are_of_equally_many_showers_and_each_has_its_error() -> None:
    reference, near = (Sample(toy_showers("atlas-em-barrel", 200, seed), str(seed)) for seed in (1, 2))
    far = Sample(toy_showers("atlas-em-barrel", 70, 3, scale=50.0), "far")
    settings = Settings(n_bootstrap=20, device="cpu")
    for generated, size in ((near, 100), (far, 70)):
        found = compute_metrics(reference, generated, settings, ["prdc"])
        assert all(found[name]["detail"] == {"k": 5, "size": size} for name in PRDC)
        assert found["coverage"]["floor"] > 0.8
        assert found["coverage"]["floor_uncertainty"] >= 1.0 / size
    assert found["coverage"]["value"] == 0.0
    assert found["coverage"]["uncertainty"] == pytest.approx(1.0 / 70)
