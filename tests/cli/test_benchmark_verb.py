"""``caloforge benchmark`` on the command line, and the pages that show the published one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("--threads", "1", "--geant4", "0", "--seconds", "0.05", "--device", "cpu")


def _measured(request: dict[str, Any], _: Path) -> dict[str, Any]:
    """Return what a measuring process answers."""
    times = {"wall_ms": 2.0, "wall_uncertainty": 0.1, "cpu_ms": 1.0, "cpu_uncertainty": None, "repeats": 2}
    first = {"wall_ms": 3.0, "cpu_ms": 2.0, "showers": 1, "from_loading": {"wall_ms": 5.0, "cpu_ms": 4.0}}
    showers = request.get("batch", 100)
    sizes = {"showers": showers, "bytes_per_shower": 9.0, "peak_mb": 1.0, "peak_file_mb": 1.0}
    return {"memory": times, "file": times, "first_call": first, "load": first, **sizes}


def test_the_verb_writes_json_page_and_figures(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("caloforge.benchmark"), "in_new_process", _measured)
    command = ("benchmark", "atlas-photon/vae", *QUICK, "-o", tmp_path / "out")
    result = run(*command, "--json")
    found = json.loads(result.stdout)
    assert [entry["batch"] for entry in found["models"][0]["measurements"]] == [1, 100, 10_000]
    assert found["command"].startswith(
        "caloforge benchmark atlas-photon/vae --threads 1 --device cpu --geant4 0"
    )
    assert {"benchmark.json", "report.html", "figures"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert "batch 10,000: not measured: a call takes about 20 s" in result.stderr
    again = run(*command)
    assert "atlas-photon/vae" in again.stdout
    assert "benchmark.json" in again.stdout


def test_bad_options_are_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "batch 'few'" in refused("benchmark", "atlas-photon/vae", *QUICK, "--batch", "few", *out)
    assert "no-such" in refused("benchmark", "no-such", *QUICK, *out)
    assert "unit" in refused("benchmark", "atlas-photon/vae", *QUICK, "--energy", "50", *out)
    assert not (tmp_path / "out").exists()


def test_the_pages_show_the_published_benchmark() -> None:
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "scripts" / "models_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    present = [path.read_text() for path in (script.MODELS, script.README, script.BENCHMARK)]
    published = (json.loads(path.read_text()) for path in (script.PUBLISHED, script.ON_GPU))
    assert list(script.pages(*published, *present[1:])) == present
