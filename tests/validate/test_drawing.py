"""Figures drawn by other processes: all are there, whoever drew them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.geometry.draw import text_as_it_is
from caloforge.progress import progress
from caloforge.showers import Showers
from caloforge.validate.plots import draw as parallel
from caloforge.validate.plots.draw import Drawing, Figure, draw_figures, draw_panel
from caloforge.validate.plots.event import EventDrawing
from caloforge.validate.plots.panel import Bars, Curve, Growth, GrowthCurve, Heat, Image, Panel, figure_style
from caloforge.validate.report.interactive import figure_of


def panels(number: int) -> list[Figure]:
    edges = np.arange(5.0)
    curve = Curve(0, "reference", np.arange(1.0, 5.0), np.full(4, 0.1))
    other = Curve(1, "other", np.arange(2.0, 6.0), np.full(4, 0.1))
    return [Panel(f"p{index}", "P", "x", "y", edges, (curve, other)) for index in range(number)]


def event() -> EventDrawing:
    detector = get_detector("atlas-em-barrel")
    cells = np.zeros((1, detector.n_cells), np.float32)
    cells[0, ::9] = 5.0
    conditions = {name: np.zeros((1, k), np.float32) for name, k in detector.condition_sizes.items()}
    shower = Showers(detector, cells, np.array([1e4]), None, conditions)
    return EventDrawing("event_0", shower, "one shower", 0.1, (0.1, 10.0))


def check(paths: list[Path], figures: list[Figure]) -> None:
    assert {path.name for path in paths} == {f"{f.name}.{end}" for f in figures for end in ("png", "pdf")}
    for path in paths:
        assert path.read_bytes()[:4] == {".png": b"\x89PNG", ".pdf": b"%PDF"}[path.suffix]
    assert not [path for path in paths[0].parent.iterdir() if path not in paths]


def test_other_processes_draw_what_this_one_does(tmp_path: Path) -> None:
    figures = [*panels(2), event()]
    drawn = []
    for processes in (0, 1):
        folder = tmp_path / str(processes)
        folder.mkdir()
        seen: list[int] = []
        with Drawing(figures, folder, processes) as drawing:
            check(drawing.finish(seen.append), figures)
        assert sum(seen) == len(figures)
        drawn.append([(folder / f"{figure.name}.png").read_bytes() for figure in figures])
    assert drawn[0] == drawn[1]


def test_what_a_killed_process_left_is_drawn_here(tmp_path: Path) -> None:
    figures = panels(3)
    with Drawing(figures, tmp_path, 1) as drawing:
        (process,) = drawing._pool._processes.values()
        os.kill(process.pid, signal.SIGKILL)
        check(drawing.finish(), figures)


def test_an_error_ends_the_processes(tmp_path: Path) -> None:
    started = Drawing(panels(60), tmp_path, 1)
    processes: list[Any] = []

    def interrupted() -> None:
        with started:
            processes.extend(started._pool._processes.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.is_alive() for process in processes] == [False]
    assert len(list(tmp_path.glob("*.pdf"))) < 60


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
print("run")
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_drawing import panels
from caloforge.validate.plots.draw import Drawing
folder = Path({str(tmp_path / "figures")!r})
folder.mkdir()
with Drawing(panels(2), folder, 1) as drawing:
    assert len(drawing.finish()) == 4
    assert not any(future.exception() for future in drawing._waiting)
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr


def test_few_figures_need_one_process_and_one_core_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert [Drawing(panels(n), tmp_path, 4).processes for n in (0, 8, 9)] == [0, 1, 2]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert parallel._processes() == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert parallel._processes() == 4


NAMES = (r"cost 5$ \half$", "_hidden", "$x_1$", "a < b & <b>c</b>", "%{x}", "[/bold]")


def named_panel(log: bool = True) -> Panel:
    edges, y = np.arange(len(NAMES) + 1.0), np.geomspace(1.0, 1e4, len(NAMES))
    curves = tuple(Curve(role, name, y + role, np.full(len(y), 0.1)) for role, name in enumerate(NAMES))
    return Panel("p", NAMES[0], NAMES[0], NAMES[2], edges, curves, log_y=log, ticks=NAMES)


@pytest.mark.parametrize("points", [True, False])
def test_labels_are_text_on_paper(points: bool, tmp_path: Path) -> None:
    """No label is parsed or left out; the numbers at logarithmic axes stay powers of ten."""
    panel = replace(named_panel(), points=points)
    with figure_style() as pyplot:
        figure = draw_panel(panel, pyplot)
        text_as_it_is(figure)
        figure.savefig(tmp_path / "p.png")
        main, ratio = figure.axes
        legend = main.get_legend().get_texts()
        assert sorted(text.get_text() for text in legend) == sorted(NAMES)
        assert [text.get_text() for text in ratio.get_xticklabels()] == list(NAMES)
        drawn = [*legend, *ratio.get_xticklabels(), main.title, main.yaxis.label, ratio.xaxis.label]
        assert not any(text.get_parse_math() for text in drawn)
        powers = [text for text in main.get_yticklabels() if "10^" in text.get_text()]
        assert powers
        assert all(text.get_parse_math() for text in powers)
    y = np.ones((2, 2))
    edges, images = np.arange(3.0), tuple(Image(name, y) for name in NAMES)
    heat = Heat(
        "h", NAMES[0], "x", "y", edges, edges, images, NAMES[2], x_ticks=NAMES[:2], y_ticks=NAMES[1:3]
    )
    bars = Bars("b", NAMES[0], "x", NAMES[:2], ("cell", "cell"), np.ones(2), np.ones(2))
    sizes = np.array([1e2, 1e3])
    curves = [
        GrowthCurve(k, name, sizes, sizes / 2e3, sizes / 1e5, *[np.empty(0)] * 4)
        for k, name in enumerate(NAMES)
    ]
    draw_figures(
        [heat, bars, Growth("g", NAMES[0], tuple(curves)), replace(event(), title=NAMES[0])], tmp_path
    )


def test_labels_are_text_on_the_page() -> None:
    """A browser decodes each label to what it was, and there is nothing in it that plotly takes for markup."""
    figure = figure_of(named_panel(log=False))
    found = {trace["name"] for trace in figure["data"] if trace.get("showlegend", True) and "name" in trace}
    assert {unescape(name) for name in found} == set(NAMES)
    assert [unescape(name) for name in figure["layout"]["xaxis"]["ticktext"]] == list(NAMES)
    assert not any("<" in name or "%{" in name for name in found)


def test_a_label_is_text_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, NAMES[-1], enabled=True) as advance:
        advance(3)
    assert NAMES[-1] in capsys.readouterr().err
