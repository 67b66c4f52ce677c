"""What every registered model keeps to, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.data import sample_path
from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector, get_detector
from caloforge.models import MODELS
from caloforge.models import noise as noise_module
from caloforge.models.base import ShowerModel, counted_noise
from caloforge.random import uniforms
from caloforge.showers import Showers, read_showers
from caloforge.train.dataset import CellDataset
from caloforge.train.updater import StageUpdater

HOMES = ("atlas-em-barrel", "ild-ecal-10x10", "clic-ecal", "ild-ecal")
"""Detectors to try a model on, the quickest first."""
SMALL = 2000
"""Cells up to which a detector is small: more showers, all presets."""
FEW_STEPS = ("steps", "summary_steps")
"""What models integrate in few steps here."""


def _detector(kind: type[ShowerModel]) -> Detector:
    """Return the first detector that a model can describe."""
    for name in HOMES:
        try:
            kind.check_detector(get_detector(name))
        except IncompatibleError:
            continue
        return get_detector(name)
    raise AssertionError(kind)


def _presets() -> list[tuple[str, str]]:
    """Return models and presets; on large grids, and of presets that are only wider, the default alone."""
    return [
        (name, preset)
        for name, kind in MODELS.items()
        for preset in kind.presets
        if preset == "improved" or (preset != "large" and _detector(kind).n_cells < SMALL)
    ]


@pytest.fixture(autouse=True)
def _use_held_out_showers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caloforge.models.flow.model._LEAST_HELD_OUT", 0)


every_model = pytest.mark.parametrize("name", MODELS.names())
every_preset = pytest.mark.parametrize(("name", "preset"), _presets())


@cache
def _showers(detector: str) -> Showers:
    """A few showers whose visible energy is a fiftieth of the incident one, or Geant4's where some are at hand."""
    if detector == "atlas-em-barrel":
        sample = read_showers(sample_path())
        return sample[np.linspace(0, len(sample) - 1, 36).astype(int)]
    found = get_detector(detector)
    rng = np.random.default_rng(0)
    low, high = found.beam.energy.low, found.beam.energy.high
    n = 36 if found.n_cells < SMALL else 6
    energy = np.geomspace(low, high, n)
    x, y, z = found.cell_centres.T
    far = ((x - found.beam.x) ** 2 + (y - found.beam.y) ** 2) / 15.0**2
    shape = np.exp(-far - ((z - 80.0) / 60.0) ** 2)
    cells = shape * rng.gamma(2.0, 0.5, size=(n, found.n_cells))
    cells *= energy[:, None] / 50.0 / cells.sum(1, keepdims=True)
    cells[cells < 1e-2] = 0.0
    return Showers(found, cells, energy, particle=found.beam.particle)


@dataclass
class Trained:
    """A model after a few steps of each stage."""

    model: ShowerModel
    showers: Showers
    losses: list[dict[str, Tensor]]
    still: set[str]
    """Parameters that no stage has moved."""

    @property
    def conditions(self) -> Tensor:
        return self.model.condition_matrix(self.showers)


def _trained(name: str, preset: str = "improved") -> Trained:
    return _steps(name, preset)


@cache
def _steps(name: str, preset: str) -> Trained:
    kind = MODELS[name]
    showers = _showers(_detector(kind).name)
    torch.manual_seed(1)
    model = kind(showers.detector, kind.resolve({"preset": preset}))
    model.choose({key: 2 for key in FEW_STEPS if key in kind.Sampling.model_fields})
    model.fit_transforms(showers)
    data = CellDataset.of(showers, model, torch.device("cpu"))
    size = 6 if len(showers) > 6 else 3  # odd, so that signs do not cancel
    still = {n for n, _ in model.named_parameters()}
    losses = []
    for stage in model.stages():
        generator = torch.Generator().manual_seed(2)
        if stage.fit is not None:
            stage.fit(data, generator)
            continue
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        updater = StageUpdater(stage, data.steps(size), generator)
        model.train()
        for module in stage.frozen:
            module.eval()
        if stage.on_start is not None:
            stage.on_start(data, updater)
        if stage.on_epoch_start is not None:
            stage.on_epoch_start(updater)
        for batch in data.epoch(size, 0, stage.name, 0):
            losses.append(stage.step(model.augment(batch, generator), updater))
            updater.step += 1
        still -= {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    return Trained(model.eval(), showers, losses, still)


@every_preset
def test_steps_have_finite_losses(name: str, preset: str) -> None:
    trained = _trained(name, preset)
    assert all(torch.isfinite(value).all() for losses in trained.losses for value in losses.values())
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())


@every_preset
def test_gradients_reach_every_parameter_in_some_stage(name: str, preset: str) -> None:
    assert not _trained(name, preset).still


@every_preset
def test_showers_are_cells_with_energies(name: str, preset: str) -> None:
    trained = _trained(name, preset)
    cells = trained.model.draw(trained.conditions[:4], seed=3)
    assert cells.shape == (4, trained.showers.detector.n_cells)
    assert cells.dtype == torch.float32
    assert torch.isfinite(cells).all()
    assert (cells >= 0).all()
    assert (cells.sum(1) > 0).any()


@every_model
def test_the_same_seed_gives_the_same_showers(name: str) -> None:
    trained = _trained(name)
    first, again, other = (trained.model.draw(trained.conditions[:2], seed=s) for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_model
def test_a_shower_does_not_depend_on_its_batch(name: str) -> None:
    """Up to rounding of a thousandth of the hits, at least two: a cell at the edge of a threshold may fall on its other side."""
    trained = _trained(name)
    whole = trained.model.draw(trained.conditions[:5], seed=4)
    others = [(trained.model.draw(trained.conditions[:5], seed=4, batch_size=size), whole) for size in (1, 3)]
    others.append((trained.model.draw(trained.conditions[3:5], seed=4, start=3), whole[3:]))
    for found, expected in others:
        off = ~torch.isclose(found, expected, rtol=1e-4, atol=1e-6 * float(whole.max()))
        hits = (found > 0) | (expected > 0)
        assert hits.any()
        assert off.sum() <= max(2.0, 1e-3 * float(hits.sum()))


@every_model
def test_saved_weights_give_the_same_showers(name: str) -> None:
    trained = _trained(name)
    model = trained.model
    copy = MODELS[name](trained.showers.detector, model.resolve(model.config.model_dump()))
    copy.choose(model.sampling.model_dump())
    copy.load_weights({key: value.clone() for key, value in model.state_dict().items()})
    conditions = trained.conditions[:4]
    assert torch.equal(copy.eval().draw(conditions, seed=1), model.draw(conditions, seed=1))
    assert torch.equal(copy.condition_high, model.condition_matrix(trained.showers).amax(0))


@every_model
def test_shipped_weights_are_enough_to_generate(name: str) -> None:
    trained = _trained(name)
    model = trained.model
    copy = MODELS[name](trained.showers.detector, model.resolve(model.config.model_dump()))
    copy.choose(model.sampling.model_dump())
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in model.shipped_state().items()
    }
    assert set(state) <= set(model.state_dict())
    copy.load_weights(state, shipped=True)
    made = [m.eval().draw(trained.conditions[:5], seed=1).sum(1).mean() for m in (copy, model)]
    assert made[0] == pytest.approx(float(made[1]), rel=0.05)


@every_model
def test_weights_that_do_not_fit_are_refused(name: str) -> None:
    trained = _trained(name)
    model = MODELS[name](trained.showers.detector, trained.model.config)
    state = dict(model.state_dict())
    with pytest.raises(IncompatibleError, match="stranger"):
        model.load_weights({**state, "stranger": torch.zeros(1)})
    parameter = next((n for n, _ in model.named_parameters()), None)
    if parameter is not None:
        with pytest.raises(IncompatibleError, match="do not fit"):
            model.load_weights({**state, parameter: torch.zeros(3, 3, 3)})


@every_model
def test_sampling_is_a_pure_function(name: str) -> None:
    trained = _trained(name)
    noise = counted_noise(1, 0, 3, trained.model.noise_size)
    conditions = trained.conditions[:3]
    kept = noise.clone(), conditions.clone(), {k: v.clone() for k, v in trained.model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = (trained.model.sample(noise, conditions) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(noise, kept[0])
    assert torch.equal(conditions, kept[1])
    for key, value in trained.model.state_dict().items():
        assert torch.equal(value, kept[2][key])


@every_model
def test_mean_energy_rises_with_incident_energy(name: str) -> None:
    """After the few steps above: the scale comes by construction, and the steps have not undone it."""
    trained = _trained(name)
    conditions = trained.conditions
    if "incident_energy" not in trained.model.columns:
        pytest.skip("is not conditioned on the energy")
    energy = trained.model.condition(conditions, "incident_energy")[:, 0]
    low, high = torch.quantile(energy, torch.tensor([0.1, 0.9]))
    if low == high:
        pytest.skip("the detector's beam has one energy")
    means = []
    for value in (low, high):
        matrix = conditions.clone()
        matrix[:, trained.model.columns["incident_energy"]] = value
        means.append(float(trained.model.draw(matrix, seed=2).sum(1).mean()))
    assert means[1] > 1.5 * means[0]


@every_model
def test_held_out_figures_are_finite_and_repeatable(name: str) -> None:
    trained = _trained(name)
    data = CellDataset.of(trained.showers, trained.model, torch.device("cpu"))
    for stage in trained.model.stages():
        with torch.no_grad():
            first, again = ((stage.validate or trained.model.validate)(data) for _ in range(2))
        assert first == again
        assert all(np.isfinite(value) for value in first.values())
        assert not stage.metric or stage.metric in first


@every_model
def test_epochs_are_selected_with_other_noise_than_generation_uses(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = _trained(name)
    data = CellDataset.of(trained.showers, trained.model, torch.device("cpu"))
    streams: set[str] = set()

    def recorded(seed: int, stream: str, start: int, n: int, draws: int) -> NDArray[np.float64]:
        streams.add(stream)
        return uniforms(seed, stream, start, n, draws)

    monkeypatch.setattr(noise_module, "uniforms", recorded)
    for stage in trained.model.stages():
        with torch.no_grad():
            trained.model.settle(data)
            (stage.validate or trained.model.validate)(data)
    assert "noise" not in streams
    trained.model.draw(trained.conditions[:1])
    assert "noise" in streams


@every_model
def test_unknown_settings_are_named(name: str) -> None:
    kind = MODELS[name]
    with pytest.raises(ConfigError, match=r"unknown key 'colour'; .*known: preset, conditions"):
        kind.resolve({"colour": 1})
    with pytest.raises(ConfigError, match=r"no condition 'moon'; known: incident_energy"):
        kind(_detector(kind), kind.resolve({"conditions": ["incident_energy", "moon"]}))
    with pytest.raises(ConfigError, match="sampling options: unknown key 'colour'"):
        _trained(name).model.choose({"colour": 1})


@every_model
def test_the_published_settings_are_there(name: str) -> None:
    presets = MODELS[name].presets
    assert "improved" in presets
    assert MODELS[name].resolve().preset == "improved"
    assert all(MODELS[name].resolve({"preset": preset}).preset == preset for preset in presets)
    assert MODELS[name].__doc__
