"""Values of filled cells carried from a model's distribution to the true one."""

from __future__ import annotations

import torch
from scipy import stats

from caloforge.models.calibration.quantile_maps import ValueTable


def _normals(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_before_the_fit_values_stay() -> None:
    values = 3.0 * _normals(240, 0).view(4, 3, 20)
    torch.testing.assert_close(ValueTable(3)(values), values, rtol=1e-5, atol=1e-5)


def test_the_models_values_get_the_true_distribution_and_keep_their_order() -> None:
    table = ValueTable(2)
    table.fit(1, 0.3 * _normals(20_000, 1) - 0.5, torch.exp(_normals(20_000, 2)))
    values = (0.3 * _normals(4_000, 3) - 0.5).view(400, 1, 10).repeat(1, 2, 1)
    found = table(values)
    torch.testing.assert_close(found[:, 0], values[:, 0], rtol=1e-5, atol=1e-5)  # no table of this layer
    carried = found[:, 1].flatten()
    assert stats.kstest(carried.numpy(), "lognorm", args=(1.0,)).statistic < 0.03
    order = values[:, 1].flatten().argsort()
    assert (carried[order].diff() >= 0).all()


def test_beyond_the_ends_the_ends_change_is_added() -> None:
    table = ValueTable(1)
    table.fit(0, torch.linspace(0, 1, 1001), torch.linspace(2, 4, 1001))
    found = table(torch.tensor([[[-3.0, 5.0]]]))[0, 0]
    torch.testing.assert_close(found, torch.tensor([-1.0, 8.0]), rtol=0, atol=0.01)


def test_equal_values_and_too_few_values_make_no_harm() -> None:
    table = ValueTable(2)
    table.fit(0, torch.zeros(500), torch.ones(500))
    table.fit(1, _normals(20, 4), _normals(20, 5))
    found = table(torch.tensor([[[0.0], [0.7]]]))[0, :, 0]
    assert torch.isfinite(found).all()
    assert (found - torch.tensor([1.0, 0.7])).abs().max() < 1e-3


def test_refining_undoes_what_later_steps_change() -> None:
    """A later step that raises values to the power 1.3: the table learns to give their roots."""
    table, truth = ValueTable(1), 1.5 + 0.2 * _normals(20_000, 6)
    values = 0.5 + 0.1 * _normals(20_000, 7)
    table.fit(0, values, truth)

    def end() -> torch.Tensor:
        return table(values.view(-1, 1, 1)).flatten().pow(1.3)

    before = stats.ks_2samp(end().numpy(), truth.numpy()).statistic
    for _ in range(6):
        table.refine(0, end(), truth)
    after = stats.ks_2samp(end().numpy(), truth.numpy()).statistic
    assert before > 0.05
    assert after < 0.02
