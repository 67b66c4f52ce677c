"""Weights and what stands beside them: files that are not those that were written are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.errors import CaloforgeError, FileFormatError, IncompatibleError
from caloforge.train.folder import RunFolder, load_state, load_weights, save_state, save_weights
from caloforge.zoo.store import ZOO, find_card, load


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def _flip(path: Path, place: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.toml", "identities.npz"])
def test_a_run_knows_its_files(name: str, copied: Path) -> None:
    load(copied, "cpu")
    _flip(copied / name, -20)
    with pytest.raises(
        FileFormatError, match=f"{name}: is not the file that was written: its SHA-256 begins with"
    ):
        load(copied, "cpu")


def test_a_run_of_before_has_no_digests(copied: Path) -> None:
    info = json.loads((copied / "run.json").read_text())
    assert set(info.pop("sha256")) == {"weights.safetensors", "config.toml", "identities.npz"}
    (copied / "run.json").write_text(json.dumps(info))
    before = load(copied, "cpu").generate(n=3, energy="50GeV", seed=1).cells
    np.testing.assert_array_equal(before, load(copied, "cpu").generate(n=3, energy="50GeV", seed=1).cells)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.toml"])
def test_a_file_of_another_size_is_not_read(name: str, copied: Path) -> None:
    with (copied / name).open("r+b") as file:
        file.truncate(1 << 40)  # nothing, but it would take an hour to hash
    with pytest.raises(FileFormatError, match=r"it has 1,099,511,627,776 bytes, run.json says"):
        load(copied, "cpu")


@pytest.mark.parametrize("name", ["vae-gan.safetensors", "vae-gan.identities.npy"])
def test_a_card_knows_its_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "ild-photon-50gev"
    folder.mkdir()
    for path in (ZOO / folder.name).glob("vae-gan.*"):
        shutil.copy(path, folder)
    find_card(f"{folder.name}/vae-gan", tmp_path).generator()
    _flip(folder / name)
    with pytest.raises(FileFormatError, match="SHA-256"):
        find_card(f"{folder.name}/vae-gan", tmp_path).generator()


def test_weights_alone_are_compared_too(copied: Path) -> None:
    load_weights(copied / "weights.safetensors")
    _flip(copied / "weights.safetensors")
    with pytest.raises(FileFormatError, match="SHA-256"):
        load_weights(copied / "weights.safetensors")


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("model"), "key 'model'"),
        (_set("members", "2"), "key 'members': expected a number, not a text"),
        (_set("members", 10**6), "key 'members'"),
        (_set("particle", 5), "key 'particle': expected a text"),
        (_set("incident_theta", [50, 20]), "key 'incident_theta'"),
        (_set("seen", {"seeds": ["a"]}), "key 'seen.seeds'"),
        (_set("detector_definition", {}), "key 'detector_definition'"),
    ],
)
def test_what_is_read_of_a_run_has_its_kind(
    change: Callable[[dict[str, Any]], None], message: str, copied: Path
) -> None:
    content = json.loads((copied / "run.json").read_text())
    change(content)
    (copied / "run.json").write_text(json.dumps(content))
    with pytest.raises(CaloforgeError, match=message) as caught:
        load(copied, "cpu")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("condition_high", lambda t: t * torch.nan, "'condition_high' has a number that is not finite"),
        ("condition_high", lambda t: t * torch.inf, "'condition_high' has a number that is not finite"),
        ("condition_high", lambda t: t * -1, "runs backwards"),
        ("condition_low", lambda t: t.repeat(2), "'condition_low' has shape"),
        ("", lambda t: t.to(torch.int32), "is torch.int32, expected torch.float32"),
        ("", lambda t: t * torch.inf, "has a number that is not finite"),
    ],
)
def test_weights_are_numbers_of_their_kind(
    name: str, change: Callable[[Any], Any], message: str, copied: Path
) -> None:
    """Of a run without digests too, and of a file that was made so."""
    info = json.loads((copied / "run.json").read_text())
    del info["sha256"], info["bytes"]
    (copied / "run.json").write_text(json.dumps(info))
    path = RunFolder(copied).weights()
    weights = load_weights(path)
    name = name or next(one for one in weights if one.endswith(".weight"))
    weights[name] = change(weights[name])
    save_weights(path, weights)
    with pytest.raises(IncompatibleError, match=message):
        load(copied, "cpu")


def test_flipped_bits_of_a_state_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"model": {"a": torch.arange(300.0)}})
    load_state(path, torch.device("cpu"))
    _flip(path, path.read_bytes().index(torch.arange(300.0).numpy().tobytes()) + 40)
    with pytest.raises(FileFormatError, match="is not the state of a training"):
        load_state(path, torch.device("cpu"))
