r"""Maximum mean discrepancy, and losses on the sorted cells of showers.

With the kernel :math:`k(x, y) = e^{-\alpha |x - y|^2}` and samples x and y of n,

.. math:: \mathrm{MMD}^2 = \frac{1}{n^2} \sum_{ij} \big( k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j) \big)

For the latents x and y are rows of numbers. For cells a shower's energies are sorted, the largest first, the first 1,000 of
them cut into windows of 150 that begin every 25, and in each window of each shower x and y are the 150 energies (MeV) of the generated
and of the true one. So alpha 40 and 4 look at differences of 0.16 and 0.5 MeV, the size of a MIP's energy. That
a window of one shower is one pair of samples is our reading.

References:
    A. Gretton et al., A kernel two-sample test, J. Mach. Learn. Res. 13 (2012) 723.
    E. Buhmann et al., arXiv:2005.05334, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mmd", "sorted_cells", "window_mmd"]

FIRST = 1000
WINDOW = 150
STRIDE = 25


def mmd(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return MMD^2 (...,) of samples x and y (..., n, d)."""
    return _kernel(x, x, alpha) + _kernel(y, y, alpha) - 2.0 * _kernel(x, y, alpha)


def _kernel(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Return the mean of the kernel over all pairs (...,)."""
    square = (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]) - 2.0 * x @ y.mT
    return torch.exp(-alpha * square.clamp_min(0.0)).mean((-2, -1))


def sorted_cells(cells: Tensor, first: int = FIRST) -> Tensor:
    """Return the largest cells (B, first) of showers (B, n_cells), in falling order; fewer on small grids."""
    return torch.topk(cells, min(first, cells.shape[1]), dim=1).values


def window_mmd(
    made: Tensor, true: Tensor, alpha: float, window: int = WINDOW, stride: int = STRIDE
) -> Tensor:
    """Return the mean over showers and windows of MMD^2 between sorted cells.

    Arguments:
        made: (B, n) sorted energies, MeV.
        true: (B, n) sorted energies, MeV.
        alpha: Of the kernel, 1/MeV^2.
        window: Energies of a window; all of them when there are fewer.
        stride: Energies between two windows.
    """
    window = min(window, made.shape[1])
    x, y = made.unfold(1, window, stride), true.unfold(1, window, stride)  # (B, windows, window)

    def pairs(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-alpha * (a[..., :, None] - b[..., None, :]).square()).mean((-2, -1))

    return (pairs(x, x) + pairs(y, y) - 2.0 * pairs(x, y)).mean()
