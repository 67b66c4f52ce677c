"""Outputs are whole or not there. The digest of source code changes with any line of it, and only then."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import caloforge.files as provenance
from caloforge.errors import OutputError, OutputExistsError, WriteError
from caloforge.files import (
    atomic_path,
    check_output,
    ensure_output_dir,
    is_empty,
    lock_folder,
    sha256_file,
    write_json,
)
from caloforge.text_files import read_record


def _interrupted(path: Path, error: Exception) -> None:
    with atomic_path(path) as part:
        part.write_text("half")
        raise error


def test_renamed_when_whole(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as part:
        part.write_text("x")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _interrupted(tmp_path / "a", RuntimeError("stop"))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="no space left"):
        _interrupted(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OutputExistsError, match="force=True"):
        check_output(tmp_path / "a")
    assert check_output(tmp_path / "a", force=True) == tmp_path / "a"
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "none" / "a")
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match="not writable"):
        check_output(tmp_path / "a" / "b")
    with pytest.raises(OutputError, match="cannot be made"):
        ensure_output_dir(tmp_path / "a" / "b")
    with pytest.raises(OutputExistsError):
        ensure_output_dir(tmp_path)
    assert ensure_output_dir(tmp_path, force=True) == tmp_path


@pytest.mark.parametrize("make", [ensure_output_dir, lambda path: lock_folder(path).__enter__()])
def test_a_folder_is_not_made_under_the_name_of_a_file(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    for name in ("report.html", "metrics.JSON", "showers.h5"):
        with pytest.raises(OutputError, match=rf"{name} is the name of a file; expected that of a folder"):
            make(tmp_path / name)
        (tmp_path / name).touch()
        with pytest.raises(OutputError, match="expected that of a folder"):
            make(tmp_path / name)
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 0
    make(tmp_path / "width-0.5")
    (tmp_path / "old.html").mkdir()  # made before, or on purpose: the work in it goes on
    make(tmp_path / "old.html")


def _abandoned(path: Path) -> Path:
    """Leave a temporary file as a killed process does, and return it."""
    script = "import os, sys\nfrom caloforge.files import atomic_path\nwith atomic_path(sys.argv[1]) as part:\n    part.write_text('half')\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    (left,) = path.parent.glob(".*.part")
    return left


def test_what_a_killed_process_left_goes_with_the_next_attempt(tmp_path: Path) -> None:
    left = _abandoned(tmp_path / "a")
    left.with_name(left.name + ".more").write_text("beside it")
    (tmp_path / ".b.0123abcd.part").write_text("of another output")
    with atomic_path(tmp_path / "a") as part:
        part.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.0123abcd.part", "a"]


def test_a_refused_output_is_swept_too(tmp_path: Path) -> None:
    _abandoned(tmp_path / "a")
    (tmp_path / "a").write_text("there")
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_writers_do_not_lose_the_first_result(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_path(path) as part:
        with pytest.raises(OutputError, match="another process is writing"), atomic_path(path):
            pass
        part.write_text("first")
        path.write_text("of one that was not looked for")
        with pytest.raises(OutputExistsError):
            check_output(path)
        path.unlink()
    assert path.read_text() == "first"
    with pytest.raises(OutputExistsError), _meanwhile(path) as part:
        part.write_text("second")
    assert path.read_text() == "meanwhile"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@contextmanager
def _meanwhile(path: Path) -> Iterator[Path]:
    """Yield a temporary file; another one takes its name before it is finished."""
    path.unlink()
    with atomic_path(path) as part:
        yield part
        path.write_text("meanwhile")


def test_a_rename_without_hard_links_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with atomic_path(tmp_path / "a") as part:
        part.write_text("first")
    with pytest.raises(OutputExistsError), _meanwhile(tmp_path / "a") as part:
        part.write_text("second")
    assert (tmp_path / "a").read_text() == "meanwhile"


def test_devices_stay_and_links_are_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OutputError, match="not a regular file"):
            check_output(name, force=True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inner" / "a")
    for text in ("new", "again"):
        with atomic_path(tmp_path / "link", force=True) as part:
            part.write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "inner" / "a").read_text() == text
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "link")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="leads nowhere"):
        check_output(tmp_path / "loop", force=True)


def test_one_process_works_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with lock_folder(folder):
        assert is_empty(folder)
        with pytest.raises(OutputError, match="another run is working"), lock_folder(folder):
            pass
        (folder / "figures").mkdir()
        assert ensure_output_dir(folder) == folder  # folders without files, and locks, are nothing
        _abandoned(folder / "figures" / "a.png")
        assert is_empty(folder)
    with lock_folder(folder):
        assert not list(folder.rglob("*.part"))
        (folder / "x").write_text("x")
    assert not is_empty(folder)
    assert is_empty(folder, ["x"])
    assert not list(folder.glob(".lock"))
    with lock_folder(tmp_path / "nothing"):
        pass
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(OutputExistsError), lock_folder(folder / "x"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    assert read_record(tmp_path / "a.json") is None
    assert read_record(tmp_path / "none.json") is None


def test_json_holds_numpy_and_no_nan(tmp_path: Path) -> None:
    content = {"a": np.float32(1.5), "b": np.array([1, 2]), "c": float("nan"), "d": (tmp_path,)}
    path = write_json(tmp_path / "x.json", content)
    assert json.loads(path.read_text()) == {"a": 1.5, "b": [1, 2], "c": None, "d": [str(tmp_path)]}


def test_hash_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == known


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("A = 1\n")
    (tmp_path / "alone.py").write_text("B = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    provenance.source_digest.cache_clear()
    return tmp_path


def _fresh(*parts: str) -> str:
    provenance.source_digest.cache_clear()
    return provenance.source_digest(*parts)


@pytest.mark.parametrize("changed", ["room/one.py", "alone.py"])
def test_a_changed_line_changes_the_digest(package: Path, changed: str) -> None:
    before = _fresh("room", "alone.py")
    (package / changed).write_text("A = 2\n")
    assert _fresh("room", "alone.py") != before


def test_a_new_module_changes_the_digest_and_other_files_do_not(package: Path) -> None:
    before = _fresh("room")
    (package / "room" / "notes.txt").write_text("not code")
    (package / "alone.py").write_text("B = 3\n")
    assert _fresh("room") == before
    (package / "room" / "two.py").write_text("")
    assert _fresh("room") != before


def test_there_is_no_commit_without_a_checkout(tmp_path: Path) -> None:
    assert provenance.source_commit(tmp_path) is None
