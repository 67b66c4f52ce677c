r"""Four numbers of an image, and the image changed so that it has others.

Of cells e_i at (x_i, y_i) from a shower of energy E, with the largest cell m:

1. the response :math:`\sum_i e_i / (f E)`, f the detector's sampling fraction,
2. the peak's share :math:`e_m / \sum_i e_i`,
3. the centre of gravity :math:`\sum_i x_i e_i / \sum_i e_i`, and the same in y, in cells' widths.

The way back scales the whole image, then peak and rest against each other, and tilts the rest: with rest energies
:math:`w_i` of unit sum, centre :math:`\bar x, \bar y` and second moments V,

.. math:: w_i \to w_i \, (1 + \alpha (x_i - \bar x) + \beta (y_i - \bar y)), \qquad
          (\alpha, \beta) = V^{-1} (\Delta x, \Delta y),

which keeps the sum and moves the centre by just :math:`(\Delta x, \Delta y)`. Empty cells stay empty. All four are met
exactly, except where a tilt would make cells negative: these are emptied, and the centre falls a little short.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector, ReadoutLayer

__all__ = ["ImageNumbers"]

_TINY = 1e-20
_EDGE = 0.01
"""Least part of an image that peak and rest each keep."""
_FLAT = 1e-6
"""Smallest determinant of V, over the product of its diagonal, of a rest that can be tilted."""


class ImageNumbers(nn.Module):
    """Response, peak share and centres of gravity, and back.

    Arguments:
        detector: A detector of images.

    Attributes:
        size: Numbers an image: 4.
    """

    size = 4
    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        layer = detector.layers[0]
        assert isinstance(layer, ReadoutLayer)
        self.sampling_fraction = detector.sampling_fraction
        centres = torch.as_tensor(detector.cell_centres, dtype=torch.float32)
        self.register_buffer("x", centres[:, 0] / layer.pitch_x, persistent=False)
        self.register_buffer("y", centres[:, 1] / layer.pitch_y, persistent=False)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the numbers (B, 4) of cells (B, n_cells) and incident energies (B,), MeV."""
        total = cells.sum(1)
        parts = cells / total.clamp_min(_TINY)[:, None]
        return torch.stack([total / self._expected(energy), parts.amax(1), parts @ self.x, parts @ self.y], 1)

    def change(self, cells: Tensor, energy: Tensor, numbers: Tensor) -> Tensor:
        """Return the cells (B, n_cells), MeV, changed so that they have these numbers (B, 4).

        An image without cells, or with one cell only, has no such freedom: its total alone changes.
        """
        peak = functional.one_hot(cells.argmax(1), cells.shape[1]).to(cells)
        rest = cells * (1.0 - peak)
        left = rest.sum(1)
        response, share, x, y = numbers.unbind(1)
        share = torch.where(left > 0, share.clamp(_EDGE, 1.0 - _EDGE), torch.ones_like(share))
        others = (1.0 - share).clamp_min(_EDGE)
        wanted = ((x - share * (peak @ self.x)) / others, (y - share * (peak @ self.y)) / others)
        rest = self._tilted(rest / left.clamp_min(_TINY)[:, None], *wanted)
        image = share[:, None] * peak + (1.0 - share)[:, None] * rest
        total = torch.where(cells.sum(1) > 0, response.clamp_min(0.0) * self._expected(energy), 0.0)
        return image * total[:, None]

    def _expected(self, energy: Tensor) -> Tensor:
        """Return the visible energy (B,) that a calorimeter without fluctuations has, MeV."""
        return energy * self.sampling_fraction

    def _tilted(self, rest: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return energies (B, n_cells) of unit sum with their centres moved to x and y (B,)."""
        middle_x, middle_y = rest @ self.x, rest @ self.y
        far_x, far_y = self.x - middle_x[:, None], self.y - middle_y[:, None]
        xx, xy, yy = ((rest * a * b).sum(1) for a, b in ((far_x, far_x), (far_x, far_y), (far_y, far_y)))
        determinant = xx * yy - xy.square()
        flat = determinant <= _FLAT * xx * yy
        inverse = torch.where(
            flat, torch.zeros_like(xx), 1.0 / torch.where(flat, torch.ones_like(xx), determinant)
        )
        along, across = x - middle_x, y - middle_y
        alpha = (yy * along - xy * across) * inverse
        beta = (xx * across - xy * along) * inverse
        tilted = rest * (1.0 + alpha[:, None] * far_x + beta[:, None] * far_y).clamp_min(0.0)
        return tilted / tilted.sum(1, keepdim=True).clamp_min(_TINY)
