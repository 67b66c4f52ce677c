"""The side view: every slab at its depth, whatever the family of the detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'report'")

from matplotlib.figure import Figure

from caloforge.errors import OutputError, OutputExistsError
from caloforge.geometry import DETECTORS, get_detector
from caloforge.geometry.draw import MATHEMATICS, _draw_stack, draw_detector, text_as_it_is


@pytest.mark.parametrize("name", ["ild-ecal", "atlas-em-barrel", "calochallenge-2", "ild-ecal-10x10"])
def test_every_family_is_drawn(name: str, tmp_path: Path) -> None:
    assert name in DETECTORS
    path = draw_detector(get_detector(name), tmp_path / "side.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
    assert [one.name for one in tmp_path.iterdir()] == ["side.png"]


def test_every_slab_is_where_the_stack_has_it() -> None:
    detector = get_detector("ild-ecal")
    axes = Figure().add_subplot()
    _draw_stack(axes, detector)
    spans = sorted(
        (path.get_extents().x0, path.get_extents().width)
        for bars in axes.collections
        if bars.get_label() and bars.get_paths()[0].get_extents().height > 100
        for path in bars.get_paths()
    )
    expected = sorted((slab.z, slab.thickness) for slab in detector.stack)
    assert len(spans) == len(expected)
    for span, slab in zip(spans, expected, strict=True):
        assert span == pytest.approx(slab, abs=1e-9)


def test_the_ending_names_the_format(tmp_path: Path) -> None:
    assert draw_detector(get_detector("clic-ecal"), tmp_path / "side.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(OutputError, match=r"\.svg"):
        draw_detector(get_detector("clic-ecal"), tmp_path / "side.xyz")


def test_an_existing_drawing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "side.svg"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="force=True"):
        draw_detector(get_detector("clic-ecal"), path)
    assert path.read_text() == "mine"
    draw_detector(get_detector("clic-ecal"), path, force=True)
    assert "<svg" in path.read_text()


def test_texts_are_drawn_as_they_are_and_formulas_as_formulas(tmp_path: Path) -> None:
    detector = replace(get_detector("ild-ecal"), description=r"5$ \half$ <b>")
    draw_detector(detector, tmp_path / "d.svg")
    figure = Figure()
    axes = figure.add_subplot(title=r"$\half$", xlabel="$a$", yscale="log")
    formula = figure.text(0.5, 0.5, "$CG_x$", gid=MATHEMATICS)
    text_as_it_is(figure)
    figure.savefig(tmp_path / "f.png")
    assert (axes.title.get_parse_math(), axes.xaxis.label.get_parse_math()) == (False, False)
    assert formula.get_parse_math()
    assert all(label.get_parse_math() for label in axes.get_yticklabels())
