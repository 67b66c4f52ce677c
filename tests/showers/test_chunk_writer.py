"""Overlapped writing: bytes as HDF5's filters make them, bounded memory, and failures that leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import WriteError
from caloforge.showers import ShowerWriter, SparseShowers, write_showers
from caloforge.showers.chunks import ChunkStream, DenseStore, thread_count

LAYOUTS = pytest.mark.parametrize("layout", ["dense", "sparse"])


def test_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, threads in ((1, 1), (2, 1), (5, 4), (16, 8), (None, 1)):
        monkeypatch.setattr("os.process_cpu_count", lambda number=processors: number, raising=False)
        assert thread_count() == threads
    monkeypatch.delattr("os.process_cpu_count")
    assert 1 <= thread_count() <= 8


@LAYOUTS
def test_hdf5_unpacks_the_chunks_with_its_own_filters(make, tmp_path: Path, layout: str) -> None:
    path = make(300).save(tmp_path / "s.h5", layout=layout)
    with h5py.File(path) as file:
        found = file["showers"]
        filters = found.id.get_create_plist()
        assert [filters.get_filter(number)[3] for number in range(filters.get_nfilters())] == [
            b"shuffle",
            b"deflate",
        ]
        assert {found.id.get_chunk_info(i).filter_mask for i in range(found.id.get_num_chunks())} == {0}
        values, options = found[:], {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        with h5py.File(tmp_path / "copy.h5", "w") as copy:
            own = copy.create_dataset(
                "x", found.shape, found.dtype, maxshape=(None, None), chunks=found.chunks, **options
            )
            own[:] = values
            np.testing.assert_array_equal(own[:], values)
            assert np.count_nonzero(values)


def test_packing_against_the_filter_of_hdf5(make, tmp_path: Path) -> None:
    """The bytes of a dense file's chunks are those that HDF5 itself writes."""
    showers = make(300)
    with h5py.File(showers.save(tmp_path / "s.h5")) as file, h5py.File(tmp_path / "copy.h5", "w") as copy:
        found = file["showers"]
        copy.create_dataset(
            "x", data=showers.cells, maxshape=(None, 60), chunks=found.chunks, compression=1, shuffle=True
        )
        for number in range(found.id.get_num_chunks()):
            place = found.id.get_chunk_info(number).chunk_offset
            assert found.id.read_direct_chunk(place) == copy["x"].id.read_direct_chunk(place)


@LAYOUTS
def test_an_exception_of_the_maker_of_showers(make, tmp_path: Path, layout: str) -> None:
    def batches():
        yield from make(2000).chunks(100)
        raise ValueError("no more")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no more"):
        write_showers(tmp_path / "s.h5", batches(), layout=layout)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


@LAYOUTS
@pytest.mark.parametrize("place", ["_pack", "_compress", "_write"])
def test_an_exception_in_a_thread(
    make, tmp_path: Path, layout: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no memory for a chunk")

    if place == "_compress":
        monkeypatch.setattr("zlib.compressobj", broken)
    elif place == "_pack":
        monkeypatch.setattr("caloforge.showers.chunks._shuffled", broken)
    else:
        monkeypatch.setattr("caloforge.showers.chunks.hdf5.create_column", broken)
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no memory for a chunk"):
        write_showers(tmp_path / "s.h5", make(5000).chunks(500), layout=layout)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_a_failure_of_hdf5_in_the_writing_thread(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("something in HDF5")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", broken)
    for layout in ("dense", "sparse"):
        with pytest.raises(WriteError, match="writing failed, nothing was kept: something in HDF5"):
            make(5).save(tmp_path / "s.h5", layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_holds_the_maker_up(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands that wait for the disk are few, whatever the number of batches."""
    go, waiting = threading.Event(), []
    submit, pack = ChunkStream.submit, DenseStore._pack
    monkeypatch.setattr(ChunkStream, "submit", lambda *args: waiting.append(1) or submit(*args))
    monkeypatch.setattr(DenseStore, "_pack", lambda *args: go.wait(5) and pack(*args))
    monkeypatch.setattr("caloforge.showers.hdf5.CHUNK_BYTES", 60 * 4)
    showers = make(100)
    thread = threading.Thread(target=write_showers, args=(tmp_path / "s.h5", showers))
    thread.start()
    time.sleep(0.3)
    assert 1 <= len(waiting) <= 3 * thread_count() + 1
    go.set()
    thread.join()
    assert len(waiting) == 100


INTERRUPTED = """
import signal
import sys
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from caloforge.showers import Showers, ShowerWriter
rng = np.random.default_rng(0)
cells = rng.random((200, 27000), np.float32) * (rng.random((200, 27000)) < 0.05)
batch = Showers("ild-ecal", cells, np.ones(200))
try:
    with ShowerWriter(sys.argv[1], "ild-ecal", layout=sys.argv[2], threads=3) as writer:
        print("writing", flush=True)
        while True:
            writer.append(batch)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@LAYOUTS
def test_ctrl_c_in_the_middle(tmp_path: Path, layout: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "s.h5"), layout],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "writing\n"
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "interrupted\n", "")
    assert list(tmp_path.iterdir()) == []


def test_appending_does_not_wait_for_the_disk(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch can be made while HDF5 is busy."""
    busy, go = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        busy.set()
        go.wait(5)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", slow)
    for layout in ("dense", "sparse"):
        busy.clear()
        go.clear()
        with ShowerWriter(tmp_path / f"{layout}.h5", make(1).detector, layout=layout) as writer:
            writer.append(make(5))
            writer.append(SparseShowers.from_dense(make(5)))
            assert busy.wait(5)
            assert len(writer) == 10
            go.set()
