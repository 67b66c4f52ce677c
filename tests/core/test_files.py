"""Outputs are whole or not there. The digest of source code changes with any line of it, and only then."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

import caloforge.files as provenance
from caloforge.errors import OutputError, OutputExistsError, WriteError
from caloforge.files import atomic_path, check_output, ensure_output_dir, sha256_file, write_json


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
    with pytest.raises(OutputExistsError, match="--force"):
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
