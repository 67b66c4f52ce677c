"""What a user installs: sdist and wheel in a fresh environment, with a package beside it that adds a part of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
MEGABYTE = 1_000_000


def built(project: Path, folder: Path) -> list[Path]:
    """Return sdist and wheel of a project, made with the build backend of this environment."""
    code = (
        "import os, sys; from hatchling import build; os.chdir(sys.argv[1]); "
        "build.build_sdist(sys.argv[2]); build.build_wheel(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(project), str(folder)], check=True, capture_output=True)
    return [next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))]


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return built(REPOSITORY, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def fresh(distribution: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a fresh environment with both wheels and, behind them, the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("fresh")
    plugin = built(Path(__file__).with_name("plugin"), tmp_path_factory.mktemp("plugin"))[1]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", str(distribution[1]), str(plugin)],
        check=True,
        capture_output=True,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_distributions_hold_what_a_user_needs_and_are_small(distribution: list[Path]) -> None:
    source, wheel = distribution
    assert wheel.stat().st_size < 80 * MEGABYTE
    assert source.stat().st_size < 100 * MEGABYTE
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "caloforge/zoo/atlas-photon/vae.safetensors" in names
    assert any(name.startswith("caloforge/data/") and name.endswith(".h5") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "caloforge/py.typed" in names
    assert not [name for name in names if not name.startswith(("caloforge/", "caloforge-"))]
    with tarfile.open(source) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "tests/conftest.py",
    } <= inside


SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import caloforge
from caloforge.cli.app import main

FOLDER = Path(sys.argv[1])

def run(*words):
    sys.argv = ["caloforge", *map(str, words)]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    if code:
        raise SystemExit(f"{words}: exit code {code}")

print(Path(caloforge.__file__).parents[1])
import caloforge.validate.report.build as build

drawing = build.Drawing
build.Drawing = lambda figures, folder: drawing(figures[:1], folder)  # one figure: others are tested elsewhere
folder = FOLDER
for verb in ("detectors", "models"):
    run(verb)
run("detectors", "ten-layers")
run("simulate", "ten-layers", "--engine", "gflash", "-n", 200, "--energy", "5GeV", "--seed", 1, "-o", folder / "a.h5")
run("simulate", "ten-layers", "--engine", "gflash", "-n", 120, "--energy", "5GeV", "--seed", 2, "-o", folder / "truth.h5")
run("train", "mean-shower", folder / "a.h5", "-o", folder / "run", "--device", "cpu", "--no-report")
run("generate", folder / "run", "--like", folder / "truth.h5", "-o", folder / "fake.h5")
run("validate", folder / "truth.h5", folder / "fake.h5", "-o", folder / "report", "--quick")
with caloforge.showers.open_showers(folder / "fake.h5") as file:
    fake = file[:]
np.savetxt(folder / "fake.txt", np.column_stack([fake.incident_energy.ravel() / 1000, fake.cells]), fmt="%.9g")
run("convert", folder / "fake.txt", folder / "back.h5", "--detector", "ten-layers")
with caloforge.showers.open_showers(folder / "back.h5") as file:
    np.testing.assert_array_equal(file[:].cells, fake.cells)
run("generate", "atlas-photon/vae", "-n", 5, "--energy", "65GeV", "-o", folder / "atlas.h5")
"""


def test_parts_of_another_package_work_in_every_verb(fresh: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(fresh), "-c", SCRIPT, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == str(next(fresh.parents[1].glob("lib/python*/site-packages")))
    for name in ("ten-layers", "mean-shower"):
        assert name in done.stdout
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert "mean_shift" in json.dumps(metrics)
    assert "peak_share" in json.dumps(metrics)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Shift of the mean" in page
    assert "highest cell energy / visible energy" in page
