"""The split and the tensors of a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import Toy, ToyConfig, TwoStage, toy_showers

from caloforge.errors import ConfigError, FileFormatError, IncompatibleError, InputError, TooFewShowersError
from caloforge.files import sha256_file
from caloforge.geometry import get_detector
from caloforge.showers import Showers, read_showers, write_showers
from caloforge.showers.seen import identities
from caloforge.train import RunFolder, held_out_showers, train
from caloforge.train.data import split
from caloforge.train.dataset import CellDataset
from caloforge.train.settings import TrainConfig


def some(n: int, seed: int = 0) -> np.ndarray:
    """Return identities as hashes are: any numbers of 64 bits but 0."""
    return np.random.default_rng(seed).integers(1, 2**64, n, dtype=np.uint64)


@given(st.integers(60, 400), st.floats(0, 0.6), st.integers(0, 5), st.floats(0, 0.3))
def test_parts_are_disjoint_and_whole(n: int, validation: float, seed: int, empty: float) -> None:
    known = some(n)
    known[: int(empty * n)] = 0
    parts = split(known, TrainConfig(validation=validation, split_seed=seed))
    together = np.concatenate([parts.train, parts.held_out])
    assert sorted(together) == list(range(n))
    deviation = np.sqrt(n * validation * (1 - validation))
    assert len(parts.held_out) == pytest.approx(n * validation, abs=1 + 5 * deviation)
    assert bool(len(parts.held_out)) == (validation > 0)


def test_a_shower_stays_on_its_side_whatever_is_beside_it() -> None:
    config = TrainConfig(validation=0.25)
    known, more = some(2000), some(500, 1)
    held = set(known[split(known, config).held_out].tolist())
    joined = np.concatenate([more, known[::-1]])
    with_more = set(joined[split(joined, config).held_out].tolist())
    assert with_more & set(known.tolist()) == held
    assert len(held) == pytest.approx(500, abs=5 * np.sqrt(500 * 0.75))
    other = set(known[split(known, TrainConfig(validation=0.25, split_seed=1)).held_out].tolist())
    assert len(held & other) == pytest.approx(125, abs=5 * np.sqrt(125))


def test_parts_are_in_an_order_that_mixes_the_files() -> None:
    parts = split(some(4000), TrainConfig(validation=0.5))
    for part in (parts.train, parts.held_out):
        first_file = (part[:400] < 2000).mean()
        assert first_file == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(400))
        assert abs(np.corrcoef(np.arange(len(part)), part)[0, 1]) < 5 / np.sqrt(len(part))


def test_equal_showers_are_on_one_side_and_smaller_trainings_are_parts_of_larger_ones() -> None:
    known = np.repeat(some(100), 2)
    parts = split(known, TrainConfig(validation=0.3))
    assert not set(known[parts.train].tolist()) & set(known[parts.held_out].tolist())
    few, many = (split(known, TrainConfig(validation=0.3, train_size=n)).train for n in (20, 60))
    np.testing.assert_array_equal(many[:20], few)


def test_one_shower_is_held_out_at_least() -> None:
    assert len(split(some(30), TrainConfig(validation=1e-12)).held_out) == 1
    same = np.full(30, 7, np.uint64)
    with pytest.raises(TooFewShowersError, match="leave 0 to train on"):
        split(same, TrainConfig(validation=1e-12))
    nothing = split(np.zeros(200, np.uint64), TrainConfig(validation=0.5))
    assert 60 < len(nothing.held_out) < 140


def test_training_sets_of_different_offsets_share_only_what_is_held_out() -> None:
    sets = [split(some(200), TrainConfig(train_size=30, train_offset=30 * k)) for k in range(5)]
    assert len(np.unique(np.concatenate([s.train for s in sets]))) == 150
    assert all(np.array_equal(s.held_out, sets[0].held_out) for s in sets)


@pytest.mark.parametrize(
    ("n", "settings"),
    [(0, {}), (9, {}), (200, {"train_size": 195}), (200, {"train_offset": 195}), (12, {"validation": 0.9})],
)
def test_too_few_showers(n: int, settings: dict) -> None:
    with pytest.raises(TooFewShowersError, match=rf"{n} showers leave"):
        split(some(n), TrainConfig(**settings))


@pytest.fixture
def dataset() -> CellDataset:
    model = TwoStage(get_detector("ild-ecal-10x10"), ToyConfig())
    return CellDataset.of(toy_showers(50), model, torch.device("cpu"))


def test_an_epoch_shows_each_shower_once(dataset: CellDataset) -> None:
    seen = torch.cat([batch.indices for batch in dataset.epoch(10, 1, "a", 0)])
    assert sorted(seen.tolist()) == list(range(50))
    assert dataset.steps(10) == 5
    assert dataset.steps(12) == 4
    assert dataset.steps(99) == 1
    [whole] = dataset.epoch(99, 1, "a", 0)
    assert len(whole) == 50
    for batch in dataset.epoch(10, 1, "a", 0):
        assert torch.equal(batch.cells, dataset.take(batch.indices).cells)


def test_the_order_depends_on_seed_stage_and_epoch_alone(dataset: CellDataset) -> None:
    def order(*which) -> tuple[int, ...]:
        return tuple(torch.cat([b.indices for b in dataset.epoch(7, *which)]).tolist())

    keys = [(seed, stage, epoch) for seed in (1, 2) for stage in "ab" for epoch in (0, 1)]
    assert len({order(*key) for key in keys}) == len(keys)
    assert order(1, "a", 1) == order(1, "a", 1)


def test_batches_are_in_order(dataset: CellDataset) -> None:
    sizes = [len(batch) for batch in dataset.batches(20)]
    assert sizes == [20, 20, 10]
    assert torch.equal(
        torch.cat([b.cells for b in dataset.batches(20)]), dataset.take(torch.arange(50)).cells
    )


@pytest.mark.usefixtures("toys")
def test_the_facts_of_a_run(toy_file: Path, tmp_path: Path) -> None:
    train("toy-mean", toy_file, tmp_path / "run", device="cpu", seed=4, train_size=20)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"] == {"file": toy_file.name, "sha256": sha256_file(toy_file), "showers": 64}
    assert (facts["model"], facts["detector"], facts["seed"]) == ("toy-mean", "ild-ecal-10x10", 4)
    known = identities(read_showers(toy_file))
    parts = split(known, TrainConfig(train_size=20))
    assert (facts["train_showers"], facts["held_out_showers"]) == (20, len(parts.held_out))
    assert facts["status"] == "finished"
    assert facts["versions"]["torch"] == torch.__version__
    held = held_out_showers(tmp_path / "run", toy_file)
    assert np.array_equal(held.cells, read_showers(toy_file)[parts.held_out].cells)


@pytest.mark.usefixtures("toys")
def test_bad_data_are_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    def refuses(error: type[InputError], message: str, data: Path, model: str = "toy-mean") -> None:
        with pytest.raises(error, match=message):
            train(model, data, tmp_path / "run", device="cpu")
        assert not (tmp_path / "run").exists()

    refuses(TooFewShowersError, "5 showers", write_showers(tmp_path / "few.h5", toy_showers(5)))
    refuses(FileFormatError, "none.h5", tmp_path / "none.h5")
    dark = toy_showers(30)
    refuses(InputError, "energy", write_showers(tmp_path / "dark.h5", dark.replace(cells=0 * dark.cells)))

    def only_atlas(detector) -> None:
        msg = f"needs atlas, not {detector.name}"
        raise IncompatibleError(msg)

    monkeypatch.setattr(Toy, "check_detector", only_atlas)
    refuses(IncompatibleError, "needs atlas", toy_file)


@pytest.mark.usefixtures("toys")
def test_unknown_devices(toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tpu.*cuda"):
        train("toy-mean", toy_file, tmp_path / "run", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="GPU"):
            train("toy-mean", toy_file, tmp_path / "run", device="cuda")


@pytest.mark.usefixtures("toys")
def test_several_files_count_as_one(toy_file: Path, tmp_path: Path) -> None:
    first = write_showers(tmp_path / "a.h5", toy_showers(30, seed=1))
    second = write_showers(tmp_path / "b.h5", toy_showers(34, seed=2))
    whole = Showers.concatenate([toy_showers(30, seed=1), toy_showers(34, seed=2)])
    joined = write_showers(tmp_path / "joined.h5", whole)
    train("toy-mean", [first, second], tmp_path / "two", device="cpu", seed=4)
    train("toy-mean", joined, tmp_path / "one", device="cpu", seed=4)
    two, one = (RunFolder(tmp_path / name) for name in ("two", "one"))
    for name, value in one.models()[0].state_dict().items():
        assert torch.equal(two.models()[0].state_dict()[name], value)
    facts = two.read()["data"]
    assert (facts["file"], facts["showers"]) == ("a.h5 b.h5", 64)
    assert [part["sha256"] for part in facts["files"]] == [sha256_file(first), sha256_file(second)]
    held = held_out_showers(two.path, [first, second])
    assert np.array_equal(held.cells, held_out_showers(one.path, joined).cells)
    with pytest.raises(ConfigError, match="another hash"):
        train("toy-mean", [second, first], two.path, device="cpu", seed=4, resume=True)
    with pytest.raises(InputError, match="given twice"):
        train("toy-mean", [first, first], tmp_path / "twice", device="cpu")


@pytest.mark.usefixtures("toys")
def test_a_run_keeps_the_identities_of_what_it_has_seen(toy_file: Path, tmp_path: Path) -> None:
    run = RunFolder(train("toy-mean", toy_file, tmp_path / "run", device="cpu", train_size=20))
    known = identities(read_showers(toy_file))
    parts = split(known, TrainConfig(train_size=20))
    seen = run.seen()
    assert seen.training.tolist() == sorted(known[parts.train].tolist())
    assert seen.selection.tolist() == sorted(known[parts.held_out].tolist())
    assert len(seen.all) == 20 + len(parts.held_out) < len(known)
    assert run.read()["seen"] == {
        "training": 20,
        "selection": len(parts.held_out),
        "inherited": 0,
        "seeds": [],
        "complete": True,
    }
    run.identities.write_bytes(b"broken")
    with pytest.raises(FileFormatError, match="identities"):
        run.seen()
    run.identities.unlink()
    assert "older version" in run.seen().missing
    with pytest.raises(FileFormatError, match=r"identities\.npz.*train again"):
        held_out_showers(run.path, toy_file)


@pytest.mark.usefixtures("toys")
def test_weights_to_start_from_bring_what_they_have_seen(toy_file: Path, tmp_path: Path) -> None:
    first = RunFolder(train("toy-adversarial", toy_file, tmp_path / "a", device="cpu"))
    other = write_showers(tmp_path / "other.h5", toy_showers(40, seed=5))
    initial = [f'initial="{first.weights()}"', "epochs=1"]
    second = RunFolder(train("toy-adversarial", other, tmp_path / "b", overrides=initial, device="cpu"))
    assert second.seen().inherited.tolist() == first.seen().all.tolist()
    assert len(second.seen().all) == 64 + 40
    assert second.read()["seen"]["complete"] is True
    first.identities.unlink()
    third = RunFolder(train("toy-adversarial", other, tmp_path / "c", overrides=initial, device="cpu"))
    facts = third.read()["seen"]
    assert (facts["complete"], facts["inherited"]) == (False, 0)
    assert "train.initial, weights.safetensors" in facts["missing"]
    assert "train.initial" in third.seen().missing
