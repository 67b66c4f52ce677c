"""Every shipped model: small, whole, as its card says, and ready to generate."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from like_cards import showers_like
from typer.testing import CliRunner

import caloforge.generate as generation
from caloforge.cli.app import app
from caloforge.files import sha256_file
from caloforge.models import MODELS
from caloforge.showers import Showers, open_showers
from caloforge.validate.sample import Sample
from caloforge.zoo.cards import mean_spectrum, moments
from caloforge.zoo.shipping import settings_of_command
from caloforge.zoo.store import ZOO, Card, find_card, shipped_models

CARDS = shipped_models()
KEYS = {
    "name", "model", "description", "detector", "particle", "best", "conditions", "members", "parameters", "data",
    "train_showers", "held_out_showers", "prepare", "command", "seed", "hardware", "versions", "stages", "config",
    "train", "weights", "metrics", "speed",
}  # fmt: skip
FLAGSHIP = ("flow-matching", "flow-matching-fast", "flow-matching-cpu")
MEGABYTE = 1_000_000
SECONDS = 3.0  # of one core for each model, by the speed on its card
FEWEST, MOST, BLOCK = 40, 500, 20
FEW = 5
SIGMAS = 5.0
RARE = 25.0  # cells of all showers in a bin, below which bins are compared together

each = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


def weights(card: Card) -> list[Path]:
    return [card.path.with_name(entry["file"]) for entry in card.content["weights"]]


def test_all_weights_together_are_small() -> None:
    sizes = {path: path.stat().st_size for path in ZOO.rglob("*.safetensors")}
    published = sum(size for path, size in sizes.items() if path.stem.rstrip("-0123456789") not in FLAGSHIP)
    assert published < 20 * MEGABYTE
    assert sum(sizes.values()) < 60 * MEGABYTE
    assert sum(path.stat().st_size for path in ZOO.rglob("*.json")) < 2 * MEGABYTE


def test_every_file_belongs_to_a_card() -> None:
    known = {card.path for card in CARDS.values()} | {
        path for card in CARDS.values() for path in weights(card)
    }
    known |= {card.path.with_name(card.content["seen"]["file"]) for card in CARDS.values()}
    there = {path for path in ZOO.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert {path for path in there if path.suffix != ".py"} == known


def test_one_model_of_a_data_set_is_the_best() -> None:
    best = [name.partition("/")[0] for name, card in CARDS.items() if card.content["best"]]
    assert len(best) == len(set(best))
    for dataset in best:
        assert find_card(dataset).content["best"]


@each
def test_the_card_is_whole(card: Card) -> None:
    content = card.content
    assert content.keys() >= KEYS
    assert content["name"] == card.name
    assert content["model"] in MODELS
    for entry, path in zip(content["weights"], weights(card), strict=True):
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256_file(path))
    assert len(content["weights"]) == content["members"]
    assert content["train_showers"] + content["held_out_showers"] <= content["data"]["showers"]
    for entry in content["data"]["files"]:
        assert len(entry["sha256"]) == 64
        assert {"source", "geant4_version", "physics_list", "production_cut_mm"} <= entry["made"].keys()
    assert content["hardware"]["name"]
    assert content["hardware"]["wall_seconds"] > 0
    assert not re.search(r"(?<![\w.)\]-])/\w+/", card.path.read_text()), "an absolute path"


@each
def test_the_command_of_the_card_asks_for_its_settings(card: Card) -> None:
    content = card.content
    asked = settings_of_command(content["command"]).as_dict()
    assert asked["name"] == content["model"]
    assert json.loads(json.dumps(asked["model"])) == content["config"]
    idle = {"checkpoint_epochs", "checkpoint_seconds", "log_every", "tensorboard", "max_seconds"}
    for key, value in content["train"].items():
        assert key in idle or asked["train"][key] == value, key
    words = shlex.split(content["command"])
    assert words[words.index("--seed") + 1] == str(content["seed"])


@each
def test_held_out_figures_have_uncertainties_and_floors(card: Card) -> None:
    metrics = card.content["metrics"]
    assert metrics["reference"]["n"] == metrics["generated"]["n"] >= 100
    files = {entry["sha256"] for entry in card.content["data"]["files"]}
    assert not files & {part.get("sha256") for part in metrics["reference"]["parts"]}
    for key in ("shape_mse", "cell_mean_ratio", "cell_std_ratio", "auc_high", "auc_low"):
        entry = metrics["figures"][key]
        assert np.isfinite([entry[part] for part in ("value", "uncertainty", "floor")]).all(), key
    for entry in metrics["moments"].values():
        assert {"shift", "shift_uncertainty", "width", "width_uncertainty"} <= entry.keys()
    cpu = card.content["speed"]["cpu"]
    assert cpu["ms"] > 0
    assert (cpu["threads"], cpu["batch"]) == (1, 100)
    gpu = card.content["speed"].get("gpu")
    assert gpu is None or (gpu["ms"] > 0 and gpu["hardware"])


@each
def test_it_generates_from_the_command_line(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BLOCK", FEW)  # few showers are padded to whole blocks
    span = card.content["conditions"]["incident_energy"]
    middle = np.sqrt(span["low"] * span["high"])
    words = ["generate", card.name, "-n", str(FEW), "--energy", f"{middle / 1000:.6g}GeV", "--device", "cpu"]
    theta = card.content["conditions"].get("incident_theta")
    if theta is not None:
        words += ["--theta", f"{(theta['low'] + theta['high']) / 2:g}"]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "showers.h5")])
    assert done.exit_code == 0, done.output
    with open_showers(tmp_path / "showers.h5") as file:
        showers = file[:]
    assert (len(showers), showers.source) == (FEW, card.name)
    assert np.isfinite(showers.cells).all()
    assert (showers.cells >= 0).all()
    response = showers.visible_energy.mean() / (showers.detector.sampling_fraction * middle)
    assert 0.8 < response < 1.2


@each
def test_the_card_is_printed(card: Card) -> None:
    text = CliRunner().invoke(app, ["models", card.name]).output
    content: dict[str, Any] = card.content
    for said in (
        *shlex.split(content["command"])[:3],
        content["hardware"]["name"],
        content["data"]["files"][0]["sha256"],
        content["metrics"]["reference"]["parts"][0]["file"],
        "core-cell deviations",
    ):
        assert said in text
    raw = CliRunner().invoke(app, ["models", card.name, "--json"]).output
    assert json.loads(raw) == content
    table = CliRunner().invoke(app, ["models"]).output
    assert card.name in table


# -- generated showers beside the card's figures --------------------------------------------------------------


@pytest.fixture(scope="module", params=CARDS.values(), ids=CARDS)
def fresh(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Showers]]:
    """The card's metrics, and new showers of the model under the conditions of the card."""
    card: Card = request.param
    metrics = card.content["metrics"]
    if "conditions" not in metrics:
        pytest.skip("the card was measured before cards held the conditions of their showers")
    number = 1000.0 * SECONDS / card.content["speed"]["cpu"]["ms"]
    n = int(np.clip(round(number / BLOCK) * BLOCK, FEWEST, MOST))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "BLOCK", BLOCK)  # few showers are padded to whole blocks
        model = card.generator()
        seed = metrics["generated"]["seed"] + 1
        like = showers_like(metrics["conditions"], model.detector, n, seed)
        yield metrics, model.generate(like=like, seed=seed, batch_size=n)


def wrong_moments(metrics: dict[str, Any], showers: Showers) -> list[str]:
    """Return the observables whose mean or width is not the card's within five standard deviations."""
    sample = Sample(showers, "fresh")
    found = moments(sample, sample)
    n, m = len(showers), metrics["generated"]["n"]
    wrong = []
    for name, card in metrics["moments"].items():
        if card["generated_std"] == 0.0 or name not in found:
            continue
        assert found[name]["unit"] == card["unit"]
        mean_error = card["generated_std"] * np.sqrt(1 / n + 1 / m)
        if abs(found[name]["generated"] - card["generated"]) > SIGMAS * mean_error:
            wrong.append(f"mean of {name}: {found[name]['generated']:.5g}, card {card['generated']:.5g}")
        width_error = np.hypot(card["generated_std_uncertainty"], found[name]["generated_std_uncertainty"])
        width_error = max(width_error, card["generated_std_uncertainty"] * np.sqrt(1 + m / n))
        if abs(found[name]["generated_std"] - card["generated_std"]) > SIGMAS * width_error:
            wrong.append(
                f"width of {name}: {found[name]['generated_std']:.5g}, card {card['generated_std']:.5g}"
            )
    return wrong


def wrong_bins(metrics: dict[str, Any], showers: Showers) -> list[str]:
    """Return the bins of the cell energies whose mean count is not the card's within five standard deviations."""
    n, m = len(showers), metrics["generated"]["n"]
    entry = metrics["spectrum"]["generated"]
    expected, error = np.array(entry["cells"]), np.array(entry["uncertainty"])
    found, spread = mean_spectrum(Sample(showers, "fresh"))
    variance = error**2 + np.maximum(error**2 * m / n, spread**2)
    rare = (
        np.minimum(expected, 1.0) * n < RARE
    )  # a bin of one cell in a few showers is not normally distributed
    bins = [np.flatnonzero(rare), *np.flatnonzero(~rare)[:, None]]
    wrong = []
    for members in bins:
        a, b = expected[members].sum(), found[members].sum()
        tolerance = SIGMAS * np.sqrt(variance[members].sum())
        if members is bins[0]:
            tolerance += SIGMAS**2 / n
        if abs(a - b) > tolerance:
            wrong.append(f"bins {members.tolist()}: {b:.5g} cells a shower, card {a:.5g} +- {tolerance:.2g}")
    return wrong


def test_means_and_widths_are_those_of_the_card(fresh: tuple[dict[str, Any], Showers]) -> None:
    metrics, showers = fresh
    assert {"response", "hits", "peak_energy"} <= metrics["moments"].keys()
    assert not wrong_moments(metrics, showers)


def test_the_spectrum_of_cells_is_that_of_the_card(fresh: tuple[dict[str, Any], Showers]) -> None:
    metrics, showers = fresh
    if "spectrum" not in metrics:
        pytest.skip("the card was measured before cards held the spectrum of cells")
    assert not wrong_bins(metrics, showers)


def test_other_showers_than_the_cards_are_found(fresh: tuple[dict[str, Any], Showers]) -> None:
    metrics, showers = fresh
    by_tenth = showers.replace(cells=1.1 * showers.cells)
    assert any(line.startswith("mean of response") for line in wrong_moments(metrics, by_tenth))
    if "spectrum" not in metrics:
        return
    edges = np.geomspace(
        metrics["spectrum"]["low"], metrics["spectrum"]["high"], metrics["spectrum"]["bins"] + 1
    )
    fullest = int(np.argmax(metrics["spectrum"]["generated"]["cells"][1:-1]))
    inside = (showers.cells >= edges[fullest]) & (showers.cells < edges[fullest + 1])
    assert wrong_bins(metrics, showers.replace(cells=np.where(inside, 0, showers.cells)))
