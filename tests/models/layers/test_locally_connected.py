from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from caloforge.models.image_gan.networks import LocallyConnected2d


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (2, 1, 0), (5, 2, 2)])
def test_it_is_a_sum_over_each_position_s_own_patch(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d((7, 6), 3, 4, kernel, stride, padding)
    x = torch.randn(2, 3, 7, 6)
    out = layer(x)
    padded = functional.pad(x, (padding,) * 4)
    height, width = layer.out_size
    assert out.shape == (2, 4, height, width)
    for b in range(2):
        for i in range(height):
            for j in range(width):
                patch = padded[b, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                for o in range(4):
                    weight = layer.weight[i * width + j, o].view(3, kernel, kernel)
                    slow = (weight * patch).sum() + layer.bias[i * width + j, o]
                    assert out[b, o, i, j].item() == pytest.approx(slow.item(), abs=1e-5)


def test_with_one_weight_everywhere_it_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d((10, 10), 2, 3, 5, padding=2, bias=False)
    convolution = torch.nn.Conv2d(2, 3, 5, padding=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(convolution.weight.flatten(1).expand(100, -1, -1))
    x = torch.randn(4, 2, 10, 10)
    torch.testing.assert_close(layer(x), convolution(x))


def test_it_counts_one_kernel_a_position() -> None:
    layer = LocallyConnected2d((12, 12), 6, 6, 2)
    assert sum(p.numel() for p in layer.parameters()) == 11 * 11 * 6 * (6 * 4 + 1)
