"""Axes that fit what is drawn: outliers do not set a range, ratios show 5 %, layers are whole numbers, titles fit."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from caloforge.geometry import CylindricalLayer, get_detector
from caloforge.showers import Showers
from caloforge.validate.plots.axes import fitted, legend_columns, logarithmic, ratio_limits, ratio_ticks
from caloforge.validate.plots.draw import draw_heat, draw_panel
from caloforge.validate.plots.images import images
from caloforge.validate.plots.panel import Curve, Heat, Image, Panel, figure_style
from caloforge.validate.report.interactive import heat_figure, panel_figure
from caloforge.validate.report.page import Images, Page, Plot, Section
from caloforge.validate.sample import Sample

X = np.arange(20.0)


def panel(reference: ArrayLike, other: ArrayLike, error: float = 0.01, points: bool = False) -> Panel:
    curves = [
        Curve(role, name, y, np.full(len(y), error))
        for role, (name, y) in enumerate(
            zip(("Geant4", "model"), map(np.asarray, (reference, other)), strict=True)
        )
    ]
    edges = np.arange(len(curves[0].y) + 1) - 0.5
    return Panel("p", "P", "layer", "y", edges, tuple(curves), points=points)


def test_a_mean_near_one_is_not_drawn_from_zero() -> None:
    low, high = panel(np.full(20, 0.98), 0.98 + 0.001 * X, points=True).y_limits()
    assert 0.95 < low < 0.98
    assert 1.0 < high < 1.05
    assert panel(X, X).y_limits()[0] == 0.0


def test_outliers_do_not_set_the_ranges_and_are_marked() -> None:
    wild = 1.0 + 0.01 * np.sin(X)
    wild[7] = 40.0
    shown = panel(np.ones(20), wild)
    assert shown.y_limits()[1] < 3.5
    assert shown.ratio_limits() == pytest.approx((0.95, 1.05))
    assert shown.beyond(shown.curves[1], shown.y_limits()[1]).tolist() == [k == 7 for k in range(20)]
    with figure_style() as pyplot:
        figure = draw_panel(shown, pyplot)
        marks = [line for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "^"]
        assert [line.get_xdata().tolist() for line in marks] == [[7.0], [7.0]]
    uncertain = panel(np.ones(20), np.ones(20), points=True)
    poor = replace(uncertain.curves[1], y=np.where(X == 3, 5.0, 1.0), error=np.where(X == 3, 2.0, 0.01))
    assert replace(uncertain, curves=(uncertain.curves[0], poor)).y_limits()[1] < 1.1


@pytest.mark.parametrize(
    ("off", "reach"), [(0.0, 0.05), (0.03, 0.05), (0.08, 0.1), (0.15, 0.2), (0.4, 0.5), (0.9, 1.0)]
)
def test_ratio_axes_show_the_deviation_and_five_per_cent(off: float, reach: float) -> None:
    low, high = ratio_limits([(np.full(9, 1.0 + off), np.full(9, 0.001))])
    assert (low, high) == pytest.approx((1.0 - reach, 1.0 + reach))
    ticks = ratio_ticks(low, high)
    assert ticks[0] == pytest.approx(low)
    assert ticks[-1] == pytest.approx(high)
    assert 1.0 in ticks


def test_empty_bins_are_not_known_exactly() -> None:
    ratio, error = np.array([1.01, 0.99, 1.0, 0.0, 0.0]), np.array([0.02, 0.02, 0.02, 0.0, 0.0])
    assert ratio_limits([(ratio, error)]) == pytest.approx((0.95, 1.05))


def test_layers_are_whole_numbers_and_the_ratio_says_of_what() -> None:
    shown = panel(1.0 + X, 1.0 + X)
    assert shown.whole
    assert not replace(shown, edges=shown.edges * 0.5).whole
    layout = panel_figure(shown)["layout"]
    assert layout["xaxis"]["dtick"] == 2
    assert layout["yaxis2"]["title"]["text"] == "model /<br>Geant4"
    with figure_style() as pyplot:
        _, ratio = draw_panel(shown, pyplot).axes
        assert ratio.get_ylabel() == "model /\nGeant4"
        assert all(tick == round(tick) for tick in ratio.get_xticks())
        assert (
            not len(ratio.xaxis.get_minorticklocs())
            or not ratio.xaxis.get_minor_ticks()[0].tick1line.get_visible()
        )
    named = replace(shown, curves=(replace(shown.curves[0], label="Geant4 (reference)"), shown.curves[1]))
    assert named.ratio_label == "model / Geant4"


def test_centres_around_zero_are_compared_by_differences() -> None:
    shown = panel(np.where(X % 2, 0.1, -0.1), np.where(X % 2, 0.15, -0.05))
    assert shown.ratio_label == "model − Geant4"
    np.testing.assert_allclose(shown.ratio(shown.curves[1])[0], 0.05)
    low, high = shown.ratio_limits()
    assert low == -high
    assert 0.05 < high < 0.1
    assert shown.ratio_ticks()[1] == shown.base == 0.0
    assert panel_figure(shown)["layout"]["yaxis2"]["title"]["text"] == "model −<br>Geant4"
    with figure_style() as pyplot:
        assert draw_panel(shown, pyplot).axes[1].get_ylabel() == "model −\nGeant4"


def test_markers_have_no_empty_half_beside_them() -> None:
    shown = replace(
        panel(X, X, points=True), edges=np.geomspace(1.0, 1e4, 21), log_x=True, x=np.geomspace(1e3, 1e4, 20)
    )
    low, high = shown.x_limits()
    assert 800 < low < 1e3
    assert 1e4 < high < 1.3e4


def test_long_titles_are_made_to_fit() -> None:
    assert fitted("short", 5.0) == ("short", 14.0)
    text, size = fitted("a word " * 30, 5.0)
    assert max(map(len, text.split("\n"))) * size * 0.53 / 72 <= 5.2
    assert "\n" in fitted("x" * 300, 5.0)[0]


def polar_showers(name: str, seed: int) -> Sample:
    detector = get_detector(name)
    cells = np.random.default_rng(seed).gamma(1.0, 1.0, (3, detector.n_cells)).astype(np.float32)
    return Sample(Showers(detector, cells, np.full(3, 1e4), source="toy"), f"s{seed}")


@pytest.mark.parametrize("name", ["calochallenge-2", "calochallenge-1-photons"])
def test_polar_voxels_are_drawn_as_wedges(name: str) -> None:
    samples = [polar_showers(name, seed) for seed in range(2)]
    mean = samples[0].observables.cells.mean
    found = {heat.name: heat for heat in images(samples)}
    polar = [heat for heat in found.values() if heat.polar and "ratio" not in heat.name]
    assert polar
    for heat in polar:
        figure = heat_figure(heat)
        wedges, size = figure["data"][0], heat.images[0].values.size
        assert wedges["type"] == "barpolar"
        area = np.outer(np.diff(heat.x_edges), np.diff(heat.y_edges**2)).sum() / 2
        assert area == pytest.approx(np.pi * heat.y_edges[-1] ** 2)
        with figure_style() as pyplot:
            place = draw_heat(heat, pyplot).axes[0]
            assert place.collections[0].get_array().size >= size
            assert place.get_aspect() == 1.0
    rings = found["image_rings"]
    layer = next(k for k, one in enumerate(samples[0].detector.layers) if isinstance(one, CylindricalLayer))
    one = samples[0].detector.layers[layer]
    expected = mean[samples[0].detector.layer_cells[layer]].reshape(one.n_alpha, one.n_r).sum(axis=0)
    inside = rings.y_edges[1:] <= one.r_edges[-1] + 1e-9
    where = np.searchsorted(one.r_edges, rings.centres()[1][inside]) - 1
    np.testing.assert_allclose(rings.images[0].values[layer, inside], expected[where])


def test_everything_that_is_drawn_has_a_text_and_colours_for_the_dark() -> None:
    heat = Heat("h", "H", "x", "y", np.arange(3.0), np.arange(3.0), (Image("a", np.ones((2, 2))),), "u")
    blocks = [
        Plot(heat_figure(heat), 'caption "x"', "title", least_width=600),
        Images({"name": b"\x89PNG"}, "caption"),
    ]
    page = Page("p", [Section("s", blocks)]).render()
    assert 'aria-label="title: caption &#34;x&#34;"' in page
    assert 'alt="name: caption"' in page
    assert "min-width:600px" in page
    assert "prefers-color-scheme: dark" in page
    assert re.search(r'"#1b1f24": "#e4e7eb"', page)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(20.0, 500.0, ["20", "50", "100", "200", "500"]), (1.0, 1000.0, ["$\\mathdefault{10^{0}}$"])],
)
def test_numbers_of_a_logarithmic_axis_do_not_overlap(low: float, high: float, expected: list[str]) -> None:
    """Below two decades 1, 2 and 5 times powers of ten as plain numbers, above them powers of ten; nothing in between."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, place = pyplot.subplots()
    place.set_xlim(low, high)
    logarithmic(place)
    figure.canvas.draw()
    numbers = [label.get_text() for label in place.get_xticklabels()]
    inside = [text for text, at in zip(numbers, place.get_xticks(), strict=True) if low <= at <= high]
    assert inside[: len(expected)] == expected
    assert not any(label.get_text() for label in place.get_xticklabels(minor=True))
    pyplot.close(figure)


@pytest.mark.parametrize(
    ("longest", "columns"),
    [(8, 2), (28, 2), (34, 1), (75, 1)],
    ids=["short", "smaller", "one column", "long"],
)
def test_a_legend_stays_inside_its_axes(longest: int, columns: int) -> None:
    """Names as long as that, drawn with the columns and letters that were chosen, are as wide as the axes at most."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    names = ["Geant4", ("ild-photon-50gev/" * 9)[:longest], "b"]
    count, size = legend_columns(names, 5.6)
    assert count == columns
    with figure_style() as styled:
        figure, place = styled.subplots(figsize=(7.0, 5.0))
        place.set_position((0.1, 0.1, 0.8, 0.8))
        for name in names:
            place.plot([0, 1], [0, 1], label=name)
        legend = place.legend(ncols=count, fontsize=size, handlelength=1.6, columnspacing=1.2)
        figure.canvas.draw()
        assert legend.get_window_extent().width <= place.get_window_extent().width
    pyplot.close("all")
