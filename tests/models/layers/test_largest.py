"""The largest values of each row, against a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.cells import NOTHING, largest

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
    for likely in (BORDER, -20.0, 20.0):
        found, places = largest(values, needed, likely)
        assert found.shape == places.shape == (6, 5, max(1, int(needed.max())))
        for shower in range(6):
            for layer in range(5):
                row, wanted = values[shower, layer], int(needed[shower, layer])
                best = row.sort(descending=True).values[:wanted]
                assert torch.equal(found[shower, layer, :wanted], best)
                own = places[shower, layer]
                real = own < width
                assert torch.equal(found[shower, layer][real], row[own[real]])
                assert len(set(own[real].tolist())) == int(real.sum())
                assert (found[shower, layer][~real] == NOTHING).all()
                assert (found[shower, layer].diff() <= 0).all()


def test_no_rows_have_one_column() -> None:
    assert largest(_values(400)[:0], torch.zeros(0, 5), BORDER)[0].shape == (0, 5, 1)
