"""Ranges of showers of a seed in files, a warning when two files have the same showers, and merging and splitting of files.

Showers are counted: shower i of a seed is the same whoever makes it. A file says with the attributes ``seed``, ``first`` and ``n`` that it has the
showers ``first`` to ``first + n - 1`` of its seed, so that jobs which share a production can be checked and joined.

Parts of a file that does not say so (of several seeds, or of another program) have the attributes ``part_of``, a hash of that file, ``part_first``,
the number of their first shower in it, and ``part_total``, its number of showers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, IncompatibleError, InputError
from caloforge.files import check_output, ensure_output_dir, sha256_file
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import hdf5
from caloforge.showers.description import describe
from caloforge.showers.identity import NO_IDENTITIES
from caloforge.showers.reading import ShowerFile, open_showers
from caloforge.showers.views import Selection
from caloforge.showers.writing import ShowerWriter

__all__ = ["FIRST", "NUMBER", "Merged", "check_first", "info", "made_before", "merge", "range_facts", "split"]

FIRST, NUMBER = "first", "n"
"""Attributes: number of the first shower of a file in the order of its seed, and how many follow."""
_COST = "cpu_seconds_per_shower"
_OWN = frozenset({FIRST, NUMBER, _COST})
"""Attributes in which files of one production differ."""
_PART_OF, _PART_FIRST, _PART_TOTAL = "part_of", "part_first", "part_total"
_LOOKED_AT = 500
"""Most files beside an output that are opened."""
_MOST = 2**62


def check_first(first: int) -> int:
    """Return the number of the first shower.

    Raises:
        InputError: When it is negative or too large.
    """
    if not 0 <= first < _MOST:
        raise InputError(f"first is {first}; expected 0 <= first < 2**62")
    return first


def range_facts(first: int, n: int) -> dict[str, int]:
    """Return the attributes of a file of the showers ``first`` to ``first + n - 1`` of its seed."""
    return {FIRST: first, NUMBER: n}


def made_before(output: Path, facts: Mapping[str, Any], seen: NDArray[np.uint64] = NO_IDENTITIES) -> str:
    """Return a warning when a file beside an output has some of the showers that it is to have; empty when none has.

    Arguments:
        output: The file to be written; it is not looked at itself.
        facts: Attributes of that file: :func:`range_facts`, and what its showers follow from: ``detector``, ``source``, ``seed``, beam, engine.
        seen: Identities of the showers that trained the model, which tell models of one name apart.
    """
    first, stop = facts[FIRST], facts[FIRST] + facts[NUMBER]
    others = {name: value for name, value in facts.items() if name not in (FIRST, NUMBER)}
    beside = (path for path in output.parent.glob("*.h5") if path.name != output.name and path.is_file())
    for path in sorted(beside)[:_LOOKED_AT]:
        there = _read_range(path, others, seen)
        if there is not None and there[0] < stop and first < sum(there):
            return (
                f"{path} has showers {_said(*there)} of the same seed {facts['seed']}, made by the same {facts['source']} under the same "
                f"conditions; {output.name} will have {_said(first, stop - first)}: they are no independent sample; "
                "use another --seed or --first"
            )
    return ""


def _said(first: int, n: int) -> str:
    return f"{first:,} to {first + n - 1:,}"


def _read_range(path: Path, facts: Mapping[str, Any], seen: NDArray[np.uint64]) -> tuple[int, int] | None:
    """Return the first shower and the number of a file whose attributes are these; None for any other."""
    try:
        with h5py.File(path, "r") as file:
            stored = hdf5.plain_attributes(file)
            if any(stored.get(name) != value for name, value in facts.items()) or NUMBER not in stored:
                return None
            known = file[hdf5.SEEN][:] if hdf5.SEEN in file else NO_IDENTITIES
            if not np.array_equal(known, seen):
                return None
            return int(stored.get(FIRST, 0)), int(stored[NUMBER])
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return None  # a file of something else, or one that is just being written


@dataclass(frozen=True)
class Merged:
    """A file that was merged from several."""

    path: Path
    n: int
    files: int
    ranges: Mapping[
        int, Sequence[tuple[int, int]]
    ]  # seed to (first, number) of the showers that follow each other


@dataclass(frozen=True)
class _Part:
    """A file to be merged."""

    path: Path
    detector: Detector
    seed: int
    first: int
    n: int
    facts: Mapping[str, Any]  # what all files of a production have in common
    cost: float | None  # processor seconds of a shower
    sparse: bool

    @property
    def end(self) -> int:
        """Number of the shower behind the last one."""
        return self.first + self.n

    @property
    def whose(self) -> str:
        """Of what the showers are numbered, for messages."""
        return "the file that was split" if _PART_OF in self.facts else f"seed {self.seed}"

    @classmethod
    def of(cls, file: ShowerFile) -> _Part:
        n = file.attributes.get(NUMBER)
        if _PART_OF in file.attributes:
            facts = {
                name: value for name, value in file.attributes.items() if name not in (_PART_FIRST, _COST)
            }
            facts |= {"particle": file.particle, "source": file.source, "seed": file.seed}
            first, cost = int(file.attributes.get(_PART_FIRST, 0)), file.attributes.get(_COST)
            return cls(file.path, file.detector, 0, first, len(file), facts, cost, file.sparse)
        if file.seed is None or n is None:
            raise FileFormatError(
                file.path,
                "",
                "does not say which showers of which seed it has; expected a file of simulate, generate or split",
            )
        if n != len(file):
            raise FileFormatError(
                file.path,
                "",
                f"has {len(file)} showers and says that it has {n}; expected the whole of a simulation or generation",
            )
        facts = {name: value for name, value in file.attributes.items() if name not in _OWN}
        facts |= {"particle": file.particle, "source": file.source}
        cost, first = file.attributes.get(_COST), file.attributes.get(FIRST, 0)
        return cls(file.path, file.detector, file.seed, int(first), n, facts, cost, file.sparse)


def merge(
    files: Iterable[str | Path],
    output: str | Path,
    force: bool = False,
    layout: str | None = None,
    gaps: bool = False,
) -> Merged:
    """Join files of one production, such as those of a job array, in the order of seeds and showers.

    Of one seed without gaps the result is the file that one job would have made of all showers; of the parts of a file it is that file. Memory is
    that of a chunk of a file.

    Arguments:
        files: Files that ``simulate``, ``generate`` or :func:`split` made, in any order.
        output: File to write.
        force: Replace an output that exists.
        layout: Of the output, "dense" or "sparse"; by default that of the first file.
        gaps: Accept that showers are missing between the files of a seed.

    Raises:
        InputError: When there are no files, or showers of a seed are missing or there twice; names them.
        FileFormatError: When a file does not say which showers it has.
        IncompatibleError: When files differ in more than their seeds and ranges; says in what.
        OutputExistsError: When the output exists and ``force`` is not set.
    """
    path = check_output(hdf5.check_ending(output), force)
    parts = []
    for name in files:
        with open_showers(name) as file:
            parts.append(_Part.of(file))
        _check_alike(parts[0], parts[-1])
    if not parts:
        raise InputError("no files to merge; expected at least one")
    layout = layout or ("sparse" if parts[0].sparse else "dense")
    parts.sort(key=lambda part: (part.seed, part.first))
    ranges = _ranges(parts, gaps)
    total = sum(part.n for part in parts)
    own = dict(parts[0].facts)
    particle, source = str(own.pop("particle")), str(own.pop("source"))
    costs = [part.cost for part in parts if part.cost is not None]
    if len(costs) == len(parts):
        mean = sum(cost * part.n for cost, part in zip(costs, parts, strict=True)) / total
        own[_COST] = costs[0] if len(set(costs)) == 1 else mean
    seed = own.pop("seed", None)
    if _PART_OF in own:
        whole, ranges = ranges[0] == [(0, own[_PART_TOTAL])], {}
        own = (
            _whole(own)
            if whole or parts[-1].end - parts[0].first > total
            else own | {_PART_FIRST: parts[0].first}
        )
    elif len(ranges) > 1:
        own["seeds"] = sorted(ranges)
    else:
        seed = parts[0].seed
        own |= range_facts(parts[0].first, total) if len(ranges[seed]) == 1 else {}
    writer = ShowerWriter(path, parts[0].detector, particle, source, seed, own, force, layout)
    with writer, progress(total, f"merging {len(parts)} files") as advance:
        for part in parts:
            with open_showers(part.path) as file:
                if len(file) != part.n:
                    raise FileFormatError(part.path, "", "changed while it was merged")
                for chunk in file.chunks():
                    writer.append(chunk)
                    advance(len(chunk))
    return Merged(path, total, len(parts), ranges)


def _whole(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a file without those of a part."""
    return {name: value for name, value in facts.items() if name not in (_PART_OF, _PART_FIRST, _PART_TOTAL)}


def info(file: str | Path, detector: str | Path | Detector | None = None) -> dict[str, Any]:
    """Return what is in a file of showers, which is read once: see :func:`caloforge.showers.description.describe`.

    Arguments:
        file: The file.
        detector: Detector of a file that does not name its own.

    Raises:
        FileFormatError: When it is not a file of showers, or damaged.
    """
    with open_showers(file, detector) as showers:
        return describe(showers)


def split(
    source: str | Path,
    output: str | Path,
    number: int | None = None,
    parts: int | None = None,
    force: bool = False,
    layout: str | None = None,
    detector: str | Path | Detector | None = None,
) -> list[Path]:
    """Divide a file into several, which :func:`merge` joins to the same showers, conditions and attributes again.

    Arguments:
        source: File of showers.
        output: Folder of the files, which are named after the source: ``showers-0.h5``, ``showers-1.h5``, ...
        number: Showers of each file; the last one has the rest.
        parts: Or the number of files, whose sizes differ by one shower at most.
        force: Replace files that exist.
        layout: "dense" or "sparse"; by default that of the source.
        detector: Detector of a source that does not name its own.

    Returns:
        The files, in order.

    Raises:
        InputError: When neither ``number`` nor ``parts`` is given, or both, or one that the file has not enough showers for.
        OutputExistsError: When a file exists and ``force`` is not set; nothing is written then.
    """
    source = Path(source)
    if (number is None) == (parts is None):
        raise InputError("give the showers of each file (--number) or the number of files (--parts)")
    with open_showers(source, detector) as file:
        n = len(file)
        if not 1 <= (wanted := number or parts or 0) <= n:
            name = "--parts" if number is None else "--number"
            raise InputError(f"{name} is {wanted}; expected 1 to {n:,}, the showers of {source}")
        bounds = [k * n // wanted for k in range(wanted + 1)] if number is None else [*range(0, n, wanted), n]
        folder = ensure_output_dir(output, force=True)
        digits = len(str(len(bounds) - 2))
        paths = [folder / f"{source.stem}-{k:0{digits}d}.h5" for k in range(len(bounds) - 1)]
        for path in paths:
            check_output(path, force)
        facts = dict(file.attributes)
        ranged = _PART_OF not in facts and file.seed is not None and facts.get(NUMBER) == n
        key, base = (FIRST, facts.get(FIRST, 0)) if ranged else (_PART_FIRST, facts.get(_PART_FIRST, 0))
        facts |= {} if ranged or _PART_OF in facts else {_PART_OF: sha256_file(source)[:16], _PART_TOTAL: n}
        written: list[Path] = []
        try:
            with progress(n, f"splitting {source.name}") as advance:
                for path, (start, stop) in zip(paths, pairwise(bounds), strict=True):
                    own = facts | {key: int(base) + start} | ({NUMBER: stop - start} if ranged else {})
                    kind = layout or ("sparse" if file.sparse else "dense")
                    writer = ShowerWriter(
                        path, file.detector, file.particle, file.source, file.seed, own, force, kind
                    )
                    with writer:
                        for chunk in Selection(file, np.arange(start, stop)).chunks():
                            writer.append(chunk)
                            advance(len(chunk))
                    written.append(path)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
    return paths


def _check_alike(first: _Part, other: _Part) -> None:
    """Raise IncompatibleError when two files are not of one production."""
    if first.detector != other.detector:
        raise IncompatibleError(
            f"{other.path} has showers of '{other.detector.name}', {first.path} of '{first.detector.name}'; expected one detector"
        )
    for name in sorted({*first.facts, *other.facts}):
        one, two = first.facts.get(name), other.facts.get(name)
        if not np.array_equal(np.asarray(one), np.asarray(two)):
            raise IncompatibleError(
                f"{other.path} has {name} {two}, {first.path} has {one}; expected files of one production"
            )


def _ranges(parts: Sequence[_Part], gaps: bool) -> dict[int, list[tuple[int, int]]]:
    """Return, of each seed, the first shower and the number of each run of showers that follow each other."""
    for one, two in pairwise(parts):
        end = one.end
        if one.seed != two.seed or end == two.first:
            continue
        if two.first < end:
            twice = _said(two.first, min(end, two.first + two.n) - two.first)
            raise InputError(
                f"{one.path} and {two.path} both have showers {twice} of {one.whose}; expected each shower once"
            )
        if not gaps:
            raise InputError(
                f"showers {_said(end, two.first - end)} of {one.whose} are missing between {one.path} and {two.path}; "
                "make them, or use --allow-gaps"
            )
    found: dict[int, list[tuple[int, int]]] = {}
    for part in parts:
        runs = found.setdefault(part.seed, [])
        if runs and sum(runs[-1]) == part.first:
            runs[-1] = runs[-1][0], runs[-1][1] + part.n
        else:
            runs.append((part.first, part.n))
    return found
