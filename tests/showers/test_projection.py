from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import IncompatibleError
from caloforge.showers import Showers, open_showers, read_showers, write_showers
from caloforge.showers.views import ProjectedShowers, project_showers


def _showers(n: int = 5) -> Showers:
    cells = np.random.default_rng(0).exponential(size=(n, 27_000)).astype(np.float32)
    cells[cells < 3.0] = 0.0
    return Showers(
        "ild-ecal", cells, np.full(n, 5e4), particle="gamma", source="geant4", seed=4, attributes={"a": 1}
    )


def test_a_pixel_is_the_sum_of_nine_columns() -> None:
    showers = _showers(3)
    image = project_showers(showers, "ild-ecal-10x10")
    slow = np.zeros((3, 10, 10))
    for ix in range(30):
        for iy in range(30):
            slow[:, ix // 3, iy // 3] += showers.grid()[:, ix, iy].sum(1, dtype=np.float64)
    np.testing.assert_allclose(image.grid()[..., 0], slow, rtol=1e-6)
    assert (image.detector.name, image.particle, image.source, image.seed) == (
        "ild-ecal-10x10",
        "gamma",
        "geant4",
        4,
    )
    assert image.attributes == {"a": 1}
    np.testing.assert_array_equal(image.incident_energy, showers.incident_energy)


def test_a_file_is_projected_piece_by_piece(tmp_path: Path) -> None:
    path = write_showers(tmp_path / "showers.h5", _showers())
    with open_showers(path) as source:
        written = write_showers(tmp_path / "images.h5", ProjectedShowers(source, "ild-ecal-10x10"))
    np.testing.assert_array_equal(
        read_showers(written).cells, project_showers(_showers(), "ild-ecal-10x10").cells
    )


def test_the_verb_writes_the_file(tmp_path: Path) -> None:
    write_showers(tmp_path / "showers.h5", _showers())
    command = ["project", str(tmp_path / "showers.h5"), "-o", str(tmp_path / "images.h5")]
    assert CliRunner().invoke(app, command).exit_code == 0
    images = read_showers(tmp_path / "images.h5")
    assert images.detector.name == "ild-ecal-10x10"
    np.testing.assert_allclose(images.visible_energy, _showers().visible_energy, rtol=1e-5)


def test_no_showers_are_no_images_and_other_detectors_are_refused() -> None:
    assert len(project_showers(_showers(0), "ild-ecal-10x10")) == 0
    atlas = Showers("atlas-em-barrel", np.zeros((1, 266), np.float32), [1e4])
    with pytest.raises(IncompatibleError, match="cannot be projected"):
        project_showers(atlas, "ild-ecal-10x10")
