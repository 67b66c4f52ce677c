r"""Agreement of images in five histograms of 100 bins, by which an epoch of the VAE-GAN is picked.

The observables of an image with cells e_i > 0.1 MeV at (x_i, y_i): visible energy E_vis = sum e_i, peak energy
E_peak = max e_i, energies of single pixels E_pixel above 5 MeV, and the centres of gravity
CG_x = sum x_i e_i / sum e_i and CG_y. Each histogram spans the range of the training showers, with underflow and
overflow in its first and last bin; pixel energies are binned in their logarithm. With unit-sum histograms p and q,

.. math:: d = \frac{1}{2} \sum_b \frac{(p_b - q_b)^2}{p_b + q_b}

which is 0 for equal and 1 for disjoint histograms; the figure is the sum over the five.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352, section 4:
    the five histograms and their 100 bins. The distance and the ranges are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

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
        """Return the unit-sum histograms (5, 100) of cells (N, n_cells)."""
        rows = []
        for value, edges in zip(self.values(cells), self.edges, strict=True):
            bins = torch.bucketize(value.contiguous(), edges[1:-1].contiguous(), right=True)
            counts = torch.bincount(bins, minlength=_BINS).to(cells.dtype)
            rows.append(counts / counts.sum().clamp_min(1.0))
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
        self.reference.copy_(self.histograms(cells))

    @torch.no_grad()
    def distance(self, cells: Tensor) -> dict[str, float]:
        """Return the distance of images (N, n_cells) to the training images: of each, and ``histograms``, the sum."""
        p, q = self.reference, self.histograms(cells)
        each = 0.5 * ((p - q).square() / (p + q).clamp_min(_TINY)).sum(1)
        result = {f"histogram_{name}": float(d) for name, d in zip(OBSERVABLES, each, strict=True)}
        return {"histograms": float(each.sum()), **result}
