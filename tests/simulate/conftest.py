"""A small detector, and Geant4's data sets where they are."""

from __future__ import annotations

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
