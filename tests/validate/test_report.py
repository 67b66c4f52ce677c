"""Pages, figures and scores: what is in them, from small made-up numbers."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import OutputExistsError
from caloforge.validate.plots.draw import draw_figures
from caloforge.validate.plots.panel import Curve, Heat, Image, Panel
from caloforge.validate.plots.spectra import choose_edges, histogram_panel, mean_panel
from caloforge.validate.report.interactive import heat_figure, packed, panel_figure
from caloforge.validate.report.page import (
    Cell,
    Code,
    Facts,
    Images,
    Page,
    Plot,
    Section,
    Table,
    Text,
    format_value,
)
from caloforge.validate.report.summary import (
    Score,
    metrics_table,
    scores_of,
    summary_for_terminal,
    summary_rows,
    verdicts,
)


def make_panel(**options: bool) -> Panel:
    edges = np.linspace(0.0, 4.0, 5)
    reference = Curve(0, "Geant4", np.array([1.0, 2.0, 4.0, 0.0]), np.array([0.1, 0.2, 0.4, 0.0]))
    other = Curve(1, "vae", np.array([1.1, 1.0, 6.0, 0.5]), np.array([0.1, 0.1, 0.3, 0.5]))
    return Panel("visible", "Visible", "E [MeV]", "fraction", edges, (reference, other), **options)


def unpack(array: object) -> np.ndarray:
    if isinstance(array, dict):
        flat = np.frombuffer(base64.b64decode(array["bdata"]), np.dtype(array["dtype"]).newbyteorder("<"))
        return flat.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else flat
    return np.asarray(array, float)


# -- pages


def test_a_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    blocks = [
        Text("1 < 2 & <script>alert(1)</script>"),
        Code("caloforge validate a b"),
        Facts({"file": "a.h5"}, "Inputs"),
        Table(
            ["Name", "Value"], [["vae", 0.25], [Cell("kde", flag="bad"), Cell("", None)]], "Below", key="t"
        ),
        Plot({"data": [], "layout": {"height": 300}}, "A figure", "Title", key="p"),
        Images({"one": b"\x89PNG"}, "Pictures"),
    ]
    path = Page(
        "A & B", [Section("First part", blocks, "Intro", folded=True)], "Sub", {"Detector": "x"}
    ).write(tmp_path / "page.html")
    text = path.read_text()
    assert "<title>A &amp; B</title>" in text
    assert "1 &lt; 2 &amp; &lt;script&gt;alert(1)" in text
    assert '<a href="#first-part">' in text
    assert 'data-sort="0.25"' in text
    assert '<td class="bad text">kde' in text
    markup = re.sub(r'id="plotly-gzip">.*?</script>', "></script>", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', markup)
    assert not re.search(r"@import|url\(", markup)
    with pytest.raises(OutputExistsError):
        Page("again", []).write(path)


def test_plotly_is_packed_once_and_whole() -> None:
    from plotly.offline import get_plotlyjs

    figure = Plot({"data": [], "layout": {}})
    text = Page("x", [Section("a", [figure, figure])]).render()
    (packed_js,) = re.findall(r'id="plotly-gzip">([^<]*)</script>', text)
    assert gzip.decompress(base64.b64decode(packed_js)).decode() == get_plotlyjs()
    assert 'id="plotly-gzip"' not in Page("x", [Section("a", [Text("no figure")])]).render()


def test_a_figure_cannot_break_out_of_its_script() -> None:
    plot = Plot({"data": [], "layout": {"title": {"text": "</script><!-- x"}}})
    assert "</script" not in plot.specification
    assert "<!--" not in plot.specification
    assert json.loads(plot.specification)["layout"]["title"]["text"] == "</script><!-- x"


def test_a_plotly_figure_is_taken_as_it_is() -> None:
    import plotly.graph_objects as go

    plot = Plot(go.Figure(go.Scatter(y=[1, 2]), layout={"height": 321}))
    assert plot.height == 321
    assert json.loads(plot.specification)["data"][0]["type"] == "scatter"


# -- figures


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(0, 1, 7),
        np.arange(5),
        np.arange(6.0).reshape(2, 3),
        np.array([1.0, np.nan, 2.0]),
        np.array([-1, 3]),
    ],
)
def test_packed_arrays_come_back(array: np.ndarray) -> None:
    np.testing.assert_allclose(unpack(packed(array)), array, rtol=1e-6)
    json.dumps(packed(array), allow_nan=False)


def test_the_ratio_is_that_of_the_curves() -> None:
    panel = make_panel()
    value, error = panel.ratio(panel.curves[1])
    np.testing.assert_allclose(value[:3], [1.1, 0.5, 1.5])
    np.testing.assert_allclose(error[:3], [0.1, 0.05, 0.075])
    assert np.isnan(value[3])  # nothing to divide by


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("log_y", [False, True])
def test_an_interactive_panel_has_every_curve_band_and_ratio(points: bool, log_y: bool) -> None:
    panel = make_panel(points=points, log_y=log_y)
    figure = panel_figure(panel)
    json.dumps(figure, allow_nan=False)
    shown = [trace for trace in figure["data"] if trace.get("showlegend", True)]
    assert [trace["name"] for trace in shown] == ["Geant4", "vae"]
    bands = [trace for trace in figure["data"] if trace.get("fill") == "toself"]
    assert len(bands) == 3  # two curves and the reference's ratio
    ratios = [
        t for t in figure["data"] if t.get("yaxis") == "y2" and t["mode"] == "markers" and "error_y" in t
    ]
    np.testing.assert_allclose(unpack(ratios[0]["y"])[:3], [1.1, 0.5, 1.5], rtol=1e-6)
    assert figure["layout"]["yaxis"]["type"] == ("log" if log_y else "linear")
    buttons = figure["layout"]["updatemenus"][0]["buttons"]
    assert [button["args"][0]["yaxis.type"] for button in buttons] == ["linear", "log"]


def test_points_beyond_the_ratio_axis_are_marked_at_its_rim() -> None:
    panel = make_panel()
    far = Panel(
        **{
            **vars(panel),
            "curves": (panel.curves[0], Curve(1, "far", panel.curves[0].y * 50, panel.curves[0].error)),
        }
    )
    rims = [
        trace
        for trace in panel_figure(far)["data"]
        if trace.get("marker", {}).get("symbol") == ["triangle-up"] * 3
    ]
    assert len(rims) == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_images_share_axes_and_colours(count: int, tmp_path: Path) -> None:
    edges = np.arange(4.0)
    images = tuple(Image(f"s{k}", np.full((3, 3), 10.0**k)) for k in range(count))
    heat = Heat("h", "Heat", "x", "y", edges, edges, images, "MeV", log=True)
    figure = heat_figure(heat)
    assert len(figure["data"]) == count
    assert all(trace["coloraxis"] == "coloraxis" for trace in figure["data"])
    np.testing.assert_allclose(unpack(figure["data"][-1]["z"]), count - 1.0, atol=1e-6)
    names = [path.name for path in draw_figures([heat], tmp_path)]
    assert names == ["h.png", "h.pdf"]


def test_figures_for_paper_are_written_whole(tmp_path: Path) -> None:
    log = Panel(**{**vars(make_panel(log_y=True)), "name": "log"})
    few = Panel(**{**vars(make_panel(points=True)), "name": "few", "ticks": ("a", "b", "c", "d")})
    seen: list[int] = []
    paths = draw_figures([make_panel(), log, few], tmp_path, seen.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert len(paths) == 6
    assert seen == [1, 1, 1]
    for path in paths:
        assert path.read_bytes()[:4] in (b"\x89PNG", b"%PDF")


# -- histograms


def test_nothing_is_dropped_silently() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=5000)
    other = np.concatenate([rng.normal(size=1000), np.full(30, 1e6), np.full(5, np.nan)])
    panel = histogram_panel("x", "X", "x", [reference, other], ["ref", "gen"])
    assert panel is not None
    missing = 1035 - round(float(panel.curves[1].y.sum()) * 1035)
    found = re.search(r"gen: (\d+) out of range, 5 undefined of 1035", panel.note)
    assert found is not None
    assert int(found.group(1)) + 5 == missing
    assert int(found.group(1)) >= 30


def test_histogram_errors_are_those_of_counting() -> None:
    panel = histogram_panel(
        "x", "X", "x", [np.repeat([0.5, 1.5], [9, 16])], ["ref"], np.array([0.0, 1.0, 2.0])
    )
    assert panel is not None
    np.testing.assert_allclose(panel.curves[0].y, [9 / 25, 16 / 25])
    np.testing.assert_allclose(panel.curves[0].error, [3 / 25, 4 / 25])


@pytest.mark.parametrize(
    ("values", "log"),
    [
        (np.full(100, 3.0), False),
        (np.geomspace(1, 1e5, 500), True),
        (np.arange(-50, 50), False),
        (np.arange(40), False),
    ],
)
def test_edges_rise_and_hold_the_reference(values: np.ndarray, log: bool) -> None:
    edges, is_log = choose_edges(values.astype(float))
    assert is_log == log
    assert np.all(np.diff(edges) > 0)
    inside = (values >= edges[0]) & (values <= edges[-1])
    assert inside.mean() > 0.99


def test_whole_numbers_get_whole_bins() -> None:
    edges, _ = choose_edges(np.arange(200.0))
    assert np.allclose(np.diff(edges), np.diff(edges)[0])
    assert float(np.diff(edges)[0]).is_integer()


def test_mean_profiles_agree_with_a_loop() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 3))
    values[3, 1] = np.nan
    panel = mean_panel("p", "P", "x", "y", np.arange(4.0), [values], ["ref"])
    for column in range(3):
        known = [v for v in values[:, column] if not math.isnan(v)]
        mean = sum(known) / len(known)
        spread = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1) / len(known))
        assert panel.curves[0].y[column] == pytest.approx(mean)
        assert panel.curves[0].error[column] == pytest.approx(spread)


# -- scores


def sample(auc: float, hits: float) -> dict[str, object]:
    return {
        "auc_high": {"value": auc, "uncertainty": 0.01, "floor": 0.5, "floor_uncertainty": 0.01},
        "separation_power": {
            "hits": {"value": hits, "uncertainty": 0.001, "floor": 0.002, "floor_uncertainty": 0.001},
            "visible_energy": {
                "value": 0.003,
                "uncertainty": 0.001,
                "floor": 0.002,
                "floor_uncertainty": 0.001,
            },
        },
        "n_reference": 1000,
        "skipped": {"kpd": "too few"},
    }


METRICS = {
    "samples": {"far": sample(0.9, 0.4), "near": sample(0.505, 0.003), "middle": sample(0.54, 0.05)},
    "reference": {"label": "Geant4 (reference)", "n_showers": 1000, "detector": "ild-ecal"},
}


@pytest.mark.parametrize(
    ("value", "floor", "ideal", "pull"),
    [
        (0.6, 0.5, 0.5, 10.0),
        (0.4, 0.5, 0.5, 10.0),
        (0.5, 0.52, 0.5, -2.0),
        (0.7, 0.8, 1.0, 10.0),
        (0.9, 0.8, 1.0, -10.0),
    ],
)
def test_the_pull_counts_deviations_away_from_the_ideal(
    value: float, floor: float, ideal: float, pull: float
) -> None:
    entry = {"value": value, "uncertainty": 0.006, "floor": floor, "floor_uncertainty": 0.008}
    score = Score("k", "", "K", entry, ideal)
    assert score.pull == pytest.approx(pull)
    assert score.flag == ("bad" if pull > 5 else "good")


def test_a_score_without_an_error_has_no_flag() -> None:
    assert Score("k", "", "K", {"value": 0.6}, ideal=0.5).flag == ""
    assert Score("k", "", "K", {"value": None, "uncertainty": 0.1}, ideal=0.5).pull is None


def test_the_best_sample_comes_first() -> None:
    columns, rows = summary_rows(METRICS)
    assert columns[1:] == ["near", "middle", "far"]
    assert [cell.text for cell in rows[0]] == ["Rank", "1", "2", "3"]
    (auc,) = [row for row in rows if row[0].text == "Strongest classifier"]
    assert [cell.flag for cell in auc[1:]] == ["good", "good", "bad"]
    assert all(len(row) == len(columns) for row in rows)
    sentences = verdicts(METRICS)
    assert sentences[0].startswith("near, nearest to the reference: no relevant deviation")
    assert sentences[2].startswith("far: a classifier reaches AUC 0.90")


def test_nothing_measured_is_said() -> None:
    nothing = {"samples": {"a": {"skipped": {}}}}
    assert verdicts(nothing) == ["None of the metrics by which samples are judged was measured."]


def test_every_number_is_in_the_table_of_metrics() -> None:
    table = metrics_table(METRICS)
    assert len(table.rows) == 3
    assert len(metrics_table(METRICS, by_observable=True).rows) == 3 * 2
    assert {row[0].text for row in table.cells} == {"far", "near", "middle"}


def test_the_terminal_shows_the_same_rows() -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_for_terminal(METRICS))
    text = console.export_text()
    assert text.index("near") < text.index("middle") < text.index("far")
    assert "0.900 ± 0.010" in text


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.6134, 0.012, "0.613 ± 0.012"),
        (12.3456, 0.5, "12.3 ± 0.5"),
        (None, 0.1, "–"),
        (0.25, None, "0.25"),
        (0.25, 0.0, "0.25"),
        (0.00012345, 0.0000021, "(1.234 ± 0.021)e-4"),
        (1234567.0, 2100.0, "(1.2346 ± 0.0021)e6"),
    ],
)
def test_numbers_end_with_their_uncertainty(
    value: float | None, uncertainty: float | None, text: str
) -> None:
    assert format_value(value, uncertainty) == text


def test_the_table_says_how_a_floor_was_measured() -> None:
    entry = {
        "value": 0.3,
        "uncertainty": 0.1,
        "floor": 0.1,
        "detail": {"floor_size": 5000, "floor_measured": 0.2, "floor_scale": 0.5},
    }
    (score,) = scores_of({"fpd": entry})
    assert (
        score.floor_note
        == "measured between sets of 5,000 reference showers: 0.2; times 0.5 for the samples' sizes"
    )
    (plain,) = scores_of({"precision": {"value": 0.3, "detail": {"size": 200}}})
    assert plain.floor_note == "measured between sets of 200 reference showers"
    assert scores_of({"fpd": {"value": 0.3}})[0].floor_note == ""


def test_what_has_no_finite_ideal_has_no_pull() -> None:
    entry = {"value": 400.0, "uncertainty": 50.0}
    (score,) = scores_of({"detectability": entry})
    assert score.ideal is None
    assert score.flag == ""
