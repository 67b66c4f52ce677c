"""Networks of the VAE-GAN: locally connected layers, spectral norm, minibatch discrimination, and the three networks."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from caloforge.models.image_gan.networks import (
    ImageDiscriminator,
    ImageEncoder,
    ImageGenerator,
    LocallyConnected2d,
    MinibatchDiscrimination,
    spectral_norm,
)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (2, 1, 0), (5, 2, 2)])
def test_locally_connected_is_a_sum_over_each_position_s_own_patch(
    kernel: int, stride: int, padding: int
) -> None:
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


def test_locally_connected_with_one_weight_everywhere_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer = LocallyConnected2d((10, 10), 2, 3, 5, padding=2, bias=False)
    convolution = torch.nn.Conv2d(2, 3, 5, padding=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(convolution.weight.flatten(1).expand(100, -1, -1))
    x = torch.randn(4, 2, 10, 10)
    torch.testing.assert_close(layer(x), convolution(x))


def test_locally_connected_counts_one_kernel_a_position() -> None:
    layer = LocallyConnected2d((12, 12), 6, 6, 2)
    assert sum(p.numel() for p in layer.parameters()) == 11 * 11 * 6 * (6 * 4 + 1)


def _largest(module: nn.Module) -> torch.Tensor:
    weight = module.weight.detach()
    matrices = weight if isinstance(module, LocallyConnected2d) else weight.flatten(1)[None]
    return torch.linalg.matrix_norm(matrices, 2)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Linear(30, 20),
        lambda: nn.Linear(30, 1),
        lambda: nn.Conv2d(2, 8, 3),
        lambda: LocallyConnected2d((5, 5), 4, 6, 3),
        lambda: LocallyConnected2d((3, 3), 4, 6, 3),
    ],
)
def test_every_spectrally_normalised_matrix_has_norm_one(build: object) -> None:
    torch.manual_seed(0)
    module = spectral_norm(build())  # type: ignore[operator]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(7.0)
    module.train()
    for _ in range(100):
        _ = module.weight
    module.eval()
    torch.testing.assert_close(_largest(module), torch.ones_like(_largest(module)), atol=2e-2, rtol=0)
    assert (_largest(module) <= 1.0 + 2e-2).all()


def test_from_the_start_the_norm_is_near_one_and_evaluation_changes_nothing() -> None:
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(40, 40)).eval()
    assert _largest(module).item() == pytest.approx(1.0, abs=0.1)
    before = copy.deepcopy(module.state_dict())
    _ = module(torch.randn(3, 40))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_two_normalised_passes_can_be_followed_by_one_backward() -> None:
    module = spectral_norm(LocallyConnected2d((4, 4), 1, 2, 3)).train()
    loss = module(torch.randn(2, 1, 4, 4)).sum() + module(torch.randn(2, 1, 4, 4)).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_the_normalised_gradient_is_that_of_the_quotient() -> None:
    """In evaluation u and v are constants: d/dW of W / (u W v) by finite differences."""
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(4, 3, bias=False)).double().eval()
    original = module.parametrizations.weight.original
    x, c = torch.randn(2, 4, dtype=torch.double), torch.randn(2, 3, dtype=torch.double)
    (module(x) * c).sum().backward()
    step = 1e-6
    for i in range(3):
        for j in range(4):
            with torch.no_grad():
                original[i, j] += step
                up = (module(x) * c).sum()
                original[i, j] -= 2 * step
                down = (module(x) * c).sum()
                original[i, j] += step
            assert original.grad[i, j].item() == pytest.approx(((up - down) / (2 * step)).item(), abs=1e-6)


def test_minibatch_discrimination_is_the_slow_loop() -> None:
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


def test_the_generator_has_lagan_s_layers_scaled() -> None:
    generator = ImageGenerator((10, 10), 200, (128, 64, 6, 6), 0)
    dense = 201 * 3 * 3 * 128
    convolution = (128 * 25 + 1) * 64 + 2 * 64
    first = 6 * 6 * 6 * (64 * 25 + 1) + 2 * 6
    second = 11 * 11 * 6 * (6 * 4 + 1)
    last = 10 * 10 * 6 * 4
    assert sum(p.numel() for p in generator.parameters()) == dense + convolution + first + second + last
    assert generator(torch.randn(3, 200)).shape == (3, 100)


def test_the_discriminator_is_normalised_everywhere_but_in_minibatch_discrimination() -> None:
    discriminator = ImageDiscriminator((10, 10), 1, 0, (32, 8), 0.2)
    named = dict(discriminator.named_parameters())
    plain = [name for name in named if name.endswith("weight") and "parametrizations" not in name]
    assert plain == []
    assert not any(isinstance(part, nn.BatchNorm2d) for part in discriminator.modules())
    assert discriminator.last.weight.shape == (1, 2 * 2 * 8 + 20 + 100)


def test_the_difference_goes_to_the_last_layer_alone() -> None:
    torch.manual_seed(0)
    discriminator = ImageDiscriminator((10, 10), 1, 0, (8, 4), 0.0).eval()
    view, difference = torch.randn(5, 100), torch.randn(5, 100)
    with_it, without = discriminator(view, difference), discriminator(view, torch.zeros_like(difference))
    weight = discriminator.last.weight[:, -100:]
    torch.testing.assert_close(with_it - without, difference @ weight.T, rtol=1e-4, atol=1e-5)


def test_the_encoder_has_three_convolutions_and_two_heads() -> None:
    encoder = ImageEncoder((10, 10), 2, 1, 24)
    kinds = [type(part) for part in encoder.body]
    assert kinds == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.ReLU, nn.Flatten]
    mean, log_variance = encoder(torch.randn(4, 201))
    assert mean.shape == log_variance.shape == (4, 24)
