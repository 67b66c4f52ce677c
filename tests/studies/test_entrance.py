"""The entrance of the results: accuracies and times of the benchmark, the papers beside showers of their kind, from what is stored."""

from __future__ import annotations

import re
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from caloforge.studies.base import Row
from caloforge.studies.page import document, number_cell, paper, paper_timings
from caloforge.studies.site.index import STORED, Done, Site, read_site, write_index
from caloforge.studies.site.speed import beam_text, measured

MODEL = "clic-electron/conv3d-gan"
BEAM = {
    "detector": "clic-ecal",
    "particle": "e-",
    "energy": "2-500GeV",
    "theta": "90",
    "geant4": {"cpu_ms": 800.0},
}


def content(gpu: bool = False) -> dict[str, Any]:
    entries = [
        {"device": "cpu", "threads": 1, "batch": 1, "memory": {"cpu_ms": 15.0, "wall_ms": 16.0}},
        {"device": "cpu", "threads": 1, "batch": 100, "memory": {"cpu_ms": 5.0, "wall_ms": 5.5}},
        {"device": "cpu", "threads": 8, "batch": 100, "memory": {"cpu_ms": 9.0, "wall_ms": 1.5}},
    ]
    if gpu:
        entries = [{"device": "cuda", "threads": 8, "batch": 100, "memory": {"wall_ms": 2.0}}]
    accuracy = {
        "auc_strongest": {"value": 0.96, "uncertainty": 0.01, "floor": 0.5, "n_used": 1500},
        "detectability": {"value": 146.0, "uncertainty": 6.0},
    }
    model = {"name": MODEL, "beam": "clic-ecal", "accuracy": accuracy, "measurements": entries}
    slow = {"name": "clic-electron/slow", "beam": "clic-ecal", "accuracy": {}, "measurements": []}
    slow["measurements"] = [
        {"device": "cpu", "threads": 1, "batch": 100, "memory": {"cpu_ms": 1600.0, "wall_ms": 1600.0}}
    ]
    machine = {"cpu": "some core", "gpu": "NVIDIA H200" if gpu else None}
    return {"date": "2026-01-02", "machine": machine, "beams": {"clic-ecal": BEAM}, "models": [model, slow]}


def study(value: float, error: float) -> Done:
    row = Row("shower-shape MSE", value, error, "shapes.mse_conv3d", sample=MODEL)
    rows = [
        asdict(row) | {"paper": paper("shapes.mse_conv3d").as_dict()},
        asdict(Row("hits", 1.0, sample=MODEL)),
    ]
    known = {
        "showers": {"reference": 10, MODEL: 5},
        "paper": document("conv2d"),
        "date": "2026-01-02",
        "rows": rows,
    }
    return Done("shapes", "clic-ecal", [MODEL], "shapes-clic-ecal", known | {"texts": ["long"]})


def cells(page: str, key: str) -> list[list[str]]:
    table = page.split(f'id="{key}"')[1].split("</table>")[0].split("<tbody>")[1]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [
        [
            " ".join(unescape(re.sub("<[^>]+>", " ", cell)).split())
            for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)
        ]
        for row in rows
    ]


def test_one_look_says_how_good_and_how_fast(tmp_path: Path) -> None:
    moments = {
        "ratio": {"response": {"value": 1.002, "uncertainty": 0.003}},
        "width": {"response": {"value": 1.01, "uncertainty": 0.03}},
    }
    cards = {MODEL: {"metrics": {"figures": {"moments": moments}}}}
    site = Site([study(0.0001, 0.003)], [MODEL], "caloforge study all", 2)
    page = write_index(tmp_path, site, cards, [content(), content(gpu=True)]).read_text()
    first, slow = cells(page, "glance")
    assert first[1:4] == ["conv3d-gan", "0.960 (0.50) 1,500 showers", "150"]
    assert first[4:] == ["+0.2 ± 0.3 %", "+1 ± 3 %", "800", "5", "× 160", "2", "× 400"]
    assert slow[-4:] == ["1,600", "× 0.5", "–", "–"]
    times = cells(page, "timings")
    assert [row[3:] for row in times] == [
        ["V100", "2.7", "17,000"],
        ["one core, some core", "5", "800"],
        ["NVIDIA H200", "2", "800"],
    ]
    text = unescape(page)
    assert "compatible with 0" in text
    assert "0.065" in text
    assert "Not finished: 1 of" in text
    assert (tmp_path / "figures" / "speedup.png").stat().st_size > 5000


def test_it_is_written_again_from_what_is_stored(tmp_path: Path) -> None:
    site = Site(
        [study(0.1, 0.01)], [MODEL], "caloforge study all", 1, [("all", "a", "b", "c")], "[a]", "2026-01-02"
    )
    before = write_index(tmp_path, site).read_text()
    assert "long" not in (tmp_path / STORED).read_text()
    assert "hits" not in (tmp_path / STORED).read_text()
    assert write_index(tmp_path, read_site(tmp_path)).read_text() == before
    assert "How good, how fast" not in before


def test_times_are_those_of_one_core_and_batches_of_100() -> None:
    assert measured(content(), MODEL, "cpu") == 5.0
    assert measured(content(), MODEL, "geant4") == 800.0
    assert measured(content(), MODEL, "cuda") is None
    assert measured(content(gpu=True), MODEL, "cuda") == 2.0
    assert measured(content(), "none", "cpu") is None
    assert beam_text(BEAM) == "electrons, 2–500 GeV, clic-ecal"
    wide = BEAM | {"energy": "1.024-262.144GeV:log2", "theta": "30-90", "particle": "gamma"}
    assert beam_text(wide) == "photons, 1.024–262.1 GeV, 30–90°, clic-ecal"
    assert {one.speedup for one in paper_timings() if one.model == "bib-ae"} == {4417 / 362, 4417 / 4.32}


@pytest.mark.parametrize(
    ("value", "error", "small"),
    [(0.1, 4.0, "compatible with 0"), (-0.1, 0.2, "compatible with 0"), (3.0, 1.0, ""), (3.0, None, "")],
)
def test_a_number_within_its_error_of_zero_says_so(value: float, error: float | None, small: str) -> None:
    assert number_cell(value, error).small == small
