"""The flow of summary and cells: its sampler on known distributions, and what a short training makes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from flows import fitted, normals, run, run_folder, showers, stopped, targets_of, trained
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.transfer import transferred
from caloforge.models.stage import Batch
from caloforge.train.folder import load_weights

NAME = "flow-matching"
SHORT = ("summary_epochs=24", "epochs=4")
FEW = {"summary_steps": 8, "steps": 5}
either = pytest.mark.parametrize("more", [(), ("feedback=true",)], ids=["none", "feedback"])


def _sums_and_filled(model: FlowMatching, cells: Tensor) -> tuple[Tensor, Tensor]:
    view = model.values.view(cells)
    return view.sum(2), (view > 0).sum(2)


def test_without_training_summaries_are_the_noise_itself() -> None:
    """Their one Gaussian is N(0, 1), whose flow ends where it began."""
    model = fitted(NAME).choose({"summary_steps": 60})
    noise = normals(50, model.summary.rows, model.summary.kinds)
    encoded = model.encoder(model.condition_matrix(showers())[:50])
    with torch.no_grad():
        torch.testing.assert_close(model.summarise(noise, encoded), noise, rtol=0.02, atol=0.01)


def test_without_training_core_cells_are_gaussians_of_their_means_and_widths() -> None:
    """Their flow is m + s x noise, number by number."""
    model = fitted(NAME, core=0.8).choose({"steps": 60, "balance": False})
    noise, core = normals(20, model.detector.n_cells), model.core.cells
    assert len(core) > 10
    with torch.no_grad():
        found = model.shape(noise, *_conditions(model, 20))
    posterior = model.cell_net.posterior
    expected = posterior.centre + posterior.spread * noise
    torch.testing.assert_close(found[:, core], expected[:, core], rtol=0, atol=0.1)
    torch.testing.assert_close(posterior.spread[core], torch.ones(len(core)), rtol=0.2, atol=0)


def test_without_training_cells_are_filled_as_often_as_in_the_showers() -> None:
    """And of the same mean: each cell's own distribution, without those of the others."""
    model = fitted(NAME).choose({"steps": 12, "balance": False})
    batch = _batch(model)
    with torch.no_grad():
        found = model.shape(normals(200, model.detector.n_cells), *_conditions(model, 200))
        true = model.values(torch.where(batch.cells > model.config.cut, batch.cells, 0.0))
    outside = torch.ones(model.detector.n_cells, dtype=torch.bool)
    outside[model.core.cells] = False
    often = [(values[:, outside] > -0.5).float().mean(0) for values in (found, true)]
    assert (often[0] - often[1]).abs().max() < 0.15
    assert (often[0] - often[1]).mean().abs() < 0.02
    assert (found[:, outside].mean(0) - true[:, outside].mean(0)).abs().max() < 0.3


def _conditions(model: FlowMatching, n: int) -> tuple[Tensor, Tensor, LayerTargets]:
    encoded = model.encoder(model.condition_matrix(showers())[:n])
    summary = torch.zeros(n, model.summary.rows, model.summary.kinds)
    return encoded, summary, targets_of(model, summary, encoded)


def _batch(model: FlowMatching) -> Batch:
    source = showers()
    return Batch(torch.from_numpy(source.cells), model.condition_matrix(source), torch.arange(len(source)))


@either
def test_training_lowers_the_losses(more: tuple[str, ...]) -> None:
    model, start = trained(NAME, *SHORT, *more), fitted(NAME, feedback=bool(more))
    data = _Data(_batch(model))
    for old, new in zip(start.teacher_stages(), model.teacher_stages(), strict=True):
        assert old.validate is not None
        assert new.validate is not None
        before, after = old.validate(data)[old.metric], new.validate(data)[new.metric]
        assert after < 0.97 * before
        assert new.validate(data)[new.metric] == after


class _Data:
    device = torch.device("cpu")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 2000  # one pass is enough

    def batches(self, size: int):
        yield self.batch


@either
def test_showers_fill_about_as_many_cells_as_their_summary_says(more: tuple[str, ...]) -> None:
    """The mean number in each layer, after a short training: balanced, nearer than without."""
    model = deepcopy(trained(NAME, *SHORT, *more))
    model.filled_factor.fill_(1.0)  # what the summary says itself
    far = []
    for balance in (True, False):
        model.choose({**FEW, "steps": 8, "balance": balance})
        conditions = model.condition_matrix(showers())
        with torch.no_grad():
            values, targets = model.drawn(normals(len(conditions), model.noise_size), conditions)
        wanted = targets.hits + targets.faint
        found = model.values.number(values, targets)
        far.append(float((found - wanted).square().mean()))
        if balance:
            assert (found.mean(0) / wanted.mean(0) - 1.0).abs().max() < 0.1
    assert far[0] < 0.1 * far[1]


@either
def test_showers_follow_their_summary(more: tuple[str, ...]) -> None:
    model = trained(NAME, *SHORT, *more).choose(FEW)
    conditions = model.condition_matrix(showers())[:40]
    noise = normals(40, model.noise_size)
    with torch.no_grad():
        encoded = model.encoder(conditions)
        first = noise[:, : model.summary_size].view(40, model.summary.rows, model.summary.kinds)
        summary = model.summarise(first, encoded)
        targets = model.summary.decode(summary, conditions[:, 0], encoded)
        values, again = model.drawn(noise, conditions)
        cells = model.values.decode(values, targets, model.gain(conditions))
    assert all(torch.equal(*pair) for pair in zip(targets, again, strict=True))
    energies, wanted = targets.sums, model.values.number(values, targets)
    sums, filled = _sums_and_filled(model, cells)
    assert ((cells == 0) | (cells > model.config.cut)).all()
    lost = (wanted - filled).clamp_min(0.0)  # cells that fall below the cut
    assert ((sums - energies).abs() <= model.config.cut * lost + 1e-4 * energies + model.config.cut).all()
    possible = (energies > wanted * model.config.threshold) & (wanted > 0)
    assert possible.float().mean() > 0.5
    assert (filled == wanted)[possible].float().mean() > 0.9
    assert (filled <= wanted)[wanted > 0].all()


@either
def test_the_last_map_is_rising_and_brings_the_spectrum_to_that_of_the_training_showers(
    more: tuple[str, ...],
) -> None:
    model, source = trained(NAME, *SHORT, *more).choose(FEW), showers()
    conditions = model.condition_matrix(source)
    noise = normals(len(conditions), model.noise_size)
    with torch.no_grad():
        values, targets = model.drawn(noise, conditions)
        before = model.values.decode(values, targets, model.gain(conditions))
        after = model.sample(noise, conditions)
    assert model.spectrum.fitted
    one, other = before[0], after[0]
    order = one[one > 0].argsort()
    assert (other[one > 0][order].diff() >= -1e-6).all()
    edges = torch.logspace(-1.0, 1.0, 12)
    true, was, now = (
        torch.histc(torch.bucketize(x[x > 0], edges).float(), 11, 1, 11)
        for x in (torch.from_numpy(source.cells), before, after)
    )
    assert (now - true).abs().sum() < (was - true).abs().sum()


@either
def test_energy_and_its_spread_follow_the_incident_energy(more: tuple[str, ...]) -> None:
    model, source = trained(NAME, *SHORT, *more).choose(FEW), showers()
    cells = model.draw(model.condition_matrix(source), seed=2)
    made = cells.sum(1).numpy() / source.incident_energy
    real = source.visible_energy / source.incident_energy
    for energy in np.unique(source.incident_energy):
        part = source.incident_energy == energy
        assert made[part].mean() == pytest.approx(real[part].mean(), rel=0.04)
        assert 0.5 < made[part].std() / real[part].std() < 2.0


def test_symmetries_move_cells_and_conditions_together() -> None:
    model = fitted(NAME)
    batch = _batch(model)
    made = model.augment(batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(made.cells.sum(1), batch.cells.sum(1))
    moved = (made.conditions != batch.conditions).any(1)
    assert 0.6 < moved.float().mean() < 0.9
    assert (made.cells[moved] != batch.cells[moved]).any(1).all()
    assert torch.equal(made.cells[~moved], batch.cells[~moved])
    assert fitted(NAME, symmetries=False).augment(batch, torch.Generator()) is batch


def test_noise_of_a_shower_is_that_of_its_summary_and_of_its_cells() -> None:
    model = fitted(NAME)
    assert (model.summary_size, model.noise_size) == (5 * 7, 5 * 7 + 266)
    assert [stage.name for stage in model.stages()] == ["summary", "cells", "calibrate"]
    assert model.stages()[0].batch_size == model.config.summary_batch_size


def test_training_times_are_logit_normal() -> None:
    model = fitted(NAME, time_mean=-0.5, time_spread=0.8)
    times = model.times(normals(50_000))
    assert ((times > 0) & (times < 1)).all()
    logit = torch.logit(times)
    assert (float(logit.mean()), float(logit.std())) == pytest.approx((-0.5, 0.8), abs=0.02)


@pytest.mark.parametrize(("name", "box"), [("clic-ecal", (5, 5, 5)), ("calochallenge-1-pions", (9,))])
def test_one_architecture_serves_every_detector(name: str, box: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    detector = get_detector(name)
    model = FlowMatching(detector, FlowMatching.resolve({"preset": "small", "width": 16, "box": box}))
    model.choose({"steps": 1, "summary_steps": 1})
    conditions = torch.tensor([[5e3], [5e4]])
    cells = model.draw(conditions, seed=1)
    assert cells.shape == (2, detector.n_cells)
    assert torch.isfinite(cells).all()
    assert (cells >= 0).all()


HOW = (
    "checkpoint_epochs=1",
    "summary_epochs=2",
    "epochs=2",
    "width=16",
    "summary_width=16",
    "batch_size=180",
)


@either
@pytest.mark.parametrize("after", [1, 2], ids=["in the first stage", "in the second"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, after: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    how = (*HOW, *more)
    stopped(monkeypatch, NAME, tmp_path / "a", after, *how)
    run(NAME, tmp_path / "a", *how, resume=True)
    folders = tmp_path / "a", run_folder(NAME, *how)
    first, second = (load_weights(folder / "weights.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def _narrow(name: str) -> FlowMatching:
    settings = {"preset": "small", "width": 32, "summary_width": 16, "local": 4}
    return FlowMatching(get_detector(name), FlowMatching.resolve(settings))


def test_weights_of_a_mesh_go_to_the_rings_of_a_mesh() -> None:
    """From a mesh to itself everything stays; to a finer mesh and to a grid what has the right size."""
    torch.manual_seed(0)
    source = _narrow("calochallenge-2")
    same = transferred(_narrow("calochallenge-2"), source)
    for name, value in source.named_parameters():
        torch.testing.assert_close(same[name], value.detach(), rtol=1e-5, atol=1e-6)
    for name in ("calochallenge-3", "clic-ecal"):
        other = _narrow(name)
        given = transferred(other, source)
        assert "cell_net.embed.bias" in given
        assert all(value.shape == dict(other.named_parameters())[key].shape for key, value in given.items())
    back = transferred(source, _narrow("clic-ecal"))
    assert back["cell_net.embed.bias"].shape == (9, 32)
