"""Shipped models: a card and half-precision weights give the run's showers back."""

import json
from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import UnknownNameError
from caloforge.generate import Generator
from caloforge.train import RunFolder
from caloforge.train.folder import save_weights
from caloforge.train.settings import read_settings
from caloforge.zoo.store import find_card, load, shipped_models


@pytest.fixture
def zoo(run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "atlas-photon"
    folder.mkdir()
    model = RunFolder(run).models()[0]
    save_weights(folder / "vae.safetensors", model.shipped_state())
    config = read_settings(run / "config.toml")["model"]
    card = {
        "model": "vae",
        "detector": "atlas-em-barrel",
        "particle": "gamma",
        "config": config,
        "best": True,
    }
    (folder / "vae.json").write_text(json.dumps(card))
    return tmp_path


def test_a_card_gives_the_runs_showers(run: Path, zoo: Path) -> None:
    import torch

    card = find_card("atlas-photon", zoo)
    assert card.name == "atlas-photon/vae"
    assert find_card("atlas-photon/vae", zoo) == card
    shipped = Generator(card.models(), card.name, "gamma", torch.device("cpu"))
    ours = shipped.generate(100, energy="50GeV", seed=1)
    theirs = load(run, device="cpu").generate(100, energy="50GeV", seed=1)
    np.testing.assert_allclose(ours.visible_energy, theirs.visible_energy, rtol=0.02)
    small, whole = (
        (zoo / "atlas-photon" / "vae.safetensors").stat().st_size,
        (run / "weights.safetensors").stat().st_size,
    )
    assert small < 0.6 * whole


def test_unknown_name_lists_what_is_shipped(zoo: Path) -> None:
    with pytest.raises(UnknownNameError, match="atlas-photon/vae"):
        find_card("atlas-photon/conv", zoo)
    with pytest.raises(UnknownNameError, match="shipped model or run folder"):
        load("no-such-model")


def test_every_shipped_card_loads() -> None:
    for name, card in shipped_models().items():
        models = card.models()
        assert models, name
