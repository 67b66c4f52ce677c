from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from caloforge.models.grid_gan.banded_conv import Axis, BandedConv3d, choose_block, convolve
from caloforge.models.grid_gan.conv3d import ARCHITECTURES, GridStack, SeededStack

CASES = [
    # inputs, outputs, kernel, size, up, pads
    (2, 3, (3, 2, 4), (5, 6, 9), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    (2, 3, (3, 4, 5), (5, 6, 21), (1, 1, 1), ((1, 1), (1, 2), (2, 2))),
    (1, 8, (1, 1, 1), (3, 3, 7), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    (3, 2, (6, 5, 8), (4, 3, 5), (2, 2, 2), ((2, 2), (2, 2), (0, 0))),
    (2, 2, (3, 3, 8), (4, 5, 6), (2, 2, 3), ((1, 1), (0, 0), (3, 3))),
    (2, 2, (2, 3, 4), (3, 3, 4), (3, 1, 6), ((2, 0), (1, 1), (1, 5))),
]


def _layer(case: tuple, block: int | None = None) -> BandedConv3d:
    torch.manual_seed(4)
    inputs, outputs, kernel, size, up, pads = case
    layer = BandedConv3d(inputs, outputs, kernel, size, up, pads).double()
    if block is not None:
        x, y, z = layer.axes
        layer.axes = (x, y, Axis(z.size, z.kernel, z.up, z.before, z.after, block, z.multiple))
    layer.banded = True
    return layer


def _slow(layer: BandedConv3d, grid: Tensor, case: tuple) -> Tensor:
    _, _, _, _, up, pads = case
    grid = nn.Upsample(scale_factor=tuple(float(n) for n in up))(grid)
    grid = F.pad(grid, [n for pad in reversed(pads) for n in pad])
    return F.conv3d(grid, layer.weight, layer.bias)


def _derivatives(found: Tensor, grid: Tensor, layer: nn.Module) -> list[Tensor]:
    """Gradients, and those of the squared gradient of the input."""
    torch.manual_seed(5)
    loss = (found.sin() * torch.randn(found.shape, dtype=found.dtype)).sum()
    held = [grid, layer.weight, layer.bias]
    first = torch.autograd.grad(loss, held, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].sin().sum(), held)
    return [*first, *second]


@pytest.mark.parametrize("case", CASES)
def test_banded_form_is_the_convolution_with_all_derivatives(case: tuple) -> None:
    layer = _layer(case)
    grid = torch.randn(2, case[0], *case[3], dtype=torch.float64, requires_grad=True)
    found, expected = layer(grid), _slow(layer, grid, case)
    torch.testing.assert_close(found, expected)
    for a, b in zip(_derivatives(found, grid, layer), _derivatives(expected, grid, layer), strict=True):
        torch.testing.assert_close(a, b)
    layer.banded = False
    torch.testing.assert_close(layer(grid), expected)


@pytest.mark.parametrize("case", CASES)
def test_the_size_of_a_block_changes_nothing(case: tuple) -> None:
    grid = torch.randn(2, case[0], *case[3], dtype=torch.float64)
    expected = _slow(_layer(case), grid, case)
    up = case[4][2]
    for times in (1, 2, 3, 50):
        torch.testing.assert_close(_layer(case, times * up)(grid), expected)


def test_band_is_the_kernel_moved_by_the_row() -> None:
    for up, before, block, kernel in product((1, 2, 3), (0, 1, 2), (1, 2), (1, 4)):
        axis = Axis(9, kernel, up, before, 0, block * up)
        weight = torch.randn(2, kernel, dtype=torch.float64)
        expected = torch.zeros(2, axis.block, axis.window, dtype=torch.float64)
        for g, k in product(range(axis.block), range(kernel)):
            expected[:, g, (axis.shift + g + k) // up] += weight[:, k]
        torch.testing.assert_close(axis.band(weight), expected)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_all_orders_of_derivatives_of_the_2d_convolution(stride: tuple[int, int]) -> None:
    torch.manual_seed(6)
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(convolve(x, weight, stride), F.conv2d(x, weight, stride=stride))
    assert torch.autograd.gradcheck(lambda a, b: convolve(a, b, stride), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: convolve(a, b, stride), (x, weight))


def test_no_block_costs_more_than_one_for_all_layers() -> None:
    axis = Axis(48, 8)
    chosen = choose_block(axis, 8, 8, 36)
    assert chosen.out == axis.out
    assert 1 < chosen.blocks < axis.out
    assert chosen.block * 8 % 8 == 0
    assert chosen.window * 8 % 8 == 0
    assert choose_block(Axis(48, 8), 1, 6, 36).window % 8 == 0


def test_spectral_norm_and_state_dict_are_those_of_the_plain_layer() -> None:
    case = CASES[1]
    layer, plain = _layer(case), nn.Conv3d(2, 3, (3, 4, 5)).double()
    plain.load_state_dict(layer.state_dict())
    torch.manual_seed(7)
    spectral_norm(layer)
    torch.manual_seed(7)
    spectral_norm(plain)
    grid = torch.randn(2, 2, *case[3], dtype=torch.float64)
    padded = F.pad(grid, [n for pad in reversed(case[5]) for n in pad])
    found, expected = layer(grid), plain(padded)
    torch.testing.assert_close(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    torch.testing.assert_close(
        layer.parametrizations.weight.original.grad, plain.parametrizations.weight.original.grad
    )


@pytest.mark.parametrize("shape", sorted(ARCHITECTURES))
def test_networks_are_the_same_in_both_forms(shape: tuple[int, int, int]) -> None:
    a = ARCHITECTURES[shape]
    torch.manual_seed(8)
    generator = SeededStack(a.latent, a.channels, a.seed, a.generator, a.slope)
    body = GridStack(2, shape, a.discriminator, True, 0.0).eval()
    generator.eval()
    results = []
    with torch.no_grad():
        latent, grid = torch.randn(1, a.latent), torch.rand(1, 2, *shape)
        for banded in (False, True):
            for part in (*generator.modules(), *body.modules()):
                if isinstance(part, BandedConv3d):
                    part.banded = banded
            results.append((generator(latent), body(grid)))
    for plain, found in zip(*results, strict=True):
        torch.testing.assert_close(found, plain, atol=1e-5 * float(plain.abs().max()), rtol=1e-4)


def test_autocast_computes_in_its_type_and_gives_gradients_in_that_of_the_weight() -> None:
    case = CASES[4]
    layer = _layer(case).float()
    grid = torch.randn(2, case[0], *case[3], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(grid)
    assert found.dtype is torch.bfloat16
    exact = _slow(layer, grid, case)
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.05)
    (gradient,) = torch.autograd.grad(found.float().square().sum(), layer.weight)
    (expected,) = torch.autograd.grad(exact.square().sum(), layer.weight)
    assert gradient.dtype is torch.float32
    torch.testing.assert_close(gradient, expected, atol=0.02 * float(expected.abs().max()), rtol=0.05)


def test_shipped_generator_draws_the_same_showers_in_both_forms() -> None:
    from caloforge.zoo.store import load

    model = load("clic-electron/conv3d-gan").model
    torch.manual_seed(9)
    noise = torch.randn(2, model.noise_size)
    conditions = torch.tensor([[2e4], [2e5]])
    results = []
    for banded in (False, True):
        for part in model.modules():
            if isinstance(part, BandedConv3d):
                part.banded = banded
        with torch.no_grad():
            results.append(model.values(noise, conditions))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-3)


def test_generator_is_exported_to_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    a = ARCHITECTURES[25, 25, 25]
    torch.manual_seed(10)
    generator = SeededStack(a.latent, a.channels, a.seed, a.generator, a.slope).eval()
    latent = torch.randn(2, a.latent)
    path = tmp_path / "generator.onnx"
    with torch.no_grad():
        torch.onnx.export(generator, (latent,), path, dynamo=True, input_names=["z"], verbose=False)
    (found,) = runtime.InferenceSession(path).run(None, {"z": latent.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), generator(latent), atol=1e-4, rtol=1e-3)


def test_compiled_network_has_the_same_gradients() -> None:
    case = CASES[4]
    layer = _layer(case)
    grid = torch.randn(2, case[0], *case[3], dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradients = []
    for form in (layer, compiled):
        (gradient,) = torch.autograd.grad(form(grid).square().sum(), layer.weight)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], gradients[0])
