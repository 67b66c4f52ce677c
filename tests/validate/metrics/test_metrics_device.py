"""Where torch computes: on the device that is asked for, with nothing left on another one.

The device "meta" stands for the GPU: its tensors know their shapes and hold no numbers, and sums, comparisons and
losses of tensors of two devices raise as they would there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.errors import InputError
from caloforge.statistics.networks import ResidualCNN, StandardisedMLP
from caloforge.statistics.training import PRESETS, _fit, _logits, _Part
from caloforge.validate.metrics import Settings
from caloforge.validate.metrics.prdc import prdc_members
from caloforge.validate.metrics.ssim import ssim_pairs


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a device other than the CPU; what comes back from it is zero."""
    plain, adamw = torch.Tensor.cpu, torch.optim.AdamW
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda x: torch.zeros(x.shape, dtype=x.dtype) if x.is_meta else plain(x)
    )
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, fused, **named: adamw(*given, **named))
    return "meta"


def test_tensors_of_two_devices_do_not_mix(far: str) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=far) + torch.zeros(3)


def test_prdc(far: str) -> None:
    rng = np.random.default_rng(0)
    found = prdc_members(rng.normal(size=(30, 4)), rng.normal(size=(20, 4)), k=3, device=far)
    assert {name: len(values) for name, values in found.items()} == {
        "precision": 20,
        "recall": 30,
        "density": 20,
        "coverage": 30,
    }


def test_ssim(far: str) -> None:
    images = np.zeros((3, 12, 13, 2), np.float32)
    assert ssim_pairs(images, images, device=far).shape == (3,)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_training(far: str, network: str) -> None:
    sides = [torch.zeros(60, 1 + 6**3, device=far) for _ in range(2)]
    rows = np.arange(60)
    parts = [_Part(sides[0], sides[1], rows[some], rows[some]) for some in (slice(0, 40), slice(40, 60))]
    inputs = parts[0].all()
    assert inputs.device.type == far
    assert inputs.shape == (80, 1 + 6**3)
    made = {
        "mlp": lambda: StandardisedMLP(inputs, 8, 0.1),
        "cnn": lambda: ResidualCNN(inputs, (6, 6, 6), channels=2),
    }[network]().to(far)
    assert all(tensor.device.type == far for tensor in made.state_dict().values())
    epochs, best = _fit(made, parts, PRESETS["fast"], seed=0)
    assert 1 <= best <= epochs
    assert _logits(made, parts[1]).shape == (40,)


@pytest.mark.parametrize(
    ("device", "match"), [("gpu", "not known"), ("cuda:x", "not known"), ("cuda:99", "torch finds")]
)
def test_a_device_that_is_not_there_is_refused(device: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Settings(device=device).torch_device()


def test_auto_takes_what_there_is() -> None:
    assert Settings(device="auto").torch_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    assert Settings(device="cpu").torch_device() == "cpu"
