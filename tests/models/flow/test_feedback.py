"""Layers of the shower that a flow expects, against loops over cells; feedback follows from the weights of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from feedbacks import RATE, Case, by_hand, expected_moments, of_the_cells, targets_of_layer
from feedbacks import case as any_case
from flows import fitted, normals, run, run_folder, showers
from torch import Tensor

from caloforge.models.base import ShowerModel
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.feedback import LayerFeedback, LayerMoments
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import Showers
from caloforge.train import run as training
from caloforge.train.folder import RunFolder, load_weights

DETECTORS = ("atlas-em-barrel", "ild-ecal-10x10")
every = pytest.mark.parametrize("name", DETECTORS)
any_time = pytest.mark.parametrize("time", [0.0, 0.3, 0.8, 1.0])


def case(name: str) -> Case:
    return any_case(name, feedback=True)


@every
@any_time
def test_misses_are_those_of_a_loop_over_cells(name: str, time: float) -> None:
    """Logarithms of energy and filled cells, centres in widths of the target, logarithms of the widths."""
    it = case(name).rows(4)
    x = it.noisy(time)
    found = it.feedback.misses(it.posterior, x, torch.full((4,), time), it.to)
    assert found.shape == (4, it.model.detector.n_layers, it.feedback.kinds)
    for row in range(4):
        for layer in range(it.model.detector.n_layers):
            p, e, *place = by_hand(it, x, time, row, layer, it.to)
            whole, mx, my, wx, wy = expected_moments(p, e, tuple(place))
            _, tx, ty, vx, vy = (
                max(v, 1e-3) if k > 2 else v for k, v in enumerate(targets_of_layer(it.to, row, layer))
            )
            expected = np.array(
                [
                    np.log(max(whole, 1e-4)),
                    np.log((sum(p) + 1.0) / (float(it.to.filled[row, layer]) + 1.0)),
                    (mx - tx) / vx,
                    (my - ty) / vy,
                    np.log(max(wx, 1e-3) / vx),
                    np.log(max(wy, 1e-3) / vy),
                ]
            )
            if it.to.filled[row, layer] == 0:
                expected = np.zeros(6)
            rounding = 2e-6 / min(wx, wy, vx, vy, 1.0) ** 2  # a width is a difference of mean squares
            np.testing.assert_allclose(found[row, layer].numpy(), expected.clip(-3, 3), atol=2e-3 + rounding)


@every
def test_the_table_is_the_energies_of_the_values(name: str) -> None:
    """Within the distance of its knots, for values of a hit; core cells have their widths."""
    it = case(name)
    feedback, values = it.feedback, it.model.values
    knots = np.linspace(-1.0, 10.0, feedback.table.shape[1])
    some = torch.linspace(1.0, 9.0, 500).expand(1, it.model.detector.n_layers, -1)
    for layer, exact in enumerate(values.logarithms(some)[0]):
        table = feedback.table[layer if feedback.relative else 0].double().numpy()
        np.testing.assert_allclose(np.interp(some[0, 0].numpy(), knots, table), exact.numpy(), atol=0.05)
    core = it.model.core.cells
    assert torch.equal(feedback.spread[core], it.model.core.spread)
    outside = torch.ones(it.model.detector.n_cells, dtype=torch.bool)
    outside[core] = False
    assert (feedback.spread[outside] == 1.0).all()


@pytest.mark.parametrize("name", [*DETECTORS, "clic-ecal"])
def test_showers_without_noise_miss_nothing_of_their_own_layers(name: str) -> None:
    it = case(name)
    to = of_the_cells(it)
    misses = it.feedback.misses(it.posterior, it.values, torch.ones(len(it.values)), to)
    several = to.filled > 1
    assert several.float().mean() > 0.5
    off = misses[several].abs()
    assert off[:, [0, 2, 3]].max() < 0.01
    assert (off[:, 4:] < 0.01).float().mean() > 0.98  # a layer in one row of cells has no width
    core = torch.zeros(it.model.detector.n_cells, dtype=torch.bool)
    core[it.model.core.cells] = True
    full = (
        it.feedback.view((core & (it.cells == 0)).float()).sum(2) == 0
    ) & several  # core cells count as filled
    assert full.float().mean() > 0.2
    assert misses[full][:, 1].abs().max() < 0.05
    assert (misses[to.filled == 0] == 0).all()


@pytest.mark.parametrize("name", [*DETECTORS, "clic-ecal"])
def test_showers_without_noise_miss_nothing_of_their_summary(name: str) -> None:
    it = case(name)
    misses = it.feedback.misses(it.posterior, it.values, torch.ones(len(it.values)), it.to)
    several = it.to.filled > 1
    off = misses[several].abs()
    assert off[:, 0].max() < 0.01
    assert (off[:, 2:4] < 0.01).float().mean() > 0.98
    wide = (it.to.moments[..., 2:] - it.to.moments[..., :2].square())[several] > 0.02**2
    assert wide.float().mean() > 0.7
    assert (off[:, 4:][wide] < 0.05).float().mean() > 0.98  # others are blurred
    early = it.feedback.misses(it.posterior, it.noisy(0.3), torch.full((len(it.values),), 0.3), it.to)
    assert (early[several].abs().mean(0) > 5.0 * off.mean(0)).all()


@every
def test_what_a_shower_has_too_much_is_what_it_misses(name: str) -> None:
    """More energy, cells elsewhere: with the signs of the noisy shower less its target."""
    it = case(name)
    to, one = of_the_cells(it), torch.ones(len(it.values))
    several = (to.filled > 4) & (to.moments[..., 2] - to.moments[..., 0].square() > 1e-2)
    assert several.any()
    tx, ty, txx, tyy = to.moments.unbind(2)
    moved = to._replace(moments=torch.stack([tx + 0.1, ty, txx + 0.2 * tx + 0.01, tyy], 2))
    misses = it.feedback.misses(it.posterior, it.values, one, moved)[several]
    width = (txx - tx.square()).sqrt()[several]
    torch.testing.assert_close(misses[:, 2], (-0.1 / width).clamp_min(-3.0), rtol=0.01, atol=0.01)
    assert misses[:, [3]].abs().max() < 0.05
    if not it.feedback.relative:
        half = to._replace(sums=0.5 * to.sums)  # energies above the layer's are cut
        assert it.feedback.misses(it.posterior, it.values, one, half)[several][:, 0].min() > 0.3


def _sparse(n: int) -> tuple[Tensor, LayerMoments]:
    """Noisy ATLAS showers with targets of layers with no cell, one and several; the last layer without energy."""
    it = case("atlas-em-barrel").rows(n)
    filled = it.to.filled.clone()
    filled[:, 0], filled[:, 1], filled[:, 2:] = 0.0, 1.0, 5.0
    sums = torch.where(filled == 0, 0.0, it.to.sums)
    sums[:, 3] = 0.0
    return it.noisy(0.5), it.to._replace(filled=filled, sums=sums)


@pytest.mark.parametrize("time", [0.0, 0.5, 0.99, 1.0])
def test_wild_inputs_stay_finite(time: float) -> None:
    """All cells filled or none, values far away, layers of one cell, without energy, or of a centre outside."""
    it, (x, to) = case("atlas-em-barrel"), _sparse(6)
    far = to._replace(moments=torch.tensor([3.0, -3.0, 9.0, 9.0]).expand_as(to.moments))
    times = torch.full((6,), time)
    for noisy in (x, 50.0 * x, torch.full_like(x, -1.0)):
        for targets in (to, far, to._replace(sums=0.0 * to.sums)):
            misses = it.feedback.misses(it.posterior, noisy, times, targets)
            assert torch.isfinite(misses).all()
            assert misses.abs().max() <= 3.0
            assert (misses[:, 0] == 0).all()  # no filled cell
            assert (misses[:, 1:] != 0).any()


@pytest.mark.parametrize("name", [*DETECTORS, "clic-ecal"])
def test_a_shower_does_not_depend_on_its_batch(name: str) -> None:
    it = case(name).rows(5)
    time = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7])
    x = it.noisy(time)
    misses = it.feedback.misses(it.posterior, x, time, it.to)
    for row in range(5):
        one = slice(row, row + 1)
        to = LayerMoments(*(part[one] for part in it.to))
        alone = it.feedback.misses(it.posterior, x[one], time[one], to)
        torch.testing.assert_close(alone, misses[one], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*DETECTORS, "clic-ecal"])
def test_powers_are_those_of_the_cells_places(name: str) -> None:
    """1, x, y, x^2 and y^2 in half widths of the layer, in double precision."""
    it = case(name)
    detector, powers = it.model.detector, it.feedback.powers
    assert powers.dtype == torch.float64
    assert powers.shape == (detector.n_layers, it.feedback.view.width, 5)
    for layer, members in enumerate(detector.layer_cells):
        centres = detector.cell_centres[members, :2]
        middle = (centres.min(0) + centres.max(0)) / 2
        x, y = ((centres - middle) / np.maximum(np.ptp(centres, axis=0) / 2, 1e-6)).T
        expected = np.stack([np.ones(len(members)), x, y, x**2, y**2], 1)
        np.testing.assert_allclose(powers[layer, : len(members)].numpy(), expected, atol=1e-5)


def test_targets_are_those_of_the_layers() -> None:
    """Mean squares from centres and widths, hits and faint cells together, and the values at which core cells are 0."""
    it = case("atlas-em-barrel").rows(3)
    sums, hits, faint, x, y, wx, wy = (normals(3, 4, seed=seed).abs() for seed in range(7))
    found = it.model.layer_moments(LayerTargets(sums, hits, faint, x, y, wx, wy), it.summary, it.encoded)
    assert torch.equal(found.sums, sums)
    torch.testing.assert_close(found.filled, hits + faint)
    torch.testing.assert_close(found.moments, torch.stack([x, y, x**2 + wx**2, y**2 + wy**2], 2))
    core = it.model.core.cells
    plain = it.values.clone()
    plain[:, core] = found.base[:, core] + it.model.core.spread * it.values[:, core]
    it.model.core.edge.fill_(-torch.inf)
    expected = it.model.core.inverse(it.values, it.summary, it.encoded)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-4)
    outside = torch.ones(it.model.detector.n_cells, dtype=torch.bool)
    outside[core] = False
    assert (found.base[:, outside] == 0).all()


def test_a_unit_of_bright_values_is_the_rate_in_logarithms() -> None:
    table = case("ild-ecal-10x10").model.values
    steep = table.logarithms(torch.tensor([[[8.0, 9.0]]])).diff()
    assert float(steep) == pytest.approx(RATE, rel=1e-3)


def _fits(model: ShowerModel) -> list[LayerFeedback]:
    return [part for part in model.modules() if isinstance(part, LayerFeedback)]


def _assert_same(first: ShowerModel, second: ShowerModel) -> None:
    pairs = list(zip(_fits(first), _fits(second), strict=True))
    assert pairs
    for one, other in pairs:
        assert all(torch.equal(*pair) for pair in zip(one.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("name", ["flow-matching", "flow-matching-fast"])
def test_feedback_is_not_stored_and_follows_from_loaded_weights(name: str) -> None:
    """From their table and core, not from those of the new model; also for students, with or without their teachers."""
    old = fitted(name, feedback=True, core=0.8)
    state, shipped = old.state_dict(), old.shipped_state()
    assert not [key for part in (state, shipped) for key in part if ".feedback." in key]
    assert len(_fits(old)) == (2 if name == "flow-matching-fast" else 1)
    for feedback in _fits(old):
        assert feedback.table.abs().max() > 1.0
        assert (feedback.spread != 1.0).any()
    new, small = (type(old)(old.detector, old.config).eval() for _ in range(2))
    for one, other in zip(_fits(old), _fits(new), strict=True):
        assert not torch.equal(one.table, other.table)
        assert not torch.equal(one.spread, other.spread)
    new.load_weights(state)
    _assert_same(old, new)
    rounded = {key: value.float() if value.is_floating_point() else value for key, value in shipped.items()}
    small.load_weights(rounded, shipped=True)
    for one, other in zip(_fits(old), _fits(small), strict=True):
        torch.testing.assert_close(other.table, one.table, rtol=0.01, atol=0.01)
        torch.testing.assert_close(other.spread, one.spread, rtol=0.01, atol=0.01)
    noise, conditions = normals(4, old.noise_size), old.condition_low.expand(4, -1)
    with torch.no_grad():
        assert torch.equal(*(model.sample(noise, conditions) for model in (old, new)))


def test_showers_of_another_energy_scale_give_other_feedback() -> None:
    model = fitted("flow-matching", feedback=True, core=0.8)
    before = _fits(model)[0].table.clone()
    model.fit_transforms(_softer(showers()))
    assert (_fits(model)[0].table - before).abs().max() > 0.1


def _softer(source: Showers) -> Showers:
    """The same filled cells with energies of another spectrum."""
    cells = np.where(source.cells > 1e-4, source.cells, 0.0) ** 0.8
    conditions = {**source.conditions}
    return Showers(
        source.detector, cells, source.incident_energy, source.incident_theta, conditions, source.particle
    )


@pytest.mark.parametrize("name", ["flow-matching", "flow-matching-fast"])
def test_a_training_from_weights_has_their_feedback(
    monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    """``train.initial``: the feedback belongs to the table and core of the weights, not to the showers of the training."""
    how = ("feedback=true", "core=0.8", "summary_epochs=1", "epochs=1", "width=16", "summary_width=16")
    if name == "flow-matching-fast":
        how = (*how, "summary_student_epochs=1", "student_epochs=1", "jumps=2", "summary_jumps=2")
    first = run_folder(name, *how)
    (before,) = RunFolder(first).models()
    kept, own, taken = [], [], training.take_fitting

    def take(model: ShowerModel, path: Path) -> None:
        own.extend(feedback.table.clone() for feedback in _fits(model))
        taken(model, path)
        _assert_same(model, before)  # from the first step on
        kept.append(model)

    monkeypatch.setattr(training, "take_fitting", take)
    initial = f'train.initial="{first / "weights.safetensors"}"'
    data = _softer(showers()).save(tmp_path / "softer.h5")
    second = run(name, tmp_path / "run", *how, initial, data=data)
    (model,) = kept
    assert isinstance(model, FlowMatching)
    assert all(
        (table - feedback.table).abs().max() > 0.1 for table, feedback in zip(own, _fits(before), strict=True)
    )
    _assert_same(model, before)
    (after,) = RunFolder(second).models()
    _assert_same(after, before)
    assert not [key for key in load_weights(second / "weights.safetensors") if ".feedback." in key]
