from __future__ import annotations

import numpy as np
import prdc as library
import pytest

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics import prdc as module
from caloforge.validate.metrics.prdc import log_cells, prdc


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


def test_too_few() -> None:
    with pytest.raises(TooFewShowersError, match="k = 5"):
        prdc(np.zeros((5, 2)), np.zeros((50, 2)))
