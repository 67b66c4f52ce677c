"""``caloforge benchmark`` on the command line, and the pages that show the published one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = ("--threads", "1", "--geant4", "0", "--seconds", "0.05", "--device", "cpu")


def test_the_verb_writes_json_page_and_figures(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run("benchmark", "atlas-photon/vae", *QUICK, "--batch", "100", "-o", tmp_path / "out", "--json")
    found = json.loads(result.stdout)
    assert found["models"][0]["measurements"][0]["batch"] == 100
    assert found["command"].startswith("caloforge benchmark atlas-photon/vae --batch 100 --threads 1")
    assert {"benchmark.json", "report.html", "figures"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


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
    readme = (ROOT / "README.md").read_text()
    page, text = script.pages(json.loads(script.PUBLISHED.read_text()), readme)
    assert page == (ROOT / "docs" / "models.md").read_text()
    assert text == readme
