from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from grids import HeldOut, RecordingUpdater, batch_of, built, grid_showers
from torch import nn

from caloforge.models.base import counted_noise
from caloforge.models.grid_gan.conv2d import Conv2dGan
from caloforge.models.grid_gan.conv3d import Conv3dGan
from caloforge.models.grid_gan.model import THRESHOLD, GridGan
from caloforge.models.selection import shape_figures
from caloforge.showers import Showers
from caloforge.train import train
from caloforge.train.folder import RunFolder

KINDS = [Conv3dGan, Conv2dGan]
PRESETS = ["paper", "improved"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_showers_are_finite_cut_and_independent_of_their_batch(kind: type[GridGan], preset: str) -> None:
    showers = grid_showers()
    model = built(kind, showers, preset=preset).eval()
    conditions = model.condition_matrix(showers)[:5]
    noise = counted_noise(7, 0, 5, model.noise_size)
    with torch.no_grad():
        whole = model.sample(noise, conditions)
        single = torch.cat([model.sample(noise[i : i + 1], conditions[i : i + 1]) for i in range(5)])
    assert whole.shape == (5, 15625)
    assert torch.isfinite(whole).all()
    assert ((whole == 0) | (whole >= THRESHOLD)).all()
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=2 * THRESHOLD)


@pytest.mark.parametrize("kind", KINDS)
def test_published_step_trains_every_parameter_with_finite_losses(kind: type[GridGan]) -> None:
    model = built(kind, grid_showers(), preset="paper")
    updater = RecordingUpdater(model, rate=0.0)
    losses = model.stages()[0].step(batch_of(model, grid_showers()[-3:]), updater)
    assert all(torch.isfinite(value) for value in losses.values())
    assert updater.names[:3] == ["discriminator", "discriminator", "generator"]
    assert updater.names.count("generator") == model.config.generator_steps
    expected = {name for name, _ in model.named_parameters()}
    assert updater.reached["generator"] | updater.reached["discriminator"] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_moves_only_its_own_network(kind: type[GridGan]) -> None:
    showers = grid_showers()
    model = built(kind, showers, r1=0.0)
    batch = batch_of(model, showers[:3])
    noise = torch.randn(3, model.noise_size)
    seen: dict[str, set[int]] = {}

    class Watching(RecordingUpdater):
        def update(self, name: str, loss: torch.Tensor, retain_graph: bool = False) -> None:
            parameters = [*model.generator.parameters(), *model.discriminator.parameters()]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            seen[name] = {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
            before = {key: p.clone() for key, p in model.named_parameters()}
            super().update(name, loss)
            moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
            assert moved
            assert all(key.startswith(name) for key in moved)

    model.stages()[0].step(batch, Watching(model))
    # the discriminator's graph does not even hold the generator
    assert not seen["discriminator"] & {id(p) for p in model.generator.parameters()}
    assert model.values(noise, batch.conditions).requires_grad


def test_published_loss_is_the_sum_of_its_heads() -> None:
    """The generator's loss of the published settings, written out again."""
    showers = grid_showers("clic-ecal-wide", 4, upright=False)
    model = built(Conv3dGan, showers, preset="paper-angled").eval()
    batch = batch_of(model, showers[:2])
    values = model.scale(batch.cells * 1.2).view(-1, 51, 51, 25)
    with torch.no_grad():
        found = float(model._generator_loss(values, batch.conditions))
        heads = model.judge(values, batch.conditions)
    expected = 0.0
    visible = model.visible.mean(model.encoder(batch.conditions), batch.conditions[:, 0])
    for i in range(2):
        energy = float(batch.conditions[i, 0]) / 1e5
        expected += 3.0 * math.log1p(math.exp(-float(heads.real[i]))) / 2
        expected += 0.1 * 100 * abs(float(heads.energy[i]) - energy) / energy / 2
        expected += 25.0 * abs(float(heads.theta[i]) - math.radians(float(batch.conditions[i, 1]))) / 2
        expected += 0.1 * 100 * abs(1.2 * float(batch.cells[i].sum()) / float(visible[i]) - 1) / 2
    assert found == pytest.approx(expected, rel=1e-3)


def test_cell_sum_head_is_the_visible_energy() -> None:
    showers = grid_showers()
    for preset in PRESETS:
        model = built(Conv3dGan, showers, preset=preset).eval()
        batch = batch_of(model, showers[:2])
        with torch.no_grad():
            heads = model.judge(model.scale(batch.cells).view(-1, 25, 25, 25), batch.conditions)
        np.testing.assert_allclose(heads.total, showers.visible_energy[:2], rtol=1e-4)


def test_rescaled_showers_hold_the_drawn_energy() -> None:
    showers = grid_showers()
    model = built(Conv2dGan, showers).eval()
    conditions = model.condition_matrix(showers)
    noise = counted_noise(1, 0, len(showers), model.noise_size)
    with torch.no_grad():
        cells = model.sample(noise, conditions)
        wanted = model.visible.draw(noise[:, 0], model.encoder(conditions), conditions[:, 0])
    torch.testing.assert_close(cells.sum(1), wanted, rtol=0.01, atol=1.0)


def test_symmetry_numbers_turn_the_same_shower() -> None:
    showers = grid_showers()
    model = built(Conv2dGan, showers).eval()
    assert model.symmetry.allowed.tolist() == [1.0, 1.0, 1.0]
    noise = counted_noise(1, 0, 1, model.noise_size).expand(8, -1).clone()
    bits = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)])
    noise[:, -3:] = 2.0 * bits - 1.0
    with torch.no_grad():
        grid = model.sample(noise, model.condition_matrix(showers)[:1].expand(8, -1)).view(8, 25, 25, 25)
    torch.testing.assert_close(grid[1], grid[0].flip(0))
    torch.testing.assert_close(grid[2], grid[0].flip(1))
    torch.testing.assert_close(grid[4], grid[0].transpose(0, 1))


def test_leaning_showers_without_an_angle_keep_only_the_mirror_in_x() -> None:
    upright = grid_showers()
    theta = np.full(len(upright), 80.0)
    leaning = Showers("clic-ecal", upright.cells, upright.incident_energy, theta)
    assert built(Conv3dGan, leaning).symmetry.allowed.tolist() == [1.0, 0.0, 0.0]


def test_settled_batch_norms_reproduce_the_batch_statistics() -> None:
    showers = grid_showers()
    model = built(Conv3dGan, showers).eval()
    conditions = model.condition_matrix(showers)
    model.settle(HeldOut(batch_of(model, showers)))
    n = 4 * len(conditions)
    noise = counted_noise(1, 0, n, model.noise_size, stream="batch norm")
    norm = next(m for m in model.generator.modules() if isinstance(m, nn.BatchNorm3d))
    inputs: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda _m, args, _out: inputs.append(args[0]))
    with torch.no_grad():
        for first in range(0, n, len(conditions)):
            model.sample(noise[first : first + len(conditions)], conditions)
    hook.remove()
    mean, variance = (torch.stack([f(x) for x in inputs]).mean(0) for f in (_mean, _variance))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-5)
    assert not norm.training
    assert norm.momentum == pytest.approx(0.01)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((0, 2, 3, 4))


def _variance(x: torch.Tensor) -> torch.Tensor:
    return x.var((0, 2, 3, 4))


def test_averaged_weights_are_saved_with_their_own_batch_statistics_without_held_out_showers(
    tmp_path: Path,
) -> None:
    showers = grid_showers()
    showers = Showers("clic-ecal", showers.cells, np.full(len(showers), 5e4), particle="e-")
    settings = ["epochs=1", "batch_size=6", "generator.ema=0.9", "generator.warmup=0", "generator.lr=0.01"]
    run = train(
        "conv3d-gan", showers.save(tmp_path / "showers.h5"), tmp_path / "run", device="cpu",
        overrides=[*settings, "r1=0", "calibrate=false", "mean_epochs=1", "train.validation=0"],
    )  # fmt: skip
    (model,) = RunFolder(run).models()
    assert isinstance(model, GridGan)
    saved = {name: value.clone() for name, value in model.generator.named_buffers()}
    model.settle(HeldOut(batch_of(model, showers)))
    for name, value in model.generator.named_buffers():
        if "running" in name:
            torch.testing.assert_close(value, saved[name], rtol=1e-3, atol=1e-5)


def test_figures_of_equal_showers_are_perfect_and_of_wrong_ones_analytic() -> None:
    showers = grid_showers()
    truth, energy = torch.from_numpy(showers.cells), torch.from_numpy(showers.incident_energy)
    shape = showers.detector.shape
    same = shape_figures(truth, truth, energy, shape)
    assert same["shape_mse"] == 0
    assert same["shapes"] == pytest.approx(0.0, abs=1e-9)
    more = shape_figures(truth, 1.1 * truth, energy, shape)
    assert more["cell_mean_ratio"] == pytest.approx(1.1, rel=1e-5)
    assert more["cell_std_ratio"] == pytest.approx(1.1, rel=1e-5)
    mean = truth.mean(0).view(25, 25, 25).double()
    slow = [
        np.mean([(0.1 * p / profile.mean()) ** 2 for p in profile])
        for profile in (mean.sum((1, 2)).numpy(), mean.sum((0, 2)).numpy(), mean.sum((0, 1)).numpy())
    ]
    assert more["shape_mse"] == pytest.approx(np.mean(slow), rel=1e-4)


def test_validation_is_repeatable_and_names_its_metric() -> None:
    showers = grid_showers()
    model = built(Conv2dGan, showers).eval()
    data = HeldOut(batch_of(model, showers))
    first, second = model.validate(data), model.validate(data)
    assert first == second
    assert model.stages()[0].metric in first
    assert all(math.isfinite(value) for value in first.values())
    assert len(model.imitate(data, n_max=4)[0]) == 4


def test_shipped_weights_leave_the_discriminator_out() -> None:
    showers = grid_showers()
    model = built(Conv3dGan, showers).eval()
    other = Conv3dGan(model.detector, model.config).eval()
    state = model.shipped_state()
    assert not any(name.startswith("discriminator") for name in state)
    other.load_weights(state, shipped=True)
    conditions = model.condition_matrix(showers)[:2]
    found, expected = other.draw(conditions), model.draw(conditions)
    torch.testing.assert_close(found.sum(1), expected.sum(1), rtol=0.01, atol=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_first_epochs_bring_the_generator_alone_to_the_mean_shower(kind: type[GridGan]) -> None:
    showers = grid_showers()
    model = built(kind, showers, mean_epochs=1)
    kept = {name: value.clone() for name, value in model.discriminator.state_dict().items()}
    updater = RecordingUpdater(model, rate=0.02)
    losses = [model.step(batch_of(model, showers[:3]), updater) for _ in range(9)]
    assert all(list(loss) == ["mean"] for loss in losses)
    assert losses[-1]["mean"] < 0.95 * losses[0]["mean"]
    assert set(updater.names) == {"generator"}
    for name, value in model.discriminator.state_dict().items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)


def test_constant_tells_places_apart_before_any_training() -> None:
    showers = grid_showers()
    flat, marked = (built(Conv3dGan, showers, constant=width).eval() for width in (0.0, 1.0))
    assert not flat.generator.get_parameter("dense.bias").any()
    assert marked.generator.get_parameter("dense.bias").detach().std() == pytest.approx(1.0, rel=0.05)
    latent = torch.randn(8, flat.latent_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        at_zero = [model.generator(torch.zeros(1, model.latent_size)) for model in (flat, marked)]
        seeds = [model.generator.dense(latent) for model in (flat, marked)]
    assert not at_zero[0].any()
    assert at_zero[1].var() > 0.01
    # of the cells' variance in the small grid, that of their mean over n showers: (c + s / n) / (c + s), with the weights'
    # s = 2 latent / (latent + outputs) and the constant's c = 0 or 1
    s = 2 * flat.latent_size / (flat.latent_size + seeds[0].shape[1])
    for constant, seed in enumerate(seeds):
        expected = (constant + s / 8) / (constant + s)
        assert float(seed.mean(0).var() / seed.var()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_published_presets_have_no_calibration(kind: type[GridGan]) -> None:
    for preset in kind.presets:
        if preset != "paper-angled":
            model = built(kind, grid_showers(), preset=preset)
            published = preset.startswith("paper")
            assert (model.calibration is None) == published
            assert [stage.name for stage in model.stages()] == (
                ["gan"] if published else ["gan", "calibrate"]
            )
            assert any(name.startswith("calibration.") for name in model.state_dict()) != published
    assert not Conv3dGan.resolve({"preset": "paper-angled"}).calibrate


@pytest.mark.parametrize("kind", KINDS)
def test_weights_from_before_the_calibration_load_and_it_is_neutral(kind: type[GridGan]) -> None:
    showers = grid_showers()
    model, old = built(kind, showers).eval(), built(kind, showers, calibrate=False).eval()
    model.load_weights(old.state_dict())
    conditions = model.condition_matrix(showers)[:3]
    torch.testing.assert_close(model.draw(conditions), old.draw(conditions), rtol=0, atol=0)


def test_the_last_stage_calibrates_keeps_visible_energies_and_is_stored() -> None:
    showers = grid_showers(n=24)
    model = built(Conv3dGan, showers).eval()
    conditions = model.condition_matrix(showers)
    before = model.draw(conditions)
    stage = model.stages()[-1]
    assert stage.fit is not None
    with torch.no_grad():
        stage.fit(HeldOut(batch_of(model, showers)), torch.Generator())
    after = model.draw(conditions)
    torch.testing.assert_close(after.sum(1), before.sum(1), rtol=0.03, atol=1.0)  # the cut takes faint cells
    truth, *found = (
        (x / x.sum(1, keepdim=True)).view(24, -1, 25).sum(1).mean(0)
        for x in (torch.from_numpy(showers.cells), before, after)
    )
    off, left = ((profile - truth).abs().sum() for profile in found)
    assert left < 0.5 * off
    again = Conv3dGan(model.detector, model.config).eval()
    again.load_weights(model.state_dict())
    torch.testing.assert_close(again.draw(conditions), after)
