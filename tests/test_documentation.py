"""The examples of the documentation run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.formats import FORMATS, read
from caloforge.geometry import DETECTORS
from caloforge.models import MODELS
from caloforge.validate.metrics.base import METRICS
from caloforge.validate.observables import OBSERVABLES

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"


def _execute(page: Path) -> dict[str, Any]:
    """Run the Python of a page, block after block, and return its names."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget afterwards what an example registered."""
    kept = [
        (registry, dict(registry._entries)) for registry in (MODELS, METRICS, OBSERVABLES, DETECTORS, FORMATS)
    ]
    yield
    for registry, entries in kept:
        registry._entries = entries


def test_the_detectors_of_the_pages(tmp_path: Path) -> None:
    from caloforge.cli.app import app
    from caloforge.geometry import load_detector

    page = (DOCS / "detectors.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    made = {}
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        detector = load_detector(path)
        made[detector.name] = path, detector
    assert list(made) == ["my-ecal", "lead-scintillator", "tungsten-mesh", "cells-only"]
    assert [detector.simulable for _, detector in made.values()] == [True, True, True, False]
    shown = CliRunner().invoke(app, ["detectors", str(made["lead-scintillator"][0])]).output
    printed = page.split("The first prints, among others:")[1].split("```")[1]
    for line in printed.strip().splitlines():
        assert line.strip() in shown


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
def test_the_python_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = _execute(DOCS / "python.md")
    assert len(names["fake"]) == len(names["truth"]) == 300
    assert (tmp_path / "runs" / "vae" / "weights.safetensors").exists()


@pytest.mark.usefixtures("registries")
def test_the_extending_page(tmp_path: Path) -> None:
    import caloforge as cf
    from caloforge.validate import Settings
    from caloforge.validate.sample import Sample

    _execute(DOCS / "extending.md")
    showers = cf.simulate("atlas-em-barrel", n=200, energy="20GeV", engine="gflash")
    thin = cf.simulate("thin-ecal", n=3, engine="gflash")
    assert thin.cells.shape == (3, 810)
    assert (thin.visible_energy > 0).all()
    showers.save(tmp_path / "showers.h5")
    sample = Sample(showers, "gflash")
    assert sample.observables["peak_share"] == pytest.approx(
        showers.cells.max(1) / showers.visible_energy, rel=1e-5
    )
    value = METRICS["mean_shift"]().compute(sample, Sample(showers[:100], "half"), Settings())["mean_shift"]
    assert abs(value.value) < 5 * value.uncertainty
    lines = np.column_stack([showers.incident_energy / 1e3, showers.cells])
    np.savetxt(tmp_path / "showers.txt", lines, fmt="%.9g")
    np.testing.assert_array_equal(
        read(tmp_path / "showers.txt", detector=showers.detector).cells, showers.cells
    )
    settings = ["epochs=300", "validate_every=100"]
    run = cf.train("mean", tmp_path / "showers.h5", tmp_path / "run", overrides=settings, device="cpu")
    made = cf.load(run, device="cpu").generate(like=showers)
    assert made.cells.mean() == pytest.approx(showers.cells.mean(), rel=0.2)


def test_every_command_of_the_pages_is_understood() -> None:
    """Each verb and option that a page shows exists; nothing is run."""
    from caloforge.cli.app import app

    helped: dict[str, str] = {}
    for page in (REPOSITORY / "README.md", *DOCS.rglob("*.md")):
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL):
            for line in re.findall(r"^caloforge .*$", block, re.MULTILINE):
                words = shlex.split(line, comments=True)
                verb = words[1]
                if verb not in helped:
                    result = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
                    assert result.exit_code == 0, line
                    helped[verb] = result.stdout
                for word in words[2:]:
                    if word.startswith("-"):
                        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", helped[verb]), (
                            f"{page.name}: {line}"
                        )
    assert {"simulate", "train", "generate", "validate", "view", "detectors"} <= set(helped)
