"""The largest values of each row, without sorting the rest.

A layer has hundreds of cells of which a shower fills a few tens. Those are brought together in as few columns as the fullest
row needs, so that all that follows works on these alone. On a CPU the values above a border are found first, which are nearly
always enough; only rows that need more are searched whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NOTHING", "largest"]

NOTHING = -1e4
"""Value of a column without a cell."""
_DENSE = 3
"""Rows are searched whole when more than one of this many values is needed."""


def largest(values: Tensor, needed: Tensor, likely: float) -> tuple[Tensor, Tensor]:
    """Return values (B, L, K), falling in each row, and their places (B, L, K) in the row, K the most needed in any.

    In each row the first are the ``needed`` largest; further columns hold the next ones, or ``NOTHING`` at the place W.

    Arguments:
        values: (B, L, W), all above ``NOTHING`` or equal to it.
        needed: Values needed in each row (B, L), at most W.
        likely: A value that about as many exceed as are needed; decides nothing but the time.
    """
    rows = values.flatten(0, 1)
    size = max(1, int(needed.max())) if needed.numel() else 1
    if values.device.type != "cpu" or not len(rows) or _DENSE * size > rows.shape[1]:
        found, places = rows.topk(size, 1)
    else:
        found, places = _gathered(rows, needed.flatten(), likely, size)
    shape = (*values.shape[:2], size)
    return found.view(shape), places.view(shape)


def _gathered(rows: Tensor, needed: Tensor, likely: float, size: int) -> tuple[Tensor, Tensor]:
    """Return the ``size`` largest values (R, size), or fewer where fewer are needed, and their places.

    Arguments:
        rows: (R, W).
        needed: How many are needed (R,).
        likely: See :func:`largest`.
        size: The most that are needed.
    """
    width = rows.shape[1]
    taken = rows > likely
    counts = taken.sum(1, dtype=torch.int32)
    short = torch.nonzero(counts < needed)[:, 0]
    if len(short):
        best = rows[short].topk(size, 1).indices
        taken[short] = torch.zeros_like(taken[short]).scatter_(1, best, True)
        counts[short] = size
    most = max(size, int(counts.max()))
    flat = torch.nonzero(taken.flatten())[:, 0]
    row = flat.div(width, rounding_mode="floor")
    slot = torch.arange(len(flat)) - (counts.cumsum(0) - counts).index_select(0, row) + row * most
    found = rows.new_full((len(rows) * most,), NOTHING)
    places = torch.full((len(rows) * most,), width)
    found[slot] = rows.flatten().index_select(0, flat)
    places[slot] = flat - row * width
    found, order = found.view(-1, most).topk(size, 1)
    return found, places.view(-1, most).gather(1, order)
