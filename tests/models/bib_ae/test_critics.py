"""Critics of the BIB-AE, and discrepancies against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from caloforge.models.bib_ae.critics import (
    SORTED_CELLS,
    STRIDE,
    WINDOW,
    BatchStatistics,
    LatentCritic,
    ShowerCritic,
    mmd,
    sorted_cells,
    window_mmd,
)


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


def test_discrepancy_detects_a_shift() -> None:
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
    assert (SORTED_CELLS, WINDOW, STRIDE) == (1000, 150, 25)
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


def test_batch_statistics_against_the_loop() -> None:
    statistics, cells = BatchStatistics(), torch.rand(5, 40)
    with torch.no_grad():
        found = statistics(cells)
        for b in range(5):
            rows = []
            for other in range(5):
                pair = [
                    cells[b].std(unbiased=False) - cells[other].std(unbiased=False),
                    cells[b].sum() - cells[other].sum(),
                ]
                rows.append(statistics.pairs(torch.stack(pair)))
            rows_ = torch.stack(rows)
            expected = torch.cat([rows_.mean(0), rows_.std(0, unbiased=False)])
            torch.testing.assert_close(found[b], expected, atol=2e-4, rtol=1e-3)


def test_latent_critic_judges_each_number_alone() -> None:
    critic, z = LatentCritic(4), torch.randn(3, 4)
    hessian = torch.autograd.functional.hessian(lambda x: critic(x[None])[0], z[0])
    assert torch.equal(hessian, torch.diag(hessian.diagonal()))
    assert sum(m.out_channels for m in critic.net if isinstance(m, nn.Conv1d)) == 4 * (50 + 100 + 50 + 1)


def test_critic_sees_differences_only_with_the_setting() -> None:
    shape, real, given = (8, 8, 8), torch.rand(2, 512), torch.rand(2, 1)
    for differences in (True, False):
        critic = ShowerCritic(shape, 1, differences, widths=(4, 4))
        changed = critic(real, real + 1.0, given)
        assert torch.equal(critic(real, real, given), changed) is not differences
    two = critic(torch.cat([real, real]), torch.cat([real, real]), torch.cat([given, given]), groups=2)
    torch.testing.assert_close(two[:2], two[2:])
    torch.testing.assert_close(two[:2], critic(real, real, given))
