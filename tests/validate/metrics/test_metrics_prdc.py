from __future__ import annotations

import numpy as np
import prdc as library
import pytest
from toy_samples import toy_showers

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics import prdc as module
from caloforge.validate.metrics.prdc import NAMES, log_cells, prdc
from caloforge.validate.sample import Sample


@pytest.mark.parametrize("shift", [0.0, 1.0, 50.0])
def test_equal_to_the_package(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 37)  # several blocks, the last one short
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(150, 6)), rng.normal(size=(120, 6)) + shift
    expected = library.compute_prdc(a, b, nearest_k=5)
    assert prdc(a, b, k=5) == pytest.approx({name: float(x) for name, x in expected.items()})


def test_disjoint_samples_give_zero_and_equal_ones_the_most() -> None:
    x = np.random.default_rng(1).normal(size=(100, 3))
    assert set(prdc(x, x + 100.0).values()) == {0.0}
    same = prdc(x, x)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0


def test_cells_are_taken_relative_to_the_threshold() -> None:
    cells = np.array([[0.0, 0.05, 0.1, 10.0]], np.float32)
    np.testing.assert_allclose(log_cells(cells, 0.1), [[0.0, 0.0, 0.0, 2.0]], atol=1e-6)


def test_value_and_floor_are_of_equally_many_showers_and_each_has_its_error() -> None:
    reference, near = (Sample(toy_showers("atlas-em-barrel", 200, seed), str(seed)) for seed in (1, 2))
    far = Sample(toy_showers("atlas-em-barrel", 70, 3, scale=50.0), "far")
    settings = Settings(n_bootstrap=20, device="cpu")
    for generated, size in ((near, 100), (far, 70)):
        found = compute_metrics(reference, generated, settings, ["prdc"])
        assert all(found[name]["detail"] == {"k": 5, "size": size} for name in NAMES)
        assert found["coverage"]["floor"] > 0.8
        assert found["coverage"]["floor_uncertainty"] >= 1.0 / size
    assert found["coverage"]["value"] == 0.0
    assert found["coverage"]["uncertainty"] == pytest.approx(1.0 / 70)


def test_cells_that_are_never_hit_change_nothing() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 40, 5))
    wide_a, wide_b = (np.concatenate([x, np.zeros((40, 30))], axis=1) for x in (a, b))
    assert prdc(wide_a, wide_b) == pytest.approx(prdc(a, b))


def test_too_few() -> None:
    with pytest.raises(TooFewShowersError, match="k = 5"):
        prdc(np.zeros((5, 2)), np.zeros((50, 2)))
