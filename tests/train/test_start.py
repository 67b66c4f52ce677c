"""Trainings that start from another model's weights or from parametrised showers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.errors import CaloforgeError, ConfigError, FileFormatError
from caloforge.geometry import get_detector, load_detector
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.path import CellAverages
from caloforge.models.flow.transfer import transferred
from caloforge.showers import Showers, open_showers
from caloforge.simulate import simulate
from caloforge.train import RunFolder, train
from caloforge.train.start import PRETRAINING, beam_of, source_model
from caloforge.zoo.store import weights_of

TOML = """
name = "{name}"
nx = {side}
ny = {side}
pitch = 20.0
[[layers]]
repeat = {layers}
absorber = "{absorber}"
absorber_mm = {thickness}
active = "G4_Si"
active_mm = 0.5
[beam]
particle = "e-"
energy = "1-5GeV:log"
entry = [2, 2]
"""
SMALL = {
    "width": 16, "blocks": 1, "repeats": 1, "heads": 2, "local": 4, "summary_width": 16, "summary_blocks": 1, "summary_heads": 2,
    "epochs": 1, "summary_epochs": 1, "batch_size": 32, "summary_batch_size": 32, "calibration": 40,
}  # fmt: skip


def _file(folder: Path, name: str, seed: int = 3, n: int = 80, **values: Any) -> Path:
    detector = folder / f"{name}.toml"
    given = {"side": 5, "layers": 3, "absorber": "G4_W", "thickness": 7.0, **values}
    detector.write_text(TOML.format(name=name, **given))
    return Path(
        simulate(detector, n, engine="gflash", seed=seed, output=folder / f"{name}-{seed}.h5", force=True)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    """Return the weights of a run in one detector."""
    return RunFolder(
        train("flow-matching", _file(folder, "one"), folder / "first", {"model": SMALL}, device="cpu")
    ).weights()


def _epochless() -> dict[str, Any]:
    return {
        "model": {
            "epochs": 1,
            "summary_epochs": 0,
            "batch_size": 32,
            "calibration": 0,
            "optimizer": {"lr": 1e-12},
        }
    }


def test_the_same_detector_begins_with_all_weights_and_takes_the_structure(folder: Path, first: Path) -> None:
    run = train(
        "flow-matching", _file(folder, "one", 4), folder / "own", _epochless(), device="cpu", start=first
    )
    [model] = RunFolder(run).models()
    source = source_model(first)
    assert isinstance(model.config, FlowMatching.Config)
    assert model.config.width == 16
    for (name, mine), (_, other) in zip(model.named_parameters(), source.named_parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6, msg=name)
    constants, before = dict(model.named_buffers()), dict(source.named_buffers())
    torch.testing.assert_close(constants["encoder.mean"], before["encoder.mean"])
    assert not torch.equal(constants["summary.trend.mean"], before["summary.trend.mean"])
    seen = RunFolder(run).seen()
    assert len(seen.inherited) == 80


def test_constants_of_few_showers_stay_near_the_source(folder: Path, first: Path) -> None:
    source, few = source_model(first), _file(folder, "one", 5, 16)
    with_source, alone = (FlowMatching(source.detector, source.config) for _ in range(2))
    with open_showers(few) as file:
        showers = file[:]
    with_source.start_from(source, showers)
    alone.fit_transforms(showers)
    table = [m.summary.table.x for m in (with_source, alone, source)]  # type: ignore[union-attr]
    assert float((table[0] - table[2]).abs().mean()) < 0.5 * float((table[1] - table[2]).abs().mean())
    assert float(with_source.condition_low) == pytest.approx(showers.incident_energy.min())


def test_averages_are_those_of_showers_and_as_many_earlier_ones_as_the_prior_counts() -> None:
    averages = CellAverages(2)
    averages.logit.copy_(torch.tensor([0.0, 2.0]))
    averages.centre.copy_(torch.tensor([1.0, 3.0]))
    values = torch.tensor([[2.0, -1.0], [4.0, -1.0], [-1.0, -1.0]])
    averages.fit(values, values > -1.0, torch.zeros(0, dtype=torch.int64), adapt=True)
    p = (np.array([2.0, 0.0]) + 20.0 / (1.0 + np.exp([0.0, -2.0]))) / 23.0
    np.testing.assert_allclose(averages.logit, np.log(p / (1.0 - p)), rtol=1e-5)
    np.testing.assert_allclose(averages.centre, [(6.0 + 20.0) / 22.0, 3.0], rtol=1e-5)


def test_another_detector_takes_what_does_not_depend_on_the_grid(folder: Path, first: Path) -> None:
    other = _file(folder, "two", side=7, layers=5, absorber="G4_Pb", thickness=6.0)
    run = train("flow-matching", other, folder / "other", _epochless(), device="cpu", start=first)
    [model], source = RunFolder(run).models(), source_model(first)
    assert model.detector.shape == (7, 7, 5)
    own, given = dict(model.named_parameters()), dict(source.named_parameters())
    for name in (
        "cell_net.body.blocks.0.qkv.weight",
        "summary_net.body.blocks.0.out.weight",
        "cell_net.local.net.0.weight",
    ):
        torch.testing.assert_close(own[name], given[name], atol=1e-6, rtol=1e-6)


def test_rows_are_those_at_the_same_depth_by_a_slow_interpolation(folder: Path, first: Path) -> None:
    source = source_model(first)
    detector = load_detector(_file(folder, "deep", n=1, layers=5, thickness=4.0).parent / "deep.toml")
    model = FlowMatching(detector, source.config)
    found = transferred(model, source)
    given = dict(source.named_parameters())["summary_net.position"]
    here, there = (np.cumsum(d.sampled_depth()) for d in (detector, source.detector))
    for layer, depth in enumerate(here):
        expected = [np.interp(depth, there, given.detach().numpy()[:-1, k]) for k in range(given.shape[1])]
        np.testing.assert_allclose(found["summary_net.position"][layer], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["summary_net.position"][-1], given[-1])
    same = transferred(source, source)
    assert set(same) == set(dict(source.named_parameters()))
    for name, value in source.named_parameters():
        torch.testing.assert_close(same[name], value, rtol=1e-6, atol=1e-6)


def test_pretraining_makes_showers_like_those_at_hand_and_starts_from_them(folder: Path) -> None:
    config = {"model": SMALL, "train": {"pretrain_showers": 100, "pretrain_epochs": 1}}
    run = RunFolder(
        train("flow-matching", _file(folder, "one"), folder / "pre", config, device="cpu", pretrain="gflash")
    )
    inner = RunFolder(run.path / PRETRAINING)
    assert inner.read()["status"] == "finished"
    assert inner.read()["data"]["showers"] == 100
    assert run.read()["train_showers"] + run.read()["held_out_showers"] == 80
    assert not (inner.path / "showers.h5").exists()
    [before], [after] = inner.models(), run.models()
    torch.testing.assert_close(
        dict(before.named_buffers())["encoder.mean"], dict(after.named_buffers())["encoder.mean"]
    )


@pytest.mark.parametrize("kind", ["fixed", "uniform", "log", "log2"])
def test_the_beam_follows_the_showers(kind: str) -> None:
    text = {"fixed": "5GeV", "uniform": "1-20GeV", "log": "1-1000GeV:log", "log2": "1-64GeV:log2"}[kind]
    detector = get_detector("atlas-em-barrel")
    energies = detector.beam.replace(energy=text).sample(3, 0, 200).energy
    showers = Showers(detector, np.zeros((200, detector.n_cells), np.float32), energies, particle="gamma")
    beam = beam_of(showers)
    assert beam.energy.kind == kind
    assert beam.energy.low == pytest.approx(energies.min())
    assert beam.particle == "gamma"


def test_what_cannot_start_is_refused_in_one_line(folder: Path, first: Path) -> None:
    data = _file(folder, "one")

    def refused(
        error: type[CaloforgeError], match: str, model: str = "flow-matching", **options: Any
    ) -> None:
        with pytest.raises(error, match=match) as caught:
            train(model, data, folder / "refused", device="cpu", **options)
        assert "\n" not in str(caught.value)
        assert not (folder / "refused").exists()

    refused(ConfigError, r"its width is 16, here it is 32", start=first, overrides=["width=32"])
    refused(ConfigError, r"its width is 16, here it is 64", start=first, preset="small")
    refused(ConfigError, r"is a 'flow-matching', the model to train a 'vae'", "vae", start=first)
    refused(
        ConfigError,
        r"cannot start from another training; models that can: flow-matching",
        "vae",
        start=weights_of("atlas-photon/vae"),
    )
    refused(ConfigError, r"'vae' cannot start from a pre-training", "vae", pretrain="gflash")
    refused(ConfigError, r"train.pretrain = fast is not known; expected gflash", pretrain="fast")
    refused(ConfigError, r"train.start and train.pretrain are both set", start=first, pretrain="gflash")
    refused(FileFormatError, r"is missing; expected weights", start=folder / "nowhere.safetensors")
    alone = folder / "alone" / "weights.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(first.read_bytes())
    refused(FileFormatError, r"neither run.json nor weights.json lies beside it", start=alone)


def test_training_is_the_same_after_a_stop(folder: Path, first: Path) -> None:
    data, config = _file(folder, "one", 4), {"model": {**SMALL, "epochs": 2}}
    run = train("flow-matching", data, folder / "again", config, device="cpu", start=first)
    assert (
        train("flow-matching", data, folder / "again", config, device="cpu", start=first, resume=True) == run
    )
    assert train(output=folder / "again", device="cpu", resume=True) == run
    with pytest.raises(ConfigError, match=r"cannot resume with train.start"):
        train(
            "flow-matching",
            data,
            folder / "again",
            config,
            device="cpu",
            start=run / "weights.safetensors",
            resume=True,
        )
