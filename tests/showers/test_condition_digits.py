"""Conditions come back as they are in the file: whole numbers with all digits, or they are refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.errors import FileFormatError, IncompatibleError, InputError
from caloforge.showers import Showers, open_showers, read_showers, write_showers
from caloforge.showers.hdf5 import condition_values

FIRST = 2**24 + 1  # what float32 does not hold
LARGE = np.array([FIRST, 2**53 + 1, -(2**60) - 1, 2**63 - 1])


def showers(**conditions: object) -> Showers:
    return Showers("ild-ecal-10x10", np.ones((4, 100)), np.full(4, 50e3), conditions=conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_whole_numbers_keep_their_digits_through_files(layout: str, tmp_path: Path) -> None:
    path = showers(event=LARGE, pair=np.stack([LARGE, LARGE[::-1]], 1)).save(tmp_path / "a.h5", layout=layout)
    again = write_showers(tmp_path / "b.h5", open_showers(path), layout=layout)
    for found in (read_showers(path), read_showers(again), read_showers(again)[1:].take([2, 0, 1])):
        assert {values.dtype for values in found.conditions.values()} == {np.dtype(np.int64)}
    found = read_showers(again)
    np.testing.assert_array_equal(found.conditions["event"][:, 0], LARGE)
    np.testing.assert_array_equal(found.conditions["pair"][:, 1], LARGE[::-1])
    with open_showers(again) as file:
        np.testing.assert_array_equal(file.condition("event")[:, 0], LARGE)
        np.testing.assert_array_equal(file.take([3, 1]).conditions["event"][:, 0], LARGE[[3, 1]])


@pytest.mark.parametrize("kind", ["<i8", ">i8", "<u4", ">u2", "i1", "<u8"])
def test_every_integer_type_of_a_file_is_read_exactly(kind: str, tmp_path: Path) -> None:
    path = showers().save(tmp_path / "a.h5")
    info = np.iinfo(np.dtype(kind))
    values = np.array([info.min, 1, 7, min(info.max, 2**63 - 1)], kind)
    with h5py.File(path, "a") as file:
        file["conditions/event"] = values
    np.testing.assert_array_equal(read_showers(path).conditions["event"][:, 0], values.astype(np.int64))


def test_what_int64_or_float32_do_not_hold_is_refused(tmp_path: Path) -> None:
    for name, values in (("u8", np.array([0, 1, 2, 2**63], np.uint64)), ("f8", np.arange(4.0) + FIRST)):
        path = showers().save(tmp_path / f"{name}.h5")
        with h5py.File(path, "a") as file:
            file["conditions/event"] = values
        with pytest.raises(FileFormatError, match=r"dataset 'conditions/event'.*whole number"):
            read_showers(path)
        with pytest.raises(InputError, match="condition 'event'"):
            showers(event=values)


def test_other_numbers_are_float32() -> None:
    for values in (
        np.linspace(0, 1, 4),
        np.array([0.1, 1e12, 3, np.nan]),
        np.arange(4.0),
        np.ones(4, np.float16),
    ):
        found = condition_values("x", values)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_batch_whose_digits_the_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    small, large = showers(event=np.arange(4.0)), showers(event=LARGE)
    with pytest.raises(IncompatibleError, match="without a loss of digits"):
        write_showers(tmp_path / "a.h5", iter([small, large]))
    assert not (tmp_path / "a.h5").exists()
    path = write_showers(tmp_path / "b.h5", iter([small, showers(event=np.arange(4)), large[:0]]))
    np.testing.assert_array_equal(read_showers(path).conditions["event"][:, 0], [0, 1, 2, 3, 0, 1, 2, 3])


def test_joined_whole_numbers_keep_their_digits() -> None:
    both = Showers.concatenate([showers(event=LARGE), showers(event=LARGE)])
    np.testing.assert_array_equal(both.conditions["event"][:, 0], np.tile(LARGE, 2))
