"""Tutorials and notebooks run as they stand, with fewer showers and epochs; that of deployment in ``tests/generate/test_export.py``."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.validate.metrics.base import METRICS
from caloforge.validate.plots.draw import Drawing
from caloforge.validate.report.page import Images

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
Smaller = dict[str, str]


class Page:
    """Runs the blocks of a page one after another in the current folder."""

    def __init__(self, name: str, smaller: Smaller, codes: dict[str, int] | None = None) -> None:
        self.smaller, self.codes = smaller, codes or {}
        self.names: dict[str, Any] = {"__name__": "page"}
        self.output: dict[str, str] = {}
        self._used: set[str] = set()
        text = (DOCS / name).read_text()
        for kind, block in _BLOCK.findall(text):
            self._run(kind, block)
        assert self._used == set(smaller), "a change of a command that the page does not have"

    def _run(self, kind: str, block: str) -> None:
        if kind == "toml":
            name = "limits.toml" if "[limits]" in block else "ecal.toml"
            Path(name).write_text(block)
        elif kind == "python":
            for old, new in self.smaller.items():
                if old in block:
                    self._used.add(old)
                    block = block.replace(old, new)
            with redirect_stdout(io.StringIO()):
                exec(compile(block, "page", "exec", dont_inherit=True), self.names)
        elif not kind:
            for line in block.splitlines():
                if line.startswith("caloforge "):
                    self._command(line)

    def _command(self, line: str) -> None:
        for old, new in self.smaller.items():
            if old in line:
                self._used.add(old)
                line = line.replace(old, new)
        if "SKIP" in line:  # a command for files that the reader has
            return
        words = shlex.split(line, comments=True)[1:]
        target = words[words.index(">") + 1] if ">" in words else None
        result = CliRunner().invoke(app, words[: words.index(">")] if target else words)
        wanted = next((code for part, code in self.codes.items() if part in line), 0)
        assert result.exit_code == wanted, f"{line}\n{result.output}\n{result.exception!r}"
        if target:
            Path(target).write_text(result.stdout)
        self.output[line] = result.output


METRICS_HERE = ("moments", "distances", "auc_observables")


@pytest.fixture(autouse=True)
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute some metrics and draw one figure of a report: all of them have tests of their own."""
    chosen = {name: entry for name, entry in METRICS._entries.items() if name in METRICS_HERE}
    monkeypatch.setattr(METRICS, "_entries", chosen)
    monkeypatch.setattr(
        "caloforge.validate.report.build.Drawing", lambda figures, folder: Drawing(figures[:1], folder)
    )
    monkeypatch.setattr("caloforge.validate.report.event.event_png", lambda *_, **__: b"")
    monkeypatch.setattr(
        "caloforge.studies.page.draw_figures",
        lambda figures, _folder: [Images({one.title: b""}, one.caption) for one in figures],
    )


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Return the runner of pages, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Page


GFLASH = "-n 120 --engine gflash --seed"


@pytest.mark.slow
def test_your_own_detector(page: Callable[..., Page]) -> None:
    done = page(
        "tutorials/own-detector.md",
        {
            "-n 2000 --seed": GFLASH,
            "-n 1000 --seed": GFLASH,
            "--workers 2": "",
            # the plan of a training is tested elsewhere: here the networks and epochs are small
            "train train.h5 -o run --time 10min": "train vae train.h5 -o run --set epochs=2 --set calibrate=false --device cpu",
            "validate truth.h5 generated.h5 -o report": "validate truth.h5 generated.h5 -o report --quick",
        },
    )
    assert Path("ecal.png").stat().st_size > 0
    assert json.loads(Path("report/metrics.json").read_text())["auc_observables"]["value"] > 0.4
    assert any("20 layers" in text for text in done.output.values())


@pytest.mark.slow
def test_your_own_data(page: Callable[..., Page]) -> None:
    done = page(
        "tutorials/own-data.md",
        {
            "read_showers(sample_path())": "read_showers(sample_path())[::12]",
            "[:3600]": "[:250]",
            "[3600:]": "[250:]",
            "--time 5min": "--set epochs=2 --set calibrate=false --device cpu",
            "validate test.h5 generated.h5 -o report": "validate test.h5 generated.h5 -o report --quick",
        },
    )
    assert any("cells MeV" in text or "GeV" in text for text in done.output.values())
    assert Path("generated.npz").is_file()
    assert Path("report/report.html").is_file()


def test_a_wrong_unit_is_refused_as_the_page_says(page: Callable[..., Page]) -> None:
    text = (DOCS / "tutorials/own-data.md").read_text()
    convert = next(line for line in text.splitlines() if line.startswith("caloforge convert theirs.npz"))
    write = _BLOCK.search(text)
    assert write is not None
    small = write[2].replace("read_showers(sample_path())", "read_showers(sample_path())[::12]")
    exec(compile(small, "page", "exec", dont_inherit=True), {})
    words = shlex.split(convert.replace("--cell-unit GeV", "--cell-unit MeV"))[1:]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert not Path("showers.h5").exists()


@pytest.mark.slow
def test_a_check_in_automation(page: Callable[..., Page]) -> None:
    done = page(
        "tutorials/production-check.md",
        {"-n 1000": "-n 400"},
        codes={"bad.h5 -o check-bad": 1},
    )
    bad = next(text for line, text in done.output.items() if "check-bad" in line)
    assert "moments.ratio.response" in bad
    assert all(row["passed"] for row in done.names["result"]["limits"])


@pytest.mark.slow
def test_amplification(page: Callable[..., Page]) -> None:
    done = page(
        "tutorials/amplification.md",
        {
            "-n 20000 -o amplification": "-n 2000 --set toy=false -o amplification",
            "n=20_000": "n=4_000",
            "caloforge study amplification truth.h5 run-1": "SKIP",
        },
    )
    assert json.loads(Path("amplification/study.json").read_text())["rows"]
    assert done.names["size"].low > 0


@pytest.mark.slow
def test_the_first_five_minutes(page: Callable[..., Page]) -> None:
    page(
        "start.md",
        {
            "-n 2000": "-n 200",
            "--time 5min": "--set epochs=2 --set calibrate=false --device cpu",
            "n=100,": "n=10,",
        },
    )
    assert "<html" in Path("shower.html").read_text()
    assert Path("report/report.html").is_file()
    assert Path("generated.h5").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every code cell runs, in order, in one namespace; outputs are not kept in the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    book = json.loads(path.read_text())
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(compile("".join(cell["source"]), f"{path.name}:{number}", "exec", dont_inherit=True), names)
    from matplotlib import pyplot

    assert pyplot.get_fignums()
    pyplot.close("all")
