"""Shrunk regressions against slow, obvious ones, and what they are for: few values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caloforge.models.calibration.moments import ConditionalMoments
from caloforge.models.calibration.monotone import MonotoneMap, smooth_quantiles
from caloforge.models.calibration.regression import shrunk_fit

PENALTIES = 10.0 ** np.arange(-7.0, 3.1, 0.5)


def _design(n: int, features: int, seed: int) -> Tensor:
    values = torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([torch.ones(n, 1, dtype=torch.float64), values * torch.linspace(0.1, 10.0, features)], 1)


def _slow(design: Tensor, y: Tensor, free: Tensor, prior: Tensor) -> Tensor:
    """Minimise the penalised sum of squares for each penalty by the normal equations; take the one of least cross-validation."""
    n = len(design)
    kept, others = design[:, free], design[:, ~free]
    left = others - kept @ torch.linalg.lstsq(kept, others).solution
    weight = torch.zeros(design.shape[1], dtype=torch.float64)
    weight[~free] = left.square().mean(0)
    best, found = np.inf, prior
    for penalty in PENALTIES:
        inverse = torch.linalg.inv(design.T @ design + penalty * n * torch.diag(weight))
        coefficients = prior + inverse @ design.T @ (y - design @ prior)
        trace = float((design @ inverse @ design.T).trace())
        score = float((y - design @ coefficients).square().sum()) / (1.0 - trace / n) ** 2
        if score < best:
            best, found = score, coefficients
    return found


def test_shrunk_fit_is_the_ridge_of_least_generalised_cross_validation() -> None:
    design = _design(60, 12, 1)
    generator = torch.Generator().manual_seed(2)
    y = 3.0 + design[:, 1:4] @ torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64)
    y = torch.stack([y, 0.1 * y], 1) + torch.randn(60, 2, generator=generator, dtype=torch.float64)
    free = torch.arange(13) < 3
    prior = torch.randn(13, 2, generator=generator, dtype=torch.float64) * 0.1
    found, number = shrunk_fit(design, y, free, prior)
    for column in range(2):
        expected = _slow(design, y[:, column], free, prior[:, column])
        torch.testing.assert_close(found[:, column], expected, rtol=1e-6, atol=1e-8)
    assert bool(((number > 3) & (number < 13)).all())


def test_shrunk_fit_keeps_what_the_values_say_nothing_of() -> None:
    design = _design(50, 3, 3)
    design[:, 3] = 0.0
    prior = torch.tensor([[0.0], [0.0], [0.0], [7.0]], dtype=torch.float64)
    y = 1.0 + 2.0 * design[:, 1:2]
    found, _ = shrunk_fit(design, y, torch.tensor([True, False, False, False]), prior)
    torch.testing.assert_close(
        found[:, 0], torch.tensor([1.0, 2.0, 0.0, 7.0], dtype=torch.float64), atol=1e-3, rtol=0.0
    )


def test_trends_of_few_showers_miss_less_than_least_squares() -> None:
    """38 terms, of which three matter, and 150 values: new values have a width nearer 1 and a mean nearer 0."""
    generator = torch.Generator().manual_seed(4)

    def conditions(n: int) -> Tensor:
        return 3.4 * torch.rand(n, 20, generator=generator) - 1.7

    def values(c: Tensor) -> Tensor:
        return c[:, :1] + 0.5 * c[:, :1].square() + 0.3 * torch.randn(len(c), 1, generator=generator)

    few, many = conditions(150), conditions(20_000)
    moments = ConditionalMoments(3, 20, 1)
    moments.fit(few, values(few))
    new = values(many)
    missed = float((new - moments.terms(many) @ moments.mean).square().mean().sqrt())
    terms = moments.terms(few).double()
    plain = torch.linalg.lstsq(terms, values(few).double()).solution
    plain_missed = float((new - moments.terms(many).double() @ plain).square().mean().sqrt())
    assert missed < 0.97 * plain_missed
    assert 0.85 < float(moments(new, many).std()) < 1.15


def test_trends_begin_from_those_there_are() -> None:
    generator = torch.Generator().manual_seed(5)
    before, few = torch.randn(5000, 6, generator=generator), torch.randn(40, 6, generator=generator)
    slopes = torch.randn(6, 1, generator=generator)

    def values(c: Tensor, shift: float) -> Tensor:
        return c @ slopes + shift + torch.randn(len(c), 1, generator=generator)

    alone, adapted = ConditionalMoments(1, 6, 1), ConditionalMoments(1, 6, 1)
    adapted.fit(before, values(before, 0.0))
    new = values(few, 2.0)
    alone.fit(few, new)
    adapted.adapt(few, new)
    truth = before @ slopes + 2.0
    missed = [float((m.terms(before) @ m.mean - truth).square().mean().sqrt()) for m in (alone, adapted)]
    assert missed[1] < 0.75 * missed[0]


def test_quantiles_are_averaged_with_those_there_are() -> None:
    values = torch.randn(300, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    table = MonotoneMap(1, 161, 4.0, even="y", beyond=None)
    before = table.x[0, 0, 0].clone()
    table.fit_normal(2.0 * values + 1.0, 0, worth=100.0)
    expected = 0.75 * smooth_quantiles(2.0 * values + 1.0, 161, 4.0).float() + 0.25 * before
    torch.testing.assert_close(table.x[0, 0, 0], expected)
