"""The largest values of each row, without sorting the rest.

A layer has hundreds of cells of which a shower fills a few tens. Those that matter, all above a border and at least a number of
the largest, are brought together in as few columns as the fullest row needs, so that all that follows works on these alone.
On a CPU the values above the border are found first, and only rows with fewer of them than needed are searched whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NOTHING", "largest"]

NOTHING = -1e4
"""Value of a column without a cell."""
_DENSE = 3
"""Rows are searched whole when more than one of this many values matters."""


def largest(values: Tensor, needed: Tensor, border: float) -> tuple[Tensor, Tensor]:
    """Return values (B, L, K), falling in each row, and their places (B, L, K) in the row.

    In each row they are all values above the border, and at least the ``needed`` largest; further columns may hold
    others, or ``NOTHING`` at the place W.

    Arguments:
        values: (B, L, W), all above ``NOTHING`` or equal to it.
        needed: Values needed in each row (B, L), at most W.
        border: The border.
    """
    rows = values.flatten(0, 1)
    above = rows > border
    counts = above.sum(1, dtype=torch.int32)
    most = torch.maximum(counts, needed.flatten().int())
    size = max(1, int(most.max())) if most.numel() else 1
    if values.device.type != "cpu" or _DENSE * size > rows.shape[1]:
        found, places = rows.topk(size, 1)
    else:
        found, places = _gathered(rows, above, counts, needed.flatten(), size)
    shape = (*values.shape[:2], size)
    return found.view(shape), places.view(shape)


def _gathered(
    rows: Tensor, above: Tensor, counts: Tensor, needed: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return the sorted values (R, size) that are above the border, or among the largest of a short row, and their places.

    Arguments:
        rows: (R, W).
        above: Where values are above the border (R, W); changed.
        counts: How many are in each row (R,); changed.
        needed: How many are needed (R,).
        size: The most of both in any row.
    """
    short = torch.nonzero(counts < needed)[:, 0]
    if len(short):
        best = rows[short].topk(size, 1).indices
        above[short] = torch.zeros_like(above[short]).scatter_(1, best, True)
        counts[short] = size
    width = rows.shape[1]
    flat = torch.nonzero(above.flatten())[:, 0]
    row = flat.div(width, rounding_mode="floor")
    slot = torch.arange(len(flat)) - (counts.cumsum(0) - counts).index_select(0, row) + row * size
    found = rows.new_full((len(rows) * size,), NOTHING)
    places = torch.full((len(rows) * size,), width)
    found[slot] = rows.flatten().index_select(0, flat)
    places[slot] = flat - row * width
    found, order = found.view(-1, size).sort(1, descending=True)
    return found, places.view(-1, size).gather(1, order)
