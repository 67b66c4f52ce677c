"""Quantiles of the tables."""

from __future__ import annotations

import numpy as np
import torch

from caloforge.models.calibration.quantile_maps import quantiles


def test_they_are_numpys() -> None:
    values = torch.randn(37, 3, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    expected = np.quantile(values.double().numpy(), levels.numpy(), axis=0)
    np.testing.assert_allclose(quantiles(values, levels).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(quantiles(values[:, 0], levels).numpy(), expected[:, 0], rtol=1e-12)


def test_one_value_is_every_quantile() -> None:
    levels = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert quantiles(torch.tensor([2.5]), levels).tolist() == [2.5, 2.5, 2.5]
