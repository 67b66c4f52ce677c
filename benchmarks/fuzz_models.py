"""Readers of ``fuzz.py`` that need torch: settings, run folders, cards, checkpoints of a training."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import tomli_w
import torch
from fuzz_changes import Fair, change_weights, damage, replace_file
from fuzz_subjects import Found, Subject, _change_text, kind_of, leaves, says_all

from caloforge.showers import Showers
from caloforge.train import train
from caloforge.train.folder import load_state, save_state
from caloforge.train.settings import read_settings, resolve
from caloforge.zoo.store import ZOO, find_card, load

__all__ = ["model_subjects"]


def _read_settings(path: Path) -> Found:
    return {
        "text": json.dumps(resolve(read_settings(path).get("name", "vae"), path).as_dict(), sort_keys=True)
    }


def _settings_say(path: Path) -> Found | None:
    found = _read_settings(path)
    return found if says_all(tomllib.loads(path.read_text()), json.loads(found["text"])) else None


def _generated(generator: Any) -> Found:
    made = generator.generate(n=3, energy="2GeV", seed=5, allow_extrapolation=False)
    facts = [
        generator.particle,
        generator.name.rpartition("/")[2],
        {k: str(v) for k, v in made.attributes.items()},
    ]
    return {
        "cells": made.cells,
        "theta": made.incident_theta,
        "seen": made.seen,
        "facts": json.dumps(facts, sort_keys=True),
    }


def _make_run(showers: Callable[[], Showers]) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        torch.set_num_threads(1)
        data, some = place.parent / "data.h5", showers()
        some.replace(conditions={}, seen=None).save(data, force=True)
        words = ("epochs=2", "latent=4", "hidden=[16]", "calibrate=false", "train.validation=0.3")
        run = train("vae", data, place / "run", overrides=words, device="cpu", seed=1)
        data.unlink()
        return run

    return make


_TEXTS = {".toml": (tomllib.loads, tomli_w.dumps), ".json": (json.loads, json.dumps)}


def _change_one(names: tuple[str, ...]) -> Callable[[Path, Random], tuple[str, Fair]]:
    """Return changes of one of the files of a run or a shipped model."""

    def change(folder: Path, random: Random) -> tuple[str, Fair]:
        path = folder / random.choice(names)
        if path.suffix in _TEXTS:
            kind, fair = _change_text(path, random, *_TEXTS[path.suffix])
            return f"{path.suffix[1:]} {kind}", fair
        kind = random.random()
        if kind < 0.05:
            replace_file(path, random)
            return f"{path.suffix[1:]} replaced", Fair.SAME
        if path.suffix == ".safetensors" and kind < 0.4:
            change_weights(path, random)
            return "weights", Fair.SAME
        data = path.read_bytes()
        places = [range(min(len(data), 3000))] if random.random() < 0.4 else None
        path.write_bytes(damage(data, random, places))
        return f"{path.suffix[1:]} bytes", Fair.SAME

    return change


def _text_says(
    intact: dict[str, Any], name: str, read: Callable[[Path], Found]
) -> Callable[[Path], Found | None]:
    """Another model is right where the text names one: every changed value that was read is of the kind that it was."""

    def says(folder: Path) -> Found | None:
        given, before = leaves(json.loads((folder / name).read_text())), leaves(intact)
        for place, value in given.items():
            old = before.get(place)
            if kind_of(value) != kind_of(old) and old is not None:
                return None
        return read(folder)

    return says


def _make_card(place: Path) -> Path:
    folder = place / "ild-photon-50gev"
    folder.mkdir()
    for path in (ZOO / "ild-photon-50gev").glob("vae-gan.*"):
        shutil.copy(path, folder)
    return folder


def _read_card(folder: Path) -> Found:
    generator = find_card(f"{folder.name}/vae-gan", folder.parent).generator()
    made = generator.generate(n=3, energy="50GeV", seed=5)
    return {"cells": made.cells, "theta": made.incident_theta, "seen": made.seen, "facts": generator.particle}


def _make_state(place: Path) -> Path:
    path = place / "state.pt"
    save_state(
        path,
        {
            "model": {"a": torch.arange(300.0)},
            "rows": 3,
            "results": [1.0],
            "stages": {},
            "elapsed": 1.5,
            "stage": 0,
        },
    )
    return path


def _read_state(path: Path) -> Found:
    state = load_state(path, torch.device("cpu"))
    text = json.dumps([state["rows"], state["results"], state["stages"], state["elapsed"], state["stage"]])
    return {"a": state["model"]["a"].numpy(), "text": text}


def _change_state(path: Path, random: Random) -> tuple[str, Fair]:
    if random.random() < 0.03:
        replace_file(path, random)
    else:
        path.write_bytes(damage(path.read_bytes(), random))
    return "bytes", Fair.SAME


def model_subjects(
    showers: Callable[[], Showers],
    settings: dict[str, Any],
    toml: Callable[[str, dict[str, Any]], Callable[[Path], Path]],
    change_toml: Callable[[Path, Random], tuple[str, Fair]],
) -> list[Subject]:
    """Return the readers."""
    torch.set_num_threads(1)

    def read_run(folder: Path) -> Found:
        return _generated(load(folder, "cpu"))

    card = json.loads((ZOO / "ild-photon-50gev" / "vae-gan.json").read_text())
    run_files = (
        "config.toml",
        "run.json",
        "run.json",
        "weights.safetensors",
        "weights.safetensors",
        "identities.npz",
    )
    card_files = (
        "vae-gan.json",
        "vae-gan.json",
        "vae-gan.safetensors",
        "vae-gan.safetensors",
        "vae-gan.identities.npy",
    )
    return [
        Subject("settings.toml", toml("input.toml", settings), _read_settings, change_toml, _settings_say),
        Subject("run folder", _make_run(showers), read_run, _change_one(run_files), _run_says(read_run), 0.5),
        Subject(
            "card",
            _make_card,
            _read_card,
            _change_one(card_files),
            _text_says(card, "vae-gan.json", _read_card),
            0.2,
        ),
        Subject("state.pt", _make_state, _read_state, _change_state, share=0.4),
    ]


def _run_says(read: Callable[[Path], Found]) -> Callable[[Path], Found | None]:
    """What ``run.json`` says may be another particle or status; other weights or settings are never right."""
    digests: dict[str, str] = {}

    def says(folder: Path) -> Found | None:
        now = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*") if p.is_file()}
        if not digests:
            return None
        if any(now.get(name) != digest for name, digest in digests.items() if name != "run.json"):
            return None
        given = json.loads((folder / "run.json").read_text())
        kinds = {"model": "str", "detector": "str", "particle": "str", "status": "str", "seen": "dict"}
        good = all(kind_of(given.get(key)) == kind for key, kind in kinds.items() if key in given)
        return read(folder) if good else None

    says.digests = digests  # type: ignore[attr-defined]
    return says
