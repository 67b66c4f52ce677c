"""Laws that every transform keeps: there and back, gradients, state and configuration."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transform_cases import ATLAS, CASES, CONFIGS, draw, floor_of, prepared

from caloforge.errors import ConfigError
from caloforge.showers.transforms import (
    TRANSFORMS,
    LayerNormalise,
    Transform,
)


def test_every_transform_is_tested() -> None:
    assert list(CONFIGS) == TRANSFORMS.names()
    for name, kind in TRANSFORMS.items():
        assert kind.name == name


@pytest.mark.parametrize("config", CASES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), sparsity=st.floats(0, 1), spread=st.floats(0, 1.5)
)
def test_there_and_back_is_the_identity(
    config: dict, seed: int, n: int, sparsity: float, spread: float
) -> None:
    cells, energy = draw(seed, n, sparsity, spread)
    transform, x = prepared(config, cells, energy)
    y = transform(x, energy)
    assert y.shape == (n, transform.features(x.shape[1]))
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()
    back = transform.inverse(y, energy)
    floor = floor_of(config)
    expected = torch.where(x >= floor, x, torch.zeros_like(x))
    # Near the cut a rounding may take a cell to its other side.
    near = (x - floor).abs() < 1e-5 * floor
    # A sum with the mean of the training showers, of order 1, rounds to that.
    scale = x.abs().amax(1, keepdim=True) + ("standardise" in str(config))
    error = ((back - expected).abs() / (2e-5 * expected.abs() + 3e-6 * scale + 1e-30)).masked_fill(near, 0)
    assert float(error.max()) <= 1


@pytest.mark.parametrize("config", CASES)
def test_gradients_flow_and_are_finite(config: dict) -> None:
    cells, energy = draw(3, 8, 0.5, 0.5)
    transform, x = prepared(config, cells, energy)
    x = x.clone().requires_grad_()
    y = transform(x, energy)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    (there,) = torch.autograd.grad((y * weights).sum(), x)
    assert torch.isfinite(there).all()
    assert (there[x > floor_of(config)] != 0).double().mean() > 0.95
    z = y.detach().requires_grad_()
    back = transform.inverse(z, energy)
    (gradient,) = torch.autograd.grad((back * weights[:, : back.shape[1]]).sum(), z)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("config", [case for case in CASES if "threshold" not in str(case)])
def test_jacobian_of_the_inverse_is_the_inverse(config: dict) -> None:
    """In double precision, where cells are above zero; a threshold has no such inverse."""
    cells, energy = draw(5, 1, 0.0, 0.2)
    cells, energy = cells.clamp_min(0.5).double(), energy.double()
    transform, x = prepared(config, cells, energy)
    transform = copy.deepcopy(transform).double()
    there = torch.autograd.functional.jacobian(lambda one: transform(one, energy), x)[0, :, 0]
    back = torch.autograd.functional.jacobian(
        lambda one: transform.inverse(one, energy), transform(x, energy)
    )[0, :, 0]
    torch.testing.assert_close(back @ there, torch.eye(x.shape[1], dtype=torch.float64), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CASES)
def test_configuration_and_state_rebuild_it(config: dict) -> None:
    cells, energy = draw(4, 5, 0.5, 0.5)
    transform, x = prepared(config, cells, energy)
    transform.check_fitted()
    again = Transform.from_config(transform.to_config(), ATLAS, x.shape[1])
    assert again.to_config() == transform.to_config()
    assert again.to_config()["name"] == config["name"]
    again.load_state_dict(transform.state_dict())
    assert torch.equal(again(x, energy), transform(x, energy))
    # What the detector gives is not stored: no constant is larger than a row.
    assert all(value.numel() <= transform.features(x.shape[1]) for value in transform.state_dict().values())


@pytest.mark.parametrize("config", CASES)
def test_rows_do_not_see_one_another(config: dict) -> None:
    cells, energy = draw(6, 9, 0.5, 0.5)
    transform, x = prepared(config, cells, energy)
    whole = transform(x, energy)
    parts = torch.cat([transform(x[:4], energy[:4]), transform(x[4:], energy[4:])])
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(transform(x, energy[:, None]), whole)


@pytest.mark.parametrize(
    "config", [case for case in CASES if "standardise" in str(case) or "ratios" in str(case)]
)
def test_before_a_fit_there_are_no_constants(config: dict) -> None:
    cells, energy = draw(6, 3, 0.5, 0.5)
    x = LayerNormalise(ATLAS)(cells, energy) if config["name"] == "layer-ratios" else cells
    transform = Transform.from_config(config, ATLAS, x.shape[1])
    assert transform.needs_fit
    with pytest.raises(ConfigError, match="is not set; fit it to showers first"):
        transform.check_fitted()
    assert torch.isnan(transform(x, energy)).any()
