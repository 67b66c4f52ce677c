"""Reading a file of any format, and writing it in another one.

The format of a file is the user's, or the one whose files look like it; formats that read by names (``hdf5``, ``numpy``, ``root``) come last. The format of an output follows from the ending of its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from caloforge.errors import FileFormatError, OutputError
from caloforge.files import check_output
from caloforge.formats.base import FORMATS, Format, ReadOptions, Table
from caloforge.formats.numpy_files import NUMPY, array_table
from caloforge.formats.source import ForeignShowers
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import ShowerFile, Showers, ShowerSource
from caloforge.showers.views import SourceView
from caloforge.showers.writing import check_layout
from caloforge.text_files import check_regular

__all__ = ["Conversion", "convert", "from_arrays", "guess_format", "open_file", "read", "writer_of"]


class Conversion(NamedTuple):
    """What was written, and how the input was understood."""

    output: Path
    n: int  # number of showers
    detector: str
    read_as: tuple[str, ...]  # texts; those that were guessed end with "(guessed)"
    written_as: str  # format
    warnings: tuple[str, ...]


def guess_format(path: Path) -> Format:
    """Return the format of a file by its content.

    Raises:
        FileFormatError: When there is no such file, or it looks like none or several of the formats; lists the known ones.
    """
    check_regular(path)
    found = [form for _, form in FORMATS.items() if not form.general and form.matches(path)]
    found = found or [form for _, form in FORMATS.items() if form.general and form.matches(path)]
    if len(found) == 1:
        return found[0]
    what = f"looks like {' and '.join(form.name for form in found)}" if found else "is of no known format"
    raise FileFormatError(path, "", f"{what}; name it (--format {', '.join(FORMATS.names())})")


def writer_of(path: Path, name: str | None = None) -> Format:
    """Return the format that writes a file: the named one, or that of its ending.

    Raises:
        UnknownNameError: When there is no format of that name.
        OutputError: When no format has that ending, or the format is only read.
    """
    writers = [form for _, form in FORMATS.items() if form.writes]
    if name is not None:
        form = FORMATS[name]
        if not form.writes:
            known = ", ".join(one.name for one in writers)
            raise OutputError(f"{path}: the format '{name}' is read, not written; written are: {known}")
        if path.suffix.lower() not in (form.endings or OWN_ENDINGS):
            expected = " or ".join(form.endings or OWN_ENDINGS)
            raise OutputError(f"{path}: files of the format '{name}' end with {expected}")
        return form
    found = [form for form in writers if path.suffix.lower() in form.endings]
    if not found:
        known = ", ".join(f"{ending} ({form.name})" for form in writers for ending in form.endings)
        raise OutputError(
            f"{path}: no format is written to files that end with '{path.suffix}'; known: {known}"
        )
    return found[0]


OWN_ENDINGS = (".h5", ".hdf5")
"""Endings of formats that are HDF5 but not what ``.h5`` means by default."""


def open_file(
    path: str | Path, format: str | None = None, detector: str | Path | Detector | None = None, **options: Any
) -> ForeignShowers | ShowerFile:
    """Open a file of any format as a source of showers, read when they are needed, in MeV and degrees.

    Arguments:
        path: The file.
        format: A name of :data:`~caloforge.formats.FORMATS`; by default the one that the file looks like.
        detector: Detector of the showers, its name, or a TOML file; needed when neither the file nor the format tells it.
        options: Fields of :class:`~caloforge.formats.base.ReadOptions`: keys, axes, energy_unit, cell_unit, ...

    Raises:
        FileFormatError: When the file is not what it should be or its showers are implausible; names the option that settles it.
        MissingExtraError: When a ROOT file is read without uproot.
    """
    path, said = Path(path), ReadOptions(detector=detector, **options)
    form = FORMATS[format] if format is not None else guess_format(path)
    opened = form.open(path, said)
    if not isinstance(opened, Table):
        return opened  # type: ignore[return-value]
    showers = ForeignShowers(opened, form, said)
    showers.read_as.insert(0, f"format {form.name}" + ("" if format is not None else " (guessed)"))
    return showers


def read(
    path: str | Path, format: str | None = None, detector: str | Path | Detector | None = None, **options: Any
) -> Showers:
    """Read a whole file of any format into memory; see :func:`open_file`.

    Examples:
        ``read("gamma.hdf5", detector="ild-ecal")``, ``read("mine.npz", detector="ild-ecal", keys={"cells": "x", "energy": "e"}, axes="zxy",
        energy_unit="GeV")``.
    """
    with open_file(path, format, detector, **options) as showers:
        return showers[:]


def from_arrays(
    cells: ArrayLike | Sequence[ArrayLike],
    energy: ArrayLike | None = None,
    *,
    detector: str | Path | Detector,
    theta: ArrayLike | None = None,
    conditions: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> Showers:
    """Return showers of arrays in memory, interpreted and checked as those of a file.

    Arguments:
        cells: (N, n_cells), or (N, k, l, m) with ``axes``, or a list of one array a layer.
        energy: Incident energies (N,); or the option ``energy="50GeV"`` of :class:`~caloforge.formats.base.ReadOptions` as text.
        detector: Detector of the cells.
        theta: Angles (N,).
        conditions: Further conditions, each (N, k) or (N,).
        options: Fields of :class:`~caloforge.formats.base.ReadOptions`; units (``energy_unit``, ``cell_unit``) are MeV unless they are given.

    Raises:
        FileFormatError: When shapes do not fit or the showers are implausible.
    """
    if isinstance(energy, str):
        options["energy"], energy = energy, None
    units = {"energy_unit": "MeV", "cell_unit": "MeV", "angle_unit": "deg"}
    said = ReadOptions(detector=detector, **{**units, **options})
    showers = ForeignShowers(array_table(cells, energy, theta, conditions), NUMPY, said)
    return showers[:]


def convert(
    source: str | Path,
    output: str | Path,
    format: str | None = None,
    to: str | None = None,
    layout: str = "dense",
    force: bool = False,
    detector: str | Path | Detector | None = None,
    **options: Any,
) -> Conversion:
    """Read a file of any format and write it in another one, in bounded memory.

    Arguments:
        source: The file to read.
        output: The file to write; its ending says the format unless ``to`` does.
        format: Format of the input, see :func:`open_file`.
        to: Format of the output.
        layout: "dense" or "sparse", of our own files.
        force: Whether an existing output is replaced.
        detector: Detector of the showers.
        options: Fields of :class:`~caloforge.formats.base.ReadOptions`.

    Raises:
        OutputError: Before any work, when the output cannot be written.
        FileFormatError: When the input is not what it should be, or implausible.
    """
    source, output = Path(source), Path(output)
    writer = writer_of(output, to)
    check_layout(layout)
    check_output(output, force)
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError(f"{output} is the input; name another output")
    with open_file(source, format, detector, **options) as showers:
        n = len(showers)
        with progress(n, f"converting to {writer.name}") as advance:
            writer.write(output, _Counted(showers, advance), force=force, layout=layout)
        if isinstance(showers, ForeignShowers):
            read_as, warnings = showers.read_as, list(showers.notes)
            if showers.implausible:
                warnings.insert(0, f"implausible: {showers.implausible}")
        else:
            name = f"format {format}" if format else f"format {guess_format(source).name} (guessed)"
            read_as, warnings = [name, f"detector {showers.detector.name}"], []
        return Conversion(output, n, showers.detector.name, tuple(read_as), writer.name, tuple(warnings))


class _Counted(SourceView):
    """A source whose chunks move a progress bar."""

    def __init__(self, base: ShowerSource, advance: Any) -> None:
        super().__init__(base)
        self._advance = advance

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers in order, ``size`` at a time."""
        for chunk in self.base.chunks(size):
            yield chunk
            self._advance(len(chunk))
