"""Trees of others: hits at positions or in cells, arrays, and the collections of EDM4hep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.errors import FileFormatError
from caloforge.formats import convert, open_file, read
from caloforge.showers import Hits, Showers

uproot = pytest.importorskip("uproot", reason="needs the extra 'formats'")
ak = pytest.importorskip("awkward", reason="needs the extra 'formats'")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a tree; the names of branches may hold dots and slashes."""

    def call(tree: str, content: dict[str, Any], name: str = "theirs.root") -> Path:
        path = tmp_path / name
        with uproot.recreate(path) as file:
            kinds = {
                key: ak.type(values).content
                if isinstance(values, ak.Array)
                else np.dtype((values.dtype, values.shape[1:]))
                for key, values in content.items()
            }
            file.mktree(tree, kinds).extend(content)
        return path

    return call


def hit_lists(showers: Showers, order: str = "xyz", origin: tuple[float, ...] = (0, 0, 0)) -> dict[str, Any]:
    """Return positions (in coordinates named by ``order``), energies and cells of the hits, as lists."""
    hits = Hits.from_cells(showers.cells)
    centres = showers.detector.cell_centres[hits.cell]
    theirs = np.stack([centres[:, "xyz".index(letter)] for letter in order], 1) + np.array(origin)
    columns = {
        **{axis: theirs[:, i] for i, axis in enumerate("xyz")},
        "energy": hits.energy,
        "cell": hits.cell,
    }
    return {name: ak.unflatten(np.ascontiguousarray(values), hits.counts) for name, values in columns.items()}


def test_hits_at_positions(photons: Showers, write: Write) -> None:
    lists = hit_lists(photons)
    content = {
        "E": photons.incident_energy / 1e3,
        **{f"hit.{name}": values for name, values in lists.items()},
    }
    path = write("shower", content)
    keys = {"energy": "E", "hit_energy": "hit.energy", **{f"hit_{axis}": f"hit.{axis}" for axis in "xyz"}}
    with pytest.raises(FileFormatError, match="does not say where its cells are: name hit_energy"):
        read(path, detector="ild-ecal", keys={"energy": "E"})
    made = read(path, detector="ild-ecal", keys=keys, energy_unit="GeV")
    np.testing.assert_array_equal(made.cells, photons.cells)
    by_cell = {"energy": "E", "hit_energy": "hit.energy", "hit_cell": "hit.cell"}
    made = read(path, detector="ild-ecal", keys=by_cell, energy_unit="GeV", cell_unit="MeV")
    np.testing.assert_array_equal(made.cells, photons.cells)
    with pytest.raises(FileFormatError, match=r"a hit is at \d+, outside of the cells of 'atlas-em-barrel'"):
        read(path, detector="atlas-em-barrel", keys=by_cell, energy_unit="GeV")


def test_several_hits_of_a_cell_are_summed(photons: Showers, write: Write) -> None:
    lists = hit_lists(photons)
    twice = {name: ak.concatenate([values, values], axis=1) for name, values in lists.items()}
    path = write("t", {"E": photons.incident_energy, **twice})
    keys = {"energy": "E", "hit_energy": "energy", "hit_x": "x", "hit_y": "y", "hit_z": "z"}
    made = read(path, detector="ild-ecal", keys=keys, energy_unit="MeV", cell_unit="MeV")
    np.testing.assert_array_equal(made.cells, 2 * photons.cells)


def test_arrays_in_a_tree(photons: Showers, write: Write) -> None:
    path = write("t", {"E": photons.incident_energy, "image": photons.grid().transpose(0, 3, 1, 2).copy()})
    keys = {"cells": "image", "energy": "E"}
    made = read(path, detector="ild-ecal", keys=keys, axes="zxy", energy_unit="MeV")
    np.testing.assert_array_equal(made.cells, photons.cells)


def edm4hep(showers: Showers, order: str = "xyz", origin: tuple[float, ...] = (0, 0, 0)) -> dict[str, Any]:
    """Return the branches that podio writes for a collection of SimCalorimeterHits and the particles."""
    lists, n = hit_lists(showers, order, origin), len(showers)
    theta = np.radians(showers.incident_theta)
    ours = np.stack([np.zeros(n), np.cos(theta), np.sin(theta)], 1) * showers.incident_energy[:, None] / 1e3
    theirs = np.stack([ours[:, "xyz".index(letter)] for letter in order], 1)

    def particles(first: Any, second: Any, kind: type) -> Any:
        """The incident photon, and one of status 0 that the simulation made."""
        return ak.Array(
            np.stack([np.broadcast_to(first, n), np.broadcast_to(second, n)], 1).astype(kind).tolist()
        )

    hits = {f"position.{axis}": ak.values_astype(lists[axis], np.float32) for axis in "xyz"}
    hits |= {
        "energy": lists["energy"] / np.float32(1e3),
        "cellID": ak.values_astype(lists["cell"], np.uint64),
    }
    mother = {
        "PDG": particles(22, 11, np.int32),
        "generatorStatus": particles(1, 0, np.int32),
        "mass": particles(0.0, 0.000511, np.float64),
        **{f"momentum.{axis}": particles(theirs[:, i], 1.0, np.float64) for i, axis in enumerate("xyz")},
    }
    branches = {"ECalHits": hits, "MCParticles": mother}
    return {f"{name}/{name}.{key}": v for name, group in branches.items() for key, v in group.items()}


def test_edm4hep(inclined: Showers, write: Write) -> None:
    path = write("events", edm4hep(inclined))
    with open_file(path, detector="ild-ecal-angled") as file:
        assert file.read_as[0] == "format edm4hep (guessed)"
        made = file[:]
    np.testing.assert_allclose(made.cells, inclined.cells, rtol=1e-6)
    np.testing.assert_allclose(made.incident_energy, inclined.incident_energy, rtol=1e-9)
    np.testing.assert_allclose(made.incident_theta, inclined.incident_theta, rtol=1e-9)
    assert (made.particle, made.has_theta) == ("gamma", True)


def test_edm4hep_of_a_barrel(photons: Showers, write: Write, tmp_path: Path) -> None:
    """The particle flies along the file's y, from 1800 mm on; there is no angle to store."""
    path = write("events", edm4hep(photons, "xzy", (0, 1800, 20)))
    with pytest.raises(FileFormatError, match=r"its particle flies along .*settle it with axes"):
        read(path, detector="ild-ecal")
    with pytest.raises(
        FileFormatError, match=r"outside of the cells of 'ild-ecal'.*origin.*drop_outside=True"
    ):
        read(path, detector="ild-ecal", axes="xzy")
    made = read(path, detector="ild-ecal", axes="xzy", origin=(0, 1800, 20))
    np.testing.assert_allclose(made.cells, photons.cells, rtol=1e-6)
    assert not made.has_theta
    done = convert(
        path, tmp_path / "o.h5", detector="ild-ecal", axes="xzy", origin=(40, 1800, 20), drop_outside=True
    )
    assert done.warnings[0].startswith("hits outside of the cells were left out: ")
    moved = read(tmp_path / "o.h5")  # eight cells of 5 mm to the side
    np.testing.assert_allclose(moved.grid()[:, :-8], photons.grid()[:, 8:], rtol=1e-6)


def test_edm4hep_with_several_collections_or_particles(photons: Showers, write: Write) -> None:
    content = edm4hep(photons)
    other = {key.replace("ECalHits", "HCalHits"): values for key, values in content.items() if "ECal" in key}
    path = write("events", content | other)
    with pytest.raises(
        FileFormatError,
        match=r"has 2 collections .*keys={'cells': 'COLLECTION'}\); it has: ECalHits, HCalHits",
    ):
        read(path, detector="ild-ecal")
    made = read(path, detector="ild-ecal", keys={"cells": "HCalHits"})
    np.testing.assert_allclose(made.cells, photons.cells, rtol=1e-6)
    content["MCParticles/MCParticles.generatorStatus"] = ak.Array(np.ones((12, 2), np.int32).tolist())
    path = write("events", content, "two.root")
    with pytest.raises(FileFormatError, match="event 0: has 2 particles of status 1; expected one"):
        read(path, detector="ild-ecal")
    assert (read(path, detector="ild-ecal", energy="50GeV", particle="gamma").incident_energy == 5e4).all()


def test_damage_is_named(photons: Showers, write: Write, tmp_path: Path) -> None:
    short = tmp_path / "short.root"
    whole = write("t", {"E": photons.incident_energy})
    short.write_bytes(whole.read_bytes()[:150])
    for path, text in ((short, "as a ROOT file"), (whole, r"branch 'no' is missing|'no': is missing")):
        with pytest.raises(FileFormatError, match=text):
            read(path, "root", "ild-ecal", keys={"energy": "no", "cells": "no"})
    with uproot.recreate(tmp_path / "two.root") as file:
        for name in "ab":
            file.mktree(name, {"x": np.float32}).extend({"x": np.ones(3, np.float32)})
    with pytest.raises(FileFormatError, match=r"has 2 trees \(keys={'tree': 'NAME'}\); it has: a, b"):
        read(tmp_path / "two.root", detector="ild-ecal")
