"""What ``fuzz.py`` does to inputs: bytes, texts, trees of values, weights, and the structure of HDF5 files.

Every change says what a reader may answer (:class:`Fair`) and follows from a seeded generator.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

__all__ = ["Fair", "change_hdf5", "change_tree", "change_weights", "damage", "replace_file"]


class Fair(Enum):
    """What may be answered to a changed input."""

    SAME = "same"  # the content is not changed: the same result, or a refusal
    REFUSE = "refuse"  # no result is right
    SAYS = "says"  # another content may be valid: the same result, what the file says, or a refusal


def damage(data: bytes, random: Random, places: list[range] | None = None) -> bytes:
    """Return bytes of which some are changed, lost or doubled; ``places`` are those that more often are hit."""
    made = bytearray(data)

    def place() -> int:
        if places and random.random() < 0.7:
            chosen = random.choices(places, [len(one) for one in places])[0]
            return random.choice(chosen)
        return random.randrange(len(made))

    kind = random.randrange(10)
    if kind <= 4:
        for _ in range(random.choice([1, 1, 1, 2, 2, 8])):
            made[place()] ^= 1 << random.randrange(8)
    elif kind == 5:
        start, size = place(), random.choice([1, 4, 8, 64, 512])
        made[start : start + size] = random.choice([b"\0", b"\xff", random.randbytes(1)]) * min(
            size, len(made) - start
        )
    elif kind == 6:
        start, size = place(), random.choice([1, 2, 4, 8, 64])
        made[start : start + size] = random.randbytes(min(size, len(made) - start))
    elif kind == 7:
        del made[place() :]
    elif kind == 8:
        start = place()
        del made[start : start + random.choice([1, 2, 8, 100])]
    else:
        start, size = place(), random.choice([1, 8, 100])
        made[start:start] = made[start : start + size] if random.random() < 0.5 else random.randbytes(size)
    return bytes(made)


_ODD: tuple[Callable[[Random], Any], ...] = (
    lambda r: True, lambda r: False, lambda r: 0, lambda r: -1, lambda r: r.randrange(1, 10), lambda r: 1e308, lambda r: -1e-308,
    lambda r: float("nan"), lambda r: float("inf"), lambda r: 2**31, lambda r: 2**63, lambda r: 2**64, lambda r: 10**30,
    lambda r: 10 ** r.randrange(3, 12), lambda r: "", lambda r: "5", lambda r: "\x1b[31mred", lambda r: "x" * 10**5, lambda r: "\u202e\U0001f600",
    lambda r: [], lambda r: {}, lambda r: [r.random()], lambda r: [1, "a"], lambda r: list(range(10**4)), lambda r: {"a": {"b": [1]}},
    lambda r: "../" * 9 + "etc/passwd", lambda r: "/dev/zero", lambda r: None,
)  # fmt: skip


def change_tree(tree: Any, random: Random, dump: Callable[[Any], str]) -> bytes:
    """Return the text of nested values of which one is another, missing, renamed or doubled, or that no parser likes."""
    tree = json.loads(json.dumps(tree))
    spots: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        for key in one if isinstance(one, dict) else range(len(one)):
            spots.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    holder, key = random.choice(spots)
    kind = random.randrange(12)
    mark = "@fuzz@"
    text = {
        8: "[" * 10**5, 9: "9" * random.choice([400, 4300, 5000, 10**5]), 10: "0x" + "f" * 9000, 11: "1e999",
    }.get(kind)  # fmt: skip
    if text is not None:
        holder[key] = mark
        return dump(tree).replace(f'"{mark}"', text).encode()
    if kind == 7 and isinstance(holder, dict):
        holder[random.choice([str(key) + "x", "new", ""])] = holder.pop(key)
    elif kind == 6:
        del holder[key]
    elif kind == 5:
        deep: Any = 1
        for _ in range(random.choice([20, 90, 400])):
            deep = {"a": deep} if random.random() < 0.5 else [deep]
        holder[key] = deep
    elif kind == 4 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * random.choice([-1, 2, 10, 1e6, 0.5])
    else:
        holder[key] = random.choice(_ODD)(random)
    try:
        return dump(tree).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError):  # TOML has no null
        holder[key] = "none"
        return dump(tree).encode("utf-8", "surrogatepass")


def replace_file(path: Path, random: Random) -> None:
    """Put something else in the place of a file: nothing, a folder, a pipe, a device, a link in a circle, gigabytes of nothing."""
    size = path.stat().st_size
    path.unlink()
    kind = random.randrange(8)
    if kind == 0:
        path.touch()
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        path.symlink_to(path.name)
    elif kind == 5:
        with path.open("wb") as file:
            file.truncate(random.choice([size, 1 << 33, 1 << 40]))
    elif kind == 6:
        path.write_bytes(random.randbytes(random.choice([8, 1000])))


def change_weights(path: Path, random: Random) -> None:
    """Change tensors of a file of weights, which stays a valid one."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(str(path))
    name = random.choice(["condition_high", "condition_low", random.choice(list(tensors))])
    values, kind = tensors[name].copy(), random.randrange(7)
    if kind == 0:
        values.reshape(-1)[random.randrange(values.size)] = random.choice([np.nan, np.inf, -np.inf])
    elif kind == 1:
        values = values.astype(random.choice([np.int64, np.int32, np.uint8, np.bool_]))
    elif kind == 2:
        values = np.repeat(values[None], 2, 0)
    elif kind == 3:
        values = values * np.asarray(random.choice([0, -1, 1e4]), values.dtype)
    elif kind == 4:
        tensors[name + "x"] = values
    elif kind == 5:
        values = values.astype(np.float16)[:0]
    tensors[name] = values
    if kind == 6:
        del tensors[name]
    save_file(tensors, str(path))


def _renew(file: h5py.File, name: str, values: Any, **how: Any) -> None:
    del file[name]
    file.create_dataset(name, data=values, **how)


def _unwritten(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name][()]
    rows = min(random.randrange(1, 6), len(values))
    del file[name]
    made = file.create_dataset(name, values.shape, values.dtype, chunks=(rows, *values.shape[1:]))
    for start in range(0, len(values), rows):
        if start and random.random() < 0.7:
            for row in range(start, min(start + rows, len(values))):  # one by one: rows may be lists
                made[row] = values[row]
    return Fair.REFUSE


def _huge(file: h5py.File, name: str, random: Random) -> Fair:
    """A file of few kB which declares gigabytes: in one chunk, in many rows, or contiguous."""
    kind, shape = file[name].dtype, file[name].shape[1:]
    if h5py.check_vlen_dtype(kind) is not None:
        kind, shape = np.dtype("f4"), (4, 4)
    del file[name]
    way = random.randrange(4)
    if way == 0:
        made = file.create_dataset(
            name,
            (1 << 28, *shape),
            kind,
            chunks=(min(1 << 23, (1 << 29) // max(1, int(np.prod(shape))) // 8), *shape),
            compression="gzip",
        )
        made.id.write_direct_chunk((0,) * len(made.shape), random.randbytes(50))
    elif way == 1:
        file.create_dataset(name, (1 << 40, *shape), kind, chunks=(16, *shape))
    elif way == 2:
        file.create_dataset(name, (1 << 36, *shape), kind)
    else:
        file.create_dataset(name, (0, *shape), kind, maxshape=(None, *shape), chunks=(1024, *shape))
    return Fair.REFUSE


def _virtual(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name]
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    source = random.choice([".", "other.h5", file.filename, "/etc/passwd"])
    layout[:] = h5py.VirtualSource(source, name if source != "other.h5" else "x", values.shape)
    if source == "other.h5":
        with h5py.File(Path(file.filename).with_name(source), "w") as other:
            other.create_dataset("x", data=values[()], dtype=values.dtype)
    del file[name]
    file.create_virtual_dataset(name, layout)
    return Fair.REFUSE


def _external(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name]
    shape, kind = values.shape, values.dtype
    if kind.kind == "O":
        return Fair.SAME
    raw = Path(file.filename).with_name("raw")
    raw.write_bytes(np.abs(values[()]).tobytes())
    del file[name]
    file.create_dataset(
        name,
        shape,
        kind,
        external=[(str(random.choice([raw, "/etc/passwd", "/dev/zero", "none"])), 0, h5py.h5f.UNLIMITED)],
    )
    return Fair.REFUSE


def _link(file: h5py.File, name: str, random: Random) -> Fair:
    way = random.randrange(6)
    file.move(name, "moved/away")
    if way == 0:
        file[name] = h5py.SoftLink("/moved/away")
        return Fair.SAME
    if way == 1:
        file[name] = h5py.SoftLink(random.choice(["/none", f"/{name}", "/moved", "/"]))
    elif way == 2:
        with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
            file.copy("moved/away", other, "x")
        file[name] = h5py.ExternalLink("other.h5", "/x")
    elif way == 3:
        file[name] = h5py.ExternalLink(
            random.choice(["none.h5", "/etc/passwd", "/dev/zero", os.path.basename(file.filename)]),
            f"/{name}",
        )
    elif way == 4:
        file["out"] = h5py.ExternalLink(os.path.basename(file.filename), "/moved")
        file[name] = h5py.SoftLink("/out/away")
    else:
        for number in range(200):
            file[f"l{number}"] = h5py.SoftLink(f"/l{number + 1}")
        file[name] = h5py.SoftLink("/l0")
    return Fair.REFUSE


def _kind(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name][()]
    if values.dtype.kind == "O":
        return Fair.SAME
    way = random.randrange(8)
    if way == 0:
        _renew(file, name, values.astype("S"))
    elif way == 1:
        _renew(file, name, values.astype(complex))
    elif way == 2:
        _renew(file, name, values.astype(bool))
    elif way == 3:
        _renew(file, name, np.array([(v,) for v in values.ravel()], [("a", values.dtype)]))
    elif way == 4:
        del file[name]
        file[name] = h5py.Empty("f4")
    elif way == 5:
        _renew(file, name, values.ravel()[:1].reshape(()))
    elif way == 6:
        del file[name]
        file.create_group(name)
    else:
        _renew(file, name, values[: len(values) // 2] if values.ndim else values)
        return Fair.SAYS if name not in ("showers",) else Fair.REFUSE
    return Fair.REFUSE


def _value(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name]
    bad = random.choice([np.nan, np.inf, -np.inf, -1.0])
    if values.dtype.kind != "f" or not values.size:
        return Fair.SAME
    place = tuple(random.randrange(size) for size in values.shape)
    values[place] = bad
    return Fair.REFUSE if not np.isfinite(bad) else Fair.SAYS


def _extra(file: h5py.File, name: str, random: Random) -> Fair:
    way = random.randrange(7)
    if way == 0:
        file["conditions/" + random.choice(["incident_energy", "incident_theta"])] = (
            np.arange(len(file[name]), dtype="f4") + 1
        )
        return Fair.REFUSE
    if way == 1:
        file.require_group("other")["loop"] = file["/"]
    elif way == 2:
        group = file.create_group("deep")
        for _ in range(random.choice([100, 2000])):
            group = group.create_group("d")
    elif way == 3:
        for number in range(3000):
            file[f"x{number}"] = h5py.SoftLink("/none")
    elif way == 4:
        file["\x1b[31mred\n"] = [1]
    elif way == 5:
        file["conditions/gone"] = random.choice(
            [h5py.SoftLink("/none"), h5py.ExternalLink("/etc/passwd", "/x")]
        )
        return Fair.REFUSE
    else:
        file["conditions/short"] = np.ones(3)
        return Fair.REFUSE
    return Fair.SAME


def _attribute(file: h5py.File, name: str, random: Random) -> Fair:
    key = random.choice(
        [
            *file.attrs,
            "detector",
            "detector_definition",
            "particle",
            "seed",
            "seen_seeds",
            "energy_unit",
            "new",
        ]
    )
    odd = [
        "", "\x1b[2J", "ild-ecal", "/etc/passwd", 7, 1.5, [1.0, 2.0], h5py.Empty("f4"), b"\xff\xfe", "[" * 10**5, "9" * 5000, "{}",
        '{"name": "a", "nx": 1000, "ny": 1000, "pitch": 1, "layers": [{"repeat": 1000, "depth_mm": 1}]}', np.void(b"abc"), "x" * 60000, True,
    ]  # fmt: skip
    value = random.choice(odd)
    before = file.attrs.get(key)
    if random.random() < 0.15 and key in file.attrs:
        del file.attrs[key]
    else:
        file.attrs[key] = value
        if isinstance(before, str) and isinstance(value, str) and before == value:
            return Fair.SAME
    return Fair.SAYS


def _filter(file: h5py.File, name: str, random: Random) -> Fair:
    values = file[name]
    if values.chunks is None or values.dtype.kind == "O":
        return Fair.SAME
    way, place = random.randrange(3), (0,) * values.ndim
    packed = values.compression is not None
    if not values.id.get_num_chunks() or values.id.get_chunk_info(0).chunk_offset != place:
        return Fair.SAME
    _, stored = values.id.read_direct_chunk(place)
    if way == 0:
        values.id.write_direct_chunk(
            place, stored + bytes(1), filter_mask=random.choice([1, 2, 3, 0xFFFFFFFF])
        )
    elif way == 1:
        values.id.write_direct_chunk(place, damage(stored, random))
    else:
        values.id.write_direct_chunk(
            place, random.randbytes(random.choice([1, len(stored), 10 * len(stored)]))
        )
    return Fair.SAME if packed else Fair.SAYS


_STRUCTURES = (
    _unwritten,
    _huge,
    _virtual,
    _external,
    _link,
    _kind,
    _value,
    _extra,
    _attribute,
    _attribute,
    _filter,
)


def change_hdf5(path: Path, random: Random, unread: tuple[str, ...] = ()) -> tuple[str, Fair]:
    """Change the structure of an HDF5 file, which stays one; say how, and what may be answered.

    ``unread`` names datasets that a reader may leave alone.
    """
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        large = [name for name in names if file[name].ndim and len(file[name]) > 8]
        change, name = random.choice(_STRUCTURES), random.choice(large or names)
        fair = change(file, name, random)
        left_alone = fair is Fair.REFUSE and change is not _extra and name in unread
        return f"{change.__name__.strip('_')} of {name}", Fair.SAME if left_alone else fair
