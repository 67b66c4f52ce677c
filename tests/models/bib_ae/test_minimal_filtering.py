"""Convolutions along the layers by minimal filtering, against the direct ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from caloforge.models.bib_ae.minimal_filtering import (
    MinimalFilter,
    filter_matrices,
    padded_layers,
    scratch_size,
)


def _padded(cells: Tensor) -> Tensor:
    """Return cells (channels, X, Y, L) as a padded grid (P, X, Y, channels)."""
    grid = cells.permute(3, 1, 2, 0)
    padded = grid.new_zeros(padded_layers(len(grid)), *grid.shape[1:])
    padded[1 : len(grid) + 1] = grid
    return padded


def _filter(convolution: nn.Conv3d, shape: tuple[int, int, int], fill: float = 0.0) -> MinimalFilter:
    images, products = (
        torch.full((scratch_size(shape, n),), fill).to(convolution.weight)
        for n in (convolution.in_channels, convolution.out_channels)
    )
    result = torch.zeros(padded_layers(shape[2]), *shape[:2], convolution.out_channels).to(images)
    return MinimalFilter(convolution, shape, images, products, result)


def test_eight_products_make_six_outputs_of_three_weights() -> None:
    rng = np.random.default_rng(0)
    outputs, weights, inputs = filter_matrices()
    d, g = rng.normal(size=8), rng.normal(size=3)
    found = outputs @ ((weights @ g) * (inputs @ d))
    np.testing.assert_allclose(found, np.correlate(d, g), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 4, 30), (3, 7, 13), (6, 3, 1)])
@torch.no_grad()
def test_the_result_is_the_convolution(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(5, 3, 3, padding=1).double()
    fast = _filter(convolution, shape, fill=float("nan"))
    for _ in range(2):  # what a shower leaves in the memory does not matter for the next
        cells = torch.randn(5, *shape, dtype=torch.float64)
        found = fast(_padded(cells))
        torch.testing.assert_close(found, _padded(convolution(cells[None])[0]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_rounding_is_that_of_single_precision() -> None:
    torch.manual_seed(1)
    convolution, cells = nn.Conv3d(24, 16, 3, padding=1), torch.randn(24, 8, 8, 30)
    found = _filter(convolution, (8, 8, 30))(_padded(cells)).double()
    exact = _padded(convolution.double()(cells.double()[None])[0])
    assert float((found - exact).square().mean().sqrt()) < 2e-6 * float(exact.std())


@torch.no_grad()
def test_two_convolutions_share_memory() -> None:
    torch.manual_seed(2)
    shape, (first, second) = (6, 5, 9), (nn.Conv3d(4, 3, 3, padding=1).double() for _ in range(2))
    second = nn.Conv3d(3, 3, 3, padding=1).double()
    images, products = (torch.zeros(scratch_size(shape, n), dtype=torch.float64) for n in (4, 3))
    size = padded_layers(9), *shape[:2], 3
    between = torch.zeros(size, dtype=torch.float64)
    last = images[: between.numel()].view(size)
    one, other = (
        MinimalFilter(layer, shape, images, products, result)
        for layer, result in ((first, between), (second, last))
    )
    cells = torch.randn(4, *shape, dtype=torch.float64)
    found = other(one(_padded(cells)))
    expected = _padded(second(first(cells[None]))[0])
    torch.testing.assert_close(found[1:10], expected[1:10])
