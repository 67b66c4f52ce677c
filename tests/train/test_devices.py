"""Training on two devices: processes on the CPU that share every batch and talk through Gloo."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import fail_on_second_device, toy_showers, train_on_devices

from caloforge.errors import ConfigError, InputError, TrainingError
from caloforge.geometry import get_detector
from caloforge.models import MODELS
from caloforge.train import train
from caloforge.train.data import StreamedDataset, read_files
from caloforge.train.dataset import CellDataset
from caloforge.train.devices import Devices, run_on_devices
from caloforge.train.folder import load_weights

pytestmark = pytest.mark.usefixtures("toys")

_BATCH = {"model": {"batch_size": 16}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, toy_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_on_devices(2, "cpu", train_on_devices, {"data": toy_file, "folder": folder})
    return folder


def _losses(run: Path, name: str = "loss") -> list[float]:
    with (run / "metrics.csv").open() as handle:
        return [float(row["value"]) for row in csv.DictReader(handle) if row["name"] == name]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "weights.safetensors")


def test_two_devices_train_the_same_weights_as_one(two: Path, toy_file: Path, tmp_path: Path) -> None:
    """Batches of 17 showers are of 16 on two devices."""
    train("toy-steady", toy_file, tmp_path / "one", config=_BATCH, device="cpu")
    assert _losses(two / "toy-steady") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4)
    one, both = _weights(tmp_path / "one"), _weights(two / "toy-steady")
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-4, atol=1e-5)


def test_a_model_with_random_numbers_follows_the_same_curve(
    two: Path, toy_file: Path, tmp_path: Path
) -> None:
    train("toy-two-stage", toy_file, tmp_path / "one", config=_BATCH, device="cpu")
    one, both = _losses(tmp_path / "one"), _losses(two / "toy-two-stage")
    assert len(one) == len(both) == 6
    assert both == pytest.approx(one, rel=0.05)
    assert both != one


def test_a_fit_of_the_first_device_reaches_the_weights(two: Path, toy_file: Path, tmp_path: Path) -> None:
    train("toy-mean", toy_file, tmp_path / "one", device="cpu")
    assert torch.equal(_weights(two / "toy-mean")["seen"], _weights(tmp_path / "one")["seen"])


def test_showers_that_stay_in_their_files_are_divided_too(two: Path, toy_file: Path, tmp_path: Path) -> None:
    config = {**_BATCH, "train": {"data": {"memory": "1kB"}}}
    train("toy-steady", toy_file, tmp_path / "one", config=config, device="cpu")
    assert json.loads((two / "streamed" / "run.json").read_text())["storage"] == "files"
    assert _losses(two / "streamed") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4)


def test_a_stopped_run_goes_on_bit_for_bit(two: Path) -> None:
    assert {path.name for path in two.glob("halted-*")} == {"halted-0", "halted-1"}
    assert (two / "toy-halting/metrics.csv").read_bytes() == (
        two / "toy-adversarial/metrics.csv"
    ).read_bytes()
    whole, resumed = _weights(two / "toy-adversarial"), _weights(two / "toy-halting")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_the_run_says_on_how_many_devices(two: Path) -> None:
    info = json.loads((two / "toy-steady" / "run.json").read_text())
    assert (info["status"], info["device"], info["devices"]) == ("finished", "cpu", 2)


def test_parts_of_a_batch_are_the_batch(toy_file: Path, tmp_path: Path) -> None:
    files = read_files([toy_file, toy_showers(50, seed=1).save(tmp_path / "more.h5")])
    rows = torch.arange(len(files)).numpy()
    model = MODELS["toy-steady"](get_detector("ild-ecal-10x10"), MODELS["toy-steady"].resolve())
    conditions = model.condition_matrix(files.header)
    for data in (
        CellDataset(files.cells, conditions, torch.device("cpu")),
        StreamedDataset(files, rows, conditions, torch.device("cpu")),
    ):
        whole = list(data.epoch(12, 5, "s", 3))
        parts = [list(data.epoch(12, 5, "s", 3, (k, 3))) for k in range(3)]
        assert [len(part) for part in parts] == [len(whole)] * 3
        for batch, *divided in zip(whole, *parts, strict=True):
            assert torch.equal(torch.cat([part.indices for part in divided]), batch.indices)
            assert torch.equal(torch.cat([part.cells for part in divided]), batch.cells)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("killed", TrainingError, "device 1 ended by signal 9"),
        ("wrong", ConfigError, "the second device is wrong"),
    ],
)
def test_a_device_that_fails_ends_the_training(how: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_on_devices(2, "cpu", fail_on_second_device, {"how": how})


def test_more_devices_than_showers_in_a_batch_are_refused() -> None:
    assert Devices(torch.device("cpu"), 0, 3).divisible(17) == 15
    with pytest.raises(InputError, match="3 devices cannot share batches of 2 showers"):
        Devices(torch.device("cpu"), 0, 3).divisible(2)


@pytest.mark.parametrize("device", ["cuda:1", "cuda"])
def test_devices_that_are_not_there_are_refused(device: str, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not available|is one GPU"):
        train("toy-steady", toy_file, tmp_path / "run", device=device, devices=64)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_starts_the_processes(toy_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from caloforge.cli.app import main\nmain()\n")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        str(script), "train", "vae", str(toy_file), "-o", str(tmp_path / "run"), "--device", "cpu",
    ]  # fmt: skip
    sets = ("epochs=1", "latent=4", "hidden=[32]", "calibrate=false")
    command += [part for text in sets for part in ("--set", text)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["devices"] == 2
