"""Hits in memory: the same showers as their cells, and wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comparison import assert_same
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caloforge.errors import FileFormatError, InputError
from caloforge.showers import Hits, SparseShowers, read_showers, write_showers


@given(hnp.arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.5, 3.0])))
def test_hits_against_a_loop(cells: np.ndarray) -> None:
    hits = Hits.from_cells(cells)
    expected = [(row, cell, cells[row, cell]) for row in range(4) for cell in range(6) if cells[row, cell]]
    assert list(zip(hits.shower, hits.cell, hits.energy, strict=True)) == expected
    np.testing.assert_array_equal(hits.to_cells(6), cells)
    np.testing.assert_array_equal(hits[1:3].to_cells(6), cells[1:3])
    np.testing.assert_array_equal(Hits.concatenate([hits[:1], hits[1:]]).to_cells(6), cells)
    assert hits.check(6) is None


@pytest.mark.parametrize(
    ("cell", "energy", "message"),
    [
        ([1, 3, 9], [1, 1, 1], "row 11: a hit is in cell 9; expected 0 to 5"),
        ([1, 3, -1], [1, 1, 1], "row 11: a hit is in cell -1"),
        ([3, 3, 1], [1, 1, 1], "row 10: cell 3 comes after cell 3; expected each cell once, in order"),
        ([3, 1, 1], [1, 1, 1], "row 10: cell 1 comes after cell 3"),
        ([1, 3, 2], [1, 0, 1], "row 10: cell 3 is 0; expected a finite energy in MeV above zero"),
        ([1, 3, 2], [1, 1, np.nan], "row 11: cell 2 is nan"),
        ([1, 3, 2], [-2, np.inf, 1], "row 10: cell 1 is -2"),
    ],
)
def test_wrong_hits_are_not_written(
    cell: list[int], energy: list[float], message: str, tmp_path: Path
) -> None:
    hits = Hits(cell, energy, [0, 2, 3])  # type: ignore[arg-type]
    fault = hits.check(6, first_row=10)
    assert fault is not None
    assert message in f"{fault.where}: {fault.message}"
    hits = Hits(np.where(hits.cell == 9, 90000, hits.cell), hits.energy, hits.offsets)
    for layout in ("dense", "sparse"):
        with pytest.raises(FileFormatError, match="not written"):
            write_showers(tmp_path / "s.h5", [SparseShowers("ild-ecal", hits, [1, 1])], layout=layout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offsets", [[1, 3], [0, 2, 1, 3], [0, 2], [[0, 3]], []])
def test_offsets_that_do_not_fit(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="hits"):
        Hits([1, 2, 3], [1, 1, 1], offsets)  # type: ignore[arg-type]


def test_sparse_showers_are_the_dense_ones(make) -> None:
    showers = make(7)
    sparse = SparseShowers.from_dense(showers)
    assert len(sparse) == 7
    assert_same(sparse.to_dense(), showers)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_hits_are_written_as_showers_are(make, tmp_path: Path, layout: str) -> None:
    showers = make(90)
    path = write_showers(tmp_path / "s.h5", SparseShowers.from_dense(showers), layout=layout)
    assert_same(read_showers(path), showers)
