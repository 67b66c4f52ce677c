"""Event displays: boxes are where the cells are, colours and files are right."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.errors import InputError, OutputError, OutputExistsError
from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.plots.event import (
    FACES,
    describe_shower,
    energy_limits,
    format_energy,
    hit_boxes,
    layer_extents,
)
from caloforge.validate.report.event import event_figure, view

DETECTORS = ["ild-ecal", "atlas-em-barrel", "calochallenge-1-photons", "calochallenge-2"]


def one_shower(detector: str, cells: dict[int, float], **conditions: Any) -> Showers:
    geometry = get_detector(detector)
    energy = np.zeros((1, geometry.n_cells), np.float32)
    for cell, value in cells.items():
        energy[0, cell] = value
    named = {name: np.zeros((1, size), np.float32) for name, size in geometry.condition_sizes.items()}
    named |= {name: np.array([[value]], np.float32) for name, value in conditions.items()}
    return Showers(
        geometry, energy, np.array([50_000.0]), conditions=named, particle="gamma", source="made up"
    )


def unpack(array: Any) -> np.ndarray:
    """Return an array of a figure, packed or not."""
    if isinstance(array, dict):
        flat = np.frombuffer(base64.b64decode(array["bdata"]), np.dtype(array["dtype"]).newbyteorder("<"))
        return flat.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else flat
    return np.asarray(array)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_box_lies_around_its_cell(name: str) -> None:
    detector = get_detector(name)
    for cell in (0, detector.n_cells // 2, detector.n_cells - 1):
        boxes = hit_boxes(one_shower(name, {cell: 1.0}))
        corners = boxes.corners.reshape(-1, 3)
        centre = boxes.centres[0]
        assert np.all(corners.min(axis=0) <= centre + 1e-9)
        assert np.all(corners.max(axis=0) >= centre - 1e-9)
        assert boxes.layers.tolist() == [detector.cell_layer[cell]]
        np.testing.assert_allclose(boxes.energy, 1.0)


def test_a_rectangular_box_has_the_volume_of_its_cell() -> None:
    detector = get_detector("ild-ecal")
    low, high = layer_extents(detector)[7]
    cell = int(detector.layer_cells[7][123])
    box = hit_boxes(one_shower("ild-ecal", {cell: 1.0})).corners[0]
    assert np.prod(np.ptp(box, axis=0)) == pytest.approx(5.0 * 5.0 * (high - low))


def test_the_wedges_of_a_ring_fill_it() -> None:
    detector = get_detector("calochallenge-1-photons")  # its first layer has one angular bin
    cell = 3
    corners = hit_boxes(one_shower(detector.name, {cell: 1.0})).corners
    flat = corners[:, [0, 2, 6, 4], :2]
    x, y = flat[:, :, 0], flat[:, :, 1]
    area = 0.5 * np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(axis=1)).sum()
    inner, outer = detector.layers[0].r_edges[cell : cell + 2]
    ring = np.pi * (outer**2 - inner**2)
    assert area == pytest.approx(ring, rel=0.03)  # straight edges cut the corners


def test_layers_do_not_overlap_in_depth() -> None:
    for name in ("ild-ecal", "clic-ecal", "calochallenge-2"):
        extents = layer_extents(get_detector(name))
        assert np.all(extents[:, 1] > extents[:, 0])
        assert np.all(extents[1:, 0] >= extents[:-1, 1])


def test_cells_move_with_the_alignment() -> None:
    detector = get_detector("atlas-em-barrel")
    cell = int(detector.layer_cells[1][80])
    boxes = [hit_boxes(one_shower(detector.name, {cell: 1.0}, alignment_phi=k)) for k in (0, 3)]
    shifts = [detector.layer_shift(one_shower(detector.name, {}, alignment_phi=k).conditions) for k in (0, 3)]
    moved = boxes[1].corners.mean(axis=(0, 1)) - boxes[0].corners.mean(axis=(0, 1))
    expected = shifts[1][0, 1] - shifts[0][0, 1]
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(moved[:2], expected, atol=1e-6)


def test_small_hits_are_left_out_and_counted() -> None:
    shower = one_shower("ild-ecal", {10: 0.05, 20: 0.2, 30: 3.0, 40: 1.0})
    boxes = hit_boxes(shower, threshold=0.1, most=2)
    assert boxes.hits.tolist() == [1.0, 3.0]
    assert boxes.hidden == 1
    assert "3 hits" in describe_shower(shower, boxes)
    assert "1 smallest not drawn" in describe_shower(shower, boxes)


def test_every_face_is_a_flat_outline_of_the_box() -> None:
    box = hit_boxes(one_shower("ild-ecal", {0: 1.0})).corners[0]
    assert sorted(np.bincount(FACES.ravel()).tolist()) == [3] * 8
    for face in FACES:
        corners = box[face]
        assert np.isclose(np.ptp(corners, axis=0), 0).sum() == 1
        steps = np.abs(np.roll(corners, -1, axis=0) - corners)
        assert np.all((steps > 1e-9).sum(axis=1) == 1)  # along edges, never across


def test_the_figure_holds_every_hit_once() -> None:
    cells = {5: 0.2, 700: 1.0, 1400: 5.0, 13000: 80.0}
    figure = event_figure(one_shower("ild-ecal", cells))
    meshes = [trace for trace in figure["data"] if trace["type"] == "mesh3d"]
    assert sum(len(unpack(mesh["i"])) for mesh in meshes) == 12 * len(cells)
    points = figure["data"][-1]
    np.testing.assert_allclose(np.sort(unpack(points["customdata"])[:, 0]), sorted(cells.values()), rtol=1e-6)
    assert sum("colorbar" in mesh for mesh in meshes) == 1


def test_a_shower_without_hits_is_drawn(tmp_path: Path) -> None:
    shower = one_shower("ild-ecal", {})
    assert "0 hits" in view(shower, tmp_path / "empty.html").read_text()
    assert view(shower, tmp_path / "empty.png").stat().st_size > 1000


@pytest.mark.parametrize("name", DETECTORS[1:])
def test_the_page_stands_alone(name: str, tmp_path: Path) -> None:
    text = view(one_shower(name, {100: 10.0, 101: 1.0}), tmp_path / "event.html").read_text()
    markup = re.sub(r'<script type="text/plain" id="plotly-gzip">.*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', markup)
    assert "url(" not in markup
    (figure,) = re.findall(r'<script type="application/json">(.*?)</script>', markup, flags=re.DOTALL)
    assert {trace["type"] for trace in json.loads(figure)["data"]} == {"mesh3d", "scatter3d"}
    assert "50 GeV" in markup


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_drawings_for_paper(ending: str, start: bytes, tmp_path: Path) -> None:
    path = view(one_shower("atlas-em-barrel", {100: 10.0, 101: 1.0}), tmp_path / f"event.{ending}")
    assert path.read_bytes().startswith(start)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_it_reads_files(tmp_path: Path) -> None:
    shower = one_shower("ild-ecal", {100: 10.0})
    shower.save(tmp_path / "one.h5")
    assert "10 MeV visible" in view(tmp_path / "one.h5", tmp_path / "one.html").read_text()


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    shower = one_shower("ild-ecal", {100: 10.0})
    with pytest.raises(InputError, match="there is no shower 1; expected 0 to 0"):
        view(shower, tmp_path / "a.html", event=1)
    with pytest.raises(InputError, match=r"ends with one of .html"):
        view(shower, tmp_path / "a.jpeg")
    with pytest.raises(OutputError, match="does not exist"):
        view(shower, tmp_path / "no" / "a.html")
    (tmp_path / "a.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        view(shower, tmp_path / "a.html")
    assert view(shower, tmp_path / "a.html", force=True).read_text() != "mine"
    with pytest.raises(InputError, match="one shower, not 2"):
        hit_boxes(Showers.concatenate([shower, shower]))


@pytest.mark.parametrize(
    ("energy", "text"),
    [(50_000.0, "50 GeV"), (1024.0, "1.024 GeV"), (2e6, "2 TeV"), (12.5, "12.5 MeV"), (0.02, "20 keV")],
)
def test_energies_are_written_as_people_do(energy: float, text: str) -> None:
    assert format_energy(energy) == text


def test_colours_span_at_least_a_decade() -> None:
    assert energy_limits(np.array([0.15]), 0.1) == (0.1, 1.0)
    assert energy_limits(np.array([]), 0.1) == (0.1, 1.0)
    assert energy_limits(np.array([0.2, 70.0]), 0.1) == (0.1, 70.0)


def test_the_packages_name_can_be_called_before_and_after_the_module_is_imported(tmp_path: Path) -> None:
    import importlib

    import caloforge.validate as package

    shower = one_shower("ild-ecal-10x10", {44: 1.0})
    package.view(shower, tmp_path / "a.png")
    importlib.import_module("caloforge.validate.report.event")
    package.view(shower, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"
