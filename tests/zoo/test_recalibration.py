"""A shipped model's calibration is fitted again to its training showers; its networks stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.data import sample_path
from caloforge.errors import IncompatibleError
from caloforge.files import write_json
from caloforge.showers import read_showers
from caloforge.showers.seen import identities
from caloforge.train.folder import SeenByTraining, load_weights
from caloforge.zoo.build import recalibrate
from caloforge.zoo.shipping import ship, write_seen
from caloforge.zoo.store import ZOO, Card, find_card

MODEL = "atlas-photon/flow-matching"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A copy of a shipped model that has seen the packaged showers alone."""
    source = ZOO / MODEL
    folder = tmp_path / "zoo" / source.parent.name
    folder.mkdir(parents=True)
    for path in source.parent.glob(f"{source.name}.*"):
        shutil.copy(path, folder)
    card = find_card(MODEL, tmp_path / "zoo")
    sample = read_showers(sample_path())
    seen = SeenByTraining(training=np.sort(identities(sample, sample.detector)))
    write_json(card.path, {**card.content, "seen": write_seen(card.path, seen)})
    return tmp_path / "zoo"


def _weights(card: Card) -> dict[str, torch.Tensor]:
    return load_weights(card.path.with_suffix(".safetensors"))


def test_constants_change_and_networks_do_not(zoo: Path) -> None:
    before = find_card(MODEL, zoo)
    old = _weights(before)
    after = recalibrate(before, sample_path(), n=120)
    new = _weights(after)
    changed = {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed - {"spectrum"} == {"values", "filled_factor", "rings"}
    assert float(new["spectrum.known"]) > 0
    assert after.content["calibration"]["showers"] == 120
    assert "metrics" not in after.content
    assert _equal(
        _weights(recalibrate(after, sample_path(), n=120)), new
    )  # it does not build on the last one
    cells = after.generator().generate(like=read_showers(sample_path())[:20], seed=1).cells
    assert np.isfinite(cells).all()


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(value, b[name], rtol=1e-4, atol=1e-5) for name, value in a.items())


def test_showers_that_were_not_trained_on_are_refused(zoo: Path) -> None:
    card = find_card(MODEL, zoo)
    write_json(card.path, {**card.content, "seen": write_seen(card.path, SeenByTraining())})
    with pytest.raises(IncompatibleError, match="were not used to train it"):
        recalibrate(find_card(MODEL, zoo), sample_path(), n=20)


def test_models_without_such_a_stage_are_refused(run: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", run.parent / "data.h5", tmp_path)  # trained with calibrate=false
    with pytest.raises(IncompatibleError, match="no stage 'calibrate'"):
        recalibrate(card, run.parent / "data.h5", n=20)
