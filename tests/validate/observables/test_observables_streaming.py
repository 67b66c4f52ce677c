"""One pass in chunks: the same for any chunk, errors handed on, subsets are rows, spectra are counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_up import sparse_showers

from caloforge.errors import InputError, TooFewShowersError, UnknownNameError
from caloforge.showers import Showers, open_showers
from caloforge.validate.observables import (
    OBSERVABLES,
    SPECTRUM_EDGES,
    Observable,
    ShowerBatch,
    cell_statistics,
    observe,
    streaming,
)
from caloforge.validate.observables.streaming import prefetch


@pytest.fixture(scope="module")
def showers() -> Showers:
    return sparse_showers("clic-ecal", n=23, hits=200)


@pytest.mark.parametrize("size", [1, 4, 23, 100])
def test_chunks_make_no_difference(showers: Showers, size: int) -> None:
    whole, parts = observe(showers), observe(showers, chunk_size=size)
    assert parts.names == whole.names
    for name in whole.names:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(parts.cells.mean, whole.cells.mean)
    np.testing.assert_allclose(parts.cells.std, whole.cells.std, atol=1e-12)


def test_filled_showers_are_cut_into_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_MOST_HITS", 1000)
    rng = np.random.default_rng(0)
    filled = sparse_showers("ild-ecal-10x10", n=300).replace(cells=rng.random((300, 100)) + 0.1)
    sizes = [batch.n for batch in streaming.batches(filled.chunks(150))]
    assert sum(sizes) == 300
    assert max(sizes) <= 10
    sparse = filled.replace(cells=np.where(rng.random((300, 100)) < 0.02, filled.cells, 0))
    assert len(list(streaming.batches(sparse.chunks(150)))) < 12


def test_a_file_gives_the_same_as_memory(showers: Showers, tmp_path: Path) -> None:
    path = showers.save(tmp_path / "showers.h5")
    with open_showers(path) as file:
        table = observe(file, chunk_size=5)
    expected = observe(showers)
    for name in expected.names:
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-12, atol=1e-12)


def test_only_what_is_asked_for(showers: Showers) -> None:
    table = observe(showers, ["hits", "layer_energy"])
    assert table.names == ["hits", "layer_energy"]
    with pytest.raises(UnknownNameError, match="no_such"):
        observe(showers, ["no_such"])


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_bad_cells_are_named(showers: Showers, bad: float) -> None:
    cells = showers.cells.copy()
    cells[7, 1234] = bad
    with pytest.raises(InputError, match=r"cell 1234 is"):
        observe(showers.replace(cells=cells))


def test_no_showers(showers: Showers) -> None:
    with pytest.raises(TooFewShowersError):
        observe(showers[:0])


def test_an_error_while_reading_is_raised_and_the_thread_ends(showers: Showers) -> None:
    def broken() -> Iterator[Showers]:
        yield showers[:2]
        msg = "the disk is gone"
        raise OSError(msg)

    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetch(broken()))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read showers")]


def test_leaving_early_stops_the_reading(showers: Showers) -> None:
    read = []

    def endless() -> Iterator[Showers]:
        while True:
            read.append(1)
            yield showers[:1]

    chunks = prefetch(endless())
    next(chunks)
    chunks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read showers")]
    assert len(read) < 10


def test_rows_of_a_table(showers: Showers) -> None:
    table = observe(showers)
    rows = np.array([1, 5, 11])
    some, direct = table.take(rows), observe(showers[rows])
    for name in table.names:
        np.testing.assert_allclose(some[name], direct[name], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(some.incident_energy, showers.incident_energy[rows])
    with pytest.raises(InputError, match="Sample"):
        _ = some.cells.mean
    assert len(table.take(table["hits"] > 0)) == (table["hits"] > 0).sum()


def test_spectra_count_everything() -> None:
    showers = sparse_showers("ild-ecal-10x10", n=4, hits=50)
    cells = showers.cells.copy()
    cells[0, 0], cells[1, 1] = 1e-5, 2e6
    spectrum = observe(showers.replace(cells=cells)).histograms["cell_spectrum"]
    energies = cells[cells > 0]
    expected, _ = np.histogram(energies, SPECTRUM_EDGES)
    np.testing.assert_array_equal(spectrum.counts, expected)
    assert spectrum.underflow == (energies < 1e-3).sum() > 0
    assert spectrum.overflow == 1
    each = np.array([np.histogram(row[row > 0], SPECTRUM_EDGES)[0] for row in cells], float)
    np.testing.assert_allclose(spectrum.errors, each.std(axis=0) * np.sqrt(len(cells)), atol=1e-9)


def test_cell_statistics_alone(showers: Showers) -> None:
    table, alone = observe(showers, cut=0.2), cell_statistics(showers, cut=0.2, chunk_size=6)
    np.testing.assert_allclose(alone.mean, table.cells.mean)
    np.testing.assert_allclose(alone.std, table.cells.std, atol=1e-12)
    assert alone.n == len(showers)


def test_ones_own_observable_can_be_registered(showers: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBSERVABLES, "_entries", dict(OBSERVABLES._entries))

    def second(batch: ShowerBatch) -> np.ndarray:
        return np.sort(batch.showers.cells, axis=1)[:, -2]

    OBSERVABLES.register("second_cell", Observable("second_cell", "second highest cell", "MeV", second))
    table = observe(showers)
    np.testing.assert_allclose(table["second_cell"], np.sort(showers.cells, axis=1)[:, -2])
