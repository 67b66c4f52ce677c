"""A run that is resumed goes on with its own files, seed and settings; limits of time and epochs may grow; showers in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stops import assert_same, stopped

from caloforge.errors import CaloforgeWarning, ConfigError, InputError
from caloforge.showers import write_showers
from caloforge.train import train
from caloforge.train.folder import RunFolder, load_state

pytestmark = pytest.mark.usefixtures("toys")

SETTINGS = ["checkpoint_epochs=1"]


def test_a_run_goes_on_with_what_it_was_started_with(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    """Neither data, seed nor settings are given; other files may have come beside the run's."""
    from toys import toy_showers

    data = tmp_path / "data"
    data.mkdir()
    names = [f"part-{number:03d}.h5" for number in range(6)]
    for number, name in enumerate(names):
        write_showers(data / name, toy_showers(16, seed=number))
    files, how = sorted(data.glob("*.h5")), {"overrides": {"checkpoint_epochs": 1, "epochs": 3}, "seed": 5}
    monkeypatch.chdir(tmp_path)
    stopped(monkeypatch, "toy-adversarial", [Path("data") / name for name in names], tmp_path / "a", 1, **how)
    train("toy-adversarial", files, tmp_path / "b", device="cpu", **how)
    write_showers(data / "part-0015.h5", toy_showers(16, seed=9))
    other = RunFolder(tmp_path / "a").read()
    assert other["paths"] == [str(path) for path in files]
    with pytest.raises(ConfigError, match=r"cannot resume without part-001.h5, which the run") as caught:
        train(
            None,
            [*files[:1], *files[2:], *data.glob("*15.h5"), toy_file],
            tmp_path / "a",
            device="cpu",
            resume=True,
        )
    assert len(str(caught.value)) < 300
    with pytest.warns(CaloforgeWarning, match=r"the run continues with its files; left out: part-0015.h5$"):
        train(None, sorted(data.glob("*.h5")), tmp_path / "a", device="cpu", resume=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    stopped(monkeypatch, "toy-adversarial", files, tmp_path / "c", 1, **how)
    train(output=tmp_path / "c", device="cpu", resume=True)
    assert_same(tmp_path / "c", tmp_path / "b")
    stopped(monkeypatch, "toy-adversarial", files, tmp_path / "d", 1, **how)
    files[2].rename(tmp_path / "moved.h5")
    with pytest.raises(
        ConfigError, match=r"cannot resume without .*part-002.h5; name the files where they are now"
    ):
        train(output=tmp_path / "d", device="cpu", resume=True)
    moved = [*files[:2], tmp_path / "moved.h5", *files[3:]]
    train(data=moved, output=tmp_path / "d", device="cpu", resume=True)
    assert_same(tmp_path / "d", tmp_path / "b")


def test_many_names_are_not_all_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from toys import toy_showers

    files = [
        write_showers(tmp_path / f"{number:03d}.h5", toy_showers(2, seed=number)) for number in range(104)
    ]
    stopped(monkeypatch, "toy-adversarial", files, tmp_path / "a", 1, overrides=SETTINGS)
    write_showers(files[3], toy_showers(2, seed=999), force=True)
    with pytest.raises(
        ConfigError, match=r"cannot resume with 000.h5, 001.h5, 002.h5 and 101 more; the run's data"
    ):
        train(output=tmp_path / "a", device="cpu", resume=True)


def test_a_longer_training_of_a_stage_that_has_not_ended(
    monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path
) -> None:
    stopped(monkeypatch, "toy-adversarial", toy_file, tmp_path / "a", 2, overrides=SETTINGS)
    train(output=tmp_path / "a", overrides={"epochs": 7}, device="cpu", resume=True)
    assert RunFolder(tmp_path / "a").log.read_text().count("response") == 7
    assert "epochs = 7" in RunFolder(tmp_path / "a").config.read_text()
    with pytest.raises(
        ConfigError, match=r"model.epochs = 8: the run is finished; train another run that starts from it"
    ):
        train(output=tmp_path / "a", overrides={"epochs": 8}, device="cpu", resume=True)
    monkeypatch.setattr("toys.TwoStage.stages", _stages_of_equal_length)
    stopped(monkeypatch, "toy-two-stage", toy_file, tmp_path / "b", 5, overrides=SETTINGS)
    assert load_state(tmp_path / "b" / "state.pt", torch.device("cpu"))["stage"] == 1
    with pytest.raises(ConfigError, match=r"model.epochs = 9: a stage with fewer epochs is trained already"):
        train(output=tmp_path / "b", overrides={"epochs": 9}, device="cpu", resume=True)


def _stages_of_equal_length(self):
    """Two stages whose numbers of epochs are one setting."""
    from caloforge.models.stage import Stage

    size, optimizers = self.config.batch_size, {"net": self.spec(self.net)}
    return tuple(
        Stage(name, self.config.epochs, size, optimizers, self.first, metric="response")
        for name in ("decoder", "post")
    )


def test_the_time_of_a_run_may_grow(monkeypatch: pytest.MonkeyPatch, toy_file: Path, tmp_path: Path) -> None:
    from caloforge.train.start import limits_of_time

    stopped(
        monkeypatch,
        "toy-adversarial",
        toy_file,
        tmp_path / "a",
        1,
        overrides={"stage_seconds": {"gan": 9.0}, "checkpoint_epochs": 1},
    )
    folder = RunFolder(tmp_path / "a")
    assert limits_of_time({}, folder, 60.0) == [("train.max_seconds", 60.0)]
    planned = {"plan": {"seconds": 30.0}}
    assert limits_of_time(planned, folder, 60.0) == [("train.stage_seconds", {"gan": 18.0})]
    train(output=tmp_path / "a", time_limit="1h", device="cpu", resume=True)
    assert "max_seconds = 3600" in folder.config.read_text()


def test_showers_in_memory_train(toy_file: Path, tmp_path: Path) -> None:
    from caloforge.showers import read_showers

    showers = read_showers(toy_file)
    train("toy-mean", showers, tmp_path / "a", device="cpu")
    train("toy-mean", toy_file, tmp_path / "b", device="cpu")
    train("toy-mean", [showers[:40], showers[40:]], tmp_path / "c", device="cpu")
    for other in "bc":
        assert_same(tmp_path / "a", tmp_path / other)
    info = RunFolder(tmp_path / "a").read()
    assert info["data"]["file"] == "showers in memory"
    assert info["data"]["showers"] == len(showers)
    assert info["data"]["sha256"] != RunFolder(tmp_path / "b").read()["data"]["sha256"]
    with pytest.raises(ConfigError, match="trained on showers in memory; name the same data to continue"):
        train(output=tmp_path / "a", device="cpu", resume=True)
    assert train(data=showers, output=tmp_path / "a", device="cpu", resume=True) == tmp_path / "a"
    with pytest.raises(ConfigError, match="another hash"):
        train(data=showers[:-1], output=tmp_path / "a", device="cpu", resume=True)
    with pytest.raises(InputError, match="that are not in files must fit in memory"):
        train("toy-mean", showers, tmp_path / "d", overrides={"data.memory": "1kB"}, device="cpu")
    with pytest.raises(InputError, match="no run folder is named"):
        train("toy-mean", showers)
    with pytest.raises(InputError, match=r"name a file of showers to train on; .*resume=True"):
        train("toy-mean", output=tmp_path / "d")
