"""Geant4, through geant4-pybind: the engine with the user's choices, and Geant4's data sets, found before anything starts.

geant4-pybind asks on standard input for a download when it is imported without them, and downloads unasked where
``CI`` is ``true``. So they are looked for before the import, in the same places: a variable for each set, a folder
``GEANT4_DATA_DIR`` with all, and ``~/.geant4_pybind``, where geant4-pybind puts its own downloads. The import, in
:mod:`.session` and so in worker processes alone, then runs with ``GEANT4_DATA_DIR`` set, which keeps it from asking.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from caloforge.errors import CaloforgeError, Geant4DataError, InputError, MissingExtraError, SimulationError
from caloforge.geometry import Beam, Detector
from caloforge.showers import Showers

__all__ = [
    "DATA_SETS",
    "ELECTROMAGNETIC",
    "HADRONIC",
    "PHYSICS_LIST",
    "Geant4Engine",
    "download_data",
    "export_data",
    "find_data",
    "needed_data",
    "read_complaint",
]

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
"""Data sets that an electromagnetic list needs."""

HADRONIC = (*ELECTROMAGNETIC, "G4PARTICLEXSDATA", "G4SAIDXSDATA")
"""Data sets that every list with hadrons needs, with tables in them; see :func:`needed_data` for what some need beside."""

_BESIDE = {
    "HP": ("G4NEUTRONHPDATA",),
    "INCLXX": ("G4INCLDATA", "G4ABLADATA"),
    "Shielding": ("G4NEUTRONHPDATA",),
}
_TABLE = 500  # bytes from which a file is taken for a table, not for a note on an empty folder

_REMEDY = (
    "set GEANT4_DATA_DIR to their folder, or G4LEDATA and the like to each of them, or let"
    " geant4-pybind download them into ~/.geant4_pybind with --download-data"
)


def needed_data(physics_list: str) -> tuple[str, ...]:
    """Return the variables of the data sets that a physics list needs.

    Precise neutrons (``_HP``, ``Shielding``) need G4NDL, the Liege cascade (``INCLXX``) G4INCL and G4ABLA.
    """
    if physics_list.startswith("G4Em"):
        return ELECTROMAGNETIC
    beside = (variables for part, variables in _BESIDE.items() if part in physics_list)
    return (*HADRONIC, *dict.fromkeys(variable for variables in beside for variable in variables))


def find_data(needed: tuple[str, ...] = ELECTROMAGNETIC, tables: bool = False) -> dict[str, Path]:
    """Return the folder of every data set that is there, by its variable; the ``needed`` variables must be there.

    With ``tables`` the needed folders must not be empty, as lists with hadrons need; of some, electromagnetic lists only
    look whether they exist.

    Raises:
        Geant4DataError: When one of those is missing or empty, or a variable names what is not a folder.
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
        raise Geant4DataError(f"Geant4's data sets are not found ({', '.join(missing)}): {_REMEDY}")
    empty = [found[variable].name for variable in needed if tables and not _has_tables(found[variable])]
    if empty:
        msg = f"Geant4's data sets have no tables ({', '.join(empty)}), which this physics list reads: {_REMEDY}"
        raise Geant4DataError(msg)
    return found


def _has_tables(folder: Path) -> bool:
    """Whether a folder holds a file that is large enough for a table, or folders."""
    return any(entry.is_dir() or entry.stat().st_size >= _TABLE for entry in folder.iterdir())


def download_data() -> None:
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


def export_data(found: dict[str, Path], environment: MutableMapping[str, str] | None = None) -> None:
    """Set the variables that Geant4 and geant4-pybind look at, so that the import asks nothing."""
    target = os.environ if environment is None else environment
    for variable, folder in found.items():
        target[variable] = str(folder)
    target.setdefault("GEANT4_DATA_DIR", str(found["G4LEDATA"].parent))


def _folder(variable: str, value: str) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise Geant4DataError(f"{variable} names {value}, which is not a folder: {_REMEDY}")
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


PHYSICS_LIST = "G4EmStandardPhysics_option1"

_SECONDS_PER_MEV = 5e-6  # of one core, roughly, in a sampling calorimeter
_CHUNK_SECONDS = 5.0
_CHUNK_BYTES = 32 << 20
_EXCEPTION = re.compile(
    r"\*\*\* G4Exception : (?P<code>\S+)\s*\n\s*issued by : (?P<origin>[^\n]*)\n(?P<text>.*?)\n\*\*\* (?P<severity>[^\n*]+?) \*\*\*",
    re.DOTALL,
)
_FATAL = ("Fatal Exception", "Fatal Error in Argument")
_DATA = re.compile(r"G4[A-Z]+DATA|GEANT4_DATA_DIR|\.dat\b|data ?(?:file|set|base|directory)", re.IGNORECASE)


def read_complaint(log: str) -> CaloforgeError | None:
    """Return the last fatal exception that Geant4 printed; None when there is none."""
    fatal = [found for found in _EXCEPTION.finditer(log) if found["severity"].startswith(_FATAL)]
    if not fatal:
        return None
    last = fatal[-1]
    text = " ".join(last["text"].split())
    message = f"Geant4 stopped: {text} ({last['code']}, issued by {last['origin'].strip()})"
    return Geant4DataError(message) if _DATA.search(text) else SimulationError(message)


@dataclass(frozen=True)
class Geant4Engine:
    """Full simulation with Geant4, fluorescence off.

    Raises:
        InputError: When the cut is not positive.
        MissingExtraError: When geant4-pybind is not installed.
        Geant4DataError: When data sets are missing.
    """

    # an electromagnetic constructor (``G4EmStandardPhysics_option1``) or a reference list (``FTFP_BERT``)
    physics_list: str = PHYSICS_LIST
    # range below which secondaries are not produced, mm; by default as in Geant4: 1.0 for a constructor on
    # its own, 0.7 for a reference list
    production_cut: float | None = None
    download_data: bool = False  # let geant4-pybind download missing data sets
    name: ClassVar[str] = "geant4"

    def __post_init__(self) -> None:
        if not 0.0 < self.cut < float("inf"):
            raise InputError(f"production cut {self.cut} mm is out of range: expected more than 0")
        if find_spec("geant4_pybind") is None:
            raise MissingExtraError("geant4_pybind", "geant4")
        try:
            self._find_data()
        except Geant4DataError:
            if not self.download_data:
                raise
            download_data()
            self._find_data()

    @property
    def cut(self) -> float:
        """Production cut that is used, mm."""
        if self.production_cut is not None:
            return float(self.production_cut)
        return 1.0 if self._electromagnetic else 0.7

    @property
    def _electromagnetic(self) -> bool:
        """Whether the physics list is a constructor on its own."""
        return self.physics_list.startswith("G4Em")

    def _find_data(self) -> dict[str, Path]:
        return find_data(needed_data(self.physics_list), tables=not self._electromagnetic)

    def chunk_size(self, detector: Detector, beam: Beam) -> int:
        """Return the number of showers of a chunk: seconds of work, at most 32 MiB of cells."""
        mean = float(beam.energy.values((np.arange(64) + 0.5) / 64).mean())
        by_time = int(_CHUNK_SECONDS / (_SECONDS_PER_MEV * mean))
        return max(1, min(by_time, _CHUNK_BYTES // (4 * detector.n_cells)))

    def run(self, detector: Detector, beam: Beam, seed: int, start: int, n: int) -> Showers:
        """Return showers ``start`` to ``start + n`` of the seed; the process serves one set-up only.

        Raises:
            SimulationError: When the process has served another set-up, or Geant4 lost showers.
            UnknownNameError: When physics list or particle is unknown.
            IncompatibleError: When the physics list does not cover the particle.
        """
        export_data(self._find_data())
        from caloforge.simulate.geant4.session import session

        active = session(detector, self.physics_list, self.cut)
        primaries = beam.sample(seed, start, n)
        cells, seconds = active.run(beam.particle, primaries, seed, start)
        return Showers(
            detector=detector,
            cells=cells,
            incident_energy=primaries.energy,
            incident_theta=primaries.theta,
            conditions=primaries.conditions,
            particle=beam.particle,
            source=self.name,
            seed=seed,
            attributes={**self.attributes(), "geant4_version": active.version, "cpu_seconds": seconds},
        )

    def attributes(self) -> Mapping[str, Any]:
        """Return what a file records about how its showers were made."""
        return {"physics_list": self.physics_list, "production_cut_mm": self.cut, "fluorescence": False}

    def diagnose(self, log: str) -> CaloforgeError | None:
        """Return Geant4's own error, which it prints before it ends the process."""
        return read_complaint(log)
