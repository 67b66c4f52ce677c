"""All studies of all models: with a folder of one tiny model, with none, and group by group."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.data import packed_projections
from caloforge.errors import ConfigError, FileFormatError, InputError, TooFewShowersError, UnknownNameError
from caloforge.generate import Generator
from caloforge.showers import Showers, open_showers
from caloforge.showers.views import JoinedShowers
from caloforge.simulate.run import simulate
from caloforge.studies import cache as cache_module
from caloforge.studies import run_study
from caloforge.studies.amplification import AmplificationStudy
from caloforge.studies.base import Context
from caloforge.studies.cache import Cache
from caloforge.studies.layers import LayersStudy
from caloforge.studies.run import study_command
from caloforge.studies.site.plan import Group, read_groups, truth_files
from caloforge.studies.sources import Source, cached_generation, open_sources
from caloforge.train import RunFolder
from caloforge.train.folder import save_weights
from caloforge.train.settings import read_settings

SETTINGS = {
    "studies": ["layers", "shapes", "conditioning"],
    "settings": {"shapes": {"geant4_showers": 0, "timing_seconds": 0.05}},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    return simulate("atlas-em-barrel", 300, engine="gflash", seed=2, output=folder / "truth.h5")


@pytest.fixture(scope="module")
def zoo(tiny_vae: Path) -> Path:
    folder = tiny_vae.parent / "zoo" / "atlas-photon"
    folder.mkdir(parents=True)
    save_weights(folder / "vae.safetensors", RunFolder(tiny_vae).models()[0].shipped_state())
    config = read_settings(tiny_vae / "config.toml")["model"]
    card = {"model": "vae", "detector": "atlas-em-barrel", "particle": "gamma", "config": config}
    (folder / "vae.json").write_text(json.dumps(card | {"train_showers": 300}))
    return folder.parent


def _links(page: Path) -> list[str]:
    return re.findall(r'<a href="([^"#]+)"', page.read_text())


def test_a_site_of_every_study_that_fits(reference: Path, zoo: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    options = {"output": site, "settings": SETTINGS | {"zoo": str(zoo)}, "n": 200}
    result = run_study("all", reference, **options)
    pages = {page["study"]: page for page in result.data["pages"]}
    assert set(pages) == {"layers", "shapes"}
    assert all(page["models"] == ["atlas-photon/vae"] and not page["error"] for page in pages.values())
    links = set(_links(site / "index.html"))
    assert links == {f"{page['folder']}/report.html" for page in pages.values()}
    for link in links:
        assert "atlas-photon/vae" in (site / link).read_text()
    index = (site / "index.html").read_text()
    assert "caloforge study all" in index
    assert "no test point has 20 reference showers" in index
    content = json.loads((site / "layers-atlas-em-barrel" / "study.json").read_text())
    assert sum(content["data"]["atlas-photon/vae"]["n"]) == 200
    rows = {row["quantity"]: row for row in result.content["rows"]}
    assert not any(quantity.startswith("shapes") for quantity in rows)  # its paper is of another calorimeter
    middle = [
        row for row in result.content["rows"] if row["quantity"] == "layers: energy in the middle, 65.5 GeV"
    ]
    assert [row["paper"]["value"] for row in middle] == [79.3, 77.6]  # the paper's Geant4 and its VAE

    stamp = (site / "layers-atlas-em-barrel" / "study.json").stat().st_mtime_ns
    again = run_study("all", reference, **options)
    assert (site / "layers-atlas-em-barrel" / "study.json").stat().st_mtime_ns == stamp
    assert again.content["rows"] == result.content["rows"]


def test_one_failure_does_not_stop_the_others(
    reference: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, context: object) -> None:
        msg = "too few for this"
        raise TooFewShowersError(msg)

    monkeypatch.setattr(LayersStudy, "run", broken)
    settings = SETTINGS | {"zoo": str(zoo), "studies": ["layers", "shapes"], "tidy": True}
    result = run_study("all", reference, output=tmp_path / "site", settings=settings, n=100)
    errors = {page["study"]: page["error"] for page in result.data["pages"]}
    assert errors == {"layers": "too few for this", "shapes": ""}
    assert "too few for this" in (tmp_path / "site" / "index.html").read_text()
    assert not (tmp_path / "site" / "shapes-atlas-em-barrel" / "cache").exists()


def test_an_empty_zoo_says_so(reference: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        InputError, match="there is no shipped model and none was given; it needs reference files"
    ):
        run_study("all", reference, settings={"zoo": str(empty)})
    arguments = ["study", "all", str(reference), "-o", str(tmp_path / "out"), "--set", f"zoo={empty}"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 2
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is no folder"):
        run_study("all", reference, settings={"zoo": str(tmp_path / "nowhere")})


def test_run_folders_do_without_shipped_models(reference: Path, tiny_vae: Path, tmp_path: Path) -> None:
    arguments = ["study", "all", str(reference), str(tiny_vae), "-o", str(tmp_path / "site"), "-n", "120"]
    arguments += ["--set", "shipped=false", "--set", 'studies=["layers"]', "--device", "cpu"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert set(_links(tmp_path / "site" / "index.html")) == {"layers-atlas-em-barrel/report.html"}
    page = json.loads((tmp_path / "site" / "layers-atlas-em-barrel" / "study.json").read_text())
    assert page["command"].startswith("caloforge study layers")
    assert str(tiny_vae) in page["command"]


def test_unknown_names_are_refused(reference: Path, zoo: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown study 'layer'"):
        run_study("all", reference, settings={"studies": ["layer"], "zoo": str(zoo)})
    with pytest.raises(InputError, match="no shipped model is called 'gan'; known: atlas-photon/vae"):
        run_study("all", reference, settings={"models": ["gan"], "zoo": str(zoo)})


PAGES = """
[first]
truth = ["truth-?.h5"]
studies = ["layers", "diversity"]
n = 60

[first.settings.diversity]
pairs = 50

[second]
truth = ["truth-0.h5"]
models = ["tiny"]
studies = ["shapes"]
n = 50

[second.settings]
shapes = { geant4_showers = 0, timing_seconds = 0.05 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_vae: Path) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    (folder / "tiny").symlink_to(tiny_vae)
    for k in range(2):
        simulate("atlas-em-barrel", 100, engine="gflash", seed=k, output=folder / f"truth-{k}.h5")
    return folder


def _run(folder: Path, *more: str) -> str:
    options = ["--set", "shipped=false", "--set", "pages=pages.toml", "--device", "cpu", *more]
    answer = CliRunner().invoke(app, ["study", "all", "truth-0.h5", "tiny", "-o", "site", *options])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_groups_make_the_pages_that_they_ask_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("pages.toml").write_text(PAGES)
    _run(folder, "--set", "publish=web")
    made_pages = {"layers-atlas-em-barrel", "diversity-atlas-em-barrel", "shapes-atlas-em-barrel"}
    web = Path("web")
    assert {path.parent.name for path in web.glob("*/report.html")} == made_pages
    assert sorted(path.suffix for path in web.rglob("*") if path.is_file()) == [".html"] * 4 + [".json"]
    index = unescape((web / "index.html").read_text())
    assert "[first.settings.diversity]" in index
    assert """--set 'pages="pages.toml"'""" in index
    content = {name: json.loads((Path("site") / name / "study.json").read_text()) for name in made_pages}
    assert content["layers-atlas-em-barrel"]["showers"] == {"reference": 200, "tiny": 60}
    assert content["diversity-atlas-em-barrel"]["showers"]["tiny"] == 60
    assert content["shapes-atlas-em-barrel"]["showers"] == {"reference": 100, "tiny": 50}
    assert "reference 200; tiny 60" in index
    kept = [len(open_showers(path)) for path in Path("site/showers").glob("*.h5")]
    assert sorted(kept) == [50, 60]  # layers and diversity share theirs

    stamp = (web.parent / "site" / "layers-atlas-em-barrel" / "study.json").stat().st_mtime_ns
    Path("pages.toml").write_text(PAGES.replace("n = 50", "n = 40"))
    _run(folder, "--set", "tidy=true", "--force")
    assert Path("site/layers-atlas-em-barrel/study.json").stat().st_mtime_ns == stamp
    assert json.loads(Path("site/shapes-atlas-em-barrel/study.json").read_text())["showers"]["tiny"] == 40
    assert not Path("site/showers").exists()
    assert not list(Path("site").glob("*/cache"))


def test_two_groups_may_not_ask_for_one_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    group = '[{name}]\ntruth = ["truth-{k}.h5"]\nstudies = ["layers"]\n'
    Path("twice.toml").write_text(group.format(name="a", k=0) + group.format(name="b", k=1))
    settings = {"shipped": False, "pages": "twice.toml", "device": "cpu"}
    with pytest.raises(ConfigError, match="group 'b': there is a page 'layers-atlas-em-barrel' already"):
        run_study("all", "truth-0.h5", "tiny", settings=settings, n=20)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", ConfigError, "expected one table a group"),
        ("n = 5", ConfigError, "expected one table a group"),
        ("[a", FileFormatError, "wrong.toml: is not TOML"),
        ("[a]\nshowers = 5", ConfigError, "showers"),
        ("[a]\nn = 0", ConfigError, "n"),
        ('[a]\nstudies = ["layer"]', UnknownNameError, "layer"),
        ('[a]\ntruth = ["none-*.h5"]', InputError, "no file of reference showers is called 'none-\\*.h5'"),
        ('[a]\nmodels = ["gan"]', InputError, "group 'a': no model is called 'gan'; known: tiny"),
    ],
)
def test_a_wrong_file_of_pages_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[Exception], match: str
) -> None:
    monkeypatch.chdir(folder)
    Path("wrong.toml").write_text(text)
    settings = {"shipped": False, "pages": "wrong.toml", "device": "cpu"}
    with pytest.raises(error, match=match):
        run_study("all", "truth-0.h5", "tiny", settings=settings)
    with pytest.raises(InputError, match="no such file"):
        read_groups("nowhere.toml")


def test_patterns_come_in_order_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    group = Group(truth=("truth-1.h5", "truth-?.h5"))
    assert [path.name for path in truth_files(group, "a")] == ["truth-1.h5", "truth-0.h5"]
    if packed_projections() is not None:
        assert truth_files(Group(truth=("shipped",)), "a") == [packed_projections()]


class _Mirror:
    """A generator that gives back the conditions that it was asked for."""

    def __init__(self, detector: object) -> None:
        self.detector, self.name = detector, "mirror"

    def stream(self, n: int, like: object, seed: int, batch_size: int) -> object:
        for start in range(0, n, batch_size):
            rows = np.arange(start, min(start + batch_size, n)) % len(like)  # type: ignore[arg-type]
            yield like.take(rows)  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [1, 7, 200, 250])
def test_conditions_are_spread_over_the_truth(folder: Path, n: int) -> None:
    with open_showers(folder / "truth-0.h5") as first, open_showers(folder / "truth-1.h5") as second:
        like = JoinedShowers([first, second])
        mirror: Generator = _Mirror(like.detector)  # type: ignore[assignment]
        source = Source("mirror", like.detector, "0", generator=mirror)
        found = source.take(n, like)
        everything = np.asarray(like.incident_energy)
        few = min(n, len(like))
        slow = [everything[int(k % few * len(like) / few)] for k in range(n)]
        assert np.array_equal(found.incident_energy, slow)


def test_showers_are_kept_where_several_studies_find_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of: list[int] = []

    class Counting(_Mirror):
        def stream(self, n: int, like: object, seed: int, batch_size: int) -> object:
            made_of.append(n)
            return super().stream(n, like, seed, batch_size)

    with open_showers(folder / "truth-0.h5") as like:
        counting: Generator = Counting(like.detector)  # type: ignore[assignment]
        source = Source("mirror", like.detector, "0", generator=counting)
        for name in ("one", "two"):
            cache = Cache(tmp_path / name, showers=tmp_path / "shared")
            with cached_generation(source, 30, like, 0, cache, "key") as showers:
                assert len(showers) == 30
        with cached_generation(source, 30, like, 0, Cache(tmp_path / "three"), "key") as showers:
            assert isinstance(showers[:5], Showers)
        assert made_of == [30, 30]
        assert len(list((tmp_path / "shared").glob("*.h5"))) == 1
        monkeypatch.setattr(cache_module, "source_digest", lambda *parts: "other code")
        with cached_generation(source, 30, like, 0, Cache(tmp_path / "three"), "key"):
            assert made_of == [30, 30, 30]


def test_images_and_their_detector_are_studied_together() -> None:
    from caloforge.geometry import get_detector

    grid, image = get_detector("ild-ecal"), get_detector("ild-ecal-10x10")
    assert AmplificationStudy().space(grid) == AmplificationStudy().space(image) == image
    assert LayersStudy().space(grid) == grid


def test_the_word_shipped_stays_in_commands() -> None:
    packed = packed_projections()
    if packed is None:
        pytest.skip("no packed images in this copy of the package")
    with ExitStack() as stack:
        source = open_sources(stack, [packed])[0]
        assert source.argument == "shipped"
        assert source.provenance()["file"] == packed.name
        context = Context((source,), (), LayersStudy.Settings())
        assert study_command(LayersStudy(), context, None) == "caloforge study layers shipped"
