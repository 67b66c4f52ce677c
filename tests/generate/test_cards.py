"""What a card says of a model's quality: known answers, and a model whose showers are the reference's own."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from caloforge.data import sample_path
from caloforge.errors import InputError
from caloforge.files import sha256_file
from caloforge.generate import load
from caloforge.showers import read_showers
from caloforge.studies.cards import Held, measure, open_held, speed_of
from caloforge.studies.cards.moments import compare_moments
from caloforge.train import held_out_showers
from caloforge.validate.metrics.settings import Settings

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


def test_held_out_showers_are_joined_and_named(run: Path, tmp_path: Path) -> None:
    data = run.parent / "data.h5"
    other = read_showers(sample_path())[600:700].save(tmp_path / "other.h5")
    with ExitStack() as stack:
        held = open_held(stack, "atlas-em-barrel", [other], run, data)
        own = held_out_showers(run, data)
        assert len(held.showers) == 100 + len(own)
        np.testing.assert_array_equal(held.showers[100:].cells, own.cells)
        first, second = held.described
        assert (first["file"], first["sha256"]) == ("other.h5", sha256_file(other))
        assert (first["showers"], first["source"]) == (100, "geant4")
        assert second["showers"] == len(own)
        assert "held out" in second["file"]
        with pytest.raises(InputError, match="no showers to measure with"):
            open_held(stack, "atlas-em-barrel", [])
        with pytest.raises(InputError, match="which the model was trained on"):
            open_held(stack, "atlas-em-barrel", [shutil.copy(data, tmp_path / "copy.h5")], run, data)


def test_a_model_is_measured_against_what_it_has_not_seen(run: Path) -> None:
    data = run.parent / "data.h5"
    model = load(run, device="cpu")
    with ExitStack() as stack:
        held = open_held(stack, "atlas-em-barrel", [], run, data)
        found = measure(model, held, QUICK, names=NAMES)
        fewer = measure(model, held, QUICK, n=40, names=NAMES)
    n = len(held.showers)
    assert found["reference"]["n"] == found["generated"]["n"] == n
    assert (fewer["reference"]["n"], fewer["generated"]["n"]) == (40, 40)
    for key in ("shape_mse", "layer_fractions", "cell_std_ratio"):
        assert {"value", "uncertainty", "floor"} <= found["figures"][key].keys(), key
    fake = model.generate(like=held.showers, seed=QUICK.seed)
    response = fake.visible_energy.mean() / held.showers[:].visible_energy.mean()
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
    found = measure(Perfect(), Held(showers[:450], ()), QUICK, names=NAMES)  # type: ignore[arg-type]
    moments = found["moments"]["shower_depth"]
    assert abs(moments["shift"]) < 4 * moments["shift_uncertainty"]
    for row in found["response"]:
        assert abs(row["response_ratio"] - 1) < 4.5 * row["response_uncertainty"]
    assert found["ks_by_energy"]["profiles_above_80_percent"] > 0.9
    figures = found["figures"]["shape_mse"]
    assert figures["value"] < 10 * figures["floor"]


def test_a_card_has_no_figures_of_each_of_many_layers() -> None:
    from caloforge.studies.cards.measure import _slim

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
