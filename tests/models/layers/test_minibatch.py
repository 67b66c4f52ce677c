from __future__ import annotations

import math

import pytest
import torch

from caloforge.models.image_gan.networks import MinibatchDiscrimination


def test_it_is_the_slow_loop() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(6, features=4, dims=3)
    x = torch.randn(5, 6)
    out = layer(x)
    kernel = layer.kernel.detach().view(6, 4, 3)
    for b in range(5):
        for f in range(4):
            total = 0.0
            for other in range(5):
                distance = 0.0
                for d in range(3):
                    difference = sum((x[b, a] - x[other, a]) * kernel[a, f, d] for a in range(6))
                    distance += abs(float(difference))
                total += math.exp(-distance)
            assert out[b, f].item() == pytest.approx(total, abs=1e-5)


def test_equal_showers_are_as_close_as_can_be_and_far_ones_see_themselves() -> None:
    layer = MinibatchDiscrimination(6)
    torch.testing.assert_close(layer(torch.ones(7, 6)), torch.full((7, 20), 7.0))
    far = layer(1e4 * torch.randn(7, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(far, torch.ones(7, 20))
