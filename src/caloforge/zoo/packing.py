"""Small files of showers: images that ship with the package, and packed showers of any detector.

Images are ``ild-ecal`` showers of 50 GeV projected to 10 x 10 cells, rounded to a fixed step and compressed hard, in the project's file
format. The step is a power of two, so that float32 represents the rounded energies exactly and the rest of the mantissa compresses away.
With a step of 1/256 MeV the peak cell (650 +- 47 MeV) takes some 40,000 values, while ten bits of mantissa would leave 400 and tie the
quantiles. An image takes about 140 bytes.

A packed file has the filled cells alone: for each the number of cells since the previous one and the energy with 10 bits of mantissa
(rounded by at most 0.05 %), as planes of bytes compressed by LZMA: about a third of the HDF5 file's size. Cells below 0.1 keV are dropped,
as in the training showers. Packing unpacked showers changes nothing, so that the identities of the unpacked showers stay. Showers of
several files are joined in the given order; the seed and the number of showers of each file are kept, and of generated showers the
identities of those that their model has seen.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, InputError
from caloforge.files import atomic_path, check_output, sha256_file
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers, write_showers
from caloforge.showers.identity import seen_union
from caloforge.showers.reading import open_with_default
from caloforge.showers.views import ProjectedShowers

__all__ = ["IMAGE", "STEP", "decode", "encode", "pack", "pack_projections", "read_header", "unpack"]


IMAGE = "ild-ecal-10x10"
STEP = 1.0 / 256.0
"""Step of the energies, MeV; the threshold of the study is 0.1 MeV."""


def pack_projections(
    sources: Sequence[str | Path], output: str | Path, step: float = STEP, energy: float = 50_000.0,
    detector: str = "ild-ecal", force: bool = False,
) -> Path:  # fmt: skip
    """Project files of showers and pack them into one.

    Arguments:
        sources: Files of ``ild-ecal`` showers or of their images, in the order in which they are kept.
        step: Step of the energies, a power of two, MeV.
        energy: The one incident energy that is expected, MeV.
        detector: Detector of files that do not name their own.

    Raises:
        InputError: For another energy, showers of a model, or a step that is no power of two.
    """
    output = check_output(output, force)
    if step <= 0 or np.frexp(step)[0] != 0.5:
        msg = f"step is {step} MeV; expected a power of two, such as 1/256"
        raise InputError(msg)
    with atomic_path(output, force) as part:
        raw = part.with_name(part.name + ".raw.h5")
        try:
            write_showers(raw, _images(sources, step, energy, detector))
            _recompress(raw, part, sources, step)
        finally:
            raw.unlink(missing_ok=True)
    return output


def _images(sources: Sequence[str | Path], step: float, energy: float, detector: str) -> Iterator[Showers]:
    """Yield rounded images, source after source, with only the facts that all of them share."""
    for path in sources:
        with open_with_default(path, detector) as file:
            if not np.allclose(file.incident_energy, energy, rtol=1e-6):
                low, high = file.incident_energy.min(), file.incident_energy.max()
                msg = f"{path}: incident energies from {low:g} to {high:g} MeV; expected {energy:g}"
                raise InputError(msg)
            if len(file.seen):
                raise InputError(f"{path}: a model made these showers; expected simulated ones")
            images = file if file.detector == get_detector(IMAGE) else ProjectedShowers(file, IMAGE)
            for chunk in images.chunks():
                cells = (np.round(chunk.cells / step) * step).astype(np.float32)
                common: dict[str, Any] = {
                    "particle": "gamma",
                    "source": "geant4",
                    "seed": None,
                    "attributes": {},
                    "conditions": {},
                }
                yield chunk.replace(cells=cells, **common)


def _recompress(raw: Path, packed: Path, sources: Sequence[str | Path], step: float) -> None:
    """Copy a file with the strongest compression, and record its sources."""
    with h5py.File(raw, "r") as old, h5py.File(packed, "w", libver=("v108", "v110"), locking=False) as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        new.attrs["rounded_to_mev"] = step
        new.attrs["packed_from"] = [Path(path).name for path in sources]
        new.attrs["packed_from_sha256"] = [sha256_file(path) for path in sources]
        for name, values in old.items():
            best = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
            new.create_dataset(name, data=values[:], chunks=(min(len(values), 8192), values.shape[1]), **best)


CUT = 1e-4
"""Smallest energy of a cell, MeV."""
_MANTISSA = 13  # bits of a float32's mantissa that are dropped
_FIRST = (127 - 14) << 10  # code of 2^-14 MeV, the smallest energy that a code can represent
_CODES = 1 << 15
_OF_A_FILE = ("n", "cpu_seconds_per_shower", "caloforge_version")
"""Attributes that differ between files of one simulation."""
_MAGIC = "caloforge packed showers 1"


def encode(energy: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the codes (n,) of cell energies (n,), MeV, rounded to 10 bits of mantissa.

    Raises:
        InputError: When an energy is below 2^-14 MeV or from 2^18 MeV on.
    """
    bits = energy.astype(np.float32).view(np.uint32).astype(np.int64)
    half = (1 << (_MANTISSA - 1)) - 1 + ((bits >> _MANTISSA) & 1)
    codes = ((bits + half) >> _MANTISSA) - _FIRST
    if codes.size and not (codes.min() >= 0 and codes.max() < _CODES):
        msg = f"cell energies from {energy.min():g} to {energy.max():g} MeV; expected 6.2e-5 to 2.6e5 MeV"
        raise InputError(msg)
    return codes.astype(np.uint16)


def decode(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the energies (n,), MeV, of codes (n,)."""
    energy: NDArray[np.float32] = ((codes.astype(np.uint32) + _FIRST) << _MANTISSA).view(np.float32)
    return energy


def pack(files: Sequence[Path], output: Path, force: bool = False) -> int:
    """Pack files of showers of one detector and beam into one file; return the number of showers."""
    counts, gaps, codes, conditions, seen = [], [], [], [], []
    parts: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for path in files:
        with open_showers(path) as source:
            mine = {
                "detector": source.detector.name,
                "particle": source.particle,
                "source": source.source,
                "theta": source.has_theta,
                "conditions": {name: source.condition(name).shape[1] for name in source.condition_names},
                "attributes": {k: v for k, v in sorted(source.attributes.items()) if k not in _OF_A_FILE},
            }
            if facts and mine != facts:
                msg = f"{path}: was made differently than {files[0]}: {mine} and {facts}"
                raise InputError(msg)
            facts = mine
            cost = source.attributes.get("cpu_seconds_per_shower")
            parts.append({"seed": source.seed, "showers": len(source), "cpu_seconds_per_shower": cost})
            seen.append(source.seen)
            columns = [source.incident_energy[:, None]]
            columns += [source.condition("incident_theta")] if source.has_theta else []
            columns += [source.condition(name) for name in source.condition_names]
            conditions.append(np.concatenate(columns, axis=1).astype(np.float64))
            for chunk in source.chunks():
                rows, cells = np.nonzero(chunk.cells >= CUT)
                counts.append(np.bincount(rows, minlength=len(chunk)))
                first = np.r_[True, rows[1:] != rows[:-1]] if rows.size else np.zeros(0, bool)
                gaps.append(np.where(first, cells, np.diff(cells, prepend=0)))
                codes.append(encode(chunk.cells[rows, cells]))
    gap, code = np.concatenate(gaps).astype(np.uint32), np.concatenate(codes)
    wide = bool(gap.max(initial=0) >= 1 << 16)
    arrays: dict[str, Any] = {
        "counts": np.concatenate(counts).astype(np.uint32),
        "conditions": np.concatenate(conditions),
        **{f"gap{k}": (gap >> (8 * k)).astype(np.uint8) for k in range(3 if wide else 2)},
        "code0": code.astype(np.uint8),
        "code1": (code >> 8).astype(np.uint8),
    }
    if len(identities := seen_union(seen)):
        arrays["seen"] = identities
    buffer = io.BytesIO()
    np.savez(buffer, header=json.dumps({"format": _MAGIC, "parts": parts, **facts}), **arrays)
    with atomic_path(output, force) as part:
        part.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    return sum(int(entry["showers"]) for entry in parts)


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a packed file: detector, particle, attributes, seed and number of each part."""
    return _read(path)[0]


def unpack(path: Path, output: Path, force: bool = False) -> int:
    """Unpack a file into the project's format; return the number of showers.

    Raises:
        FileFormatError: When it is not a packed file.
    """
    header, arrays = _read(path)
    write_showers(output, _showers(header, arrays), force=force)
    return len(arrays["counts"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        arrays = dict(np.load(io.BytesIO(lzma.decompress(path.read_bytes()))))
        header: dict[str, Any] = json.loads(str(arrays["header"]))
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    except (lzma.LZMAError, ValueError, KeyError) as error:
        raise FileFormatError(path, "", "is not a file of packed showers") from error
    if header.get("format") != _MAGIC:
        raise FileFormatError(path, "header", f"says '{header.get('format')}'; expected '{_MAGIC}'")
    return header, arrays


def _showers(header: dict[str, Any], arrays: dict[str, NDArray[Any]], size: int = 250) -> Iterator[Showers]:
    detector = get_detector(header["detector"])
    parts = header["parts"]
    attributes = dict(header["attributes"])
    if all(part["cpu_seconds_per_shower"] is not None for part in parts):
        n = sum(part["showers"] for part in parts)
        cost = sum(part["showers"] * part["cpu_seconds_per_shower"] for part in parts)
        attributes["cpu_seconds_per_shower"] = cost / n
    seeds = [part["seed"] for part in parts]
    if len(seeds) > 1:
        attributes["seeds"] = seeds
    gap = np.zeros(len(arrays["code0"]), np.int64)
    for k, name in enumerate(sorted(name for name in arrays if name.startswith("gap"))):
        gap += arrays[name].astype(np.int64) << (8 * k)
    energy = decode((arrays["code0"] + 256 * arrays["code1"].astype(np.uint16)).astype(np.uint16))
    ends = np.cumsum(arrays["counts"].astype(np.int64))
    starts = ends - arrays["counts"]
    conditions, sizes, seen = arrays["conditions"], header["conditions"], arrays.get("seen")
    for begin in range(0, len(ends), size):
        rows = slice(begin, min(begin + size, len(ends)))
        cells = np.zeros((rows.stop - rows.start, detector.n_cells), np.float32)
        for row in range(rows.start, rows.stop):
            span = slice(starts[row], ends[row])
            cells[row - rows.start, np.cumsum(gap[span])] = energy[span]
        columns = conditions[rows]
        offset = 2 if header["theta"] else 1
        named = {}
        for name, width in sizes.items():
            named[name] = columns[:, offset : offset + width]
            offset += width
        theta, seed = columns[:, 1] if header["theta"] else None, seeds[0] if len(seeds) == 1 else None
        facts = header["particle"], header["source"], seed, attributes
        yield Showers(detector, cells, columns[:, 0], theta, named, *facts, seen=seen)
