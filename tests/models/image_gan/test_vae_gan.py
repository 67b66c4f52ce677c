from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adversaries import atlas_showers, batch_of, dataset, images, updater_of
from torch import nn

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models.base import counted_noise
from caloforge.models.image_gan.vae_gan import VaeGan
from caloforge.train import RunFolder, train

SMALL = {"generator": (8, 8, 4, 4), "discriminator": (8, 4), "latent": 6, "batch_size": 20, "epochs": 2}


class _Draws:
    """An updater that only draws numbers."""

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _model(preset: str = "improved", **changes: object) -> VaeGan:
    torch.manual_seed(0)
    showers = images()
    model = VaeGan(
        showers.detector, VaeGan.resolve({"preset": preset, **SMALL, "n_selection": 200, **changes})
    )
    model.fit_transforms(showers)
    return model


@pytest.mark.parametrize("preset", ["paper", "improved"])
def test_two_discriminator_steps_for_one_of_generator_and_encoder(preset: str) -> None:
    model = _model(preset)
    model.train()
    batch = batch_of(model, images(20))
    updater = updater_of(model)
    for step in range(4):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = model.step(batch, updater)
        updater.step += 1
        moved = {
            name.partition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])
        }
        second = step % 2 == 1
        assert moved == ({"discriminator", "generator", "encoder"} if second else {"discriminator"})
        assert ("kl" in losses) == second
        assert all(loss.isfinite() for loss in losses.values())


def test_the_generator_s_loss_does_not_touch_the_discriminator() -> None:
    model = _model()
    model.train()
    batch = batch_of(model, images(20))
    updater = updater_of(model)
    adversarial, divergence = model.generator_losses(batch, updater)
    updater.update("generator", adversarial + divergence)
    assert all(p.grad is None for p in model.discriminator.parameters())
    moved = [*model.generator.parameters(), *model.encoder.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in moved)
    assert sum(float(p.grad.abs().sum() > 0) for p in moved) == len(moved)


def test_the_discriminator_s_loss_reaches_all_of_it_and_nothing_else() -> None:
    model = _model()
    model.train()
    model.discriminator_loss(batch_of(model, images(20)), _Draws()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.discriminator.parameters())
    assert all(p.grad is None for p in [*model.generator.parameters(), *model.encoder.parameters()])


def test_the_divergence_is_that_of_normal_distributions() -> None:
    """KL(N(m, s^2) || N(0, 1)) from torch, and 0 for an encoder that says N(0, 1)."""
    model = _model().eval()
    batch = batch_of(model, images(20))
    _, divergence = model.generator_losses(batch, updater_of(model))
    energy = batch.conditions[:, 0]
    mean, log_variance = model.encoder(model.generator.view(batch.cells, energy))
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(
        normal(mean, torch.exp(0.5 * log_variance)), normal(torch.zeros(()), torch.ones(()))
    )
    assert divergence.item() == pytest.approx(exact.sum(1).mean().item(), rel=1e-4)
    for head in (model.encoder.mean, model.encoder.log_variance):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    assert model.generator_losses(batch, updater_of(model))[1].item() == 0.0


def test_labels_are_smoothed_for_real_images_alone() -> None:
    """A discriminator that says l to all has the loss BCE(l, 0.9) + BCE(l, 0)."""
    model = _model("paper").eval()

    class Constant(nn.Module):
        def forward(self, view: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
            return torch.full((len(view), 1), 0.7)

    model.discriminator = Constant()
    loss = model.discriminator_loss(batch_of(model, images(20)), _Draws())
    p = torch.sigmoid(torch.tensor(0.7))
    expected = -(0.9 * p.log() + 0.1 * (1 - p).log()) - (1 - p).log()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("preset", ["paper", "improved"])
def test_images_are_sparse_scale_with_energy_and_depend_on_their_row_alone(preset: str) -> None:
    model = _model(preset).eval()
    conditions = torch.full((40, 1), 50_000.0)
    cells = model.draw(conditions, seed=5)
    assert cells.shape == (40, 100)
    assert cells.isfinite().all()
    assert (cells >= 0).all()
    assert 0.01 < (cells == 0).float().mean().item() < 0.99
    torch.testing.assert_close(
        model.draw(conditions[30:], seed=5, start=30), cells[30:], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(model.draw(2 * conditions, seed=5), 2 * cells, rtol=1e-4, atol=1e-4)


def test_the_figures_count_images_generated_for_the_histograms() -> None:
    model = _model().eval()
    figures = model.validate(dataset(model, images(100, seed=1)))
    assert {"histograms", "histogram_E_vis", "physics"} <= set(figures)
    assert 0.0 < figures["histograms"] < 5.0


def test_training_brings_images_closer() -> None:
    showers = images(200)
    fast = {"generator_optimizer": {"lr": 1e-3, "ema": 0.0}, "discriminator_optimizer": {"lr": 1e-3}}
    torch.manual_seed(2)
    model = VaeGan(showers.detector, VaeGan.resolve({**SMALL, **fast, "epochs": 4, "n_selection": 400}))
    model.fit_transforms(showers)
    data = dataset(model, showers)
    first = model.eval().validate(data)
    updater = updater_of(model, steps=data.steps(50))
    model.train()
    for epoch in range(4):
        for batch in data.epoch(50, 0, "adversarial", epoch):
            model.step(batch, updater)
            updater.step += 1
    last = model.eval().validate(data)
    assert last["histograms"] < first["histograms"]


def test_other_detectors_are_refused_and_the_projection_named() -> None:
    for name in ("ild-ecal", "atlas-em-barrel"):
        with pytest.raises(IncompatibleError, match="caloforge project"):
            VaeGan(get_detector(name), VaeGan.resolve())
    with pytest.raises(ConfigError, match="incident_energy"):
        VaeGan(images(1).detector, VaeGan.resolve({"conditions": ("incident_theta",)}))
    assert atlas_showers(20).detector.name == "atlas-em-barrel"


def test_shipped_weights_are_the_generator_s_and_give_the_same_images() -> None:
    model = _model().eval()
    state = model.shipped_state()
    assert not any(name.startswith(("encoder", "discriminator", "histograms")) for name in state)
    other = VaeGan(images(1).detector, model.config)
    other.load_weights(state, shipped=True)
    conditions = torch.full((10, 1), 50_000.0)
    torch.testing.assert_close(other.eval().draw(conditions), model.draw(conditions), rtol=2e-2, atol=1.0)


def test_only_the_improved_preset_ends_with_a_calibration() -> None:
    paper, improved, without = _model("paper"), _model(), _model(calibrate=False)
    assert [stage.name for stage in improved.stages()] == ["adversarial", "calibrate"]
    for model in (paper, without):
        assert model.calibration is None
        assert [stage.name for stage in model.stages()] == ["adversarial"]
        assert not any("calibration" in name for name in model.state_dict())


def test_the_last_stage_repairs_the_width_and_is_stored() -> None:
    """Images of an untrained generator, whose visible energy is too narrow, and weights saved and loaded."""
    model, showers = _model().eval(), images()
    energy = torch.full((2000, 1), 50_000.0)
    before = model.draw(energy, seed=9)
    torch.testing.assert_close(before[:50], model.make(counted_noise(9, 0, 50, 6), energy[:50]))
    stage = model.stages()[-1]
    assert stage.fit is not None
    stage.fit(dataset(model, showers), torch.Generator())
    after = model.draw(energy, seed=9)
    assert ((after == 0) | (after >= 1e-4)).all()
    truth = torch.from_numpy(showers.cells).sum(1)
    assert abs(before.sum(1).std() / truth.std() - 1) > 0.2
    assert after.sum(1).std().item() == pytest.approx(truth.std().item(), rel=0.1)
    assert after.sum(1).mean().item() == pytest.approx(truth.mean().item(), rel=0.01)
    other = VaeGan(showers.detector, model.config)
    other.load_weights(model.state_dict())
    torch.testing.assert_close(other.eval().draw(energy, seed=9), after)


def test_weights_of_a_run_without_calibration_load_as_they_are() -> None:
    without = _model(calibrate=False).eval()
    model = _model().eval()
    model.load_weights(without.shipped_state(), shipped=True)
    energy = torch.full((10, 1), 50_000.0)
    assert model.calibration is not None
    assert not model.calibration.fitted
    torch.testing.assert_close(model.draw(energy), without.draw(energy), rtol=2e-2, atol=1.0)
    broken = {name: value for name, value in model.state_dict().items() if "trends" not in name}
    with pytest.raises(IncompatibleError, match="trends"):
        model.load_weights(broken)


def test_a_training_calibrates_at_its_end(tmp_path: Path) -> None:
    images(60).save(tmp_path / "images.h5")
    settings = [f"{key}={_written(value)}" for key, value in SMALL.items()]
    run = train("vae-gan", tmp_path / "images.h5", tmp_path / "run", overrides=settings, device="cpu")
    (member,) = RunFolder(run).models()
    assert isinstance(member, VaeGan)
    assert member.calibration is not None
    assert member.calibration.fitted


def _written(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
