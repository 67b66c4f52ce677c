"""The page of the flagship's study: what it says, from results that are there."""

import copy
from pathlib import Path
from typing import Any

import pytest

from caloforge.text_files import read_json

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
RESULTS = ROOT / "docs" / "results" / "flagship.json"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Return the results in the documentation."""
    content: dict[str, Any] = read_json(RESULTS)
    return content


def _page(results: dict[str, Any], folder: Path) -> str:
    from caloforge.studies.flagship.page import write_page
    from caloforge.studies.flagship.plan import read_plan

    plan, text = read_plan(SCRIPTS / "flagship.toml"), (SCRIPTS / "flagship_intro.md").read_text().strip()
    return write_page(results, folder / "flagship.md", folder / "results", plan, text).read_text()


def test_the_documentation_holds_what_the_results_say(results: dict[str, Any], tmp_path: Path) -> None:
    assert _page(results, tmp_path) == (ROOT / "docs" / "flagship.md").read_text()
    assert "/tmp" not in RESULTS.read_text()


def test_what_was_not_trained_is_said_and_not_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    from caloforge.studies.flagship.plan import entries_of, read_plan

    plan, few = read_plan(SCRIPTS / "flagship.toml"), copy.deepcopy(results)
    kept = ("baseline", "baseline@1", "no-moments")
    few["entries"] = {name: entry for name, entry in results["entries"].items() if name in kept}
    text = _page(few, tmp_path)
    drawn = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert drawn == ["flagship-ablations.png", "flagship-steps.png"]
    for group, title in (
        ("size", "## Weights"),
        ("data", "## Training showers"),
        ("ablations", "## What each"),
    ):
        section = text.split(title)[1].split("\n## ")[0]
        missing = [entry.title for name, entry in entries_of(plan, [group]).items() if name not in kept]
        assert f"Planned, but not trained, since GPU time was not available: {', '.join(missing)}." in section
        assert ("Not measured." in section) == (group != "ablations")
        assert ("![" in section) == (group == "ablations")
    assert plan["no-moments"].note in text


def test_groups_of_two_are_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    more = copy.deepcopy(results)
    wide = {"title": "192 wide", "figure": ["size"], "parameters": 2_500_000, "series": "width-192"}
    fewer = {"title": "500 showers", "figure": ["data"], "train_showers": 500, "series": "train-500"}
    for new in (wide, fewer):
        more["entries"][new["series"]] = {**copy.deepcopy(results["entries"]["no-blur"]), **new}
    text = _page(more, tmp_path)
    assert "![size](results/flagship-size.png)" in text
    assert "| 192 wide | 2,500,000 |" in text
    assert "![data](results/flagship-data.png)" in text
    assert "| 500 | " in text
    assert "Not measured." not in text


def test_times_of_one_network_that_disagree_are_said_to_be_rough(results: dict[str, Any]) -> None:
    from caloforge.studies.flagship.page import spread_of_times

    base = results["entries"]["baseline"]
    base = {**base, "time": {**base["time"], "ms": 0.52}}
    entries = {"baseline": base, "seed-1": {**base, "time": {**base["time"], "ms": 0.26}}}
    assert "took from 260 to 520 µs" in spread_of_times(entries)
    assert spread_of_times({"baseline": base, "seed-1": base}) == ""
    assert spread_of_times({"baseline": base}) == ""
