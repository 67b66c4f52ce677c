"""Training the shipped models: recipes are checked, runs continue, training again gives the same weights."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from caloforge.data import sample_path
from caloforge.errors import ConfigError, InputError
from caloforge.files import sha256_file
from caloforge.showers import read_showers
from caloforge.zoo.build import ZooBuilder
from caloforge.zoo.recipes import Jobs, chosen, read_recipes, read_sealed
from caloforge.zoo.store import shipped_models

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

TINY = """
[sealed]
atlas-photon = "9300-9301, 9305"

["atlas-photon/vae"]
model = "vae"
data = ["a*.h5"]
held = ["held*.h5"]
set = ["epochs=2", "latent=4", "hidden=[32]", "calibrate=false"]
trainings = 2
combine = "ensemble"
best = true

["atlas-photon/broken"]
model = "vae-gan"
data = ["a*.h5"]
set = ["epochs=1"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    showers = read_showers(sample_path())
    (tmp_path / "data").mkdir()
    showers[:100].save(tmp_path / "data" / "a1.h5")
    showers[100:200].save(tmp_path / "data" / "a2.h5")
    own = {key: value for key, value in showers.attributes.items() if key != "seeds"}
    showers[200:300].replace(seed=9300, attributes=own).save(tmp_path / "data" / "held.h5")
    (tmp_path / "zoo.toml").write_text(TINY)
    return tmp_path


@pytest.fixture
def script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    import train_zoo

    def run(*words: str, runs: str = "runs") -> int:
        paths = {"--data": "data", "--runs": runs, "--zoo": "zoo", "--recipes": "zoo.toml"}
        given = [part for key, value in paths.items() for part in (key, str(folder / value))]
        monkeypatch.setattr(sys, "argv", ["train_zoo.py", *given, "--device", "cpu", "-n", "50", *words])
        return train_zoo.main()

    return run


@pytest.fixture
def builder(folder: Path) -> Callable[..., ZooBuilder]:
    def build(only: Sequence[str] = (), runs: str = "runs", jobs: int = 1) -> ZooBuilder:
        return ZooBuilder(
            chosen(read_recipes(folder / "zoo.toml"), only),
            read_sealed(folder / "zoo.toml"),
            folder / "data",
            jobs=Jobs(folder / runs, jobs, device="cpu"),
            zoo=folder / "zoo",
            n=50,
            metrics=("shape_mse", "layer_fractions"),
        )

    return build


@pytest.mark.slow
def test_it_trains_ships_and_continues(
    folder: Path,
    builder: Callable[..., ZooBuilder],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "atlas-photon/vae"
    assert builder(jobs=2).train() == ["atlas-photon/broken"]
    said = capfd.readouterr()
    assert "atlas-photon/broken: failed" in said.err
    assert "caloforge: error:" in said.err  # the reason, as caloforge gave it
    assert builder().gather("atlas-photon/broken") is None
    content = builder().gather(name).content
    assert list(shipped_models(folder / "zoo")) == [name]
    assert [entry["file"] for entry in content["data"]["files"]] == ["a1.h5", "a2.h5"]
    assert (content["members"], len(content["weights"]), content["best"]) == (2, 2, True)
    reference = content["metrics"]["reference"]
    assert (reference["parts"][0]["file"], reference["n"]) == ("held.h5", 50)
    assert (reference["sealed"], reference["seeds"]) == (True, [9300])
    assert content["speed"]["cpu"]["ms"] > 0
    assert "gpu" not in content["speed"]

    first = {path: sha256_file(path) for path in (folder / "zoo").rglob("*.safetensors")}
    capfd.readouterr()
    assert builder([name]).train() == []
    (folder / "runs" / name / "speed.json").write_text(
        json.dumps({"ms": 0.01, "hardware": "a GPU", "batch": 100})
    )
    assert builder([name]).gather(name).content["speed"]["gpu"]["hardware"] == "a GPU"
    said = capfd.readouterr().out
    assert "continued on" in said
    assert "measured against" not in said
    assert {path: sha256_file(path) for path in first} == first

    monkeypatch.setattr("caloforge.zoo.build.source_digest", lambda *parts: "changed")
    before = builder([name]).gather(name).content
    assert "measured against" in capfd.readouterr().out  # figures of other code are not kept
    after = builder([name], "nowhere").remeasure(name).content
    assert after["metrics"]["figures"].keys() == before["metrics"]["figures"].keys()
    assert {**after, "metrics": 0} == {**before, "metrics": 0}
    assert not (folder / "nowhere").exists()

    assert builder([name], "again").train() == []
    for weights in ("weights.safetensors", "weights-1.safetensors"):
        ours, theirs = (folder / runs / name / weights for runs in ("runs", "again"))
        assert sha256_file(ours) == sha256_file(theirs)


def test_sealed_showers_are_not_trained_on_and_nothing_else_measures(
    folder: Path, script: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "zoo.toml").read_text()
    (folder / "zoo.toml").write_text(text.replace('data = ["a*.h5"]', 'data = ["a1.h5", "held.h5"]', 1))
    assert script("--only", "vae") == 2
    assert "held.h5: has the sealed seed 9300 of atlas-photon" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(("text", "seeds"), [("9300-9302", (9300, 9301, 9302)), ("7, 9-10", (7, 9, 10))])
def test_sealed_seeds_are_read(tmp_path: Path, text: str, seeds: tuple[int, ...]) -> None:
    (tmp_path / "zoo.toml").write_text(f'[sealed]\natlas-photon = "{text}"\n')
    assert read_sealed(tmp_path / "zoo.toml") == {"atlas-photon": seeds}
    (tmp_path / "zoo.toml").write_text('[sealed]\natlas-photon = "9300 to 9302"\n')
    with pytest.raises(ConfigError, match=r"\[sealed\] atlas-photon.*expected a text such as"):
        read_sealed(tmp_path / "zoo.toml")


def test_every_data_set_of_a_shipped_model_has_sealed_seeds() -> None:
    sealed = read_sealed(SCRIPTS / "zoo.toml")
    names = {name.partition("/")[0] for name in read_recipes(SCRIPTS / "zoo.toml")}
    assert sealed.keys() == names
    assert all(len(seeds) == len(set(seeds)) == 100 for seeds in sealed.values())
    assert len({seed for seeds in sealed.values() for seed in seeds}) == 600


def test_what_is_held_out_must_not_be_trained_on(
    folder: Path, script: Callable[..., int], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copy(run.parent / "data.h5", folder / "data" / "a.h5")
    (folder / "runs" / "atlas-photon").mkdir(parents=True)
    shutil.copytree(run, folder / "runs" / "atlas-photon" / "vae")
    recipe = '["atlas-photon/vae"]\nmodel = "vae"\ndata = ["a.h5"]\nheld = ["a.h5"]\n'
    (folder / "zoo.toml").write_text(recipe)
    assert script("--gather-only") == 2
    assert "600 of 600 reference showers were used to train or select" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs=2", "epoch=2", r"\[atlas-photon/vae\].*unknown key 'epoch'"),
        ('model = "vae"', 'model = "vea"', r"\[atlas-photon/vae\].*vea"),
        ("best = true", "better = true", r"unknown key 'better'"),
        ('combine = "ensemble"', 'combine = "all"', r"combine"),
    ],
)
def test_wrong_recipes_are_refused_before_any_work(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "zoo.toml"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_recipes(path)


def test_the_recipes_of_the_shipped_models_are_sound() -> None:
    recipes = read_recipes(SCRIPTS / "zoo.toml")
    best = [name.partition("/")[0] for name, recipe in recipes.items() if recipe.best]
    assert len(best) == len(set(best))
    assert set(chosen(recipes, ["clic-electron"])) == {n for n in recipes if n.startswith("clic-electron/")}
    with pytest.raises(InputError, match="no recipe is called 'nobody'"):
        chosen(recipes, ["nobody"])
    for name, card in shipped_models().items():
        assert name in recipes, name
        assert card.content["model"] == recipes[name].model


def test_a_first_training_comes_before_and_is_begun_from(
    folder: Path, script: Callable[..., int], run: Path
) -> None:
    import shutil
    import tomllib

    shutil.copy(run.parent / "data.h5", folder / "data" / "a.h5")
    recipe = '["atlas-photon/vae"]\nmodel = "vae"\ndata = ["a.h5"]\nfirst = ["epochs=1", "calibrate=false"]\nset = ["epochs=2", "calibrate=false"]\n'
    (folder / "zoo.toml").write_text(recipe + 'device = "cpu"\n')
    assert script("--train-only") == 0
    made = folder / "runs" / "atlas-photon"
    first, second = (tomllib.loads((made / n / "config.toml").read_text()) for n in ("vae-first", "vae"))
    assert (first["model"]["epochs"], second["model"]["epochs"]) == (1, 2)
    assert first["train"]["initial"] == ""
    assert second["train"]["initial"] == f"{made / 'vae-first'}/weights.safetensors"
    assert script("--train-only") == 0
