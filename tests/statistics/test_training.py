from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussians import gaussians
from scipy.stats import norm

from caloforge.errors import TooFewShowersError
from caloforge.statistics.feature_distances import Neighbourhoods
from caloforge.statistics.networks import ChallengeResNet, ResidualCNN, StandardisedMLP
from caloforge.statistics.pairs import structural_similarity
from caloforge.statistics.training import (
    PRESETS,
    TrainingOptions,
    _fit,
    _logits,
    _Part,
    threads_for,
    train_once,
)

QUICK = replace(PRESETS["fast"], width=16, epochs=12, dropout=0.0)


def trained(a, b, options=QUICK, seed: int = 0, build=None):
    """Train one network on two samples."""

    def mlp(inputs: torch.Tensor) -> torch.nn.Module:
        return StandardisedMLP(inputs, options.width, options.dropout, options.standardise)

    return train_once(a, b, build or mlp, options, seed)


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_auc_of_shifted_gaussians(shift: float) -> None:
    score = trained(*gaussians(4000, 3, shift, seed=0))
    assert abs(score.auc - norm.cdf(shift / np.sqrt(2))) < 4 * score.auc_error + 0.01
    x = np.linspace(-8, 8 + shift, 20_001)
    p, q = norm.pdf(x), norm.pdf(x - shift)
    exact = 0.5 * np.trapezoid(p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q)), x)
    assert abs(score.jsd - exact) < 4 * score.jsd_error + 0.01


def test_equal_distributions_give_one_half() -> None:
    a, b = gaussians(1500, 3, 0.0, seed=0)
    scores = [trained(a, b[:1200], seed=seed) for seed in (1, 2, 1)]
    for score in scores:
        assert abs(score.auc - 0.5) < 4 * score.auc_error
        assert abs(score.jsd) < 4 * score.jsd_error + 0.01
        assert score.held_out == 240
    assert scores[0] != scores[1]
    assert scores[0] == scores[2]


def test_constant_inputs_change_nothing() -> None:
    a, b = gaussians(200, 3, 3.0, seed=0)
    a[:, 2], b[:, 2] = 1.0, 1.0
    assert 0.9 < trained(a, b).auc <= 1.0


def test_the_challenges_preset() -> None:
    preset = PRESETS["calochallenge"]
    assert preset == TrainingOptions(2048, 2e-4, 1000, 50, None, by_accuracy=True, standardise=False)
    assert trained(*gaussians(60, 3, 2.0, seed=0), replace(preset, width=32)).epochs == 50


def test_a_network_that_sees_images() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 80, 1 + 6 * 6 * 6)).astype(np.float32)
    b[:, 1:] *= 1.5
    options = replace(PRESETS["fast"], epochs=12, batch=16)
    assert trained(a, b, options, build=lambda x: ResidualCNN(x, (6, 6, 6), channels=4)).auc > 0.9


def test_the_challenges_residual_network() -> None:
    """As many weights as the challenge's own code has; the incident energy and every voxel count; one shower does not change another."""
    torch.manual_seed(0)
    network = ChallengeResNet((45, 16, 9)).eval()
    assert sum(p.numel() for p in network.parameters()) == 2_516_644
    x = torch.rand(3, 6481, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = network(x)
    assert found.shape == (3,)
    found[1].backward()
    assert (x.grad[[0, 2]] == 0).all()
    assert x.grad[1, 0] != 0
    assert (x.grad[1, 1:] != 0).float().mean() > 0.9


def test_too_few() -> None:
    with pytest.raises(TooFewShowersError, match="at least 50"):
        trained(*gaussians(49, 3, 0.0, seed=0))


def test_a_part_is_gathered_with_its_labels() -> None:
    a, b = torch.arange(20.0).reshape(10, 2), -torch.arange(20.0).reshape(10, 2)
    part = _Part(a, b, np.array([7, 2, 5]), np.array([1, 9]))
    x, y = part.batch(np.array([4, 0, 2, 3]))
    np.testing.assert_array_equal(x.numpy(), np.concatenate([a[[7, 5]], b[[9, 1]]]))
    np.testing.assert_array_equal(y.numpy(), [0, 0, 1, 1])
    np.testing.assert_array_equal(part.all().numpy(), np.concatenate([a[[7, 2, 5]], b[[1, 9]]]))
    np.testing.assert_array_equal(part.labels, [0, 0, 0, 1, 1])


def test_a_training_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []

    class Watched(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x).squeeze(1)

    trained(*gaussians(60, 3, 0.0, seed=0), replace(QUICK, epochs=1), build=lambda inputs: Watched(3, 1))
    assert set(seen) == {1}
    with threads_for(1e12):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> str:
    """Stand in for a GPU by the device "meta": its tensors have shapes and no numbers, and tensors of two devices do not mix."""
    plain, adamw = torch.Tensor.cpu, torch.optim.AdamW
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda x: torch.zeros(x.shape, dtype=x.dtype) if x.is_meta else plain(x)
    )
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, fused, **named: adamw(*given, **named))
    return "meta"


def test_tensors_of_two_devices_do_not_mix(far: str) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=far) + torch.zeros(3)


def test_neighbourhoods_on_a_device(far: str) -> None:
    rng = np.random.default_rng(0)
    found = Neighbourhoods(rng.normal(size=(30, 4)), 3, far).members(rng.normal(size=(20, 4)))
    assert {name: len(values) for name, values in found.items()} == {
        "precision": 20,
        "recall": 30,
        "density": 20,
        "coverage": 30,
    }


def test_similarity_on_a_device(far: str) -> None:
    images = np.zeros((3, 12, 13, 2), np.float32)
    assert structural_similarity(images, np.arange(3), images, np.arange(3), (0.1,), far).shape == (3, 1)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_training_on_a_device(far: str, network: str) -> None:
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
