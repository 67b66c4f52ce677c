"""``--layout sparse``: made by simulate and generate, read by every verb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.showers import read_showers
from caloforge.showers.sparse import is_sparse

Run = Callable[..., Any]
BEAM = ("-n", 120, "--engine", "gflash", "--seed", 3)
GENERATE = ("generate", "ild-photon-50gev/histogram", "-n", 30, "--energy", "50GeV", "--seed", 5)


@pytest.fixture(scope="module")
def sparse_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 200 parametrised showers of ``atlas-em-barrel`` in the sparse layout."""
    from caloforge.simulate import simulate

    path = tmp_path_factory.mktemp("sparse") / "sparse.h5"
    return simulate("atlas-em-barrel", 200, engine="gflash", seed=2, output=path, layout="sparse")


def test_simulate(run: Run, tmp_path: Path) -> None:
    for layout in ("dense", "sparse"):
        run("simulate", "atlas-em-barrel", *BEAM, "--layout", layout, "-o", tmp_path / f"{layout}.h5")
    dense, sparse = (read_showers(tmp_path / f"{layout}.h5") for layout in ("dense", "sparse"))
    assert dense.cells.tobytes() == sparse.cells.tobytes()
    assert dense.conditions.keys() == sparse.conditions.keys()
    assert (dense.seed, dense.source, dense.particle) == (sparse.seed, sparse.source, sparse.particle)
    assert dense.attributes.keys() == sparse.attributes.keys()
    with h5py.File(tmp_path / "dense.h5") as a, h5py.File(tmp_path / "sparse.h5") as b:
        assert (is_sparse(a), is_sparse(b)) == (False, True)


def test_verbs_read_it(run: Run, sparse_file: Path, tmp_path: Path) -> None:
    run("view", sparse_file, "--event", 3, "-o", tmp_path / "x.html")
    run("train", "vae", sparse_file, "-o", tmp_path / "run", "--set", "epochs=1")
    like = ("--like", sparse_file, "-n", 50)
    for layout in ("dense", "sparse"):
        run("generate", tmp_path / "run", *like, "--layout", layout, "-o", tmp_path / f"{layout}.h5")
    dense, sparse = (read_showers(tmp_path / f"{layout}.h5") for layout in ("dense", "sparse"))
    assert dense.cells.tobytes() == sparse.cells.tobytes()
    np.testing.assert_array_equal(dense.seen, sparse.seen)
    assert len(sparse.seen)
    assert dense.attributes == sparse.attributes


def test_unknown_layout(refused: Run, tmp_path: Path) -> None:
    for command in (("simulate", "atlas-em-barrel", *BEAM), GENERATE):
        line = refused(*command, "--layout", "packed", "-o", tmp_path / "x.h5")
        assert "unknown layout 'packed'; known: dense, sparse" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("num_points", 10_000, "expected 0 to"),
        ("showers", np.nan, "has the energy nan"),
    ],
)
def test_damage_is_one_line(
    name: str, value: float, text: str, refused: Run, sparse_file: Path, showers_file: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(sparse_file.read_bytes())
    with h5py.File(wrong, "r+") as file:
        rows = np.array(file[name][3])
        rows[(0, 3) if rows.ndim else ()] = value
        file[name][3] = rows
    line = refused("validate", showers_file, wrong, "-o", tmp_path / "report")
    assert f"{wrong}: dataset '{name}', row 3: " in line
    assert text in line


def test_a_file_that_names_no_detector(refused: Run, run: Run, sparse_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    path.write_bytes(sparse_file.read_bytes())
    with h5py.File(path, "r+") as file:
        for name in file.attrs:
            del file.attrs[name]
        for name in set(file) - {
            "showers",
            "energies",
            "directions",
            "pdg",
            "shower_ids",
            "shape",
            "num_points",
            "conditions",
        }:
            del file[name]
    assert "--detector" in refused("view", path, "-o", tmp_path / "x.html")
    run("view", path, "--detector", "atlas-em-barrel", "-o", tmp_path / "x.html")
