"""The distilled flow: students begin as their teachers, learn their way, and are all that is shipped."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from flows import DISTILLED as SHORT
from flows import fitted, normals, run, showers, stopped, targets_of, trained
from torch import Tensor

from caloforge.errors import IncompatibleError
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.models.flow.path import integrate, jump, time_grid
from caloforge.models.stage import Batch
from caloforge.train.folder import load_weights

NAME = "flow-matching-fast"
either = pytest.mark.parametrize("feedback", [True, False], ids=["feedback", "none"])


def _awake(**settings: object) -> FlowMatchingFast:
    """Fitted, with heads that have left their zeros, each network its own."""
    model = fitted(NAME, **settings)
    assert isinstance(model, FlowMatchingFast)
    torch.manual_seed(4)
    with torch.no_grad():
        for network in (model.summary_net, model.cell_net, model.summary_student, model.cell_student):
            network.head.out.weight.normal_(0.0, 0.05)
    return model


def _copied(model: FlowMatchingFast) -> FlowMatchingFast:
    (copy,) = (stage for stage in model.stages() if stage.name == "copy")
    assert copy.fit is not None
    copy.fit(None, torch.Generator())
    return model


def _conditions(model: FlowMatchingFast, n: int) -> tuple[Tensor, Tensor]:
    encoded = model.encoder(model.condition_matrix(showers())[:n])
    return encoded, normals(n, model.summary.rows, model.summary.kinds, seed=3)


def test_stages_are_teachers_then_copy_then_students() -> None:
    stages = _awake().stages()
    names = ["summary", "cells", "copy", "summary-student", "cell-student", "calibrate"]
    assert [stage.name for stage in stages] == names
    model = _awake()
    held = {id(p) for stage in model.stages()[3:] for p in stage.parameters}
    students = [*model.summary_student.parameters(), *model.cell_student.parameters()]
    assert held == {id(p) for p in students}


@either
def test_students_begin_as_copies_of_their_teachers(feedback: bool) -> None:
    model = _awake(feedback=feedback)
    pairs = ((model.summary_net, model.summary_student), (model.cell_net, model.cell_student))
    for teacher, student in pairs:
        assert any(
            not torch.equal(p, q) for p, q in zip(teacher.parameters(), student.parameters(), strict=True)
        )
    _copied(model)
    for teacher, student in pairs:
        assert teacher.state_dict().keys() == student.state_dict().keys()
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, student.state_dict()[name])
        assert not {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}


@either
def test_after_the_copy_jumps_are_eulers_steps_of_the_teacher(feedback: bool) -> None:
    model = _copied(_awake(summary_jumps=3, jumps=2, shift=0.7, feedback=feedback))
    encoded, summary = _conditions(model, 6)
    first, second = normals(*summary.shape), normals(6, model.detector.n_cells)
    with torch.no_grad():
        targets = targets_of(model, summary, encoded)
        to = model.layer_moments(targets, summary, encoded)
        found = model.summarise(first, encoded), model.shape(second, encoded, summary, targets)
        for x, times, denoise, result in (
            (first, time_grid(3), model.summary_denoiser(encoded), found[0]),
            (second, time_grid(2, 0.7), model.cell_denoiser(encoded, summary, to), found[1]),
        ):
            for start, end in pairwise(times):
                t = torch.full((6,), start)
                velocity = (denoise(x, t) - x) / (1.0 - start)
                x = x + (end - start) * velocity
            torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-4)


@either
def test_one_jump_is_the_estimate_from_noise(feedback: bool) -> None:
    model = _copied(_awake(summary_jumps=1, jumps=1, feedback=feedback))
    encoded, summary = _conditions(model, 4)
    noise = normals(4, model.detector.n_cells)
    with torch.no_grad():
        targets = targets_of(model, summary, encoded)
        to = model.layer_moments(targets, summary, encoded)
        expected = model.cell_net(noise, torch.zeros(4), encoded, summary, to)
        torch.testing.assert_close(model.shape(noise, encoded, summary, targets), expected)


def _teacher(x: Tensor, t: Tensor) -> Tensor:
    """The best estimate of N(1, 1/4) data."""
    t = t.view(-1, 1)
    return 1.0 + 0.25 * t / (0.25 * t**2 + (1 - t) ** 2) * (x - t)


def test_the_distance_is_that_of_a_loop() -> None:
    """Row by row: the teacher's Heun steps over the row's jump, the student's one step, the squared difference."""
    model = _awake(teacher_steps=3)
    data, noise, times = normals(9, 4), normals(9, 4, seed=1), (0.0, 0.3, 0.6, 1.0)

    def student(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x + t.view(-1, 1)

    found = model._distance(_teacher, student, data, noise, times)
    total = 0.0
    for row in range(9):
        start, end = times[row % 3], times[row % 3 + 1]
        x = (1 - start) * noise[row : row + 1] + start * data[row : row + 1]
        grid = [start + (end - start) * k / 3 for k in range(3)] + [end]
        goal, mine = integrate(_teacher, x, grid), jump(student, x, start, end)
        total += float(((mine - goal) / (end - start)).square().sum())
    assert float(found) == pytest.approx(total / 36, rel=1e-4)


def test_a_student_that_lands_where_the_teacher_does_has_no_distance() -> None:
    model = _awake(teacher_steps=4)
    data, noise, times = normals(12, 4), normals(12, 4, seed=1), time_grid(3)

    def student(x: Tensor, t: Tensor) -> Tensor:
        rows = []
        for row in range(len(x)):
            start = float(t[row])
            end = next(time for time in times if time > start + 1e-6)
            grid = [start + (end - start) * k / 4 for k in range(4)] + [end]
            goal = integrate(_teacher, x[row : row + 1], grid)
            rows.append(x[row : row + 1] + (1 - start) / (end - start) * (goal - x[row : row + 1]))
        return torch.cat(rows)

    perfect = model._distance(_teacher, student, data, noise, times)
    copy = model._distance(_teacher, _teacher, data, noise, times)
    assert float(perfect) < 1e-8
    assert float(copy) > 1e-3


def test_a_teacher_of_straight_ways_needs_no_distilling() -> None:
    model, goal = _awake(), normals(8, 4, seed=7)

    def straight(x: Tensor, t: Tensor) -> Tensor:
        return goal

    data, noise = normals(8, 4), normals(8, 4, seed=1)
    assert float(model._distance(straight, straight, data, noise, time_grid(4))) < 1e-9


def test_students_see_what_the_summary_says_of_the_layers() -> None:
    """A student of its teacher's architecture has its own feedback; its cells follow the layers' targets, too."""
    model = _copied(_awake(jumps=2, feedback=True))
    teachers, student = model.cell_net.feedback, model.cell_student.feedback
    assert student is not None
    assert student is not teachers
    assert torch.equal(student.table, teachers.table)
    assert torch.equal(student.spread, teachers.spread)
    assert teachers.table.abs().max() > 1.0
    encoded, summary = _conditions(model, 6)
    noise, targets = normals(6, model.detector.n_cells), targets_of(model, summary, encoded)
    moved = targets._replace(x=targets.x + 0.2)
    with torch.no_grad():
        found, other = (model.shape(noise, encoded, summary, some) for some in (targets, moved))
    assert (found - other).abs().max() > 1e-3
    assert torch.isfinite(found).all()
    without = _copied(_awake(jumps=2))
    assert without.cell_net.feedback is None
    assert without.cell_student.feedback is None
    with torch.no_grad():
        found, other = (without.shape(noise, encoded, summary, some) for some in (targets, moved))
    assert torch.equal(found, other)


class _Updater:
    """Hands out numbers and keeps the losses."""

    def __init__(self) -> None:
        self.generator, self.losses = torch.Generator().manual_seed(5), []

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def update(self, name: str, loss: Tensor) -> None:
        assert name in ("summary-student", "cell-student")
        loss.backward()
        self.losses.append(float(loss.detach()))


@either
def test_gradients_reach_the_students_alone(feedback: bool) -> None:
    model = _awake(feedback=feedback)
    source = showers()[:16]
    batch = Batch(torch.from_numpy(source.cells), model.condition_matrix(source), torch.arange(16))
    updater = _Updater()
    for stage in model.stages()[3:5]:
        assert stage.step is not None
        stage.step(batch, updater)
    assert all(np.isfinite(updater.losses))
    assert all(p.grad is None for net in (model.summary_net, model.cell_net) for p in net.parameters())
    for net in (model.summary_student, model.cell_student):
        assert all(p.grad is not None for p in net.parameters())
        assert all((p.grad != 0).any() for p in net.head.parameters())


def test_training_brings_the_students_closer_to_their_teachers() -> None:
    model = trained(NAME, *SHORT)
    assert isinstance(model, FlowMatchingFast)
    encoded, _ = _conditions(model, 60)
    noise = normals(60, model.summary.rows, model.summary.kinds, seed=8)
    with torch.no_grad():
        goal = integrate(model.summary_denoiser(encoded), noise, time_grid(24))
        far = (model.summarise(noise, encoded) - goal).square().mean()
        euler = noise
        for start, end in pairwise(model.summary_times):
            euler = jump(model.summary_denoiser(encoded), euler, start, end)
        assert far < 0.95 * (euler - goal).square().mean()


def test_showers_are_cells_with_energies_that_follow_the_incident_one() -> None:
    model, source = trained(NAME, *SHORT), showers()
    cells = model.draw(model.condition_matrix(source), seed=2)
    assert torch.isfinite(cells).all()
    assert (cells >= 0).all()
    made = cells.sum(1).numpy()
    for energy in np.unique(source.incident_energy):
        part = source.incident_energy == energy
        assert made[part].mean() == pytest.approx(source.visible_energy[part].mean(), rel=0.06)


@pytest.mark.parametrize("more", [(), ("feedback=true",)], ids=["none", "feedback"])
def test_shipped_weights_leave_the_teachers_out_and_make_the_same_showers(more: tuple[str, ...]) -> None:
    model = trained(NAME, *SHORT, *more)
    shipped = model.shipped_state()
    parts = {name.partition(".")[0] for name in shipped}
    assert not parts & {"summary_net", "cell_net"}
    assert {"summary_student", "cell_student", "summary", "values", "core"} <= parts
    float_state = {
        name: value.float() if value.is_floating_point() else value for name, value in shipped.items()
    }
    rounded = {name: float_state.get(name, value) for name, value in model.state_dict().items()}
    torch.manual_seed(99)
    whole, small = (type(model)(model.detector, model.config).eval() for _ in range(2))
    whole.load_weights(rounded)
    with pytest.raises(IncompatibleError, match="missing"):
        small.load_weights(float_state)
    small.load_weights(float_state, shipped=True)
    conditions = model.condition_matrix(showers())[:30]
    made = [m.draw(conditions, seed=6) for m in (whole, small)]
    assert torch.equal(*made)
    torch.testing.assert_close(made[1].sum(1), model.draw(conditions, seed=6).sum(1), rtol=0.05, atol=0)


def test_a_training_that_was_stopped_after_the_copy_goes_on_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    epochs = ("summary_epochs=1", "epochs=1", "summary_student_epochs=2", "student_epochs=1")
    small = ("feedback=true", "width=16", "summary_width=16")
    how = ("checkpoint_epochs=1", *epochs, *small, "batch_size=180")
    stopped(monkeypatch, NAME, tmp_path / "a", 1, *how)
    run(NAME, tmp_path / "a", *how, resume=True)
    run(NAME, tmp_path / "b", *how)
    first, second = (load_weights(tmp_path / name / "weights.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
