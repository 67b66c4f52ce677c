"""Convolutions by Fourier transforms, against the direct ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.grid_gan import spectral_conv
from caloforge.models.grid_gan.conv2d import BranchedGenerator
from caloforge.models.grid_gan.spectral_conv import SpectralConv, evaluate, is_faster

CASES = [
    # cells, kernel, zeros before and behind
    (9, 4, 1, 2),
    (12, 8, 3, 4),
    (11, 5, 0, 0),
    (7, 3, 1, 1),
    (6, 1, 0, 0),
    (5, 5, 4, 4),
]


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_result_is_the_convolution(case: tuple[int, int, int, int]) -> None:
    cells, kernel, before, behind = case
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 2, kernel, kernel, generator=generator, dtype=torch.float64)
    images = torch.randn(4, 2, cells, cells, generator=generator, dtype=torch.float64)
    expected = functional.conv2d(functional.pad(images, (before, behind, before, behind)), weight)
    found = SpectralConv(weight, cells, before, behind)(images.permute(3, 2, 0, 1).contiguous())
    torch.testing.assert_close(found.permute(2, 3, 1, 0), expected)


@torch.no_grad()
def test_rounding_is_that_of_single_precision() -> None:
    torch.manual_seed(2)
    weight, images = torch.randn(16, 64, 8, 8), torch.randn(4, 64, 30, 30)
    exact = functional.conv2d(functional.pad(images.double(), (3, 4, 3, 4)), weight.double())
    found = SpectralConv(weight, 30, 3, 4)(images.permute(3, 2, 0, 1).contiguous()).permute(2, 3, 1, 0)
    assert float((found - exact).square().mean().sqrt()) < 2e-6 * float(exact.std())


def _generator() -> BranchedGenerator:
    """Untrained, with batch norms that change something."""
    torch.manual_seed(3)
    generator = BranchedGenerator(dropout=0.2).eval()
    for part in generator.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            part.running_mean = 0.1 * torch.randn(part.num_features)
            part.running_var = 0.5 + torch.rand(part.num_features)
    return generator


def _plain(generator: BranchedGenerator, latent: Tensor) -> Tensor:
    with torch.enable_grad():
        made: Tensor = generator(latent)
    return made.detach()


@pytest.mark.parametrize("n", [3, 40, 70])
def test_the_generator_makes_the_same_with_and_without(n: int) -> None:
    """Few images are convolved directly, and more than a pass takes are divided."""
    generator, latent = _generator(), torch.randn(n, 200)
    expected = _plain(generator, latent)
    with torch.no_grad():
        found = generator(latent)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_wide_convolutions_are_transformed_and_no_others() -> None:
    wide = nn.Conv2d(64, 64, 8, bias=False)
    assert is_faster(wide, 30, 3, 4)
    assert is_faster(nn.Conv2d(64, 64, 5, bias=False), 30, 0, 0)
    assert not is_faster(nn.Conv2d(32, 25, 2, bias=False), 26, 0, 0)
    assert not is_faster(nn.Conv2d(32, 32, 3, bias=False), 26, 1, 1)


def test_training_and_few_images_take_the_layers_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Conv2d(64, 64, 8, bias=False), nn.BatchNorm2d(64)).eval()
    used: list[int] = []
    made = spectral_conv._evaluated
    monkeypatch.setattr(
        spectral_conv, "_evaluated", lambda *given: used.append(len(given[1])) or made(*given)
    )
    images = torch.randn(33, 64, 12, 12)
    evaluate(layers, images)
    with torch.no_grad():
        evaluate(copy.deepcopy(layers).train(), images)
        evaluate(layers, images[:5])
        with torch.autocast("cpu", torch.bfloat16):
            evaluate(layers, images)
        assert used == []
        kept = images.clone()
        evaluate(layers, images)
    assert used == [33]
    assert torch.equal(images, kept)
