"""One thread for all tests, tests of Geant4 only where its tables are, and a model of a small training for all tests that generate with one."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

SMALL = ("epochs=2", "latent=4", "hidden=[32]", "calibrate=false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Geant4 where its data sets are not named."""
    if os.environ.get("GEANT4_DATA_DIR"):
        return
    for item in items:
        if item.get_closest_marker("geant4"):
            item.add_marker(pytest.mark.skip(reason="GEANT4_DATA_DIR is not set"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices on several threads of a busy machine mostly wait."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from caloforge.data import sample_path
    from caloforge.showers import read_showers
    from caloforge.train import train

    folder = tmp_path_factory.mktemp("generate")
    data = read_showers(sample_path())[np.arange(600)].save(folder / "data.h5")
    return train("vae", data, folder / "run", overrides=SMALL, device="cpu", seed=1)


@pytest.fixture(scope="session")
def ensemble(run: Path) -> Path:
    from caloforge.train import train

    folder = run.parent / "ensemble"
    overrides = (*SMALL, "trainings=2", "combine=ensemble")
    return train("vae", run.parent / "data.h5", folder, overrides=overrides, device="cpu", seed=1)
