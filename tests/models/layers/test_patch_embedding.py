"""Patches of cells to tokens: one matrix, or one a patch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.networks import PatchLinear


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("patches", [7, 2000])
def test_patches_have_a_matrix_each_when_there_are_few(patches: int) -> None:
    torch.manual_seed(0)
    layer = PatchLinear(patches, 25, 8)
    assert layer.own == (patches == 7)
    x = _normal(2, patches, 25)
    torch.nn.init.normal_(layer.bias)
    found = layer(x)
    assert found.shape == (2, patches, 8)
    for patch in (0, 3, patches - 1):
        weight = layer.weight[patch] if layer.own else layer.weight
        bias = layer.bias[patch] if layer.own else layer.bias[0]
        torch.testing.assert_close(found[:, patch], x[:, patch] @ weight + bias, rtol=1e-4, atol=1e-5)


def test_tokens_of_normal_numbers_are_of_order_1_or_0() -> None:
    torch.manual_seed(0)
    x = _normal(400, 6, 30)
    assert float(PatchLinear(6, 30, 10)(x).detach().std()) == pytest.approx(1.0, rel=0.1)
    assert (PatchLinear(6, 30, 10, zero=True)(x) == 0).all()
