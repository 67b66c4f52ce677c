"""A small file of showers, and a study of small and quick trainings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from caloforge.simulate import simulate
from caloforge.tune import result, trials, tune

SMALL = ("epochs=4", "hidden=[16]", "latent=2", "batch_size=64", "calibrate=false", "optimizer.warmup=0")


@pytest.fixture(scope="session")
def showers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("showers") / "gflash.h5"
    return simulate("atlas-em-barrel", 400, engine="gflash", seed=1, output=path)


@pytest.fixture(autouse=True)
def hurry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure times in two calls, and draw nothing unless the test uses the fixture ``drawn``."""
    monkeypatch.setattr(trials, "_QUICK", 0.0)
    monkeypatch.setattr(trials, "_SLOW", 0.0)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(result, "draw_figures", lambda figures, folder: [])


@pytest.fixture
def drawn() -> None:
    """Let the figures be drawn."""


@pytest.fixture
def small(showers_file: Path) -> Callable[..., Any]:
    """Return ``tune`` for a VAE of which the learning rate and the weight of the KL term are varied."""
    return partial(
        tune,
        "vae",
        showers_file,
        search=("optimizer.lr=1e-4:1e-2:log", "kl=0.5,1.0"),
        only=True,
        overrides=SMALL,
        figure="selection",
        device="cpu",
    )
