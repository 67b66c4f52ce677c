"""The common ground: cache, joined files, papers' numbers, settings, what a study leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import caloforge
from caloforge.errors import ConfigError, IncompatibleError, InputError, OutputExistsError, UnknownNameError
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.showers.views import JoinedShowers
from caloforge.studies import STUDIES, run_study
from caloforge.studies import cache as cache_module
from caloforge.studies.base import Context, Figure, Row, Study, StudyResult, StudySettings
from caloforge.studies.cache import Cache
from caloforge.studies.page import PaperValue, document, paper, paper_values
from caloforge.validate.plots.panel import figure_style


class CountSettings(StudySettings):
    threshold: float = 0.1


class Count(Study):
    """Cells hit."""

    name: ClassVar[str] = "count"
    title: ClassVar[str] = "Cells hit"
    source: ClassVar[str] = "calomplification"
    needs: ClassVar[str] = "two files of images"
    Settings: ClassVar[type[StudySettings]] = CountSettings

    def run(self, context: Context) -> StudyResult:
        rows = []
        for source in context.generated:
            showers = source.take(50, context.reference, context.seed)
            hits = (showers.cells > context.settings.threshold).sum(axis=1)
            rows.append(Row("hits", float(hits.mean()), paper="amplification.training", sample=source.label))

        def draw(pyplot: Any) -> Any:
            figure, axes = pyplot.subplots()
            axes.plot([0, 1])
            return figure

        return StudyResult(
            rows, [Figure("line", "A line", "It rises.", draw)], ["Found."], data={"x": np.arange(3)}
        )


class Plain(Count):
    """The same without a figure."""

    def run(self, context: Context) -> StudyResult:
        return StudyResult(super().run(context).rows)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> type[Count]:
    monkeypatch.setitem(STUDIES._entries, "count", Plain)
    return Plain


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> type[Count]:
    monkeypatch.setitem(STUDIES._entries, "count", Count)
    return Count


def test_every_study_says_what_it_is() -> None:
    for name, study in STUDIES.items():
        assert study.name == name
        assert study.needs
        assert document(study.source)["reference"]
        assert study.Settings().model_dump(mode="json") is not None


def test_papers_numbers_have_a_source() -> None:
    for section in STUDIES.names():
        for value in paper_values(section).values():
            assert value.source.startswith(document(value.document)["reference"])
            assert value.where
            assert (value.value, value.low, value.high) != (None, None, None)
    with pytest.raises(UnknownNameError, match=r"amplification\.truth"):
        paper("amplification.nothing")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"value": 50.0}, "50 mm"),
        ({"low": 10.0}, "above 10 mm"),
        ({"high": 50.0}, "up to 50 mm"),
        ({"low": 1.0, "high": 2.0}, "1 to 2 mm"),
    ],
)
def test_papers_numbers_read_well(bounds: dict[str, float], text: str) -> None:
    assert PaperValue("a.b", "calomplification", "figure 1", unit="mm", **bounds).text == text


def test_cache_computes_once_and_again_for_other_inputs_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"x": np.arange(4.0), "n": len(calls)}

    cache = Cache(tmp_path / "cache", {"seed": 1})
    first, second = cache.get("entry", compute, "a"), cache.get("entry", compute, "a")
    assert len(calls) == 1
    assert np.array_equal(first["x"], second["x"])
    assert second["n"] == 1
    assert cache.get("entry", compute, "b")["n"] == 2
    assert Cache(tmp_path / "cache", {"seed": 2}).get("entry", compute, "b")["n"] == 3
    monkeypatch.setattr(cache_module, "source_digest", lambda *parts: "other code")
    assert Cache(tmp_path / "cache", {"seed": 2}).get("entry", compute, "b")["n"] == 4
    path = tmp_path / "cache" / "entry.npz"
    path.write_bytes(path.read_bytes()[:100])  # as a crash of the machine may leave it
    assert Cache(tmp_path / "cache", {"seed": 2}).get("entry", compute, "b")["n"] == 5


def test_the_digest_of_the_code_covers_every_room_that_computes() -> None:
    package = Path(caloforge.__file__).parent
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert (
        rooms - set(cache_module.CODE)
        == {"benchmark", "cli", "data", "formats", "simulate", "train", "tune", "zoo"} & rooms
    )
    assert "random.py" in cache_module.CODE


def test_cache_without_a_folder_keeps_nothing(tmp_path: Path) -> None:
    assert Cache(None).get("entry", lambda: {"x": [1, 2]})["x"].tolist() == [1, 2]
    assert not list(tmp_path.iterdir())


def test_joined_files_read_as_one(gflash_images: Path, other_images: Path) -> None:
    whole = Showers.concatenate([read_showers(gflash_images), read_showers(other_images)])
    with open_showers(gflash_images) as first, open_showers(other_images) as second:
        joined = JoinedShowers([first, second])
        assert len(joined) == len(whole)
        assert joined.source == "gflash"
        rows = np.array([2399, 0, 1600, 1599, 7])
        assert np.array_equal(joined.take(rows).cells, whole.cells[rows])
        assert np.array_equal(joined[1590:1610].cells, whole.cells[1590:1610])
        chunks = list(joined.chunks(300))
        assert np.array_equal(np.concatenate([part.cells for part in chunks]), whole.cells)
        assert np.array_equal(joined.incident_energy, whole.incident_energy)
        assert np.array_equal(joined.condition("incident_theta")[:, 0], whole.incident_theta)
    image = whole[:3]
    with pytest.raises(IncompatibleError, match="cannot be joined"):
        JoinedShowers([image, Showers("ild-ecal", np.zeros((1, 27000)), [50e3])])


def test_a_study_leaves_numbers_figures_and_a_page(
    whole_figures: None, count: type[Count], gflash_images: Path, other_images: Path, tmp_path: Path
) -> None:
    result = run_study(
        "count", gflash_images, other_images, output=tmp_path / "out", settings=["threshold=0.5"], seed=4
    )
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert content == result.content
    expected = (read_showers(other_images)[:50].cells > 0.5).sum(axis=1).mean()
    assert content["rows"][0]["ours"] == pytest.approx(expected)
    assert content["rows"][0]["paper"]["value"] == 1000
    assert content["rows"][0]["paper"]["source"].startswith("arXiv:2202.07352")
    assert content["settings"] == {"threshold": 0.5}
    assert content["data"] == {"x": [0, 1, 2]}
    assert [entry["n_showers"] for entry in content["references"]] == [1600]
    assert content["command"].startswith(f"caloforge study count {gflash_images} {other_images}")
    assert "--set threshold=0.5" in content["command"]
    assert "--seed 4" in content["command"]
    for ending in ("png", "pdf"):
        assert (tmp_path / "out" / "figures" / f"line.{ending}").stat().st_size > 1000
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("Cells hit", "Found.", "It rises.", "arXiv:2202.07352", "1,000 showers"):
        assert text in page


def test_the_same_study_goes_on_and_another_is_refused(
    plain: type[Count], gflash_images: Path, other_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_study("count", gflash_images, other_images, output=out)
    run_study("count", gflash_images, other_images, output=out)
    with pytest.raises(OutputExistsError):
        run_study("count", gflash_images, other_images, output=out, seed=1)
    run_study("count", gflash_images, other_images, output=out, seed=1, force=True)
    assert json.loads((out / "study.json").read_text())["seed"] == 1


def test_wrong_use_is_refused(count: type[Count], gflash_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="count"):
        run_study("nothing", gflash_images)
    with pytest.raises(InputError, match="needs two files of images"):
        run_study("count", gflash_images)
    with pytest.raises(InputError, match="ships no reference"):
        run_study("count", None, gflash_images)
    with pytest.raises(ConfigError, match="did you mean threshold"):
        run_study("count", gflash_images, gflash_images, settings=["treshold=1"])
    with pytest.raises(ConfigError, match="key=value"):
        run_study("count", gflash_images, gflash_images, settings=["threshold"])
    with pytest.raises(InputError, match="no file, no run folder and no shipped model"):
        run_study("count", gflash_images, str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="labels"):
        run_study("count", gflash_images, gflash_images, labels=["a", "b"])


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_legend_stays_inside_its_figure(columns: int) -> None:
    from caloforge.studies.drawing import legend, panels

    labels = ["reference", "atlas-photon/flow-matching", "atlas-photon/vae", "atlas-photon/wgan-gp"]
    with figure_style() as pyplot:
        figure, axes = panels(pyplot, 1, columns)
        legend(figure, pyplot, labels)
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        width, height = figure.canvas.get_width_height()
        assert 0 <= box.x0 < box.x1 <= width
        if columns > 1:  # one panel is too narrow for two columns of such names
            assert axes[0, 0].get_window_extent().y1 <= box.y0 <= box.y1 <= height
        assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


@pytest.mark.parametrize("samples", [2, 4])
def test_many_samples_are_told_as_a_table(
    plain: type[Count], gflash_images: Path, tmp_path: Path, samples: int
) -> None:
    labels = [f"sample-{k}" for k in range(samples)]
    result = run_study(
        "count", gflash_images, *[gflash_images] * samples, labels=labels, output=tmp_path / "out"
    )
    page = (tmp_path / "out" / "report.html").read_text()
    digest = result.content["generated"][0]["sha256"]
    boxes = sum(f"<h3>generated: {label}</h3>" in page for label in labels)
    assert boxes == (samples if samples == 2 else 0)
    assert page.count(f"{digest[:16]}...") == (0 if samples == 2 else samples)
    assert digest in page
