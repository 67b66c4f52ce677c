"""What a card says of a model's quality: known answers, and a model whose showers are the reference's own."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from caloforge.data import sample_path
from caloforge.errors import InputError, SeenShowersError
from caloforge.files import sha256_file
from caloforge.generate.timing import speed_of
from caloforge.showers import read_showers
from caloforge.validate.metrics.base import Settings
from caloforge.zoo import cards
from caloforge.zoo.cards import compare_moments, measure, measure_card, open_test_showers
from caloforge.zoo.shipping import ship
from caloforge.zoo.store import load

QUICK = Settings(seed=1, n_bootstrap=4, n_halves=2)
NAMES = ("shape_mse", "core_cells", "layer_fractions")


def test_moments_have_known_answers() -> None:
    rng = np.random.default_rng(0)
    a = rng.gamma(4.0, 1.0, 20_000)
    same = compare_moments(a, a)
    assert (same["shift"], same["ratio"], same["width"]) == (0.0, 1.0, 1.0)
    other = compare_moments(a, 1.1 * a)
    assert other["ratio"] == pytest.approx(1.1)
    assert other["width"] == pytest.approx(1.1)
    assert other["shift"] == pytest.approx(0.1 * a.mean() / a.std(ddof=1))
    assert "ratio" not in compare_moments(a - 4.0, a)


def test_their_errors_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.exponential(size=(400, size)) for size in (300, 600))
    found = [compare_moments(x, y) for x, y in zip(a, b, strict=True)]
    for name in ("shift", "ratio", "width"):
        spread = np.std([one[name] for one in found])
        said = np.mean([one[f"{name}_uncertainty"] for one in found])
        assert said == pytest.approx(spread, rel=0.2), name
    floor = np.mean([one["ratio_floor"] for one in found])
    assert floor == pytest.approx(np.std([one["ratio"] for one in found]), rel=0.2)


def sealed_file(path: Path, first: int, n: int, seed: int) -> Path:
    """Write showers of the packaged sample as if simulated with one seed."""
    part = read_showers(sample_path())[first : first + n]
    facts = {key: value for key, value in part.attributes.items() if key != "seeds"}
    return part.replace(seed=seed, attributes=facts).save(path)


def test_sealed_files_are_joined_and_named(run: Path, tmp_path: Path) -> None:
    files = [sealed_file(tmp_path / f"{k}.h5", 600 + 100 * k, 100, 9300 + k) for k in range(2)]
    model = load(run, device="cpu")
    with ExitStack() as stack:
        held = open_test_showers(stack, "atlas-em-barrel", files, model, range(9300, 9310))
        assert len(held.showers) == 200
        assert (held.seeds, held.sealed) == ((9300, 9301), True)
        first, second = held.described
        assert (first["file"], first["sha256"]) == ("0.h5", sha256_file(files[0]))
        assert (second["showers"], second["source"], second["seed"]) == (100, "geant4", 9301)
        assert not open_test_showers(stack, "atlas-em-barrel", files, model).sealed
        with pytest.raises(InputError, match="no showers to measure with"):
            open_test_showers(stack, "atlas-em-barrel", [])
        with pytest.raises(InputError, match=r"1\.h5: has the simulation seeds 9301; expected sealed seeds"):
            open_test_showers(stack, "atlas-em-barrel", files, model, [9300])


def test_showers_that_a_model_has_seen_measure_nothing(run: Path, tmp_path: Path) -> None:
    data = run.parent / "data.h5"
    model = load(run, device="cpu")
    with ExitStack() as stack:
        with pytest.raises(
            SeenShowersError, match=r"^600 of 600 reference showers were used to train or select"
        ):
            open_test_showers(stack, "atlas-em-barrel", [shutil.copy(data, tmp_path / "copy.h5")], model)
        mixed = read_showers(sample_path())[590:700].save(tmp_path / "mixed.h5")
        with pytest.raises(SeenShowersError, match=r"^10 of 110 reference showers"):
            open_test_showers(stack, "atlas-em-barrel", [mixed], model)


def test_a_shipped_model_is_measured_again_without_its_run(run: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", run.parent / "data.h5", tmp_path / "zoo")
    before = card.content
    file = sealed_file(tmp_path / "a.h5", 600, 100, 9300)
    again = measure_card(card, [file], [9300, 9301], settings=QUICK, names=NAMES).content
    assert {key: value for key, value in again.items() if key != "metrics"} == before
    reference = again["metrics"]["reference"]
    assert (reference["n"], reference["sealed"], reference["seeds"]) == (100, True, [9300])
    assert again["metrics"]["commit"] is None or len(again["metrics"]["commit"].removesuffix("-dirty")) == 40
    assert again["metrics"]["figures"]["shape_mse"]["value"] > 0
    with pytest.raises(SeenShowersError):
        measure_card(card, [run.parent / "data.h5"], settings=QUICK, names=NAMES)


def test_a_model_is_measured_against_what_it_has_not_seen(run: Path, tmp_path: Path) -> None:
    other = read_showers(sample_path())[600:800].save(tmp_path / "other.h5")
    model = load(run, device="cpu")
    with ExitStack() as stack:
        held = open_test_showers(stack, "atlas-em-barrel", [other], model)
        found = measure(model, held, QUICK, names=NAMES)
        fewer = measure(model, held, QUICK, n=40, names=NAMES)
    truth, n = read_showers(other), 200
    assert found["reference"]["n"] == found["generated"]["n"] == n
    assert (fewer["reference"]["n"], fewer["generated"]["n"]) == (40, 40)
    for key in ("shape_mse", "layer_fractions", "cell_std_ratio"):
        assert {"value", "uncertainty", "floor"} <= found["figures"][key].keys(), key
    fake = model.generate(like=truth, seed=QUICK.seed)
    response = fake.visible_energy.mean() / truth.visible_energy.mean()
    found_at = {round(row["energy"]): row for row in found["response"]}
    assert len(found_at) == 9
    top = max(found_at)
    assert found_at[top]["response_ratio"] == pytest.approx(response, rel=0.2)
    assert sum(row["n"] for row in found["response"]) == n
    assert found["moments"]["visible_energy"]["unit"] == "of the incident energy"
    assert len(found["ks_by_energy"]["p"]["mean x profile"]) == 9


def test_a_perfect_model_scores_its_floor(run: Path) -> None:
    class Perfect:
        """Gives other showers of the reference's kind: the next block of the file, of the same energies."""

        name = "perfect"

        def generate(self, like, seed):
            return showers[450:900]

    showers = read_showers(sample_path())[:900]
    found = measure(Perfect(), cards.TestShowers(showers[:450], ()), QUICK, names=NAMES)  # type: ignore[arg-type]
    moments = found["moments"]["shower_depth"]
    assert abs(moments["shift"]) < 4 * moments["shift_uncertainty"]
    for row in found["response"]:
        assert abs(row["response_ratio"] - 1) < 4.5 * row["response_uncertainty"]
    assert found["ks_by_energy"]["profiles_above_80_percent"] > 0.9
    for name in ("shape_mse", "layer_fractions", "cell_std_ratio"):
        figure = found["figures"][name]
        error = np.hypot(figure["uncertainty"], figure["floor_uncertainty"])
        assert abs(figure["value"] - figure["floor"]) < 4 * error, name


def test_a_card_has_no_figures_of_each_of_many_layers() -> None:
    from caloforge.zoo.cards import _slim

    value = {"value": 1.0, "uncertainty": 0.1, "detail": {"p": 0.5, "floor_size": 10}}
    entry = {
        "hits": value,
        **{f"many[{k}]": value for k in range(9)},
        **{f"few[{k}]": value for k in range(4)},
    }
    kept = _slim({"ks": entry})["ks"]
    assert list(kept) == ["hits", *(f"few[{k}]" for k in range(4))]
    assert kept["hits"] == {"value": 1.0, "uncertainty": 0.1, "p": 0.5}


def test_speed_says_where_and_how(run: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    found = speed_of(load(run, device="cpu"), read_showers(run.parent / "data.h5"), batch=100, seconds=0.05)
    assert found["ms"] > 0
    assert (found["batch"], found["threads"]) == (100, 1)
    assert found["hardware"]
    assert torch.get_num_threads() == threads


def test_the_uncertainty_of_a_speed_is_of_the_same_clock(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU both are processor time: a wait that costs none must not widen the uncertainty."""
    import time

    model = load(run, device="cpu")
    generate, calls = model.generate, iter(range(100))

    def slow(*words: object, **named: object) -> object:
        time.sleep(0.2 * (next(calls) % 2))
        return generate(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "generate", slow)
    found = speed_of(model, read_showers(run.parent / "data.h5"), batch=10, seconds=0.8)
    assert found["uncertainty"] < 5.0  # ms a shower; the waits are 20
