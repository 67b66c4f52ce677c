"""Geant4's data sets: where they are, and their download.

geant4-pybind asks on standard input for a download when it is imported without them, and downloads unasked where
``CI`` is ``true``. So they are looked for before the import, in the same places: a variable for each set, a folder
``GEANT4_DATA_DIR`` with all, and ``~/.geant4_pybind``, where geant4-pybind puts its own downloads. The
import then runs with ``GEANT4_DATA_DIR`` set, which keeps it from asking.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

from caloforge.errors import Geant4DataError

__all__ = ["DATA_SETS", "ELECTROMAGNETIC", "download", "export", "find"]

DATA_SETS: dict[str, str] = {
    "G4LEDATA": "G4EMLOW",
    "G4LEVELGAMMADATA": "PhotonEvaporation",
    "G4ENSDFSTATEDATA": "G4ENSDFSTATE",
    "G4PARTICLEXSDATA": "G4PARTICLEXS",
    "G4NEUTRONHPDATA": "G4NDL",
    "G4RADIOACTIVEDATA": "RadioactiveDecay",
    "G4PIIDATA": "G4PII",
    "G4REALSURFACEDATA": "RealSurface",
    "G4SAIDXSDATA": "G4SAIDDATA",
    "G4ABLADATA": "G4ABLA",
    "G4INCLDATA": "G4INCL",
    "G4CHANNELINGDATA": "G4CHANNELING",
}
"""Variable of each set to the name of its folder, without the version that follows it."""

ELECTROMAGNETIC = ("G4LEDATA", "G4LEVELGAMMADATA", "G4ENSDFSTATEDATA")
"""Data sets that an electromagnetic list needs; the lists with hadrons need all."""

_REMEDY = (
    "set GEANT4_DATA_DIR to their folder, or G4LEDATA and the like to each of them, or let"
    " geant4-pybind download them into ~/.geant4_pybind with --download-data (in Python: download_data=True)"
)


def find(needed: tuple[str, ...] = ELECTROMAGNETIC) -> dict[str, Path]:
    """Return the folder of every data set that is there, by its variable.

    Arguments:
        needed: Variables of those that must be there.

    Raises:
        Geant4DataError: When one of those is missing, or a variable names what is not a folder.
    """
    found: dict[str, Path] = {}
    home = Path(os.path.expanduser("~")) / ".geant4_pybind"
    places = [home]
    if shared := os.environ.get("GEANT4_DATA_DIR"):
        places.insert(0, _folder("GEANT4_DATA_DIR", shared))
    for variable, stem in DATA_SETS.items():
        if own := os.environ.get(variable):
            found[variable] = _folder(variable, own)
            continue
        for place in places:
            if folders := _versions(place, stem):
                found[variable] = folders[-1]
                break
    missing = [DATA_SETS[variable] for variable in needed if variable not in found]
    if missing:
        msg = f"Geant4's data sets are not found ({', '.join(missing)}): {_REMEDY}"
        raise Geant4DataError(msg)
    return found


def download() -> None:
    """Let geant4-pybind download the missing sets into its folder; what it prints goes to standard error.

    Raises:
        Geant4DataError: When it fails.
    """
    kept = {key: value for key, value in os.environ.items() if key not in ("GEANT4_DATA_DIR", "CI")}
    done = subprocess.run(
        [sys.executable, "-c", "import geant4_pybind"],
        input=b"y\n",
        stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=kept,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        msg = f"geant4-pybind could not download Geant4's data sets: {lines[-1] if lines else 'no reason given'}"
        raise Geant4DataError(msg)


def export(found: dict[str, Path], environment: MutableMapping[str, str] | None = None) -> None:
    """Set the variables that Geant4 and geant4-pybind look at, so that the import asks nothing."""
    target = os.environ if environment is None else environment
    for variable, folder in found.items():
        target[variable] = str(folder)
    target.setdefault("GEANT4_DATA_DIR", str(found["G4LEDATA"].parent))


def _folder(variable: str, value: str) -> Path:
    path = Path(value)
    if not path.is_dir():
        msg = f"{variable} names {value}, which is not a folder: {_REMEDY}"
        raise Geant4DataError(msg)
    return path


def _versions(place: Path, stem: str) -> list[Path]:
    """Return the folders of a set, oldest version first."""
    matches = [
        (re.fullmatch(re.escape(stem) + r"(\d+(?:\.\d+)*)", path.name), path)
        for path in place.glob(f"{stem}*")
    ]
    ranked = [
        ([int(k) for k in match[1].split(".")], path) for match, path in matches if match and path.is_dir()
    ]
    return [path for _, path in sorted(ranked)]


def _has_descriptor() -> bool:
    """Whether standard error is a real file, which a notebook's is not."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
