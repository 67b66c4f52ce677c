r"""Each cell's part of an image beside the peak given the mean and width that it has in the training images.

With :math:`w_i = e_i / \sum_j e_j` over all cells but the largest, which keeps its energy, and mean m and standard
deviation s of w_i in generated and in training images at that incident energy,

.. math:: w_i \to \max\left(0, \; m^{true}_i + \frac{s^{true}_i}{s^{made}_i} (w_i - m^{made}_i)\right)

where :math:`w_i > 0`, and scaled to unit sum again. Two numbers a cell, straight lines: the shape of a cell's distribution
stays the model's, and the image's sum and peak are untouched.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.layers.energy_scale import EnergyScale

__all__ = ["CellWidths"]

_TINY = 1e-20
_LEAST = 1e-6
"""Smallest width of a part."""
_MOST = 4.0
"""Largest change of a width."""


class CellWidths(nn.Module):
    """Straight lines for the cells of images; before the fit they leave images as they are.

    Arguments:
        n_cells: Cells of an image.
    """

    def __init__(self, n_cells: int) -> None:
        super().__init__()
        self.made, self.truth = EnergyScale(n_cells, floor=_LEAST), EnergyScale(n_cells, floor=_LEAST)

    @torch.no_grad()
    def fit(self, true: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> None:
        """Set means and widths.

        Arguments:
            true: Cells (N, n_cells) and incident energies (N,) of training images, MeV.
            made: The same of generated ones (M, ...), at the same energies.
        """
        for scale, (cells, energy) in ((self.truth, true), (self.made, made)):
            scale.fit(_parts(cells)[0], energy)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return carried cells (B, n_cells), MeV, of generated ones at incident energies (B,)."""
        parts, total, peak = _parts(cells)
        (mean, width), (wanted, wide) = self.made(energy), self.truth(energy)
        line = wanted + (parts - mean) * (wide / width).clamp(1.0 / _MOST, _MOST)
        carried = torch.where(parts > 0, line.clamp_min(0.0), torch.zeros_like(parts))
        sums = carried.sum(1, keepdim=True)
        carried = torch.where(sums > 0, carried / sums.clamp_min(_TINY), parts)
        return carried * total[:, None] + cells * peak


def _parts(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts (B, n_cells), the sum (B,) of all cells but the largest, and where that one is."""
    peak = functional.one_hot(cells.argmax(1), cells.shape[1]).to(cells)
    rest = cells * (1.0 - peak)
    total = rest.sum(1)
    return rest / total.clamp_min(_TINY)[:, None], total, peak
