"""Mixed precision leaves the losses of the generators on grids finite, and near those of 32 bits."""

from __future__ import annotations

import pytest
import torch
from grids import RecordingUpdater, batch_of, built, grid_showers
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from caloforge.models.grid_gan.banded_conv import BandedConv3d
from caloforge.models.grid_gan.conv2d import Conv2dGan
from caloforge.models.grid_gan.conv3d import Conv3dGan
from caloforge.models.grid_gan.discriminator import normalise_spectrum
from caloforge.models.grid_gan.model import GridGan

KINDS = [Conv3dGan, Conv2dGan]


def _losses(
    kind: type[GridGan], preset: str, rounded: bool, rate: float, steps: int
) -> list[dict[str, Tensor]]:
    showers = grid_showers()[:2]
    model = built(kind, showers, preset=preset)
    updater = RecordingUpdater(model, rate=rate)
    found = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            found.append(updater.stage.step(batch_of(model, showers), updater))
    assert all(p.dtype is torch.float32 for p in model.parameters())
    assert all(bool(torch.isfinite(p).all()) for p in model.state_dict().values())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_one_step_are_those_of_32_bits(kind: type[GridGan]) -> None:
    with torch.backends.mkldnn.flags(
        enabled=False
    ):  # its kernels round sums differently on each kind of processor
        (exact,), (rounded,) = (_losses(kind, "improved", on, 0.0, 1) for on in (False, True))
    for name, value in exact.items():
        assert float(rounded[name]) == pytest.approx(float(value), rel=5e-3), name
        assert rounded[name].dtype is torch.float32
    # with the penalty the whole pass over real showers is in 32 bits
    assert float(rounded["discriminator_real"]) == pytest.approx(float(exact["discriminator_real"]), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["improved", "paper"])
def test_losses_stay_finite_for_some_steps(kind: type[GridGan], preset: str) -> None:
    for losses in _losses(kind, preset, True, 1e-6, 2):
        assert all(bool(torch.isfinite(value)) for value in losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_not_rounded_to_8_bits(kind: type[GridGan]) -> None:
    showers = grid_showers()[:2]
    model = built(kind, showers).eval()
    batch = batch_of(model, showers)
    values = model.scale(batch.cells).view(-1, *model.detector.shape)
    with torch.no_grad():
        exact = model.judge(values, batch.conditions)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.judge(values, batch.conditions)
    torch.testing.assert_close(rounded.total, exact.total)
    torch.testing.assert_close(rounded.theta, exact.theta)
    for found in (rounded.real, rounded.energy):
        assert found.dtype is torch.float32
        assert not torch.equal(found, found.bfloat16().float())


def test_a_step_with_banded_convolutions_has_the_same_losses() -> None:
    showers = grid_showers()[:2]
    logs, drawn = [], []
    for banded in (False, True):
        model = built(Conv3dGan, showers)
        for part in model.modules():
            if isinstance(part, BandedConv3d):
                part.banded = banded
        updater = RecordingUpdater(model, rate=1e-4)
        logs.append(updater.stage.step(batch_of(model, showers), updater))
        noise = torch.randn(2, model.noise_size, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            drawn.append(model.eval().sample(noise, batch_of(model, showers).conditions[:2]))
    for name, value in logs[0].items():
        torch.testing.assert_close(logs[1][name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-2, atol=1e-2)


def test_spectral_norm_is_exact_under_autocast_and_named_as_torch_names_it() -> None:
    torch.manual_seed(1)
    part, reference = nn.Sequential(nn.Linear(9, 7)), nn.Linear(9, 7)
    reference.load_state_dict(part[0].state_dict())
    torch.manual_seed(2)
    normalise_spectrum(part)
    torch.manual_seed(2)
    spectral_norm(reference)
    assert part[0].state_dict().keys() == reference.state_dict().keys()
    with torch.autocast("cpu", torch.bfloat16):
        found = part[0].weight
    torch.testing.assert_close(found, reference.weight)
