"""The packed images: small, in the project's format, and the same observables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.data import packed_projections
from caloforge.errors import InputError, OutputExistsError
from caloforge.files import sha256_file
from caloforge.showers import open_showers, read_showers, write_showers
from caloforge.showers.views import project_showers
from caloforge.simulate import simulate
from caloforge.studies.amplification.curves import observe_chunks
from caloforge.zoo.packing import STEP, pack_projections

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack_showers.py"


@pytest.fixture(scope="module")
def showers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packing") / "showers.h5"
    return simulate("ild-ecal", 60, energy="50GeV", engine="gflash", seed=8, output=path)


@pytest.fixture(scope="module")
def gflash_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 200 images of 50 GeV photons."""
    images = project_showers(
        simulate("ild-ecal", 200, energy="50GeV", engine="gflash", seed=1), "ild-ecal-10x10"
    )
    return write_showers(tmp_path_factory.mktemp("images") / "truth.h5", images)


def test_packed_images_are_the_projections_to_half_a_step(
    showers: Path, gflash_images: Path, tmp_path: Path
) -> None:
    packed = pack_projections([showers, gflash_images], tmp_path / "packed.h5")
    file = read_showers(packed)
    expected = np.concatenate(
        [project_showers(read_showers(showers), "ild-ecal-10x10").cells, read_showers(gflash_images).cells]
    )
    assert file.detector.name == "ild-ecal-10x10"
    assert np.abs(file.cells - expected).max() <= STEP / 2 * 1.001
    assert np.array_equal(np.round(file.cells / STEP), file.cells / STEP)  # float32 holds the steps exactly
    assert file.attributes["rounded_to_mev"] == STEP
    assert file.attributes["packed_from"] == ["showers.h5", "truth.h5"]
    assert file.attributes["packed_from_sha256"] == [sha256_file(showers), sha256_file(gflash_images)]
    assert packed.stat().st_size / len(file) < 0.6 * gflash_images.stat().st_size / 200
    assert [path.name for path in tmp_path.iterdir()] == ["packed.h5"]


def test_packing_keeps_the_observables(gflash_images: Path, tmp_path: Path) -> None:
    packed = pack_projections([gflash_images], tmp_path / "packed.h5")
    parts = [read_showers(path) for path in (gflash_images, packed)]
    before, after = (observe_chunks(part.chunks()).values for part in parts)
    noise = (after - before).std(axis=0) / before.std(axis=0)
    assert (noise < 0.005).all()  # widens no distribution by more than a hundred-thousandth
    assert (np.abs((after - before).mean(axis=0)) < 1e-3 * before.std(axis=0)).all()
    assert len(np.unique(after[:, 1])) > 0.9 * len(after)  # peak energies are not tied


def test_wrong_input_is_refused(showers: Path, gflash_images: Path, tmp_path: Path) -> None:
    other = simulate("ild-ecal", 3, energy="20GeV", engine="gflash").save(tmp_path / "other.h5")
    with pytest.raises(InputError, match="expected 50000"):
        pack_projections([gflash_images, other], tmp_path / "packed.h5")
    with pytest.raises(InputError, match="power of two"):
        pack_projections([gflash_images], tmp_path / "packed.h5", step=0.01)
    made = read_showers(gflash_images).replace(seen=np.array([1, 2], np.uint64)).save(tmp_path / "made.h5")
    with pytest.raises(InputError, match=r"made.h5: a model made these showers"):
        pack_projections([made], tmp_path / "packed.h5")
    made.unlink()
    with pytest.raises(OutputExistsError):
        pack_projections([gflash_images], other)
    assert [path.name for path in tmp_path.iterdir()] == ["other.h5"]


def test_the_script_takes_files_without_a_detector(showers: Path, tmp_path: Path) -> None:
    nameless = write_showers(tmp_path / "nameless.h5", read_showers(showers))
    with h5py.File(nameless, "a") as file:
        del file.attrs["detector"]
    words = [sys.executable, SCRIPT, "images", nameless, "-o", tmp_path / "packed.h5"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "60 showers" in done.stdout
    with open_showers(tmp_path / "packed.h5") as packed:
        assert len(packed) == 60


def test_the_shipped_images_are_found_when_they_are_there() -> None:
    path = packed_projections()
    if path is None:
        pytest.skip("no packed images in this copy of the package")
    assert path.stat().st_size <= 12_000_000
    with open_showers(path) as file:
        assert file.detector.name == "ild-ecal-10x10"
        assert set(file.incident_energy) == {50_000.0}
