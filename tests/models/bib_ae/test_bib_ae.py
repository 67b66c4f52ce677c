"""The BIB-AE: its stages, its sources of latents, what it ships."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector, get_detector
from caloforge.geometry.definition import BeamDefinition, DetectorDefinition, Layers
from caloforge.models.base import counted_noise
from caloforge.models.bib_ae.generators import AxisGenerator
from caloforge.models.bib_ae.model import BibAe
from caloforge.models.bib_ae.training import BibTraining, bib_figures, spectrum_distance
from caloforge.models.stage import Batch, Stage
from caloforge.showers import Showers
from caloforge.train.dataset import CellDataset
from caloforge.train.updater import StageUpdater

LATENTS = ("normal", "kde", "flow")
SMALL = {"latent_size": 4, "noise": 3, "flow": {"blocks": 1, "hidden": (8,), "spline_hidden": (8,)}}


@cache
def _detector(angled: bool = True) -> Detector:
    """Twelve layers, the last four behind twice the absorber."""
    silicon = {"absorber": "G4_W", "active": "G4_Si", "active_mm": 0.5, "gap_mm": 2.0}
    layers = [Layers(repeat=8, absorber_mm=4.2, **silicon), Layers(repeat=4, absorber_mm=8.4, **silicon)]
    beam = BeamDefinition(energy="10-100GeV", theta="50-90", entry=(6, 5))
    detector = DetectorDefinition(
        name="test-grid", nx=12, ny=14, pitch=8.0, sampling_fraction=0.02, layers=layers, beam=beam
    ).build()
    return detector if angled else dataclasses.replace(detector, model_conditions=("incident_energy",))


@cache
def _showers(angled: bool = True, n: int = 24) -> Showers:
    detector, rng = _detector(angled), np.random.default_rng(0)
    energy, theta = rng.uniform(1e4, 1e5, n), rng.uniform(50.0, 90.0, n) if angled else np.full(n, 90.0)
    x, y, z = detector.cell_centres.T
    start = rng.exponential(10.0, (n, 1))
    away = np.hypot(x - detector.beam.x, y - detector.beam.y - z / np.tan(np.radians(theta))[:, None])
    depth = np.maximum(z - start, 0.0)
    cells = depth**2 * np.exp(-depth / 12.0 - away / 6.0) * rng.gamma(1.0, 1.0, (n, detector.n_cells))
    cells *= (0.02 * energy * rng.normal(1.0, 0.04, n))[:, None] / cells.sum(1, keepdims=True)
    cells[cells < 0.05] = 0.0
    return Showers(detector, cells.astype(np.float32), energy, theta if angled else None, particle="gamma")


def _built(preset: str = "improved", angled: bool = True, **values: object) -> BibAe:
    torch.manual_seed(1)
    model = BibAe(_detector(angled), BibAe.resolve({"preset": preset, **SMALL, **values}))
    model.fit_transforms(_showers(angled))
    return model


def _updater(model: BibAe, stage: Stage, data: CellDataset, size: int) -> StageUpdater:
    generator = torch.Generator().manual_seed(2)
    return StageUpdater(stage, data.steps(size), generator)


def _run(model: BibAe, angled: bool = True, size: int = 8) -> dict[str, set[str]]:
    """One epoch of each stage; return the parameters that each has moved."""
    data, moved = CellDataset.of(_showers(angled), model, torch.device("cpu")), {}
    for stage in model.stages():
        if stage.fit is not None:
            stage.fit(data, torch.Generator().manual_seed(2))
            continue
        assert stage.step is not None
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        updater = _updater(model, stage, data, size)
        if stage.on_start is not None:
            stage.on_start(data, updater)
        for batch in data.epoch(size, 0, stage.name, 0):
            losses = stage.step(model.augment(batch, updater.generator), updater)
            updater.step += 1
            assert all(torch.isfinite(value) for value in losses.values())
        moved[stage.name] = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    return moved


@cache
def _trained(preset: str) -> tuple[BibAe, dict[str, set[str]]]:
    """The improved model knows the angle, the published one does not."""
    angled = preset == "improved"
    model = _built(preset, angled, critic_steps=2, width=8)
    return model, _run(model, angled)


def _training(model: BibAe) -> BibTraining:
    step = model.stages()[0].step
    training = getattr(step, "__self__", None)
    assert isinstance(training, BibTraining)
    return training


def _conditions(model: BibAe, n: int = 6) -> Tensor:
    return model.condition_matrix(_showers("incident_theta" in model.columns))[:n]


@pytest.mark.parametrize("preset", ["improved", "paper"])
def test_each_stage_moves_its_own_networks(preset: str) -> None:
    model, moved = _trained(preset)
    names = {name for name, _ in model.named_parameters()}
    post = {n for n in names if n.startswith("generator.post_processor.")}
    flow = {n for n in names if n.startswith("flow.")}
    assert moved["post-processor"] == post
    assert moved["latent-flow"] == flow
    first = names - flow - (post if preset == "paper" else set())
    assert moved["bib-ae"] == first


@pytest.mark.parametrize("preset", ["improved", "paper"])
def test_every_source_of_latents_makes_showers(preset: str) -> None:
    model, _ = _trained(preset)
    made = {}
    for latent in LATENTS:
        cells = model.choose({"latent": latent}).eval().draw(_conditions(model), seed=3)
        assert cells.shape == (6, model.detector.n_cells)
        assert torch.isfinite(cells).all()
        assert not ((cells < 1e-4) & (cells != 0)).any()
        assert torch.equal(cells, model.draw(_conditions(model), seed=3))
        made[latent] = cells
    assert not torch.equal(made["flow"], made["kde"])
    assert not torch.equal(made["normal"], made["kde"])
    model.choose({})
    assert torch.equal(model.draw(_conditions(model), seed=3), made["flow"])


def test_the_setting_chooses_the_latents_and_the_option_wins() -> None:
    model = _built(latent="normal").eval()
    source = model.draw(_conditions(model))
    assert torch.equal(model.choose({"latent": "normal"}).draw(_conditions(model)), source)
    assert not torch.equal(model.choose({"latent": "flow"}).draw(_conditions(model)), source)
    with pytest.raises(ConfigError, match="latent"):
        model.choose({"latent": "moon"})


def test_showers_have_the_energies_that_were_drawn() -> None:
    model, _ = _trained("improved")
    conditions = _conditions(model)
    noise = counted_noise(3, 0, 6, model.noise_size)
    cells = model.eval().sample(noise, conditions)
    g = model.generator
    wanted = g.energies.draw(noise[:, :2], g.energy(conditions), g.context(conditions))
    found = g.energies.of(g.grid(cells).sum((1, 2)))
    torch.testing.assert_close(found.visible, wanted.visible, rtol=2e-3, atol=0)
    torch.testing.assert_close(found.weighted, wanted.weighted, rtol=5e-2, atol=0)


def test_published_critics_take_five_steps_for_one() -> None:
    model = _built("paper", width=8)
    data = CellDataset.of(_showers(), model, torch.device("cpu"))
    stage = model.stages()[0]
    updater = _updater(model, stage, data, 2)
    seen = []
    assert stage.step is not None
    for batch in list(data.epoch(2, 0, stage.name, 0))[:10]:
        seen.append("kl" in stage.step(batch, updater))
        updater.step += 1
    assert seen == 2 * [False, False, False, False, True]


def test_the_second_critic_begins_again() -> None:
    model = _built(fresh_every=2)
    stage, data = model.stages()[0], CellDataset.of(_showers(), model, torch.device("cpu"))
    updater = _updater(model, stage, data, 4)
    assert stage.on_epoch_start is not None
    for epoch, begins in enumerate([True, False, True]):
        updater.epoch = epoch
        kept = model.critic.last.weight.clone(), model.fresh.last.weight.clone()
        stage.on_epoch_start(updater)
        assert torch.equal(model.critic.last.weight, kept[0])
        assert torch.equal(model.fresh.last.weight, kept[1]) is not begins


def test_sorted_losses_come_after_the_cell_by_cell_one() -> None:
    model = _built("paper", post_epochs=2, width=8)
    stage, data = model.stages()[1], CellDataset.of(_showers(), model, torch.device("cpu"))
    updater = _updater(model, stage, data, 8)
    assert stage.step is not None
    batch = data.take(torch.arange(8))
    assert set(stage.step(batch, updater)) == {"mse"}
    updater.step = updater.steps_per_epoch
    assert set(stage.step(batch, updater)) == {"mse", "sorted_mmd", "sorted_mse", "sorted_mae", "total"}


def test_sorted_losses_against_sorting_by_hand() -> None:
    model = _built("paper")
    made, true = torch.rand(2, 300), torch.rand(2, 300)
    found = _training(model).sorted_losses(made, true)
    a, b = made.sort(descending=True).values, true.sort(descending=True).values
    assert found["sorted_mse"][1] == pytest.approx(float((a - b).square().mean()))
    assert found["sorted_mae"][1] == pytest.approx(float((a - b).abs().mean()))
    assert found["total"][1] == pytest.approx(float((made.sum(1) - true.sum(1)).square().mean()), rel=1e-4)
    assert [found[name][0] for name in found] == [5.0, 10.0, 10.0, 1e-4]


def test_the_calibration_moves_the_energies_of_hits_and_keeps_their_places_and_sums() -> None:
    model, _ = _trained("improved")
    assert "calibrate" in [stage.name for stage in model.stages()]
    assert "calibrate" not in [stage.name for stage in _trained("paper")[0].stages()]
    conditions = _conditions(model)
    spectrum = model.generator.spectrum
    assert spectrum is not None
    assert spectrum.fitted
    with torch.no_grad():
        made = model.choose({}).draw(conditions, seed=4)
        plain = model.choose({"calibrated": False}).draw(conditions, seed=4)
    model.choose({})
    low = (plain > 0.01) & (plain < 0.5)
    assert float(((made - plain).abs() / plain.clamp_min(1e-4))[low].mean()) > 0.01
    assert torch.equal(made > 0, plain > 0)
    np.testing.assert_allclose(made.sum(1).numpy(), plain.sum(1).numpy(), rtol=1e-3)


def test_shipped_weights_leave_out_what_only_training_needs_and_stay_small() -> None:
    model = BibAe(get_detector("ild-ecal-angled"), BibAe.resolve())
    state = model.shipped_state()
    assert not any(name.startswith(("encoder", "critic", "fresh", "latent_critic")) for name in state)
    table = 2000 * (model.kde.size + model.generator.n_conditions) * 4
    assert sum(v.numel() * v.element_size() for v in state.values()) + table < 5e6


def test_training_showers_are_mirrored_in_x_and_keep_their_layer_energies() -> None:
    model = _built()
    batch = CellDataset.of(_showers(), model, torch.device("cpu")).take(torch.arange(24))
    mirrored = model.augment(batch, torch.Generator().manual_seed(0))
    grid, other = model.generator.grid(batch.cells), model.generator.grid(mirrored.cells)
    image = grid.clone()
    image[:, 1:] = grid[:, 1:].flip(1)  # about the centre of cell 6 of 12
    turned = torch.tensor([torch.equal(a, b) for a, b in zip(other, image, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(other, grid, strict=True)])
    assert (turned | kept).all()
    assert 3 < turned.sum() < 21
    torch.testing.assert_close(other.sum((1, 2)), grid.sum((1, 2)))
    assert torch.equal(mirrored.conditions, batch.conditions)
    paper = _built("paper", angled=True)
    assert torch.equal(paper.augment(batch, torch.Generator()).cells, batch.cells)


class _Backwards(CellDataset):
    """Batches in another order, as those of data that are streamed from files."""

    def batches(self, size: int) -> Iterator[Batch]:
        for part in torch.arange(len(self)).flip(0).split(size):
            yield self.take(part)


def test_codes_belong_to_their_showers_in_whatever_order_these_come() -> None:
    model = _built().eval()
    codes = [
        _training(model).encoded(kind.of(_showers(), model, torch.device("cpu")))
        for kind in (CellDataset, _Backwards)
    ]
    assert codes[0].shape == (2, 24, 4 + 2 * 4)
    assert not torch.equal(codes[0][0], codes[0][1])
    torch.testing.assert_close(codes[0], codes[1], rtol=1e-4, atol=1e-5)


def test_figures_of_equal_showers_are_zero_and_the_spectrum_detects_a_shift() -> None:
    showers = _showers()
    cells = torch.from_numpy(showers.cells)
    energy = torch.from_numpy(showers.incident_energy).float()
    layer = torch.from_numpy(showers.detector.cell_layer)
    assert bib_figures(cells, cells, energy, layer)["selection"] == 0.0
    assert spectrum_distance(cells, 2.0 * cells) > 0.1
    one, other = torch.zeros(1, 4), torch.zeros(1, 4)
    one[0, :2], other[0, :2] = torch.tensor([0.2, 0.2]), torch.tensor([0.2, 2.0])
    empty = torch.full((1, 4), 0.2)
    assert spectrum_distance(empty, empty) == 0.0
    assert spectrum_distance(one, other) > 0.0


def test_other_detectors_and_conditions_are_refused() -> None:
    for name in ("atlas-em-barrel", "ild-ecal-10x10"):
        with pytest.raises(IncompatibleError, match="bib-ae"):
            BibAe.check_detector(get_detector(name))
    with pytest.raises(ConfigError, match="incident_energy"):
        BibAe(_detector(), BibAe.resolve({"conditions": ["incident_theta"]}))


def test_a_cpu_takes_a_few_showers_at_a_time_and_makes_the_same() -> None:
    model = _built().eval()
    noise = counted_noise(5, 0, 11, model.noise_size)
    conditions = _conditions(model, 11)
    with torch.enable_grad():
        together = model.sample(noise, conditions).detach()
    with torch.inference_mode():
        apart = model.sample(noise, conditions)
    assert together.sum() > 0
    np.testing.assert_allclose(apart.numpy(), together.numpy(), rtol=1e-3, atol=1e-3)


def test_the_last_stage_lets_showers_scatter_as_the_training_showers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Measured lines stand for both samples: generated ones have half the spread, and half a displacement more after the fit."""
    model = _built()
    stage = model.stages()[-1]
    assert stage.name == "axis"
    assert "axis" not in [stage.name for stage in _built("paper").stages()]
    data = CellDataset.of(_showers(n=120), model, torch.device("cpu"))
    part, half = model.generator, torch.eye(2).expand(2, 2, 2)
    assert isinstance(part, AxisGenerator)
    seen: list[Tensor] = []

    def covariance(lines: Tensor, energy: Tensor, angle: Tensor) -> Tensor:
        assert len(lines) == len(energy) == len(angle) == 120
        seen.append(part.axis.root.clone())
        return (4.0 * half, half, 2.5 * half)[len(seen) - 1].double()

    monkeypatch.setattr(part.axis, "covariance", covariance)
    assert stage.fit is not None
    stage.fit(data, torch.Generator().manual_seed(0))
    assert [bool(root.any()) for root in seen] == [False, False, True]
    found = part.axis.root @ part.axis.root.transpose(1, 2)
    torch.testing.assert_close(
        found, 6.0 * half.contiguous()
    )  # 3 were missing, of which the decoder followed half
    assert 0.0 < float(part.axis.depth) < 183.0
    noise, conditions = counted_noise(3, 0, 6, model.noise_size), _conditions(model)
    moved = model.eval().sample(noise, conditions)
    model.choose({"calibrated": False})
    assert not torch.equal(moved, model.sample(noise, conditions))


def test_few_showers_leave_the_axis_in_its_place() -> None:
    model = _built()
    data = CellDataset.of(_showers(n=24), model, torch.device("cpu"))
    fit = model.stages()[-1].fit
    assert fit is not None
    fit(data, torch.Generator().manual_seed(0))
    assert isinstance(model.generator, AxisGenerator)
    assert not model.generator.axis.root.any()
