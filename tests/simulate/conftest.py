"""A small detector, and Geant4's data sets where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caloforge.geometry import Detector, load_detector

TOML = """
name = "tiny-ecal"
nx = 8
ny = 12
pitch_x = 10.0
pitch_y = 7.0
padding = 1

[[layers]]
repeat = 3
absorber = "G4_W"
absorber_mm = 3.0
active = "G4_Si"
active_mm = 0.5
gap_mm = 1.0

[[layers]]
repeat = 3
absorber = "G4_Pb"
absorber_mm = 6.0
active = "G4_POLYSTYRENE"
active_mm = 3.0

[beam]
particle = "gamma"
energy = "1-4GeV"
theta = "90"
entry = [2, 9]
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("detector") / "tiny.toml"
    path.write_text(TOML)
    return load_detector(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Geant4 where its data sets are not named."""
    here = str(Path(__file__).parent)
    if os.environ.get("GEANT4_DATA_DIR"):
        return
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("geant4"):
            item.add_marker(pytest.mark.skip(reason="GEANT4_DATA_DIR is not set"))
