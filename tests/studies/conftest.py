"""Parametrised showers whose truth is as large as one likes: images of gflash, in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from caloforge.showers import write_showers
from caloforge.showers.views import ProjectedShowers
from caloforge.simulate import simulate


@pytest.fixture(scope="session")
def gflash_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 1,600 images of 50 GeV photons."""
    return _images(tmp_path_factory.mktemp("images") / "truth.h5", 1600, seed=1)


@pytest.fixture(scope="session")
def other_images(gflash_images: Path) -> Path:
    """Return 800 further images of the same truth."""
    return _images(gflash_images.parent / "same.h5", 800, seed=2)


def _images(path: Path, n: int, seed: int) -> Path:
    showers = simulate("ild-ecal", n, energy="50GeV", engine="gflash", seed=seed)
    return write_showers(path, ProjectedShowers(showers, "ild-ecal-10x10"))
