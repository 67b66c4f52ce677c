"""What the tests of studies share: images of gflash, whose truth is as large as one likes, a tiny model, light figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from caloforge.showers import write_showers
from caloforge.showers.views import ProjectedShowers
from caloforge.simulate import simulate
from caloforge.studies import page
from caloforge.train import train

_WHOLE = {name: getattr(page, name) for name in ("_PAGE_DPI", "_OPTIONS", "small_picture")}


@pytest.fixture(scope="session", autouse=True)
def light_figures() -> Iterator[None]:
    """Write figures as PNG of few dots: drawing takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_PAGE_DPI", 30)
        patch.setattr(page, "_OPTIONS", {"png": {"dpi": 40}})
        patch.setattr(page, "small_picture", lambda picture: picture)
        yield


@pytest.fixture
def whole_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write figures as users get them."""
    for name, value in _WHOLE.items():
        monkeypatch.setattr(page, name, value)


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder, called "tiny", of a small VAE of ATLAS showers."""
    folder = tmp_path_factory.mktemp("model")
    data = simulate("atlas-em-barrel", 300, engine="gflash", seed=5, output=folder / "data.h5")
    options = ("epochs=1", "latent=4", "hidden=[8]")
    return train("vae", data, folder / "tiny", overrides=options, device="cpu", seed=1)


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
