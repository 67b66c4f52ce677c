"""The flow for one core of a CPU: its settings, training in stages, and its showers."""

from __future__ import annotations

import pytest
import torch
from flows import SHORT, normals
from small_grids import (
    CELLS,
    NAME,
    SHAPE,
    TRAINING,
    fitted_grid,
    grid_run,
    grid_showers,
    small_grid,
    trained_grid,
)
from torch import Tensor

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models import MODELS
from caloforge.models.flow.cpu import FlowMatchingCpu
from caloforge.models.flow.fixed_time import shares
from caloforge.models.flow.path import EMPTY
from caloforge.models.stage import Batch
from caloforge.train.folder import load_weights


@pytest.mark.parametrize("times", [[], [0.1, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.3], [0.0, 1.0], [0.0, 1.5]])
def test_times_rise_from_0_and_stay_below_1(times: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"key 'times'.*expected rising times from 0 on, all below 1"):
        FlowMatchingCpu.resolve({"times": times})
    for right in ([0.0], [0.0, 0.2, 0.9]):
        assert FlowMatchingCpu.resolve({"times": right}).times == tuple(right)


@pytest.mark.parametrize("kernel", [2, 4, 0, -1])
def test_kernels_have_an_odd_number_of_columns(kernel: int) -> None:
    with pytest.raises(ConfigError, match="key 'kernel'"):
        FlowMatchingCpu.resolve({"kernel": kernel})
    assert FlowMatchingCpu.resolve({"kernel": 1}).kernel == 1


@pytest.mark.parametrize(
    "setting", [{"heads": 2}, {"repeats": 1}, {"local": 8}, {"feedback": True}, {"box": [5, 5, 5]}]
)
def test_settings_without_effect_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"key '{next(iter(setting))}'.*the transformer of flow-matching"):
        FlowMatchingCpu.resolve(setting)


@pytest.mark.parametrize("name", ["atlas-em-barrel", "calochallenge-2"])
def test_detectors_without_columns_are_refused_in_one_line(name: str) -> None:
    detector = get_detector(name)
    expected = f"'{NAME}' needs layers with the same rows and columns of cells; those of '{name}' differ"
    for refuses in (
        lambda: FlowMatchingCpu.check_detector(detector),
        lambda: FlowMatchingCpu(detector, FlowMatchingCpu.resolve({})),
    ):
        with pytest.raises(IncompatibleError) as error:
            refuses()
        assert str(error.value) == expected


def test_it_is_a_small_model_of_a_large_teacher_of_its_summary() -> None:
    model = fitted_grid()
    assert MODELS[NAME] is FlowMatchingCpu
    assert [stage.name for stage in model.stages()] == ["summary", "summary-student", "cells", "calibrate"]
    assert model.noise_size == model.summary_size + CELLS
    assert (model.compilable, model.low_precision) == ((), ())
    flagship = MODELS["flow-matching"]
    full = FlowMatchingCpu.resolve({})
    same = ("summary_width", "summary_blocks", "summary_heads")
    assert all(getattr(full, key) == getattr(flagship.resolve({}), key) for key in same)


def _batch(n: int = 400) -> Batch:
    source = grid_showers()[:n]
    conditions = fitted_grid().condition_matrix(source)
    return Batch(torch.from_numpy(source.cells), conditions, torch.arange(n))


class _Data:
    """Held-out showers for a validation of one pass."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batch = _batch()

    def __len__(self) -> int:
        return 2000

    def batches(self, size: int):
        yield self.batch


def test_training_lowers_the_losses_of_all_stages() -> None:
    start, model, data = fitted_grid(), trained_grid(), _Data()
    start.summary_net.load_state_dict(model.summary_net.state_dict())  # the same teacher
    for old, new in zip(start.stages()[1:3], model.stages()[1:3], strict=True):
        assert old.metric == new.metric
        assert old.validate is not None
        assert new.validate is not None
        before, after = old.validate(data)[old.metric], new.validate(data)[new.metric]
        assert after < before - 0.03 * abs(before), old.name
        assert new.validate(data)[new.metric] == after
    old, new = fitted_grid().stages()[0], model.stages()[0]
    assert old.validate is not None
    assert new.validate is not None
    assert new.validate(data)[new.metric] < 0.97 * old.validate(data)[old.metric]
    assert all(
        torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point()
    )


class _Random:
    generator = torch.Generator().manual_seed(5)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)


def test_the_cells_learn_without_a_teacher() -> None:
    """The cells' loss reaches their networks, in all turns, and nothing of the summary's."""
    model = fitted_grid()
    model.cell_loss(_batch(60), _Random(), 0.05).backward()
    others = [*model.summary_net.parameters(), *model.summary_student.parameters()]
    assert all(p.grad is None for p in others)
    for network in model.cell_net.networks:
        assert network.posterior.by_layer.grad.any()
        assert network.posterior.by_cell.grad.any()
        assert network.posterior.linear.grad.any()
        assert network.occupied.weight.grad.any()


def test_a_teacher_of_another_run_needs_no_training() -> None:
    teacher = grid_run("flow-matching", *SHORT, "summary_epochs=6", "epochs=1", "calibration=0")
    weights = teacher / "weights.safetensors"
    how = (*TRAINING, "epochs=1", "summary_student_epochs=1", "summary_epochs=0")
    folder = grid_run(NAME, *how, f'train.initial="{weights}"')
    before, after = load_weights(weights), load_weights(folder / "weights.safetensors")
    names = [
        name for name in before if name.startswith(("summary_net.", "summary.", "encoder.", "values.table."))
    ]
    assert any(name.startswith("summary_net.") for name in names)
    assert all(torch.equal(after[name], before[name]) for name in names)
    untaught = fitted_grid().state_dict()
    assert any(
        not torch.equal(after[name], untaught[name]) for name in names if name.startswith("summary_net.")
    )


def test_showers_have_as_many_filled_cells_as_their_summary_says() -> None:
    model, n = trained_grid(), 400
    conditions = model.condition_matrix(grid_showers())[:n]
    with torch.no_grad():
        values, targets = model.drawn(normals(n, model.noise_size), conditions)
    wanted, found = targets.hits + targets.faint, (values.view(n, -1, SHAPE[2]) != EMPTY).sum(1)
    wanted = torch.where(targets.sums > model.config.cut, wanted.clamp_min(1.0), wanted)
    assert torch.equal(found, wanted.long())


def test_layers_with_energy_are_never_empty() -> None:
    model = trained_grid()
    conditions = model.condition_matrix(grid_showers())
    with torch.no_grad():
        values, targets = model.drawn(normals(len(conditions), model.noise_size), conditions)
        cells = model.values.decode(values, targets, model.gain(conditions))
        number = model.values.number(values, targets)
    has_energy = targets.sums > model.config.cut
    assert 0.5 < has_energy.float().mean() < 1.0
    assert (number[has_energy] >= 1).all()
    assert (number[~has_energy] == 0).all()
    layers = cells.view(len(cells), -1, SHAPE[2])
    assert torch.equal((layers > 0).any(1), has_energy)
    lost = model.config.cut * (number + 1.0)  # cells that fall below the cut
    assert ((layers.sum(1) - targets.sums).abs() <= lost + 1e-4 * targets.sums).all()
    assert (values != EMPTY).view(layers.shape).any(1)[has_energy].all()  # their cells were drawn


def test_energies_follow_the_incident_one() -> None:
    """Before the last map, for which these showers have too few hits: the mean, and roughly in parts of the range."""
    model, source = trained_grid(), grid_showers()
    conditions = model.condition_matrix(source)
    with torch.no_grad():
        drawn = model.drawn(normals(len(conditions), model.noise_size, seed=2), conditions)
        made = model.values.decode(*drawn, model.gain(conditions)).sum(1).numpy()
    assert made.mean() == pytest.approx(source.visible_energy.mean(), rel=0.08)
    for low, high in ((1e3, 3e3), (3e3, 6e3), (6e3, 1e4)):
        part = (source.incident_energy >= low) & (source.incident_energy <= high)
        assert made[part].mean() == pytest.approx(source.visible_energy[part].mean(), rel=0.2)


def test_a_shower_is_a_pure_function_of_its_noise_and_conditions() -> None:
    """Row by row, up to a cell at the edge of its level."""
    model = trained_grid()
    noise = normals(6, model.noise_size)
    conditions = model.condition_matrix(grid_showers())[:6]
    kept = (
        noise.clone(),
        conditions.clone(),
        {key: value.clone() for key, value in model.state_dict().items()},
    )
    state = torch.get_rng_state()
    with torch.no_grad():
        whole, again = (model.sample(noise, conditions) for _ in range(2))
        rows = torch.cat([model.sample(noise[i : i + 1], conditions[i : i + 1]) for i in range(6)])
    assert torch.equal(whole, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(noise, kept[0])
    assert torch.equal(conditions, kept[1])
    assert all(torch.equal(value, kept[2][key]) for key, value in model.state_dict().items())
    assert (~torch.isclose(whole, rows, rtol=1e-3, atol=1e-5)).sum() <= 2


def test_shipped_weights_leave_the_teacher_out_and_make_the_same_showers() -> None:
    model = trained_grid()
    shipped = {
        name: value.float() if value.is_floating_point() else value
        for name, value in model.shipped_state().items()
    }
    parts = {name.partition(".")[0] for name in shipped}
    assert "summary_net" not in parts
    assert {"summary_student", "cell_net", "summary", "values"} <= parts
    rounded = {name: shipped.get(name, value) for name, value in model.state_dict().items()}
    whole, small = (FlowMatchingCpu(small_grid(), model.config).eval() for _ in range(2))
    whole.load_weights(rounded)
    with pytest.raises(IncompatibleError, match="missing"):
        small.load_weights(shipped)
    small.load_weights(shipped, shipped=True)
    conditions = model.condition_matrix(grid_showers())[:30]
    assert torch.equal(*(one.draw(conditions, seed=6) for one in (whole, small)))


def test_shipped_weights_have_the_numbers_of_cells_that_learn_alone() -> None:
    model, other = fitted_grid(), fitted_grid()
    averages = model.cell_net.posterior
    averages.logit.copy_(torch.linspace(-8.0, 2.0, CELLS))
    for _, _, parameter in model.cell_net.by_cell():
        parameter.data.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    kept = int((shares(averages) > 0).sum())
    shipped = model.shipped_state()
    names = [name for name, _, _ in model.cell_net.by_cell()]
    assert 0 < kept < CELLS
    assert {shipped[f"cell_net.{name}"].shape for name in names} == {(8, kept), (kept, 7)}
    other.load_weights(shipped, shipped=True)
    for mine, its in zip(model.cell_net.networks, other.cell_net.networks, strict=True):
        for part in ("numbers", "weights"):
            a, b = (
                getattr(x.posterior, part)(net.cell_net.posterior) for x, net in ((mine, model), (its, other))
            )
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
