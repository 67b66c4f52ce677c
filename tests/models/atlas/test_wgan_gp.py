from __future__ import annotations

import numpy as np
import pytest
import torch
from adversaries import atlas_showers, batch_of, dataset, updater_of

from caloforge.errors import ConfigError
from caloforge.models.atlas.wgan_gp import WganGp
from caloforge.models.selection import covariance_figure

SMALL = {"generator": (16, 16), "critic": (16, 16), "latent": 8, "batch_size": 30, "epochs": 2}


def _model(preset: str = "improved", **changes: object) -> WganGp:
    torch.manual_seed(0)
    showers = atlas_showers()
    model = WganGp(showers.detector, WganGp.resolve({"preset": preset, **SMALL, **changes}))
    model.fit_transforms(showers)
    return model


def test_the_paper_s_networks_have_the_paper_s_sizes() -> None:
    detector = atlas_showers(20).detector
    model = WganGp(detector, WganGp.resolve({"preset": "paper"}))
    conditions = 1 + 4 + 2  # log E, multi-hot alignments
    expected = {
        "generator": (300 + conditions + 1) * 128 + 2 * 129 * 128 + 129 * 266,
        "critic": (266 + conditions + 1) * 128 + 2 * 129 * 128 + 128,
    }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert {name: counts[name] for name in expected} == expected
    (stage,) = model.stages()
    assert (stage.epochs, stage.batch_size, stage.metric) == (50_000, 64, "covariance")
    assert all(spec.settings.lr == 5e-5 for spec in stage.optimizers.values())


@pytest.mark.parametrize("preset", ["paper", "improved"])
def test_five_critic_steps_for_one_of_the_generator(preset: str) -> None:
    model = _model(preset)
    model.train()
    batch = batch_of(model, atlas_showers(30))
    updater = updater_of(model)
    for step in range(10):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = model.step(batch, updater)
        updater.step += 1
        moved = {
            name.partition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])
        }
        assert moved == ({"critic", "generator"} if step % 5 == 4 else {"critic"})
        assert ("generator" in losses) == (step % 5 == 4)
        assert all(loss.isfinite() for loss in losses.values())


def test_the_critic_s_loss_is_its_terms() -> None:
    model = _model()
    batch = batch_of(model, atlas_showers(30))
    losses = model.critic_losses(batch, updater_of(model))
    assert losses["critic"].item() == pytest.approx(
        10.0 * losses["penalty"].item() - losses["distance"].item(), rel=1e-5
    )
    gradients = torch.autograd.grad(
        losses["critic"], [*model.generator.parameters()], retain_graph=True, allow_unused=True
    )
    assert all(gradient is None for gradient in gradients)
    own = torch.autograd.grad(losses["critic"], [*model.critic.parameters()])
    assert all(gradient.abs().sum() > 0 for gradient in own)


def test_the_generator_s_loss_moves_the_generator_alone() -> None:
    model = _model()
    batch = batch_of(model, atlas_showers(30))
    updater = updater_of(model)
    before = [p.detach().clone() for p in model.critic.parameters()]
    updater.update("generator", model.generator_loss(batch, updater))
    assert all(p.grad is None for p in model.critic.parameters())
    assert all(torch.equal(p, old) for p, old in zip(model.critic.parameters(), before, strict=True))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.generator.parameters())


@pytest.mark.parametrize("preset", ["paper", "improved"])
def test_showers_are_sparse_scale_with_energy_and_depend_on_their_row_alone(preset: str) -> None:
    model = _model(preset).eval()
    conditions = model.condition_matrix(atlas_showers(90))
    cells = model.draw(conditions, seed=5)
    assert cells.shape == (90, 266)
    assert cells.isfinite().all()
    assert (cells >= 0).all()
    assert 0.05 < (cells == 0).float().mean().item() < 0.95
    torch.testing.assert_close(
        model.draw(conditions[40:], seed=5, start=40), cells[40:], rtol=1e-4, atol=1e-4
    )
    energy = conditions[:, 0]
    assert cells[energy > 1e5].sum(1).mean() > 10.0 * cells[energy < 5e3].sum(1).mean()


def test_the_covariance_figure_is_the_frobenius_distance() -> None:
    rng = np.random.default_rng(0)
    energy = torch.full((400,), 2.0)
    truth, fake = (
        torch.tensor(rng.normal(size=(400, 5)) * scale) for scale in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 9])
    )
    real, made = (np.cov(x.numpy().T / 2.0, bias=True) for x in (truth, fake))
    slow = np.linalg.norm(made - real) / np.linalg.norm(real)
    assert covariance_figure(truth, fake, energy, groups=1) == pytest.approx(slow, rel=1e-6)
    assert covariance_figure(truth, truth, energy) == 0.0


def test_the_figures_choose_epochs() -> None:
    model = _model().eval()
    figures = model.validate(dataset(model, atlas_showers(100)))
    assert figures["selection"] == pytest.approx(figures["physics"] + 10.0 * figures["covariance"])
    assert figures["covariance"] > 0


def test_training_brings_the_covariance_down() -> None:
    showers = atlas_showers(600)
    torch.manual_seed(1)
    small = {"generator": (64,), "critic": (64,), "latent": 16, "epochs": 10, "critic_steps": 2}
    fast = {"generator_optimizer": {"lr": 2e-3, "ema": 0.0}, "critic_optimizer": {"lr": 2e-3}}
    model = WganGp(showers.detector, WganGp.resolve({**small, **fast}))
    model.fit_transforms(showers)
    data = dataset(model, showers)
    first = model.eval().validate(data)
    updater = updater_of(model, steps=data.steps(64))
    model.train()
    for epoch in range(10):
        for batch in data.epoch(64, 0, "adversarial", epoch):
            model.step(batch, updater)
            updater.step += 1
    last = model.eval().validate(data)
    assert last["covariance"] < first["covariance"]
    assert last["physics"] < 0.9 * first["physics"]


def test_it_needs_the_energy() -> None:
    detector = atlas_showers(20).detector
    with pytest.raises(ConfigError, match="incident_energy"):
        WganGp(detector, WganGp.resolve({"conditions": ("alignment_phi",)}))
