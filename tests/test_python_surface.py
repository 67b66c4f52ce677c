"""What a user meets in Python: names and signatures, how objects look, arrays, joins, errors that name arguments."""

from __future__ import annotations

import ast
import inspect
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import caloforge as cf
from caloforge.errors import (
    ConfigError,
    IncompatibleError,
    InputError,
    OutputError,
    UnitError,
    UnknownNameError,
)
from caloforge.generate import Generator
from caloforge.showers import Showers, open_showers
from caloforge.train import RunFolder


@pytest.fixture(scope="module")
def showers() -> Showers:
    """Return 60 parametrised showers."""
    return cf.simulate("atlas-em-barrel", n=60, engine="gflash", seed=4)


@pytest.fixture(scope="module")
def run(showers: Showers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run trained on showers in memory."""
    path = tmp_path_factory.mktemp("run") / "vae"
    settings = {"epochs": 1, "optimizer": {"lr": 2e-4}, "train.validation": 0.25, "hidden": [8], "latent": 2}
    return cf.train("vae", showers, path, overrides=settings, device="cpu")


@pytest.fixture(scope="module")
def model(run: Path) -> Generator:
    return cf.load(run, device="cpu")


def test_tab_completion_shows_the_verbs() -> None:
    assert {
        "simulate",
        "train",
        "load",
        "validate",
        "info",
        "split",
        "merge",
        "study",
        "view",
        "Showers",
    } <= set(dir(cf))
    assert not [name for name in dir(cf) if name.startswith("_") and name != "__version__"]
    for name in cf.__all__:
        assert getattr(cf, name) is not None


def test_the_stub_names_what_there_is() -> None:
    tree = ast.parse(Path(cf.__file__).with_suffix(".pyi").read_text())
    named = {
        (alias.asname or alias.name): node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    named |= {target.id: "" for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    named |= {node.target.id: "" for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert set(cf.__all__) <= named.keys()
    for name in cf.__all__:
        if named[name].startswith("caloforge."):
            assert getattr(cf, name) == getattr(import_module(named[name]), name) or inspect.ismodule(
                getattr(cf, name)
            )


@pytest.mark.parametrize(
    ("verb", "argument"),
    [("simulate", "energy"), ("train", "overrides"), ("validate", "settings"), ("tune", "trials"), ("benchmark", "sources"), ("load", "device"), ("info", "file"), ("study", "settings")],
)  # fmt: skip
def test_verbs_have_their_signatures(verb: str, argument: str) -> None:
    assert argument in inspect.signature(getattr(cf, verb)).parameters
    package = getattr(cf, verb)
    if inspect.ismodule(package):
        assert inspect.signature(package) == inspect.signature(getattr(package, verb))


def test_showers_in_notebooks(showers: Showers, tmp_path: Path) -> None:
    html = showers._repr_html_()
    assert "atlas-em-barrel, 266 cells in 4 layers" in html
    assert "60" in html
    path = showers.save(tmp_path / "<b>.h5")
    with open_showers(path) as file:
        assert "&lt;b&gt;.h5" in file._repr_html_()
        assert "<b>" not in file._repr_html_()
        assert "dense" in file._repr_html_()
    assert "closed" in file._repr_html_()
    assert "&lt;i&gt;" in showers.replace(source="<i>")._repr_html_()


def test_generators_runs_and_reports_in_notebooks(run: Path, model: Generator, showers: Showers) -> None:
    assert repr(model) == "Generator(vae, gamma in atlas-em-barrel, on cpu)"
    assert "1024 to " in model._repr_html_()
    folder = RunFolder(run)
    assert repr(folder) == f"RunFolder('{run}')"
    assert "showers in memory, 60 showers" in folder._repr_html_()
    assert run._repr_html_() == folder._repr_html_()  # what cf.train returns shows the run, and is a path
    assert isinstance(run, Path)
    assert run == Path(os.fspath(run))
    assert (run / "weights.safetensors").is_file()
    assert run.parent._repr_html_() is None  # type: ignore[attr-defined]
    from caloforge.studies.base import Row, StudyResult
    from caloforge.validate.driver import Report

    assert repr(Report({"samples": {"vae": {}}})) == "Report(vae)"
    result = StudyResult([Row("hits <1>", 3.0, unit="cells")])
    assert repr(result) == "StudyResult(1 numbers)"
    assert "hits &lt;1&gt;" in result._repr_html_()


def test_a_report_is_a_table_in_notebooks(showers: Showers) -> None:
    settings = {"quick": True, "n_bootstrap": 2, "n_halves": 1, "classifier_seeds": 1, "floor_seeds": 1}
    report = cf.validate(showers, showers, settings=settings)
    html = report._repr_html_()
    assert html.count("<tr>") == len(report.summary().rows) + 1
    assert "<th>GFlash</th>" in html


def test_layers_and_joins(showers: Showers) -> None:
    assert showers.layer_energies.shape == (60, 4)
    np.testing.assert_allclose(showers.layer_energies.sum(1), showers.visible_energy)
    middle = showers.detector.layer_cells[2]
    np.testing.assert_allclose(showers.layer_energies[:, 2], showers.cells[:, middle].sum(1), rtol=1e-6)
    both = showers[:20] + showers[20:]
    np.testing.assert_array_equal(both.cells, showers.cells)
    np.testing.assert_array_equal(sum([showers[:5], showers[5:9], showers[9:]]).cells, showers.cells)
    with pytest.raises(IncompatibleError):
        showers + Showers("ild-ecal-10x10", np.ones((1, 100)), [1.0])
    with pytest.raises(TypeError):
        showers + 1


def test_awkward_arrays_have_the_hits(showers: Showers) -> None:
    awkward = pytest.importorskip("awkward")
    array = showers.to_awkward()
    assert len(array) == 60
    np.testing.assert_allclose(awkward.sum(array.hits.energy, axis=1), showers.visible_energy, rtol=1e-5)
    assert awkward.num(array.hits).tolist() == (showers.cells > 0).sum(1).tolist()
    first = array.hits[0]
    cells = first.cell.to_numpy()
    np.testing.assert_array_equal(cells, np.flatnonzero(showers.cells[0]))
    np.testing.assert_array_equal(first.layer.to_numpy(), showers.detector.cell_layer[cells])
    np.testing.assert_allclose(first.z.to_numpy(), showers.detector.cell_centres[cells, 2])
    np.testing.assert_array_equal(array.incident_energy.to_numpy(), showers.incident_energy)
    assert array.impact.to_numpy().shape == (60, 2)


@pytest.mark.parametrize("detector", ["atlas-em-barrel", "calochallenge-2", "ild-ecal-10x10"])
def test_a_shower_is_drawn(detector: str, tmp_path: Path) -> None:
    cells = np.zeros((2, cf.get_detector(detector).n_cells))
    cells[0, 5:9] = [1.0, 20.0, 0.3, 1e-7]
    drawn = Showers(detector, cells, [50e3, 10e3], particle="gamma", source="$geant4$")
    figure = drawn.plot(0)
    assert len(figure.axes) == 4  # with the scale of colours
    bars, side = figure.axes[:2]
    assert sum(bar.get_height() for bar in bars.patches) == pytest.approx(21.3)
    assert len(side.collections[0].get_offsets()) == 4
    assert figure.get_suptitle().startswith("shower 0: $geant4$ gamma 50 GeV")
    figure.savefig(tmp_path / "shower.png")
    assert len(drawn.plot(1).axes) == 3  # an empty one
    drawn[1].plot().savefig(tmp_path / "empty.png")
    with pytest.raises(IndexError):
        drawn.plot(2)


def test_energies_of_each_shower(model: Generator, tmp_path: Path) -> None:
    energies = np.array([2048.0, 4096.0, 1024.0, 8192.0])
    made = model.generate(energy=energies, seed=3)
    np.testing.assert_array_equal(made.incident_energy, energies)
    assert "beam_energy" not in made.attributes
    again = model.generate(energy=list(energies[:2]), seed=3)
    np.testing.assert_array_equal(again.cells, made.cells[:2])
    late = model.generate(energy=energies[2:], seed=3, first=2)
    np.testing.assert_allclose(late.cells, made.cells[2:], rtol=1e-5)
    path = model.write(tmp_path / "a.h5", energy=energies, theta=np.full(4, 90.0), seed=3)
    np.testing.assert_array_equal(cf.read_showers(path).cells, made.cells)
    same = model.generate(n=4, energy="2048MeV", theta=90.0 * np.ones(4), seed=3)
    assert set(same.incident_energy) == {2048.0}


def test_energies_of_each_shower_that_are_wrong(model: Generator) -> None:
    for arguments, error, message in (
        ({"n": 3, "energy": [1024.0, 2048.0]}, InputError, "differ: 2, 3; expected one number"),
        ({"energy": [1024.0, 2048.0], "theta": [90.0]}, InputError, "differ: 1, 2"),
        ({"energy": [1024.0, -1.0]}, InputError, "-1 is among them; expected finite numbers above 0, in MeV"),
        (
            {"energy": np.array([[1.0]])},
            InputError,
            r"an array of shape \(1, 1\); expected one number for each",
        ),
        ({"energy": ["5GeV"]}, InputError, "an array of type <U4"),
        (
            {"energy": [1e9]},
            IncompatibleError,
            "outside the training's 1024 to .*; use allow_extrapolation=True",
        ),
        ({"n": 3, "energy": 5.0}, UnitError, "has no unit: write 5.0GeV"),
        ({"energy": [2048.0], "theta": [45.0]}, IncompatibleError, "trained at 90 degrees only, not at 45"),
    ):
        with pytest.raises(error, match=message):
            model.generate(**arguments)


def test_dicts_set_what_texts_set(run: Path) -> None:
    from caloforge.train.settings import resolve

    texts = resolve(
        "vae", overrides=["epochs=3", "optimizer.lr=0.1", "train.validation=0.5", "hidden=[8, 4]"]
    )
    values = {"epochs": 3, "optimizer": {"lr": 0.1}, "train": {"validation": 0.5}, "model.hidden": [8, 4]}
    assert resolve("vae", overrides=values) == texts
    assert resolve("vae", overrides=list(values.items())) == texts
    assert resolve("vae", RunFolder(run).config).model.optimizer.lr == 2e-4
    with pytest.raises(
        ConfigError, match=r"settings 'epoch': unknown key 'epoch'; did you mean epochs\? known: preset"
    ):
        resolve("vae", overrides={"epoch": 3})


def test_errors_speak_python(showers: Showers, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean gflash"):
        cf.simulate("ild-ecal", 1, engine="gflsh")
    with pytest.raises(
        InputError, match="engine 'geant4' has no option 'physics_lst'; did you mean physics_list"
    ):
        cf.simulate("ild-ecal", 1, physics_lst="x")
    with pytest.raises(ConfigError, match=r"settings: unknown key 'n_maxx'; did you mean n_max\?"):
        cf.validate(showers, showers, settings={"n_maxx": 3})
    with pytest.raises(
        OutputError, match=r"end with .h5 or .hdf5, such as a.h5; caloforge convert writes other formats"
    ):
        showers.save(tmp_path / "a.root")
    showers.save(tmp_path / "a.h5")
    with pytest.raises(OutputError, match="use force=True to replace it"):
        showers.save(tmp_path / "a.h5")


def test_what_is_in_a_file(showers: Showers, tmp_path: Path) -> None:
    facts = cf.info(showers.save(tmp_path / "a.h5", layout="sparse"))
    assert (facts["showers"], facts["layout"], facts["empty"], facts["seed"]) == (60, "sparse", 0, 4)
    assert facts["conditions"]["incident_energy"]["values"] == 9
    assert facts["response"] == pytest.approx((showers.visible_energy / showers.incident_energy).mean())
    parts = cf.split(tmp_path / "a.h5", tmp_path / "parts", parts=4)
    assert [len(cf.read_showers(path)) for path in parts] == [15, 15, 15, 15]
    assert cf.merge(parts, tmp_path / "b.h5").n == 60
    np.testing.assert_array_equal(cf.read_showers(tmp_path / "b.h5").cells, showers.cells)
    with pytest.raises(
        InputError, match=r"give the showers of each file \(number\) or the number of files \(parts\)"
    ):
        cf.split(tmp_path / "a.h5", tmp_path / "parts")


def test_an_interrupted_split_leaves_nothing(
    showers: Showers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    showers.save(tmp_path / "a.h5")
    module = import_module("caloforge.showers.ranges")
    writer = module.ShowerWriter

    def failing(path: Path, *arguments: object) -> object:
        if path.name == "a-2.h5":
            raise KeyboardInterrupt
        return writer(path, *arguments)

    monkeypatch.setattr(module, "ShowerWriter", failing)
    with pytest.raises(KeyboardInterrupt):
        cf.split(tmp_path / "a.h5", tmp_path / "parts", parts=4)
    assert list((tmp_path / "parts").iterdir()) == []
