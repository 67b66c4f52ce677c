"""The digest of source code changes with any line of it, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

import caloforge.provenance as provenance


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
