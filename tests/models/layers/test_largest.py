"""The largest values of each row, against a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.layers.largest import NOTHING, largest

BORDER = 1.5


def _values(width: int) -> Tensor:
    values = torch.randn(6, 5, width, generator=torch.Generator().manual_seed(0))
    values[:, 2, width // 2 :] = NOTHING
    values[:, 3] = values[:, 3] - 10.0
    return values


@pytest.mark.parametrize("width", [3, 12, 100, 400])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 1.0])
def test_they_are_those_of_a_loop(width: int, share: float) -> None:
    values = _values(width)
    uniform = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    needed = (share * width * uniform).ceil()
    found, places = largest(values, needed, BORDER)
    assert found.shape == places.shape
    for shower in range(6):
        for layer in range(5):
            row, wanted = values[shower, layer], int(needed[shower, layer])
            count = max(wanted, int((row > BORDER).sum()))
            best = row.sort(descending=True).values[:count]
            assert torch.equal(found[shower, layer, :count], best)
            own = places[shower, layer]
            real = own < width
            assert torch.equal(found[shower, layer][real], row[own[real]])
            assert len(set(own[real].tolist())) == int(real.sum())
            assert (found[shower, layer][~real] == NOTHING).all()
            assert (found[shower, layer].diff() <= 0).all()


def test_there_are_only_as_many_columns_as_the_fullest_row_needs() -> None:
    values = _values(400)
    most = int((values > BORDER).sum(2).max())
    assert largest(values, torch.zeros(6, 5), BORDER)[0].shape[2] == most
    assert largest(values, torch.full((6, 5), 90.0), BORDER)[0].shape[2] == 90
    assert largest(values[:0], torch.zeros(0, 5), BORDER)[0].shape == (0, 5, 1)
