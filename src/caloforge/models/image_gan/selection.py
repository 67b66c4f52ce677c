r"""Epoch selection of the VAE-GAN: separation power of images in five histograms of 100 bins.

The observables of an image with cells e_i > 0.1 MeV at (x_i, y_i): visible energy E_vis = sum e_i, peak energy
E_peak = max e_i, energies of single pixels E_pixel above 5 MeV, and the centres of gravity
CG_x = sum x_i e_i / sum e_i and CG_y. Each histogram spans the range of the training showers, with underflow and
overflow in its first and last bin; pixel energies are binned in their logarithm. The figure is the sum of the five separation
powers (:func:`~caloforge.statistics.distances.separation_power`), each from 0 to 1.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352, section 4:
    the five histograms and their 100 bins. The distance and the ranges are ours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.statistics.distances import separation_power

__all__ = ["OBSERVABLES", "ImageHistograms"]

OBSERVABLES = ("E_vis", "E_peak", "E_pixel", "CG_x", "CG_y")
"""The five, in the order of the histograms."""
_BINS = 100
_THRESHOLD = 0.1  # MeV
_PIXEL_THRESHOLD = 5.0  # MeV
_TINY = 1e-12


class ImageHistograms(nn.Module):
    """Histograms of the training images, as constants, and the distance of others to them."""

    edges: Tensor
    reference: Tensor
    x: Tensor
    y: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        for axis, name in enumerate("xy"):
            centres = torch.tensor(detector.cell_centres[:, axis], dtype=torch.float32)
            self.register_buffer(name, centres, persistent=False)
        self.register_buffer("edges", torch.zeros(len(OBSERVABLES), _BINS + 1))
        self.register_buffer("reference", torch.zeros(len(OBSERVABLES), _BINS))

    def values(self, cells: Tensor) -> tuple[Tensor, ...]:
        """Return the five observables of cells (N, n_cells): each (N,), log pixel energies (n_pixels,).

        Energies are MeV, positions mm; empty images have their centre at 0.
        """
        cells = torch.where(cells > _THRESHOLD, cells, 0.0)
        visible = cells.sum(1)
        total = visible.clamp_min(_TINY)
        pixels = torch.log(cells[cells > _PIXEL_THRESHOLD])
        return visible, cells.amax(1), pixels, cells @ self.x / total, cells @ self.y / total

    def histograms(self, cells: Tensor) -> Tensor:
        """Return the numbers of entries (5, 100) of cells (N, n_cells)."""
        rows = []
        for value, edges in zip(self.values(cells), self.edges, strict=True):
            bins = torch.bucketize(value.contiguous(), edges[1:-1].contiguous(), right=True)
            rows.append(torch.bincount(bins, minlength=_BINS))
        return torch.stack(rows)

    @torch.no_grad()
    def fit(self, cells: Tensor) -> None:
        """Set ranges and histograms from the training images (N, n_cells), MeV."""
        parts = torch.linspace(0.0, 1.0, _BINS + 1)
        rows = []
        for value in self.values(cells):
            low, high = (value.amin(), value.amax()) if len(value) else (torch.zeros(()), torch.ones(()))
            rows.append(torch.lerp(low, torch.maximum(high, low + 1e-6 * low.abs() + 1e-6), parts))
        self.edges.copy_(torch.stack(rows))
        counts = self.histograms(cells)
        self.reference.copy_(counts / counts.sum(1, keepdim=True).clamp_min(1))

    @torch.no_grad()
    def distance(self, cells: Tensor) -> dict[str, float]:
        """Return the distance of images (N, n_cells) to the training images: of each, and ``histograms``, the sum.

        A histogram without entries is at distance 1.
        """
        pairs = zip(self.reference.cpu().numpy(), self.histograms(cells).cpu().numpy(), strict=True)
        each = [float(np.nan_to_num(separation_power(p, q), nan=1.0)) for p, q in pairs]
        return {
            "histograms": sum(each),
            **{f"histogram_{name}": d for name, d in zip(OBSERVABLES, each, strict=True)},
        }
