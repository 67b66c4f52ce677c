"""Toy models in the registry for the time of a test, and a file of toy showers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from caloforge.models import MODELS

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from toys import register

    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    register()
    return


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toys import toy_showers

    return toy_showers().save(tmp_path_factory.mktemp("toys") / "toys.h5")
