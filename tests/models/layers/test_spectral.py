from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from caloforge.models.image_gan.networks import LocallyConnected2d, spectral_norm


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
def test_every_matrix_has_norm_one(build: object) -> None:
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


def test_from_the_start_it_is_near_one_and_evaluation_changes_nothing() -> None:
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(40, 40)).eval()
    assert _largest(module).item() == pytest.approx(1.0, abs=0.1)
    before = copy.deepcopy(module.state_dict())
    _ = module(torch.randn(3, 40))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_two_passes_can_be_followed_by_one_backward() -> None:
    module = spectral_norm(LocallyConnected2d((4, 4), 1, 2, 3)).train()
    loss = module(torch.randn(2, 1, 4, 4)).sum() + module(torch.randn(2, 1, 4, 4)).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_its_gradient_is_that_of_the_quotient() -> None:
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
