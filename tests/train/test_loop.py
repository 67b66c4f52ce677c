"""What the loop carries without knowing it: several optimisers, renewed critics, stages, frozen parts, fits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Adversarial, TwoStage, toy_showers

from caloforge.errors import ConfigError, UnknownNameError
from caloforge.geometry import get_detector
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.showers import Showers
from caloforge.train import train
from caloforge.train.folder import RunFolder

pytestmark = pytest.mark.usefixtures("toys")


def _train(monkeypatch: pytest.MonkeyPatch, name: str, file: Path, run: Path, **settings) -> ShowerModel:
    """Train and return the very model that was trained, with what it noted down."""
    kind, made = MODELS[name], []
    monkeypatch.setattr(kind, "__init__", _noting(kind.__init__, made))
    train(name, file, run, device="cpu", **settings)
    return made[0]


def _noting(init, made):
    def wrapped(self, *args):
        init(self, *args)
        made.append(self)

    return wrapped


def _log(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_critic_and_generator_alternate(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    model = _train(monkeypatch, "toy-adversarial", toy_file, tmp_path / "run")
    assert isinstance(model, Adversarial)
    steps = 4 * (51 // 16)
    assert model.calls.count("critic") == model.calls.count("fresh") == steps
    assert model.calls.count("generator") == steps // 3
    assert model.calls[:7] == ["critic", "fresh"] * 3 + ["generator"]


def test_a_critics_loss_leaves_the_generator_alone(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    model = _train(monkeypatch, "toy-adversarial", toy_file, tmp_path / "run")
    assert not any(model.foreign)


def test_a_critic_is_new_every_epoch(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    model = _train(monkeypatch, "toy-adversarial", toy_file, tmp_path / "run")
    assert len(model.starts) == 4
    assert len({tuple(w.flatten().tolist()) for w in model.starts}) == 4


def test_the_second_stage_leaves_the_first_frozen(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    model = _train(monkeypatch, "toy-two-stage", toy_file, tmp_path / "run")
    assert isinstance(model, TwoStage)
    assert model.modes == [(False, False)] * (4 * 3)
    for name, parameter in model.net.named_parameters():
        assert torch.equal(parameter, model.after_first[name])
    assert {row["stage"] for row in _log(tmp_path / "run")} == {"decoder", "post"}
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_without_gradients_is_fitted_and_loaded(toy_file: Path, tmp_path: Path) -> None:
    run = train("toy-mean", toy_file, tmp_path / "run", device="cpu", train_size=30)
    [model] = RunFolder(Path(run)).models()
    assert model.get_buffer("seen").shape == (30, 100)
    made = model.draw(torch.full((3, 1), 50_000.0))
    assert torch.allclose(made[0], model.get_buffer("seen").mean(0))


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    model = _train(monkeypatch, "toy-adversarial", toy_file, tmp_path / "run")
    values = [float(r["value"]) for r in _log(tmp_path / "run") if r["name"] == "response"]
    [best] = RunFolder(tmp_path / "run").read()["stages"].values()
    assert best["metric"] == pytest.approx(min(values))
    assert best["epoch"] == values.index(min(values)) + 1
    from caloforge.train import held_out_showers
    from caloforge.train.dataset import CellDataset

    held = CellDataset.of(held_out_showers(tmp_path / "run", toy_file), model, torch.device("cpu"))
    assert model.eval().validate(held)["response"] == pytest.approx(min(values), rel=1e-5)


def test_the_metric_can_be_chosen_and_must_exist(toy_file: Path, tmp_path: Path) -> None:
    train("toy-adversarial", toy_file, tmp_path / "a", overrides=["metric=profile"], device="cpu")
    names = [r["name"] for r in _log(tmp_path / "a")]
    assert "profile" in names
    with pytest.raises(ConfigError, match=r"beauty.*physics"):
        train("toy-adversarial", toy_file, tmp_path / "b", overrides=["metric=beauty"], device="cpu")


def test_an_unknown_optimizer_is_named(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    def wrong(self, batch, updater):
        updater.update("critics", batch.cells.mean())

    monkeypatch.setattr(Adversarial, "step", wrong)
    with pytest.raises(UnknownNameError, match=r"critics.*critic, fresh, generator"):
        train("toy-adversarial", toy_file, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(("combine", "members"), [("best", 1), ("ensemble", 3)])
def test_several_trainings(combine: str, members: int, toy_file: Path, tmp_path: Path) -> None:
    overrides = ["trainings=3", f"combine={combine}", "epochs=2"]
    train("toy-adversarial", toy_file, tmp_path / "run", overrides=overrides, device="cpu")
    folder = RunFolder(tmp_path / "run")
    models = folder.models()
    assert len(models) == members
    results = folder.read()["trainings"]
    assert len(results) == 3
    assert len(set(results)) == 3
    weights = {
        tuple(p.flatten().tolist()) for m in models for n, p in m.named_parameters() if n == "net.0.weight"
    }
    assert len(weights) == members


def test_bfloat16_trains(toy_file: Path, tmp_path: Path) -> None:
    run = train("toy-two-stage", toy_file, tmp_path / "run", overrides=["precision=bf16"], device="cpu")
    [model] = RunFolder(Path(run)).models()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.isfinite(model.draw(torch.full((3, 1), 50_000.0))).all()


def test_weights_to_start_from(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    first = Path(train("toy-adversarial", toy_file, tmp_path / "a", device="cpu"))
    overrides = [f'initial="{first / "weights.safetensors"}"', "epochs=0"]
    model = _train(monkeypatch, "toy-adversarial", toy_file, tmp_path / "b", overrides=overrides, seed=5)
    [trained] = RunFolder(first).models()
    for (name, a), (_, b) in zip(model.named_parameters(), trained.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_weights_to_start_from_do_not_bring_their_range_of_energies(toy_file: Path, tmp_path: Path) -> None:
    first = Path(train("toy-adversarial", toy_file, tmp_path / "a", device="cpu"))
    [before] = RunFolder(first).models()
    toys = toy_showers()
    energies = np.linspace(20_000.0, 80_000.0, len(toys))
    wide = Showers(toys.detector, toys.cells, energies, particle="gamma").save(tmp_path / "wide.h5")
    overrides = [f'initial="{first / "weights.safetensors"}"', "epochs=0"]
    [model] = RunFolder(
        Path(train("toy-adversarial", wide, tmp_path / "b", overrides=overrides, device="cpu"))
    ).models()
    assert before.condition_low == before.condition_high == 50_000.0
    assert model.condition_low < 30_000.0
    assert model.condition_high > 70_000.0


def test_toys_are_of_their_detector() -> None:
    assert toy_showers(3).detector == get_detector("ild-ecal-10x10")
