"""What ships: the sample, the version, the names at the top, the files around the package."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

import numpy as np
import pytest

import caloforge
from caloforge.data import sample_path
from caloforge.geometry import load_detector
from caloforge.showers import open_showers

REPOSITORY = Path(__file__).parents[1]


def test_the_version_is_one() -> None:
    assert version("caloforge") == caloforge.__version__
    assert f"version: {caloforge.__version__}" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"## {caloforge.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_every_public_name_resolves() -> None:
    for name in caloforge.__all__:
        assert getattr(caloforge, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = caloforge.no_such_name


def test_a_verb_is_a_package_and_a_function() -> None:
    for name in ("simulate", "train", "validate"):
        package = import_module(f"caloforge.{name}")
        for verb in (package, getattr(caloforge, name), getattr(caloforge, name)):
            assert callable(verb)
    assert len(caloforge.simulate("atlas-em-barrel", n=3, energy="5GeV", engine="gflash")) == 3
    assert "gflash" in import_module("caloforge.simulate").ENGINES


def test_the_script_is_installed() -> None:
    (point,) = entry_points(group="console_scripts", name="caloforge")
    assert point.value == "caloforge.cli.app:main"


def test_the_sample_is_small_and_what_it_says() -> None:
    path = sample_path()
    assert path.stat().st_size <= 3_000_000
    with open_showers(path) as file:
        assert (file.detector.name, file.particle, file.source) == ("atlas-em-barrel", "gamma", "geant4")
        assert {"geant4_version", "physics_list", "production_cut_mm", "cpu_seconds_per_shower"} <= set(
            file.attributes
        )
        showers = file[:]
    assert len(showers) == 4800
    levels = np.unique(showers.incident_energy)
    assert levels == pytest.approx(1024.0 * 2.0 ** np.arange(9))
    response = showers.visible_energy / showers.incident_energy
    assert response.mean() == pytest.approx(showers.detector.sampling_fraction, rel=0.05)


def test_the_citation_is_in_the_wheel() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["force-include"] == {"CITATION.cff": "caloforge/CITATION.cff"}


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(one for some in project["optional-dependencies"].values() for one in some),
    ]
    names = {re.split(r"[<>=\[;]", one)[0].lower().replace("_", "-") for one in wanted}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert names <= pinned | {"caloforge"}


def test_links_between_the_pages_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_detector_in_the_documentation_loads(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "detectors.md").read_text()
    block = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    path = tmp_path / "my-ecal.toml"
    path.write_text(block)
    detector = load_detector(path)
    assert detector.shape == (20, 20, 15)
    assert detector.simulable


def test_the_tree_is_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {
        name: (REPOSITORY / name).stat().st_size
        for name in listed.stdout.split("\0")
        if (REPOSITORY / name).is_file()
    }
    assert max(sizes.values()) < 10_000_000
    assert sum(sizes.values()) < 100_000_000
    assert sum(size for name, size in sizes.items() if name.endswith(".safetensors")) < 60_000_000
