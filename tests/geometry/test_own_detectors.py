"""Cells that differ by layer, rings around the beam, and materials of the user's, from TOML files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.errors import ConfigError
from caloforge.geometry import (
    CylindricalLayer,
    Detector,
    MeshReadout,
    ReadoutLayer,
    detector_from_definition,
    get_detector,
    load_detector,
)

UNIT = {"absorber": "G4_Pb", "absorber_mm": 6.0, "active": "scintillator", "active_mm": 5.0, "gap_mm": 0.5}
PVT = {"density": 1.032, "atoms": {"C": 9, "H": 10}}
FINE: dict[str, Any] = {
    "name": "fine",
    "nx": 10,
    "ny": 10,
    "width": 200.0,
    "padding_mm": 100.0,
    "materials": {"scintillator": PVT},
    "layers": [{"repeat": 5, **UNIT}, {"repeat": 7, "nx": 20, "ny": 20, **UNIT}, {"repeat": 8, **UNIT}],
    "beam": {"particle": "e-", "energy": "1-20GeV", "entry_mm": [0.0, 0.0]},
}
SILICON = {"absorber": "G4_W", "absorber_mm": 2.8, "active": "G4_Si", "active_mm": 0.5, "gap_mm": 1.7}
MESH: dict[str, Any] = {
    "name": "rings",
    "r_edges": [0, 5, 10, 20, 40, 80],
    "n_alpha": 12,
    "padding_mm": 40.0,
    "layers": [{"repeat": 4, "n_alpha": 6, **SILICON}, {"repeat": 8, "units": 2, **SILICON}],
    "beam": {"particle": "e-", "energy": "5GeV"},
}


def made(content: dict[str, Any], **change: Any) -> Detector:
    return detector_from_definition(json.dumps({**content, **change}))


def test_finer_cells_in_the_middle() -> None:
    detector = made(FINE)
    assert (detector.order, detector.n_cells) == ("layered", 13 * 100 + 7 * 400)
    assert {layer.n_cells: layer.pitch_x for layer in detector.layers if isinstance(layer, ReadoutLayer)} == {
        100: 20.0,
        400: 10.0,
    }
    assert {(slab.half_x, slab.half_y) for slab in detector.stack} == {(200.0, 200.0)}
    assert detector.readout is not None
    centres = detector.cell_centres
    inside = detector.readout.digitise(centres[:, 0], centres[:, 1], detector.cell_layer)
    np.testing.assert_array_equal(inside, np.arange(detector.n_cells))
    beside = detector.readout.digitise([101.0, -101.0], [0.0, 0.0], [0, 6])
    np.testing.assert_array_equal(beside, [-1, -1])
    # across the boundary from coarse to fine each cell has four neighbours behind it
    pairs = detector.neighbours
    layer = detector.cell_layer[pairs]
    assert ((layer == [4, 5]).all(axis=1)).sum() == 400
    assert ((layer == [11, 12]).all(axis=1)).sum() == 400


def test_lists_say_the_same_as_entries() -> None:
    listed = {**FINE, "nx": [10] * 5 + [20] * 7 + [10] * 8, "layers": [{"repeat": 20, **UNIT}]}
    listed["ny"] = listed["nx"]
    assert made(listed) == made(FINE)
    pitches = {**listed, "pitch": [20.0] * 5 + [10.0] * 7 + [20.0] * 8}
    del pitches["width"]
    assert made(pitches) == made(FINE)
    equal = made(FINE, layers=[{"repeat": 20, **UNIT}])
    assert (equal.order, equal.shape) == ("xyl", (10, 10, 20))


def test_a_pitch_of_the_layer_comes_before_that_of_the_detector() -> None:
    content = {**FINE, "pitch_x": 20.0, "pitch_y": 30.0, "layers": [UNIT, {"pitch": 5.0, **UNIT}]}
    del content["width"]
    first, second = made(content).layers
    assert isinstance(first, ReadoutLayer)
    assert isinstance(second, ReadoutLayer)
    assert (first.pitch_x, first.pitch_y, second.pitch_x, second.pitch_y) == (20.0, 30.0, 5.0, 5.0)


def test_plates_reach_beyond_the_widest_layer_in_whole_cells() -> None:
    content = {**FINE, "layers": [{"nx": 4, "ny": 4, "pitch": 30.0, **UNIT}, {"pitch": 7.0, **UNIT}]}
    detector = made({key: value for key, value in content.items() if key != "width"}, padding_mm=0.0)
    half = [slab.half_x for slab in detector.stack if slab.active]
    assert half == [60.0, 63.0]  # 4 x 30 mm; 10 x 7 mm and four cells on each side
    assert {slab.half_x for slab in detector.stack if not slab.active} == {63.0}


def test_rings_behind_flat_plates() -> None:
    detector = made(MESH)
    assert (detector.order, detector.n_cells, detector.inner_radius) == ("cylindrical", 4 * 30 + 8 * 60, 0.0)
    mesh = detector.readout
    assert isinstance(mesh, MeshReadout)
    assert mesh.z_edges[:6] == pytest.approx((0.0, 5.0, 10.0, 15.0, 20.0, 30.0))
    np.testing.assert_array_equal(mesh.locate(*detector.cell_centres.T), np.arange(detector.n_cells))
    middles = np.array([slab.z + slab.thickness / 2 for slab in detector.stack if slab.active])
    layers = np.array([slab.layer for slab in detector.stack if slab.active])
    assert np.bincount(layers).tolist() == [1] * 4 + [2] * 8
    x, y = np.full(len(layers), 3.0), np.full(len(layers), -1.0)
    np.testing.assert_array_equal(mesh.locate(x, y, middles), mesh.digitise(x, y, layers))
    for number, layer in enumerate(detector.layers):
        assert layer.z == pytest.approx(middles[layers == number].mean())
        assert layer.mip == pytest.approx(detector.layers[0].mip * (layers == number).sum())


def test_rings_and_angles_against_a_slow_search() -> None:
    edges = [[0, 5, 10], [2, 3, 50, 60], [0, 1]]
    layers = [{"n_alpha": n, **SILICON} for n in (1, 7, 4)]
    detector = made(MESH, r_edges=edges, layers=layers)
    mesh = detector.readout
    assert isinstance(mesh, MeshReadout)
    random = np.random.default_rng(3)
    x, y, layer = *random.uniform(-60, 60, (2, 500)), random.integers(0, 3, 500)
    x[:100], y[:100] = x[:100] / 20, y[:100] / 20
    expected = []
    for px, py, number in zip(x, y, layer, strict=True):
        one = detector.layers[number]
        assert isinstance(one, CylindricalLayer)
        r, turn = np.hypot(px, py), np.arctan2(py, px) + np.pi
        ring = [k for k in range(one.n_r) if one.r_edges[k] <= r < one.r_edges[k + 1]]
        angle = int(turn / (2 * np.pi / one.n_alpha))
        expected.append(detector.layer_cells[number][angle * one.n_r + ring[0]] if ring else -1)
    found = mesh.digitise(x, y, layer)
    np.testing.assert_array_equal(found, expected)
    assert 50 < (found >= 0).sum() < 450


def test_the_mesh_of_the_calochallenge_as_a_file() -> None:
    unit = {"units": 2, "absorber": "G4_W", "absorber_mm": 1.4, "active": "G4_Si", "active_mm": 0.3}
    cells = {"n_r": 9, "pitch_r": 4.65, "n_alpha": 16, "inner_radius": 800.0, "padding_mm": 958.15}
    detector = detector_from_definition(
        json.dumps({"name": "calochallenge-2", **cells, "layers": [{"repeat": 45, **unit}]})
    )
    published = get_detector("calochallenge-2")
    np.testing.assert_allclose(detector.cell_centres[:, :2], published.cell_centres[:, :2], rtol=1e-12)
    # depths are those of the silicon; the published mesh has the middles of its layers
    np.testing.assert_allclose(detector.cell_centres[:, 2], published.cell_centres[:, 2] + 0.7, rtol=1e-12)
    mine, theirs = detector.readout, published.readout
    assert isinstance(mine, MeshReadout)
    assert isinstance(theirs, MeshReadout)
    assert (mine.r_edges, mine.n_alpha) == (theirs.r_edges, theirs.n_alpha)
    np.testing.assert_allclose(mine.z_edges, theirs.z_edges, rtol=1e-12)
    assert [(slab.material, slab.layer) for slab in detector.stack] == [
        (slab.material, slab.layer) for slab in published.stack
    ]
    sizes = (
        np.array([(slab.thickness, slab.z, slab.half_x, slab.half_y) for slab in one.stack])
        for one in (detector, published)
    )
    np.testing.assert_allclose(*sizes, rtol=1e-12, atol=1e-12)
    assert detector.inner_radius == published.inner_radius


def test_cells_alone_for_files_of_others() -> None:
    cells = {"nx": [96, 12, 6], "ny": [3, 12, 12], "pitch_x": [5, 40, 80], "pitch_y": [160, 40, 40]}
    layers = [{"depth_mm": depth} for depth in (90, 347, 43)]
    detector = made({"name": "cells", **cells, "layers": layers, "beam": {"entry_mm": [0, 0]}})
    published = get_detector("calogan")
    np.testing.assert_allclose(detector.cell_centres, published.cell_centres)
    assert (detector.simulable, detector.sampling_source) == (False, "calibrated")
    rings = made({"name": "cells", "r_edges": [[0, 5, 9], [0, 20]], "n_alpha": [4, 1], "layers": layers[:2]})
    assert (rings.n_cells, rings.simulable) == (9, False)


@pytest.mark.parametrize(
    "change",
    [
        {"nx": 12},
        {"width": 201.0},
        {"padding_mm": 120.0},
        {"medium": "G4_lAr"},
        {"materials": {"scintillator": {**PVT, "density": 1.05}}},
        {"materials": {"scintillator": {"density": 1.032, "elements": {"C": 0.9, "H": 0.1}}}},
        {"layers": [*FINE["layers"][:2], {"repeat": 8, **UNIT, "absorber": "G4_W"}]},
        {"layers": [*FINE["layers"][:2], {"repeat": 8, **UNIT, "units": 2}]},
        {"layers": [*FINE["layers"][:2], {"repeat": 8, **UNIT, "ny": 20}]},
    ],
)
def test_every_change_makes_another_detector(change: dict[str, Any]) -> None:
    one, other = made(FINE), made(FINE, **change)
    assert one != other
    again = detector_from_definition(other.definition)
    assert again == other
    assert again.definition == other.definition


def test_every_change_of_a_mesh_makes_another_detector() -> None:
    one = made(MESH)
    for change in ({"n_alpha": 8}, {"r_edges": [0, 5, 10, 20, 40, 81]}, {"padding_mm": 41.0}):
        assert made(MESH, **change) != one
    wide = made(MESH, inner_radius=2000.0, r_edges=[0, 20, 40])
    assert wide != made(MESH, r_edges=[0, 20, 40])
    assert detector_from_definition(wide.definition) == wide
    assert dataclasses.replace(one, beam=wide.beam) == one


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def material(**content: Any) -> dict[str, Any]:
    return {"materials": {"scintillator": content}}


@pytest.mark.parametrize(
    ("content", "change", "message"),
    [
        (FINE, {"nx": [10] * 19}, "key 'nx' has 19 values; expected one for each of the 20 layers"),
        (FINE, {"nx": [10] * 20}, r"key 'nx' is a list .* and stands in \[\[layers\]\] too"),
        (FINE, {"nx": [10, 0]}, "key 'nx': expected a whole number of 1 to 1000.*got 0"),
        (FINE, {"nx": 2.5}, "key 'nx': expected a whole number"),
        (FINE, {"pitch": -3.0}, "key 'pitch': expected a length in mm above 0.*got -3"),
        (FINE, {"pitch": 3.0}, "'width' and 'pitch' are two ways"),
        (without(FINE, "ny"), {}, "give 'nx' and 'ny'"),
        (without(FINE, "width"), {}, "give 'pitch', or both 'pitch_x' and 'pitch_y', or 'width'"),
        (without(FINE, "nx", "ny", "width"), {"layers": [UNIT]}, "cells are missing: give 'nx'"),
        (without(FINE, "layers"), {}, r"key 'layers': expected one \[\[layers\]\] table or more"),
        (FINE, {"n_alpha": 4}, "'nx' is for rows and columns, 'n_alpha' for rings"),
        (FINE, {"padding": 2}, "'padding' .* and 'padding_mm' are two ways"),
        (FINE, {"inner_radius": 900.0}, "'inner_radius' makes cylinders"),
        (FINE, {"beam": {"entry_mm": [0, 100.5]}}, "'beam.entry_mm' .* outside the cells"),
        (FINE, {"beam": {"entry": [1, 1], "entry_mm": [0, 0]}}, "'beam.entry' and 'beam.entry_mm'"),
        (FINE, {"medium": "G4_Air"}, "key 'medium': unknown material 'G4_Air'; did you mean G4_AIR"),
        (FINE, {"materials": {}}, "key 'layers.0.active': unknown material 'scintillator'"),
        (
            FINE,
            {"layers": [{**UNIT, "absorber": "lead"}]},
            "key 'layers.0.absorber': .* did you mean .*known",
        ),
        (FINE, {"layers": [{**UNIT, "active": "scintilator"}]}, "did you mean scintillator"),
        (FINE, material(density=-1.0, atoms={"C": 1}), "'materials.scintillator.density': .*greater than 0"),
        (
            FINE,
            material(density=1.0, elements={"C": 0.9, "H": 0.2}),
            "'materials.scintillator': .* 1.1; expected 1",
        ),
        (
            FINE,
            material(density=1.0, elements={"C": 1.5, "H": -0.5}),
            "mass fraction 1.5 of C .* out of range",
        ),
        (FINE, material(density=1.0, elements={"Xx": 1.0}), "unknown element 'Xx'"),
        (FINE, material(density=1.0, atoms={"Xx": 1}), "unknown element 'Xx'"),
        (FINE, material(density=1.0), "give either 'elements', mass fractions, or 'atoms'"),
        (FINE, {"materials": {"G4_Foo": PVT, "scintillator": PVT}}, "'materials.G4_Foo': .*choose another"),
        (FINE, {"layers": [without(UNIT, "active_mm")]}, "key 'layers.0': give 'active' and 'active_mm'"),
        (FINE, {"layers": [without(UNIT, "absorber")]}, "'absorber_mm' needs an 'absorber'"),
        (FINE, {"layers": [without(UNIT, "absorber_mm")]}, "needs its thickness 'absorber_mm'"),
        (FINE, {"layers": [{**UNIT, "depth_mm": 3.0}]}, "'depth_mm' is for layers without materials"),
        (FINE, {"layers": [UNIT, {"depth_mm": 3.0}]}, "some layers have 'depth_mm' alone"),
        (MESH, {"r_edges": [0, 10, 5]}, "key 'r_edges': radii .* do not rise"),
        (MESH, {"r_edges": [-1, 10]}, "key 'r_edges': radii .* do not rise from 0"),
        (MESH, {"r_edges": [[0, 5, 5]] * 12}, "key 'r_edges': radii .*overlap"),
        (
            MESH,
            {"r_edges": [[0, 5]] * 3},
            "key 'r_edges' has 3 values; expected one for each of the 12 layers",
        ),
        (MESH, {"r_edges": [5]}, "key 'r_edges': expected 2 to 1001 radii"),
        (MESH, {"n_r": 3}, "'r_edges', and 'n_r' with 'pitch_r', are two ways|give both 'n_r'"),
        (without(MESH, "r_edges"), {}, "give 'r_edges', or 'n_r' and 'pitch_r'"),
        (without(MESH, "r_edges"), {"n_r": 3}, "give both 'n_r' and 'pitch_r'"),
        (MESH, {"n_alpha": None}, "and 'n_alpha' of each layer"),
        (MESH, {"beam": {"theta": "60-90"}}, "'beam.theta' is .*rings are for particles at 90 degrees"),
        (MESH, {"beam": {"entry": [1, 1]}}, "'beam.entry': rings are centred on the beam"),
        (MESH, {"padding": 2, "padding_mm": None}, "rings need 'padding_mm'"),
        (MESH, {"inner_radius": 60.0}, "'inner_radius' 60 mm is not larger than the mesh, 80 mm"),
        (MESH, {"inner_radius": 800.0}, "cylinders recede by 4 mm .* layer 0"),
    ],
)
def test_mistakes_are_one_line(content: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        made(content, **change)
    text = str(caught.value)
    assert text.startswith("detector definition: ")
    assert "\n" not in text
    assert "Value error" not in text


def test_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(
        'name = "d"\nnx = 3\nny = 3\npitch = 1.0\n[[layers]]\nactive = "G4_Sii"\nactive_mm = 1.0\n'
    )
    with pytest.raises(ConfigError, match=r"d\.toml: key 'layers\.0\.active': .*did you mean G4_Si"):
        load_detector(path)
