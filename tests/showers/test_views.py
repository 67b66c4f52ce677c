"""Views of sources: each is read like the showers that it stands for; projected showers are the sums of the cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import IncompatibleError
from caloforge.showers import Showers, ShowerSource, open_showers, read_showers, write_showers
from caloforge.showers.views import JoinedShowers, ProjectedShowers, Selection, SourceView, project_showers


def _showers(n: int = 5) -> Showers:
    cells = np.random.default_rng(0).exponential(size=(n, 27_000)).astype(np.float32)
    cells[cells < 3.0] = 0.0
    return Showers(
        "ild-ecal", cells, np.full(n, 5e4), particle="gamma", source="geant4", seed=4, attributes={"a": 1}
    )


def _views(make) -> dict[str, tuple[SourceView, Showers]]:
    """Views, each with the showers that it stands for."""
    showers, rows = make(23), np.array([1, 4, 5, 9, 20])
    return {
        "plain": (SourceView(showers), showers),
        "selected": (Selection(showers, rows), showers.take(rows)),
        "joined": (JoinedShowers([showers[:9], showers[9:11], showers[11:]]), showers),
        "mixed": (
            JoinedShowers([showers[:9], showers[9:].replace(source="other", incident_theta=None)]),
            Showers.concatenate([showers[:9], showers[9:].replace(source="other", incident_theta=None)]),
        ),
        "projected": (ProjectedShowers(_showers(4), "ild-ecal-10x10"), project_showers(_showers(4), "ild-ecal-10x10")),
        "selection of projected": (
            Selection(ProjectedShowers(_showers(4), "ild-ecal-10x10"), np.array([0, 3])),
            project_showers(_showers(4), "ild-ecal-10x10")[[0, 3]],
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["plain", "selected", "joined", "mixed", "projected", "selection of projected"]
)
def test_a_view_is_a_source_like_its_showers(make, name: str) -> None:
    view, direct = _views(make)[name]
    assert isinstance(view, ShowerSource)
    assert len(view) == len(direct)
    assert set(view.condition_names) == set(direct.condition_names)
    for fact in ("detector", "particle", "source", "has_theta", "attributes"):
        assert getattr(view, fact) == getattr(direct, fact), fact
    for condition in ("incident_energy", "incident_theta", *direct.condition_names):
        np.testing.assert_array_equal(view.condition(condition), direct.condition(condition))
    np.testing.assert_array_equal(view.incident_energy, direct.incident_energy)
    np.testing.assert_array_equal(view.incident_theta, direct.incident_theta)
    for size in (3, None):
        np.testing.assert_array_equal(
            np.concatenate([part.cells for part in view.chunks(size)]), direct.cells
        )
    mask = direct.incident_energy > np.median(direct.incident_energy)
    for index in (slice(None), slice(1, 3), 1, [1, 0], mask):
        np.testing.assert_array_equal(view[index].cells, direct[index].cells)
    np.testing.assert_array_equal(view.take([1, 0]).incident_energy, direct.take([1, 0]).incident_energy)


def test_joining_refuses_other_detectors_and_conditions(make) -> None:
    with pytest.raises(IncompatibleError, match="'ild-ecal' cannot be joined to those of 'toy'"):
        JoinedShowers([make(2), _showers(1)])
    with pytest.raises(IncompatibleError, match="cannot be joined to those with"):
        JoinedShowers([make(2), make(2, conditions={})])


def test_one_joined_source_has_its_seed_several_have_none(make) -> None:
    assert JoinedShowers([make(2)]).seed == 7
    assert JoinedShowers([make(2), make(2)]).seed is None
    assert len(JoinedShowers([make(2), make(2)]).take([])) == 0


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
