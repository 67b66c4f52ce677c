"""Small students: a network for each jump, for one core of a CPU."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from flows import DISTILLED, fitted, normals, run_folder, showers, targets_of, trained
from torch import Tensor, nn

from caloforge.geometry import get_detector
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.models.flow.path import integrate, time_grid
from caloforge.models.flow.students import JumpNetworks, StudentSettings, cell_jumps
from caloforge.models.stage import Batch
from caloforge.train.folder import load_weights

NAME = "flow-matching-fast"
SMALL = {"small": {"width": 16, "summary_width": 16}, "jumps": 2, "summary_jumps": 3, "shift": 1.0}
SHORT = (
    "summary_epochs=0",
    "epochs=0",
    "summary_student_epochs=12",
    "student_epochs=1",
    "teacher_steps=2",
    "summary_jumps=3",
    "jumps=2",
    "small.width=32",
    "small.summary_width=32",
    "student.warmup=3",
    "student.ema=0",
    "student.lr=3e-3",
)


class _Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.factor * x + time[:, None] + condition


@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_rows_take_turns(n: int) -> None:
    networks = JumpNetworks([_Scaled(factor) for factor in (1.0, 10.0, 100.0)])
    x, time, condition = normals(n, 4), normals(n, seed=1), normals(n, 4, seed=2)
    found = networks(x, time, condition)
    for row in range(n):
        expected = 10.0 ** (row % 3) * x[row] + time[row] + condition[row]
        torch.testing.assert_close(found[row], expected)


def _copied(**settings: object) -> FlowMatchingFast:
    model = fitted(NAME, **{**SMALL, **settings})
    assert isinstance(model, FlowMatchingFast)
    model._copy(None, torch.Generator())
    return model


def test_they_have_their_teachers_constants() -> None:
    model = _copied()
    teacher = model.cell_net.posterior
    for network in model.cell_student.networks:
        assert torch.equal(network.posterior.logit, teacher.logit)
        assert torch.equal(network.posterior.spread, teacher.spread)
        assert not torch.equal(network.posterior.spread, torch.ones_like(teacher.spread))
    assert [network.posterior.time for network in model.cell_student.networks] == [0.0, 0.5]
    assert len(model.summary_student.networks) == 3


def test_each_jump_is_its_own_networks() -> None:
    """From its time, all rows together; a batch is the showers one by one."""
    model = _copied(shift=0.7)
    torch.manual_seed(4)
    with torch.no_grad():
        for network in model.cell_student.networks:
            network.head.out.weight.normal_(0.0, 0.05)
        encoded = model.encoder(model.condition_matrix(showers())[:6])
        summary = normals(6, model.summary.rows, model.summary.kinds, seed=3)
        x = noise = normals(6, model.detector.n_cells)
        for network, (start, end) in zip(
            model.cell_student.networks, pairwise(time_grid(2, 0.7)), strict=True
        ):
            found = network(x, torch.full((6,), start), encoded, summary)
            x = x + (end - start) / (1 - start) * (found - x)
        targets = targets_of(model, summary, encoded)
        torch.testing.assert_close(model.shape(noise, encoded, summary, targets), x, rtol=1e-4, atol=1e-4)


def test_they_need_no_feedback_where_their_teacher_has_it() -> None:
    model = _copied(feedback=True)
    assert model.cell_net.feedback is not None
    assert all(network.feedback is None for network in model.cell_student.networks)
    torch.manual_seed(4)
    source = showers()[:6]
    batch = Batch(torch.from_numpy(source.cells), model.condition_matrix(source), torch.arange(6))
    with torch.no_grad():
        for network in (model.cell_net, *model.cell_student.networks):
            network.head.out.weight.normal_(0.0, 0.05)
    model.cell_distance(batch, _Normals(), 0.05).backward()
    assert all(p.grad is None for p in model.cell_net.parameters())
    for network in model.cell_student.networks:
        assert all(torch.isfinite(p.grad).all() and (p.grad != 0).any() for p in network.head.parameters())
    encoded, summary = (
        model.encoder(batch.conditions),
        torch.zeros(6, model.summary.rows, model.summary.kinds),
    )
    noise, targets = normals(6, model.detector.n_cells), targets_of(model, summary, encoded)
    with torch.no_grad():
        moved = targets._replace(x=targets.x + 0.2)
        found, other = (model.shape(noise, encoded, summary, some) for some in (targets, moved))
    assert torch.equal(found, other)


class _Normals:
    def normal(self, *shape: int) -> Tensor:
        return normals(*shape, seed=5)

    def uniform(self, *shape: int) -> Tensor:
        return torch.special.ndtr(normals(*shape, seed=6))


def test_grids_are_cut_into_as_many_patches_as_asked_for() -> None:
    for name, places in (("ild-ecal", 6 * 6 * 10), ("clic-ecal", 5 * 5 * 9)):
        settings = StudentSettings(pieces=(5, 5, 3))
        (network,) = cell_jumps(settings, get_detector(name), 3, 5, 1, (0.0, 1.0)).networks
        assert (network.patches.n_patches, network.patches.places) == (75, places)


def test_the_preset_has_small_students_of_a_large_teacher() -> None:
    config = FlowMatchingFast.resolve({"preset": "cpu"})
    assert config.small == StudentSettings()
    assert config.width == FlowMatchingFast.resolve({}).width > config.small.width
    assert config.student.kind == "adamw"


def _settings() -> tuple[str, ...]:
    """Settings of students of the teachers of another run."""
    return (*SHORT, f'train.initial="{run_folder(NAME, *DISTILLED) / "weights.safetensors"}"')


def test_training_brings_them_closer_to_their_teachers() -> None:
    model, source = trained(NAME, *_settings()), showers()
    assert isinstance(model, FlowMatchingFast)
    encoded = model.encoder(model.condition_matrix(source)[:60])
    noise = normals(60, model.summary.rows, model.summary.kinds, seed=8)
    with torch.no_grad():
        goal = integrate(model.summary_denoiser(encoded), noise, time_grid(24))
        far = (model.summarise(noise, encoded) - goal).square().mean()
        for network in model.summary_student.networks:
            network.out.weight.zero_()
            network.out.bias.zero_()
        untrained = (model.summarise(noise, encoded) - goal).square().mean()
    assert far < untrained


def test_teachers_of_another_run_need_no_training() -> None:
    folders = run_folder(NAME, *DISTILLED), run_folder(NAME, *_settings())
    before, after = (load_weights(folder / "weights.safetensors") for folder in folders)
    for name, value in before.items():
        if name == "core.edge":  # fitted to the students by the calibration
            continue
        if name.startswith(("summary_net.", "cell_net.", "core.", "values.table.", "encoder.")):
            assert torch.equal(after[name], value)
    assert any(name.startswith("cell_student.networks.1.") for name in after)
