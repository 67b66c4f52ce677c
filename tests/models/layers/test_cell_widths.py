"""Cells of images with wrong means and widths are repaired; sums and peaks are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.models.calibration.images import CellWidths


def _images(n: int, seed: int, slope: float, width: float) -> tuple[Tensor, Tensor]:
    """Nine cells, the middle one the peak; parts fall outwards by ``slope`` and fluctuate by ``width``."""
    rng = torch.Generator().manual_seed(seed)
    energy = torch.tensor([10e3, 50e3])[torch.arange(n) % 2]
    means = torch.exp(-slope * (torch.arange(9) - 4.0).abs())
    cells = means * (1.0 + width * torch.randn(n, 9, generator=rng).clamp(-3, 3))
    cells[:, 0] = torch.where(torch.rand(n, generator=rng) < 0.3, 0.0, cells[:, 0])
    cells[:, 4] = 5.0 + 0.5 * torch.rand(n, generator=rng)
    return cells.clamp_min(0.0) * energy[:, None] / 500.0, energy


def _parts(images: tuple[Tensor, Tensor], energy: float) -> Tensor:
    rest = images[0][images[1] == energy].clone()
    rest[:, 4] = 0.0
    return rest / rest.sum(1, keepdim=True)


def _fitted() -> CellWidths:
    module = CellWidths(9)
    module.fit(_images(4000, 0, 0.5, 0.3), _images(8000, 1, 0.6, 0.2))
    return module


def test_means_and_widths_of_cells_are_repaired() -> None:
    made, energies = _images(8000, 2, 0.6, 0.2)
    carried = _fitted()(made, energies), energies
    for energy in (10e3, 50e3):
        truth, before, after = (
            _parts(x, energy)[:, [1, 2, 3, 5, 6, 7, 8]]
            for x in (_images(8000, 3, 0.5, 0.3), (made, energies), carried)
        )
        assert (before.std(0) / truth.std(0) - 1).abs().max() > 0.2
        assert (after.std(0) / truth.std(0) - 1).abs().max() < 0.08
        assert ((after.mean(0) - truth.mean(0)).abs() / truth.std(0)).max() < 0.08


def test_sums_peaks_and_empty_cells_are_kept() -> None:
    made, energies = _images(500, 2, 0.6, 0.2)
    carried = _fitted()(made, energies)
    torch.testing.assert_close(carried.sum(1), made.sum(1))
    torch.testing.assert_close(carried[:, 4], made[:, 4])
    assert (carried >= 0).all()
    assert (carried[made == 0] == 0).all()


def test_before_the_fit_images_are_left_alone() -> None:
    made, energies = _images(100, 2, 0.6, 0.2)
    torch.testing.assert_close(CellWidths(9)(made, energies), made)


def test_images_of_one_cell_or_none_are_left_alone() -> None:
    cells = torch.zeros(2, 9)
    cells[1, 4] = 3.0
    torch.testing.assert_close(_fitted()(cells, torch.full((2,), 10e3)), cells)
