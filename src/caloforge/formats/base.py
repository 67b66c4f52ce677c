"""What a format is, what a user may say about a file, and the rows that a file yields in its own units.

A :class:`Format` recognises its files, opens them, and some write them. Reading yields a :class:`Table`: rows of cells in the detector's flat
order, incident energies and angles, all still in the units of the file. :class:`~caloforge.formats.source.ForeignShowers` makes MeV and degrees of
them and checks that they are plausible. A file is read by ranges of rows, so that memory stays bounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from caloforge import __version__
from caloforge.errors import CaloforgeError, FileFormatError, InputError, OutputError, UnknownNameError
from caloforge.geometry import Detector
from caloforge.registry import Registry
from caloforge.showers import Showers, ShowerSource, hdf5
from caloforge.showers.identity import NO_IDENTITIES
from caloforge.showers.writing import columns_of
from caloforge.units import EnergySpec

__all__ = [
    "ANGLES",
    "ANGLE_UNITS",
    "ENERGY_UNITS",
    "FORMATS",
    "ROLES",
    "Format",
    "ReadOptions",
    "Rows",
    "Table",
    "checked_chunks",
    "facts_of",
    "guarded",
]

ENERGY_UNITS: Final = {"eV": 1e-6, "keV": 1e-3, "MeV": 1.0, "GeV": 1e3, "TeV": 1e6}
"""Units of energy, in MeV."""

ANGLE_UNITS: Final = {"deg": 1.0, "rad": 180.0 / np.pi}
"""Units of angle, in degrees."""

ANGLES: Final = {"plane": (1.0, 0.0), "normal": (-1.0, 90.0), "opposite": (-1.0, 180.0)}
"""How a polar angle is counted, as (a, b): ours is a times theirs plus b.

``plane``: as ours, 90 degrees is perpendicular to the front face. ``normal``: 0 is perpendicular. ``opposite``: as ours, from the other side.
"""

ROLES: Final = ("cells", "energy", "theta", "tree", "hit_cell", "hit_x", "hit_y", "hit_z", "hit_energy")
"""What ``--key ROLE=NAME`` names the data of; ``conditions/NAME`` is one more."""


@dataclass(frozen=True, eq=False)
class ReadOptions:
    """What a user says about a file; what is left out comes from the file, from its format, or is guessed where there is one possibility.

    Raises:
        InputError: When an option is none of the known ones.
    """

    detector: str | Path | Detector | None = None  # of the showers
    keys: Mapping[str, str] = field(default_factory=dict)  # role (:data:`ROLES`) to the name in the file
    axes: str = ""  # order of the cells' axes, the slowest first: letters of x y z, or of z a r
    energy_unit: str | None = None  # of incident energies
    cell_unit: str | None = None  # of cells or hits
    angle_unit: str | None = None
    angle_from: str = "plane"  # see :data:`ANGLES`
    cell_scale: float = 1.0  # cells are multiplied by it
    energy: str | None = None  # incident energy of all showers with its unit, where the file has none
    theta: float | None = None  # angle of all showers, degrees, where the file has none
    particle: str = ""
    made_by: str = ""  # what made the showers: geant4, gflash, a model
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # where our x = y = z = 0 is in the file, mm
    drop_outside: bool = False  # leave out hits outside of the cells
    clip_negative: bool = False  # set negative cells to 0
    allow_implausible: bool = False  # go on with what looks wrong

    def __post_init__(self) -> None:
        for name, value, known in (
            ("unit of energy", self.energy_unit, ENERGY_UNITS),
            ("unit of energy", self.cell_unit, ENERGY_UNITS),
            ("unit of angle", self.angle_unit, ANGLE_UNITS),
            ("way to count angles", self.angle_from, ANGLES),
        ):
            if value is not None and value not in known:
                raise UnknownNameError(name, value, list(known))
        object.__setattr__(self, "axes", self.axes.replace("p", "a").lower())
        if len(set(self.axes)) != len(self.axes) or not set(self.axes) <= set("xyzar"):
            msg = f"--axes '{self.axes}' is not an order of axes; expected letters of x, y, z or z, a, r, each once"
            raise InputError(msg)
        if not self.cell_scale > 0 or not np.isfinite(self.cell_scale):
            raise InputError(f"--cell-scale is {self.cell_scale:g}; expected a factor above zero")
        for role in self.keys:
            if role not in ROLES and not role.startswith("conditions/"):
                raise UnknownNameError("role of --key", role, [*ROLES, "conditions/NAME"])
        if self.energy is not None and EnergySpec.parse(self.energy).kind != "fixed":
            raise InputError(f"--energy {self.energy} is a range; expected the one energy of all showers")
        if self.theta is not None and not 0 < self.theta < 180:
            raise InputError(f"--theta is {self.theta:g}; expected degrees between 0 and 180")


@contextmanager
def guarded(path: Path, where: str = "", what: str = "cannot be read, the file is damaged") -> Iterator[None]:
    """Turn what a library raises for a damaged file, which may be of any kind, into one line.

    Raises:
        FileFormatError: In place of any other error.
    """
    try:
        yield
    except CaloforgeError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise FileFormatError(path, where, f"{what}: {text[0] if text else type(error).__name__}") from error


class Rows(NamedTuple):
    """Some showers, in the units of the file."""

    cells: NDArray[np.float32]  # (n, n_cells), in the detector's order
    energy: NDArray[np.float64] | None  # (n,)
    theta: NDArray[np.float64] | None  # (n,)
    conditions: dict[str, NDArray[Any]]  # each (n, k)
    # (n, ...) cells as they are stored, where the order of axes can be judged
    raw: NDArray[np.float32] | None = None


class Table(ABC):
    """An open file, which yields rows after :meth:`bind`."""

    energy_unit: str | None = None  # None: not known
    cell_unit: str | None = None
    angle_unit: str | None = None
    trusted: bool = False  # written by caloforge: not judged
    notes: tuple[str, ...] = ()  # what happened on the way, such as hits that were left out

    def __init__(
        self, path: Path, facts: Mapping[str, Any] | None = None, close: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self.close = path, close
        self.facts: dict[str, Any] = dict(facts or {})  # attributes of the file, as in files of caloforge
        self.seen: NDArray[np.uint64] = NO_IDENTITIES

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of showers."""

    def fits(self, detector: Detector) -> bool:
        """Return whether the cells can be those of a detector, as far as the file tells; hits do not."""
        return False

    @abstractmethod
    def bind(self, detector: Detector, axes: str) -> str:
        """Prepare the reading of cells of a detector; return the order of axes, or an empty text where there is none to choose.

        ``axes`` is the user's, or empty.

        Raises:
            FileFormatError: When shapes do not fit; says what was expected.
        """

    @abstractmethod
    def rows(self, start: int, stop: int) -> Rows:
        """Read the showers of a range."""

    @property
    def band(self) -> int:
        """How many showers are best read at a time."""
        return 1

    @abstractmethod
    def describe(self) -> str:
        """Return the names of the data that are read, in a few words."""

    def trust(self) -> None:
        """Take the file for one that caloforge wrote: MeV, degrees, and not judged."""
        self.energy_unit, self.cell_unit, self.angle_unit, self.trusted = "MeV", "MeV", "deg", True

    def forget(self) -> None:
        """Forget the notes: what was read before was a sample."""
        self.notes = ()

    def reject(self, where: str, message: str) -> NoReturn:
        """Raise an error about this file."""
        raise FileFormatError(self.path, where, message)


class Format(ABC):
    """A layout of shower files.

    A format that can write overrides :meth:`write` and lists the ``endings`` of file names that mean it.
    """

    name: str
    summary: str  # one line
    detectors: tuple[str, ...] = ()  # published detectors of the format, one of which is guessed by its shape
    endings: tuple[str, ...] = ()
    writes: bool = False
    general: ClassVar[bool] = False  # read by names that the user gives: never guessed without them

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Return whether an existing file looks like one of this format."""

    @abstractmethod
    def open(self, path: Path, options: ReadOptions) -> Table | ShowerSource:
        """Open a file: a table, or a source where nothing is left to interpret."""

    def write(self, path: Path, showers: ShowerSource, *, force: bool, layout: str) -> None:
        """Write showers to a file, which appears under its name when it is whole.

        Raises:
            OutputError: When this format is only read.
        """
        raise OutputError(f"{path}: the format '{self.name}' is read, not written")


def checked_chunks(path: Path, showers: ShowerSource) -> Iterator[tuple[int, Showers]]:
    """Yield the chunks of a source with the number of their first shower, every value checked.

    Raises:
        FileFormatError: When a value may not be written: NaN, infinite, negative or out of range.
    """
    start = 0
    for chunk in showers.chunks():
        fault = hdf5.check_cells(chunk.cells, start) or hdf5.check_columns(columns_of(chunk), start)
        if fault is not None:
            raise FileFormatError(path, fault.where, f"{fault.message}; not written")
        yield start, chunk
        start += len(chunk)


def facts_of(showers: ShowerSource) -> dict[str, Any]:
    """Return what describes a file of showers, by the names of the attributes of our own files; no None."""
    facts = {
        "detector": showers.detector.name,
        hdf5.DEFINITION: showers.detector.definition or None,
        "particle": showers.particle,
        "source": showers.source,
        "seed": showers.seed,
        "caloforge_version": __version__,
        hdf5.UNIT: "MeV",
    }
    kept = {name: value for name, value in showers.attributes.items() if name not in hdf5.RESERVED}
    return {name: value for name, value in {**facts, **kept}.items() if value is not None}


FORMATS: Registry[Format] = Registry(
    "format",
    {
        "caloforge": "caloforge.formats.own:OWN",
        "showerdata": "caloforge.formats.own:SHOWERDATA",
        "calochallenge": "caloforge.formats.hdf5_arrays:CALOCHALLENGE",
        "calogan": "caloforge.formats.hdf5_arrays:CALOGAN",
        "getting-high": "caloforge.formats.hdf5_arrays:GETTING_HIGH",
        "3dgan": "caloforge.formats.hdf5_arrays:GAN3D",
        "lemurs": "caloforge.formats.hdf5_arrays:LEMURS",
        "edm4hep": "caloforge.formats.edm4hep:EDM4HEP",
        "root": "caloforge.formats.root:ROOT",
        "numpy": "caloforge.formats.numpy_files:NUMPY",
        "hdf5": "caloforge.formats.hdf5_arrays:HDF5",
    },
    group="caloforge.formats",
)
"""The known formats; other packages add theirs through the entry-point group ``caloforge.formats``."""
