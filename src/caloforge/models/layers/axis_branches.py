"""Branches of 2-D layers that read a 3-D grid along each of its axes.

A branch sees a grid (B, X, Y, L) as images whose channels are one axis:

====== ================ ===================
branch images           permutation
====== ================ ===================
0      (B, L, X, Y)     (0, 3, 1, 2)
1      (B, X, Y, L)     (0, 1, 2, 3)
2      (B, Y, X, L)     (0, 2, 1, 3)
====== ================ ===================

References:
    F. Rehm et al., arXiv:2103.13698.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["N_BRANCHES", "from_images", "to_images"]

_FORWARD = ((0, 3, 1, 2), (0, 1, 2, 3), (0, 2, 1, 3))
_BACK = ((0, 2, 3, 1), (0, 1, 2, 3), (0, 2, 1, 3))
N_BRANCHES = len(_FORWARD)
"""Number of branches: one for each choice of the axis that plays the channels."""


def to_images(grid: Tensor, branch: int) -> Tensor:
    """Return the images (B, channels, height, width) that a branch reads of a grid (B, X, Y, L)."""
    return grid.permute(_FORWARD[branch])


def from_images(images: Tensor, branch: int) -> Tensor:
    """Return the grid (B, X, Y, L) of a branch's images."""
    return images.permute(_BACK[branch])
