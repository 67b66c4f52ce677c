"""Discrepancies against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.bib_ae.critic import FIRST, STRIDE, WINDOW, mmd, sorted_cells, window_mmd


def _slow(x: Tensor, y: Tensor, alpha: float) -> float:
    """MMD^2 of samples (n, d), pair by pair."""

    def mean(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for i in range(len(a)):
            for j in range(len(b)):
                total += math.exp(
                    -alpha * sum((float(p) - float(q)) ** 2 for p, q in zip(a[i], b[j], strict=True))
                )
        return total / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2.0 * mean(x, y)


@pytest.mark.parametrize("alpha", [1.0, 0.01])
def test_discrepancy_against_the_loop(alpha: float) -> None:
    x, y = torch.randn(6, 3, dtype=torch.float64), 0.5 + torch.randn(6, 3, dtype=torch.float64)
    assert float(mmd(x, y, alpha)) == pytest.approx(_slow(x, y, alpha), abs=1e-12)
    assert float(mmd(x, x, alpha)) == pytest.approx(0.0, abs=1e-12)


def test_discrepancy_tells_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(400, 2, generator=generator) for _ in range(2))
    assert mmd(x, y, 1.0) < 0.01 < mmd(x, y + 1.0, 1.0)


@pytest.mark.parametrize("alpha", [40.0, 4.0])
def test_windows_against_the_loop(alpha: float) -> None:
    generator = torch.Generator().manual_seed(1)
    made, true = (
        sorted_cells(torch.rand(2, 40, generator=generator, dtype=torch.float64), 30) for _ in range(2)
    )
    values = []
    for row in range(2):
        for start in range(0, 30 - 12 + 1, 5):
            a, b = (cells[row, start : start + 12, None] for cells in (made, true))
            values.append(_slow(a, b, alpha))
    assert len(values) == 2 * 4
    found = float(window_mmd(made, true, alpha, window=12, stride=5))
    assert found == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_published_windows() -> None:
    assert (FIRST, WINDOW, STRIDE) == (1000, 150, 25)
    cells = torch.rand(1, 1200)
    assert sorted_cells(cells).shape == (1, 1000)
    assert torch.equal(sorted_cells(cells)[0], cells[0].sort(descending=True).values[:1000])
    assert sorted_cells(cells).unfold(1, WINDOW, STRIDE).shape[1] == 35
    assert sorted_cells(cells[:, :40]).shape == (1, 40)
    assert window_mmd(sorted_cells(cells[:, :40]), sorted_cells(cells[:, :40]), 4.0) == 0.0


def test_gradients_reach_the_cells_that_count() -> None:
    cells = torch.rand(2, 300).requires_grad_(True)
    window_mmd(sorted_cells(cells, 200), sorted_cells(torch.rand(2, 300), 200), 4.0).backward()
    assert int((cells.grad != 0).sum()) >= 2 * 190
