"""A user's detector from TOML: what it builds, and how each mistake is named."""

from pathlib import Path

import pytest

from caloforge.errors import ConfigError, FileFormatError
from caloforge.geometry import detector_from_definition, get_detector

GOOD = """
name = "my-ecal"
nx = 20
ny = 10
pitch = 10.0
padding = 2
[[layers]]
repeat = 15
absorber = "G4_W"
absorber_mm = 3.5
active = "G4_Si"
active_mm = 0.5
gap_mm = 2.0
[beam]
energy = "10-50GeV"
theta = "60-90"
entry = [10, 5]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "detector.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    detector = get_detector(write(tmp_path, GOOD))
    assert detector.shape == (20, 10, 15)
    assert detector.depth_x0 == pytest.approx(15 * (3.5 / 3.50418 + 0.5 / 93.6607 + 2 / 303921))
    assert detector.beam.y == pytest.approx(5.0)
    assert detector.model_conditions == ("incident_energy", "incident_theta")
    assert 0.01 < detector.sampling_fraction < 0.05
    assert detector_from_definition(detector.definition) == detector


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nx = 20", "nx = 0", "key 'nx'"),
        ("nx = 20", "nx = 20\ncolour = 3", "unknown key 'colour'; known: name"),
        ("pitch = 10.0", "", "give 'pitch'"),
        ('"G4_W"', '"G4_Unobtainium"', r"key 'layers.0.absorber'.*unknown material"),
        ("active_mm = 0.5", "active_mm = -0.5", "key 'layers.0.active_mm'"),
        ('"10-50GeV"', '"10"', "key 'beam.energy'.*no unit"),
        ("entry = [10, 5]", "entry = [30, 5]", "outside the 20 x 10 cells"),
        ('name = "my-ecal"', 'name = "My ECAL"', "key 'name'"),
        ("nx = 20", "nx = twenty", "is not TOML"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises((ConfigError, FileFormatError), match=message) as caught:
        get_detector(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        get_detector(tmp_path / "none.toml")
