"""The readers that ``fuzz.py`` attacks: how an intact input is made, how it is read, and what an independent look at it says.

What a changed file says is found with h5py, NumPy, ``json`` and ``tomllib`` alone, and is valid only where all is there and finite.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import tomli_w
from fuzz_changes import Fair, change_hdf5, change_tree, damage, replace_file

import caloforge as cf
from caloforge.formats import open_file
from caloforge.geometry import detector_from_definition
from caloforge.geometry.definition import load_detector
from caloforge.showers import Showers, open_showers
from caloforge.showers.sparse import Cells
from caloforge.validate.limits import read_limits

__all__ = ["SUBJECTS", "Subject"]

Found = dict[str, Any]

DETECTOR: dict[str, Any] = {
    "name": "toy", "nx": 4, "ny": 3, "pitch": 30.0, "padding": 1, "medium": "G4_AIR",
    "materials": {"plastic": {"density": 1.032, "atoms": {"C": 9, "H": 10}}},
    "layers": [
        {"repeat": 3, "absorber": "G4_Pb", "absorber_mm": 6.0, "active": "plastic", "active_mm": 5.0},
        {"repeat": 2, "units": 2, "absorber": "G4_W", "absorber_mm": 2.5, "active": "G4_Si", "active_mm": 0.5, "gap_mm": 1.0},
    ],
    "beam": {"particle": "e-", "energy": "1-5GeV", "theta": "90"},
}  # fmt: skip
_TOY = json.dumps(DETECTOR)
LIMITS: dict[str, Any] = {
    "limits": {"auc_high": {"max": 0.7}, "ks": {"visible_energy": {"p": {"min": 0.001}}}, "separation_power.*": {"min": 0.0, "max": 0.05}}
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "name": "vae", "model": {"epochs": 3, "latent": 4, "hidden": [32, 16], "calibrate": False, "kl": 1.0},
    "train": {"validation": 0.2, "validate_every": 2, "combine": "best", "stage_seconds": {"vae": 10.0}, "data": {"memory": "1GB"}},
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One reader and its input, a file or a folder within ``place``."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Found]
    change: Callable[[Path, Random], tuple[str, Fair]]
    says: Callable[[Path], Found | None] = field(default=lambda path: None)
    share: float = 1.0  # of the inputs


def _showers() -> Showers:
    place = detector_from_definition(json.dumps(DETECTOR))
    made = cf.simulate(place, n=40, engine="gflash", energy="1-5GeV", seed=8)
    return made.replace(
        conditions={"impact": np.arange(40.0), "number": np.arange(40)},
        attributes={"physics_list": "one", "seen_seeds": [3, 4]}, seen=np.arange(5, dtype=np.uint64) + 1,
    )  # fmt: skip


def _written(ending: str, **how: Any) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        cf.formats.conversion.convert(_own(place), place / f"input{ending}", force=True, **how)
        return place / f"input{ending}"

    return make


def _own(place: Path) -> Path:
    path = place / "own.h5"
    return path if path.is_file() else _showers().save(path)


def _plain_h5(place: Path) -> Path:
    """A file of other programs: small chunks of the oldest format of HDF5, and contiguous columns."""
    path, showers = place / "input.h5", _showers()
    with h5py.File(path, "w") as file:
        file.create_dataset("showers", data=showers.cells, chunks=(7, 20), compression="gzip", shuffle=True)
        file.create_dataset("incident_energies", data=showers.incident_energy[:, None])
        file.create_dataset("conditions/impact", data=showers.conditions["impact"], chunks=(8, 1))
        file.attrs["detector"], file.attrs["detector_definition"] = "toy", showers.detector.definition
        file.attrs["particle"] = "e-"
    return path


def _getting_high(place: Path) -> Path:
    path, random = place / "input.h5", np.random.default_rng(3)
    depth = np.arange(30)[:, None, None]
    cells = (
        np.exp(-(((depth - 10) / 6) ** 2))
        * random.exponential(0.03, (4, 30, 30, 30))
        * (random.random((4, 30, 30, 30)) < 0.3)
    )
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "30x30/layers", data=cells.astype("f4"), chunks=(1, 30, 30, 30), compression="gzip"
        )
        file.create_dataset("30x30/energy", data=np.full((4, 1), 50, "f4"))
    return path


def _found(showers: Any) -> Found:
    """Read all showers of an open source."""
    with showers:
        whole = showers[:]
    facts = {name: getattr(whole, name) for name in ("particle", "source", "seed")} | {
        "detector": whole.detector.definition
    }
    arrays = {
        "cells": whole.cells,
        "energy": whole.incident_energy,
        "theta": whole.incident_theta,
        "seen": whole.seen,
    }
    return {
        **arrays,
        **whole.conditions,
        "facts": json.dumps([facts, whole.attributes], default=str, sort_keys=True),
    }


def _h5_says(path: Path, cells: str = "showers", energy: str = "incident_energies") -> Found | None:
    """Return cells, energies and conditions of the file as h5py reads them; None where something is not there."""
    with h5py.File(path, "r") as file:
        names = {"cells": cells, "energy": energy}
        names |= {name: f"conditions/{name}" for name in file.get("conditions", ())}
        found: Found = {}
        for name, where in names.items():
            data = file[where]
            counts = (
                1
                if data.chunks is None
                else int(np.prod([-(-a // b) for a, b in zip(data.shape, data.chunks, strict=True)]))
            )
            if data.is_virtual or data.external or (data.chunks and data.id.get_num_chunks() != counts):
                return None
            found[name] = np.asarray(data[()], np.float64)
            if not np.isfinite(found[name]).all() or (
                name in names and name in ("cells", "energy") and (found[name] < 0).any()
            ):
                return None
        found["energy"] = found["energy"].reshape(-1)
        for key in ("particle", "source"):
            if key in file.attrs and not isinstance(file.attrs[key], str | bytes):
                return None
        return found


def _points_say(path: Path) -> Found | None:
    """Return the cells of a file of points."""
    with h5py.File(path, "r") as file:
        showers, numbers = file["showers"], file["num_points"][()].ravel()
        made = np.zeros((len(numbers), 60))
        for row, number in enumerate(numbers.tolist()):
            points = np.asarray(showers[row], np.float32).reshape(-1, 4)[:number]
            if len(points) != number or not np.isfinite(points).all() or (points[:, 3] < 0).any():
                return None
            cell = Cells(detector_from_definition(_TOY)).find(points[:, :3])
            if (cell < 0).any():
                return None
            np.add.at(made[row], cell, points[:, 3].astype(np.float64))
        unit = 1000.0 if file.attrs.get("energy_unit") == "GeV" else 1.0
        for key in ("particle", "source"):
            if key in file.attrs and not isinstance(file.attrs[key], str | bytes):
                return None
        return {"cells": (made * unit).astype(np.float32), "energy": file["energies"][()].ravel() * unit}


def _getting_high_says(path: Path) -> Found | None:
    found = _h5_says(path, "30x30/layers", "30x30/energy")
    if found is None or found["cells"].ndim != 4:
        return None
    cells = found["cells"].transpose(0, 2, 3, 1).reshape(len(found["cells"]), -1)
    return {"cells": cells, "energy": found["energy"] * 1000}


def _h5_places(data: bytes, path: Path) -> list[range]:
    """Return where the file has no values of datasets."""
    used: list[tuple[int, int]] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.chunks is None and item.id.get_offset() is not None:
            used.append((item.id.get_offset(), item.id.get_storage_size()))
        elif item.chunks:
            infos = [item.id.get_chunk_info(k) for k in range(item.id.get_num_chunks())]
            used.extend((info.byte_offset, info.size) for info in infos)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    places, at = [], 0
    for start, size in sorted(used):
        places.append(range(at, max(at, start)))
        at = start + size
    return [one for one in [*places, range(at, len(data))] if len(one)]


def _change_h5(checked: bool, unread: tuple[str, ...] = ()) -> Callable[[Path, Random], tuple[str, Fair]]:
    """Return the changes of an HDF5 file; ``checked``: what it stores has checksums, so that no other value is right; ``unread``: datasets that need not be."""

    def change(path: Path, random: Random) -> tuple[str, Fair]:
        kind = random.random()
        if kind < 0.02:
            replace_file(path, random)
            return "replaced", Fair.SAME
        if kind < 0.5:
            return change_hdf5(path, random, unread)
        data = path.read_bytes()
        path.write_bytes(damage(data, random, _h5_places(data, path)))
        return "bytes", Fair.SAME if checked else Fair.SAYS

    return change


def _change_bytes(checked: bool) -> Callable[[Path, Random], tuple[str, Fair]]:
    def change(path: Path, random: Random) -> tuple[str, Fair]:
        if random.random() < 0.03:
            replace_file(path, random)
            return "replaced", Fair.SAME
        path.write_bytes(damage(path.read_bytes(), random))
        return "bytes", Fair.SAME if checked else Fair.SAYS

    return change


def _change_text(
    path: Path, random: Random, parse: Callable[[str], Any], dump: Callable[[Any], str]
) -> tuple[str, Fair]:
    kind = random.random()
    if kind < 0.03:
        replace_file(path, random)
        return "replaced", Fair.SAYS
    if kind < 0.4:
        path.write_bytes(damage(path.read_bytes(), random))
        return "text", Fair.SAYS
    path.write_bytes(change_tree(parse(path.read_text()), random, dump))
    return "values", Fair.SAYS


def _change_toml(path: Path, random: Random) -> tuple[str, Fair]:
    return _change_text(path, random, tomllib.loads, tomli_w.dumps)


def _toml(name: str, content: dict[str, Any]) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / name).write_text(tomli_w.dumps(content))
        return place / name

    return make


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Return every number, truth value and text of nested values by its place."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, one in items for k, v in leaves(one, (*path, key)).items()}
    return {path: tree}


def kind_of(value: Any) -> str:
    """Return whether a value is a truth value, a number or something else."""
    return (
        "bool"
        if isinstance(value, bool)
        else "number"
        if isinstance(value, int | float)
        else type(value).__name__
    )


def says_all(given: Any, read: Any) -> bool:
    """Return whether all numbers and truth values of a text are what was read, with their kinds."""
    taken = leaves(read)
    for place, value in leaves(given).items():
        if kind_of(value) in ("bool", "number") and place in taken:
            if kind_of(taken[place]) != kind_of(value) or taken[place] != value:
                return False
        elif kind_of(value) == "str" and kind_of(taken.get(place, "")) in ("bool", "number"):
            return False
    return True


def _read_detector(path: Path) -> Found:
    place = load_detector(path)
    numbers = [
        place.sampling_fraction,
        place.depth_x0,
        place.length,
        float(place.n_cells),
        *place.cell_centres.ravel()[:300],
    ]
    if not np.isfinite(numbers).all() or place.n_cells > 2 * 10**7:
        raise AssertionError(
            f"a detector of {place.n_cells} cells with numbers that are not finite, or too many"
        )
    return {"text": place.definition}


def _detector_says(path: Path) -> Found | None:
    found = _read_detector(path)
    given = tomllib.loads(path.read_text())
    given.get("beam", {}).pop("theta", None)
    return found if says_all(given, json.loads(found["text"])) else None


def _read_limits(path: Path) -> Found:
    return {
        "limits": json.dumps([[one.name, one.min, one.max] for one in read_limits(path)], sort_keys=True),
        "text": str(read_limits(path)),
    }


def _limits_say(path: Path) -> Found | None:
    given = leaves(tomllib.loads(path.read_text())["limits"])
    numbers = sorted(float(v) for v in given.values())
    found = [v for one in json.loads(_read_limits(path)["limits"]) for v in one[1:] if v is not None]
    good = all(kind_of(v) == "number" for v in given.values()) and numbers == sorted(map(float, found))
    return _read_limits(path) if good else None


def _npy(place: Path) -> Path:
    path, showers = place / "input.npz", _showers()
    np.savez(path, x=showers.cells, e=showers.incident_energy)
    return path


def _npz_says(path: Path) -> Found | None:
    with np.load(path, allow_pickle=False) as stored:
        return {"cells": stored["x"].astype(np.float64), "energy": stored["e"].astype(np.float64).ravel()}


def _foreign(path: Path, **how: Any) -> Found:
    return _found(open_file(path, **how))


def _light() -> list[Subject]:
    npz = {
        "detector": detector_from_definition(_TOY),
        "keys": {"cells": "x", "energy": "e"},
        "energy_unit": "MeV",
        "cell_unit": "MeV",
    }
    h5 = {"detector": detector_from_definition(_TOY)}
    return [
        Subject("own", _written(".h5"), lambda p: _found(open_showers(p)), _change_h5(True), _h5_says),
        Subject(
            "own sparse",
            _written(".h5", layout="sparse"),
            lambda p: _found(open_showers(p)),
            _change_h5(True, ("shower_ids", "pdg", "directions")),
            _points_say,
        ),
        Subject("plain HDF5", _plain_h5, lambda p: _found(open_showers(p)), _change_h5(False), _h5_says),
        Subject(
            "showerdata",
            _written(".h5", to="showerdata"),
            lambda p: _foreign(p),
            _change_h5(False, ("shower_ids", "pdg")),
            _points_say,
        ),
        Subject(
            "calochallenge",
            _plain_h5,
            lambda p: _foreign(p, format="calochallenge", **h5),
            _change_h5(False),
            _h5_says,
        ),
        Subject("getting-high", _getting_high, lambda p: _foreign(p), _change_h5(False), _getting_high_says),
        Subject("own npz", _written(".npz"), lambda p: _foreign(p), _change_bytes(True), share=1.5),
        Subject("npz", _npy, lambda p: _foreign(p, **npz), _change_bytes(False), _npz_says, 1.5),
        Subject("root", _written(".root"), lambda p: _foreign(p), _change_bytes(True), share=0.7),
        Subject(
            "detector.toml", _toml("input.toml", DETECTOR), _read_detector, _change_toml, _detector_says, 2.0
        ),
        Subject("limits.toml", _toml("input.toml", LIMITS), _read_limits, _change_toml, _limits_say, 2.0),
    ]


def _heavy() -> list[Subject]:
    from fuzz_models import model_subjects

    return model_subjects(_showers, SETTINGS, _toml, _change_toml)


def SUBJECTS(heavy: bool) -> list[Subject]:
    """Return the readers that need torch, or those that do not."""
    return _heavy() if heavy else _light()
