"""The structure of a file of showers: which detector, which datasets, of which shapes; checked before any value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import CaloforgeError, FileFormatError, UnknownNameError
from caloforge.geometry import DETECTORS, Detector, detector_from_definition, get_detector
from caloforge.showers.hdf5 import open_dataset
from caloforge.showers.identity import NO_IDENTITIES, seen_union
from caloforge.showers.layout import CELLS, CONDITIONS, DEFINITION, ENERGIES, SEEN, THETA

__all__ = ["find_cells", "find_columns", "find_detector", "read_seen"]


def find_detector(path: Path, stored: dict[str, Any], asked: str | Path | Detector | None) -> Detector:
    """Return the detector of a file: the one that it names or defines, which must be the one asked for.

    Arguments:
        path: The file, for messages.
        stored: The file's attributes.
        asked: The detector that is expected; needed when the file names none.

    Raises:
        FileFormatError: When there is none, it is unknown, or another than asked for.
    """
    where = "attribute 'detector'"
    wanted = None if asked is None else get_detector(asked)
    name = stored.get("detector")
    if name is None:
        if wanted is None:
            _reject(path, where, "is missing; name the detector of its showers (--detector NAME)")
        return wanted
    if wanted is not None and wanted.name != name:
        _reject(path, where, f"is '{name}'; expected '{wanted.name}'")
    try:
        if DEFINITION in stored:
            found = detector_from_definition(str(stored[DEFINITION]))
        elif wanted is not None:
            found = wanted
        else:
            found = _built_in(str(name))
    except CaloforgeError as error:
        message = f"is '{name}', which cannot be built: {error}; give its .toml file (--detector FILE.toml)"
        raise FileFormatError(path, where, message) from error
    if wanted is not None and wanted != found:
        _reject(path, f"attribute '{DEFINITION}'", f"defines another '{name}' than the expected one")
    return found


def find_cells(path: Path, file: h5py.File, detector: Detector) -> h5py.Dataset:
    """Open the cells (N, n_cells)."""
    return _numbers(path, file, CELLS, detector.n_cells, f" for detector '{detector.name}'")


def find_columns(path: Path, file: h5py.File, n: int) -> dict[str, h5py.Dataset]:
    """Open everything else that has a row for each of ``n`` showers: energies, angles, conditions by full name."""
    columns = {ENERGIES: _numbers(path, file, ENERGIES, 1)}
    if THETA in file:
        columns[THETA] = _numbers(path, file, THETA, 1)
    group = file.get(CONDITIONS)
    if group is not None and not isinstance(group, h5py.Group):
        _reject(path, f"'{CONDITIONS}'", "is a dataset; expected a group of datasets")
    for name in group or ():
        columns[f"{CONDITIONS}/{name}"] = _numbers(path, file, f"{CONDITIONS}/{name}", None)
    for name, column in columns.items():
        if len(column) != n:
            _reject(path, f"dataset '{name}'", f"has {len(column)} rows; expected {n}, one a shower")
    return columns


def read_seen(path: Path, file: h5py.File) -> NDArray[np.uint64]:
    """Return the identities (M,), sorted, of the showers that the model behind a file has seen; none when it names none."""
    if SEEN not in file:
        return NO_IDENTITIES
    found = file[SEEN]
    if not isinstance(found, h5py.Dataset) or found.dtype != np.uint64 or found.ndim != 1:
        _reject(
            path, f"dataset '{SEEN}'", "does not hold identities of showers; expected (M,) of type uint64"
        )
    try:
        return seen_union([found[:]])
    except (OSError, RuntimeError) as error:
        _reject(path, f"dataset '{SEEN}'", f"cannot be read, the file is damaged: {error}")


def _built_in(name: str) -> Detector:
    """Return a detector by its name alone: a file must not make its reader open another one."""
    if name not in DETECTORS:
        raise UnknownNameError("detector", name, DETECTORS.names())
    return get_detector(name)


def _numbers(path: Path, file: h5py.File, name: str, width: int | None, note: str = "") -> h5py.Dataset:
    """Open a dataset (N, width) of numbers; (N,) does for (N, 1), and any width when it is None."""
    where = f"dataset '{name}'"
    if name not in file:
        _reject(path, where, f"is missing; the file holds: {', '.join(file) or 'nothing'}")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        _reject(path, where, "is a group; expected a dataset")
    if found.dtype.kind not in "fiu":
        _reject(path, where, f"has type {found.dtype}; expected numbers")
    shape = (*found.shape, 1) if found.ndim == 1 else found.shape
    if len(shape) != 2 or width not in (None, shape[1]):
        _reject(path, where, f"has shape {found.shape}; expected (N, {width or 'k'}){note}")
    return open_dataset(file, name)


def _reject(path: Path, where: str, message: str) -> NoReturn:
    raise FileFormatError(path, where, message)
