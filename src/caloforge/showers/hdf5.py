"""The HDF5 layout of shower files: names, sizes of chunks, valid values, and opening with clear errors.

The layout is the CaloChallenge's (https://calochallenge.github.io) with names added: ``showers`` (N, cells) float32 MeV and
``incident_energies`` (N, 1) MeV; where they apply ``incident_theta`` (N, 1) degrees and ``conditions/NAME`` (N, k). The sparse
layout (:mod:`caloforge.showers.sparse`) is that of the package ShowerData: ``showers`` are points, ``energies`` (N, 1) MeV.
Datasets of existing files are opened by :mod:`caloforge.showers.datasets`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import CaloforgeError, FileFormatError, InputError, OutputError
from caloforge.showers.storage import heap_fault
from caloforge.text_files import TEXT_BYTES, check_regular

__all__ = [
    "CELLS",
    "CHUNK_BYTES",
    "COLUMN_BYTES",
    "COMPRESSION_LEVEL",
    "CONDITIONS",
    "DEFINITION",
    "DIRECTIONS",
    "ENERGIES",
    "MODEL_STATUS",
    "NUMBERS",
    "PDG",
    "PERPENDICULAR",
    "POINT_ENERGIES",
    "PRECISION",
    "RESERVED",
    "SEEN",
    "SEEN_INCOMPLETE",
    "SEEN_SEEDS",
    "SHAPE",
    "STREAM_BYTES",
    "THETA",
    "UNCONDITIONED",
    "UNIT",
    "UNREADABLE",
    "VARIABLE_BAND",
    "Fault",
    "check_cells",
    "check_column",
    "check_columns",
    "check_ending",
    "check_facts",
    "condition_values",
    "create_column",
    "create_dataset",
    "guarded",
    "open_hdf5",
    "plain_attributes",
    "rows_per_chunk",
    "rows_per_stream",
]

CELLS: Final = "showers"
ENERGIES: Final = "incident_energies"
THETA: Final = "incident_theta"
CONDITIONS: Final = "conditions"

POINT_ENERGIES: Final = "energies"
"""Incident energies of the sparse layout."""
NUMBERS: Final = "num_points"
"""Dataset (N,) of the sparse layout: numbers of points."""
DIRECTIONS: Final = "directions"
"""Dataset (N, 3) of the sparse layout: unit vectors."""
PDG: Final = "pdg"
"""Dataset (N,) of the sparse layout: the particle's number of the Particle Data Group."""
SHAPE: Final = "shape"
"""Dataset (3,) of the sparse layout: N, room for points, values of a point."""
VARIABLE_BAND: Final = 64
"""How many showers are read at a time from sequences of variable length."""
UNIT: Final = "energy_unit"
"""Attribute of the sparse layout: MeV, or GeV in files of others."""

SEEN: Final = "seen_identities"
"""Dataset (M,) uint64, sorted: identities of the showers that trained or selected the model behind a file."""
SEEN_SEEDS: Final = "seen_seeds"
"""Attribute: simulation seeds whose showers trained or selected the model, where the files themselves are lost."""
SEEN_INCOMPLETE: Final = "seen_incomplete"
"""Attribute: why the identities do not name all showers that trained or selected the model."""
PRECISION: Final = "precision"
"""Attribute of generated showers: precision in which the networks computed."""
UNCONDITIONED: Final = "unconditioned"
"""Attribute of generated showers: conditions that the model does not know, so that their values say nothing about the showers."""
MODEL_STATUS: Final = "model_status"
"""Attribute: what is wrong with the model, such as "unfinished: stage cells not trained"."""

DEFINITION: Final = "detector_definition"
_TEXT: Final = ((str,), "a text")
_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "detector": _TEXT, DEFINITION: _TEXT, "particle": _TEXT, "source": _TEXT, "caloforge_version": _TEXT, UNIT: _TEXT,
    SEEN_INCOMPLETE: _TEXT, MODEL_STATUS: _TEXT, SEEN_SEEDS: ((list,), "whole numbers"),
}  # fmt: skip
"""Attributes that readers rely on: their types, and what they are called."""
RESERVED: Final = frozenset({"detector", DEFINITION, "particle", "source", "seed", "caloforge_version", UNIT})
"""Attributes that are written from the showers' own fields."""

ENDINGS: Final = (".h5", ".hdf5")
"""Endings of the names of files of showers."""

PERPENDICULAR: Final = 90.0
"""Polar angle in degrees of showers whose file has no angles."""

CHUNK_BYTES: Final = 2 * 2**20
"""Size of a chunk of cells in the file: a unit of compression, and of what a sliced read must unpack."""

COLUMN_BYTES: Final = 64 * 2**10
"""Size of a chunk of a column: small, since a file of few showers has one whole chunk of each."""

STREAM_BYTES: Final = 16 * 2**20
"""Default size of the cells in one chunk of ``chunks()``."""

COMPRESSION_LEVEL: Final = 1
"""gzip level: after the byte shuffle, level 4 is 15 to 20 % smaller on Geant4 showers but takes twice the time
to write and to read; level 9 takes 20 times as long for another 10 %. ``benchmarks/bench_io.py`` measures it."""


def rows_per_chunk(row_bytes: int, target: int = CHUNK_BYTES) -> int:
    """Return how many rows make a chunk of about ``target`` bytes, at least one."""
    return max(1, target // max(1, row_bytes))


def rows_per_stream(row_bytes: int, chunk_rows: int) -> int:
    """Return a number of rows of about ``STREAM_BYTES``, a multiple of the file's chunks where they are small."""
    rows = rows_per_chunk(row_bytes, STREAM_BYTES)
    return max(1, rows // chunk_rows) * chunk_rows if chunk_rows <= rows else rows


def check_ending(path: str | Path) -> Path:
    """Return the path of a file of showers to be written.

    Raises:
        OutputError: When its name does not end with .h5 or .hdf5.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        name = path.with_suffix(ENDINGS[0]).name
        raise OutputError(
            f"{path}: showers are written to files that end with {' or '.join(ENDINGS)}, such as {name}; caloforge convert writes other formats"
        )
    return path


class Fault(NamedTuple):
    """The first invalid value of some showers: its dataset and row, the value, and what was expected."""

    where: str
    message: str


def check_cells(cells: NDArray[np.float32], first_row: int = 0) -> Fault | None:
    """Find the first cell (N, n_cells), MeV, that is negative or not finite; ``first_row`` is the file's row where they begin."""
    # The minimum and maximum of an array with a NaN are NaN, for which the comparison is false.
    if cells.size == 0 or (cells.min() >= 0 and cells.max() < np.inf):
        return None
    good = (cells >= 0) & (cells < np.inf)
    row = int(np.argmin(good.all(axis=1)))
    cell = int(np.argmin(good[row]))
    return Fault(
        f"dataset '{CELLS}', row {first_row + row}",
        f"cell {cell} is {cells[row, cell]:g}; expected a finite energy in MeV that is not negative",
    )


_RANGES = {
    **dict.fromkeys((ENERGIES, POINT_ENERGIES), (0.0, np.inf, "a finite incident energy in MeV above zero")),
    THETA: (0.0, 180.0, "an angle in degrees between 0 and 180 (90 is perpendicular to the front face)"),
}
"""Open range of the values of a column, and its description; those of other columns are finite."""


def check_column(name: str, values: NDArray[Any], first_row: int = 0) -> Fault | None:
    """Find the first row (N,) or (N, k) of a dataset of energies (MeV), angles (degrees) or conditions that is out of range."""
    low, high, expected = _RANGES.get(name, (-np.inf, np.inf, "finite values"))
    good = (values > low) & (values < high)
    if good.all():
        return None
    row = int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
    found = np.array2string(np.squeeze(values[row]), precision=8)
    return Fault(f"dataset '{name}', row {first_row + row}", f"is {found}; expected {expected}")


def check_columns(columns: Mapping[str, NDArray[Any]], first_row: int = 0) -> Fault | None:
    """Return the first fault of energies, angles and conditions, each (N, k), by the name of its dataset."""
    faults = (check_column(name, values, first_row) for name, values in columns.items())
    return next((fault for fault in faults if fault is not None), None)


def condition_values(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return values of a condition as they are stored: whole numbers of an integer type as int64, all others as float32.

    Raises:
        InputError: When whole numbers would lose digits.
    """
    given = np.asarray(values)
    if given.dtype.kind == "u" and given.size and given.max() > np.iinfo(np.int64).max:
        raise InputError(f"condition '{name}' is up to {given.max()}; expected whole numbers below 2**63")
    if given.dtype.kind in "iu":
        return given.astype(np.int64, copy=False)
    with np.errstate(over="ignore"):  # infinite values are found where values are checked
        found = given.astype(np.float32, copy=False)
    if given.dtype.kind == "f" and given.dtype.itemsize > found.dtype.itemsize:
        lost = (found != given) & np.isfinite(given) & np.isfinite(found)
        if lost.any() and (given == np.rint(given)).all():
            raise InputError(
                f"condition '{name}' has the whole number {given[lost][0]:.0f}, which float32 does not hold; "
                "expected integers, which are stored as int64"
            )
    return found


def create_dataset(
    file: h5py.File,
    name: str,
    width: int | None,
    kind: np.dtype[Any] | type[np.generic],
    chunks: tuple[int, ...],
    grows: bool = False,
) -> h5py.Dataset:
    """Create a compressed dataset (0, width), or (0,), to which rows can be added, and columns where it ``grows``."""
    return file.create_dataset(
        name,
        shape=(0,) if width is None else (0, width),
        maxshape=(None,) if width is None else (None, None if grows else width),
        dtype=kind,
        chunks=chunks,
        compression="gzip",
        compression_opts=COMPRESSION_LEVEL,
        shuffle=True,
    )


def create_column(
    file: h5py.File, name: str, width: int | None, kind: np.dtype[Any] | type[np.generic]
) -> h5py.Dataset:
    """Create a dataset (0, width), or (0,), of few values a shower, see :func:`create_dataset`."""
    rows = rows_per_chunk((width or 1) * np.dtype(kind).itemsize, COLUMN_BYTES)
    return create_dataset(file, name, width, kind, (rows,) if width is None else (rows, width))


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        FileFormatError: When it is not there, not readable, not HDF5, cut short, or damaged.
    """
    check_regular(path)
    if not os.access(path, os.R_OK):
        raise FileFormatError(path, "", "is not readable (permission denied)")
    if not h5py.is_hdf5(path):
        raise FileFormatError(path, "", "is not an HDF5 file")
    if (message := heap_fault(path)) is not None:
        raise FileFormatError(path, "", f"cannot be read, the file is damaged: {message}")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if "truncated" in str(error):
            message = "is truncated: it ends before its data do; copy it or make it again"
        else:
            message = f"cannot be opened as HDF5: {_reason(error)}"
        raise FileFormatError(path, "", message) from error


UNREADABLE: Final = (OSError, RuntimeError, KeyError, ValueError, OverflowError, UnicodeError)
"""What h5py raises for damaged files."""


@contextmanager
def guarded(path: Path, where: str = "") -> Iterator[None]:
    """Turn what h5py raises for damaged files into one line.

    Raises:
        FileFormatError: In place of h5py's own errors.
    """
    try:
        yield
    except CaloforgeError:
        raise
    except UNREADABLE as error:
        raise FileFormatError(
            path, where, f"cannot be read, the file is damaged: {_reason(error)}"
        ) from error


def plain_attributes(file: h5py.File) -> dict[str, Any]:
    """Return the file's attributes as plain Python values: text, numbers, truth values, and lists of these.

    Complex numbers become text, long double ones float. What has no plain value is left out: null attributes, references, types that
    h5py cannot read. Of the attributes that describe all showers, an array of one value is that value.

    Raises:
        FileFormatError: When one is damaged or of more than 64 MiB, or one that readers rely on is not of its kind.
    """
    facts: dict[str, Any] = {}
    path = Path(os.fsdecode(file.filename))
    with guarded(path, "attributes"):
        names = list(file.attrs)
    for name in names:
        where = f"attribute '{name}'"
        with guarded(path, where):
            found = file.attrs.get_id(name)
            size = found.get_space().get_simple_extent_npoints() * found.get_type().get_size()
            if size > TEXT_BYTES:
                raise FileFormatError(path, where, f"has {size:,} bytes; expected at most {TEXT_BYTES:,}")
            try:
                raw = file.attrs[name]
                value = _plain(raw)
                if name in _KINDS and isinstance(raw, np.void | np.complexfloating):
                    raise TypeError(f"{type(raw).__name__} is no text")
            except TypeError as error:
                if name in _KINDS:
                    raise FileFormatError(
                        path, where, f"cannot be read ({error}); expected {_KINDS[name][1]}"
                    ) from error
                continue
        while name in RESERVED and isinstance(value, list) and len(value) == 1:
            value = value[0]
        facts[name] = value
    if type(facts.get(SEEN_SEEDS)) is int:
        facts[SEEN_SEEDS] = [facts[SEEN_SEEDS]]
    check_facts(path, facts)
    return facts


def check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Check the kinds of the attributes that readers rely on; files of others may have a ``seed`` of any kind.

    Raises:
        FileFormatError: When one is not of its kind.
    """
    ours = {"seed": ((int,), "a whole number")} if "caloforge_version" in facts else {}
    for name, (kinds, expected) in {**_KINDS, **ours}.items():
        value = facts.get(name, kinds[0]())
        good = type(value) in kinds and (type(value) is not list or all(type(one) is int for one in value))
        if not good:
            raise FileFormatError(path, f"attribute '{name}'", f"is {value!r:.80}; expected {expected}")


def _plain(value: Any) -> Any:
    """Return a value of an attribute as a plain one.

    Raises:
        TypeError: When there is none.
    """
    if isinstance(value, str):  # h5py puts surrogates in the place of bytes that are no text
        value = value.encode("utf-8", errors="surrogateescape")
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float):  # np.float64 is one, too
        return float(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, complex | np.complexfloating):
        return str(complex(value))
    if isinstance(value, np.longdouble):
        return float(value)
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim else _plain(value[()])
    if isinstance(value, np.void):
        return str(value.item())
    if isinstance(value, np.generic):
        return _plain(value.item())
    raise TypeError(f"{type(value).__name__} is not plain")


def _reason(error: Exception) -> str:
    """Return the first line of HDF5's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
