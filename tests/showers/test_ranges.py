"""Job arrays: ranges of showers of a seed, warnings of the same ones, and merged files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.errors import FileFormatError, IncompatibleError, InputError, SameShowersWarning
from caloforge.showers import ShowerFile, open_showers, read_showers, write_showers
from caloforge.showers.ranges import merge
from caloforge.simulate import simulate
from caloforge.simulate.chunks import plan
from caloforge.zoo import load

N = 700


def simulated(output: Path, first: int, n: int, **options: Any) -> Path:
    options = {"seed": 4, "layout": "dense"} | options
    return simulate("atlas-em-barrel", n, engine="gflash", output=output, first=first, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("whole") / "whole.h5", 0, N)


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three jobs, of ranges that are no multiples of anything."""
    folder = tmp_path_factory.mktemp("array")
    return [simulated(folder / f"{first}.h5", first, n) for first, n in ((0, 123), (123, 401), (524, 176))]


def same(one: Path, other: Path) -> None:
    """Compare all datasets and attributes of two files, but for the time that they took."""
    with h5py.File(one) as a, h5py.File(other) as b:
        assert sorted(_names(a)) == sorted(_names(b))
        for name in _names(a):
            if isinstance(a[name], h5py.Dataset):
                assert np.array_equal(a[name][:], b[name][:]), name
        facts = [{k: v for k, v in file.attrs.items() if k != "cpu_seconds_per_shower"} for file in (a, b)]
        assert facts[0] == facts[1]


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_chunks_of_a_range_are_those_of_the_whole() -> None:
    assert plan(10, 4) == [(0, 4), (4, 4), (8, 2)]
    assert plan(10, 4, 4) == [(4, 4), (8, 4), (12, 2)]
    assert plan(7, 4, 3) == [(3, 1), (4, 4), (8, 2)]
    assert plan(2, 4, 5) == [(5, 2)]


def test_merged_jobs_are_the_file_of_one_job(whole: Path, array: list[Path], tmp_path: Path) -> None:
    made = merge([array[2], array[0], array[1]], tmp_path / "merged.h5")
    assert (made.n, made.files, made.ranges) == (N, 3, {4: [(0, N)]})
    same(whole, tmp_path / "merged.h5")


def test_merged_files_can_be_merged(whole: Path, array: list[Path], tmp_path: Path) -> None:
    first = merge(array[:2], tmp_path / "first.h5").path
    same(whole, merge([array[2], first], tmp_path / "all.h5").path)


def test_a_merged_file_may_be_sparse(whole: Path, array: list[Path], tmp_path: Path) -> None:
    merge(array, tmp_path / "sparse.h5", layout="sparse")
    with open_showers(tmp_path / "sparse.h5") as file:
        assert isinstance(file, ShowerFile)
        assert file.sparse
        assert np.array_equal(file[:].cells, read_showers(whole).cells)
    with open_showers(merge([tmp_path / "sparse.h5"], tmp_path / "again.h5").path) as file:
        assert file.sparse


def test_the_mean_time_of_a_shower_is_that_of_all(array: list[Path], tmp_path: Path) -> None:
    parts = [read_showers(path) for path in array]
    made = read_showers(merge(array, tmp_path / "merged.h5").path)
    spent = sum(part.attributes["cpu_seconds_per_shower"] * len(part) for part in parts)
    assert made.attributes["cpu_seconds_per_shower"] == pytest.approx(spent / N)


def test_several_seeds_are_named(array: list[Path], tmp_path: Path) -> None:
    other = simulated(tmp_path / "other.h5", 50, 30, seed=9)
    made = read_showers(merge([other, *array], tmp_path / "merged.h5").path)
    assert made.seed is None
    assert list(made.attributes["seeds"]) == [4, 9]
    assert "first" not in made.attributes
    assert np.array_equal(made.cells[N:], read_showers(other).cells)


def test_missing_showers_are_named(array: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"showers 123 to 523 of seed 4 are missing between .*0.h5 and .*524.h5"
    ):
        merge([array[0], array[2]], tmp_path / "merged.h5")
    assert not (tmp_path / "merged.h5").exists()
    made = merge([array[0], array[2]], tmp_path / "merged.h5", gaps=True)
    assert made.ranges == {4: [(0, 123), (524, 176)]}
    assert "first" not in read_showers(made.path).attributes


def test_the_same_showers_are_not_merged_twice(whole: Path, array: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both have showers 524 to 699 of seed 4"):
        merge([whole, array[2]], tmp_path / "merged.h5")


@pytest.mark.parametrize(
    ("change", "said"), [({"energy": "8GeV"}, "beam_energy"), ({"threshold": 0.1}, "cell_threshold_mev")]
)
def test_other_productions_are_refused(
    change: dict[str, Any], said: str, array: list[Path], tmp_path: Path
) -> None:
    other = simulated(tmp_path / "other.h5", N, 10, **change)
    with pytest.raises(IncompatibleError, match=f"other.h5 has {said} "):
        merge([array[0], other], tmp_path / "merged.h5")


def test_files_that_do_not_say_their_range_are_refused(array: list[Path], tmp_path: Path) -> None:
    showers = read_showers(array[0])
    part = write_showers(tmp_path / "part.h5", showers[:50])
    with pytest.raises(FileFormatError, match="has 50 showers and says that it has 123"):
        merge([part], tmp_path / "merged.h5")
    foreign = write_showers(tmp_path / "foreign.h5", showers.replace(attributes={}))
    with pytest.raises(FileFormatError, match="does not say which showers"):
        merge([foreign], tmp_path / "merged.h5")
    with pytest.raises(InputError, match="no files"):
        merge([], tmp_path / "merged.h5")


@pytest.mark.parametrize("first", [-1, 2**62])
def test_impossible_first_showers_are_refused(first: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"first is {first}; expected"):
        simulated(tmp_path / "x.h5", first, 10)


def test_generated_ranges_are_parts_of_the_whole(run: Path, tmp_path: Path) -> None:
    model, beam = load(run, device="cpu"), {"energy": "8GeV", "seed": 2}
    (tmp_path / "whole").mkdir()
    model.write(tmp_path / "whole" / "whole.h5", 600, **beam)
    for first, n in ((0, 200), (200, 300), (500, 100)):
        model.write(tmp_path / f"{first}.h5", n, first=first, batch_size=200, **beam)
    merge([tmp_path / f"{first}.h5" for first in (500, 0, 200)], tmp_path / "merged.h5")
    same(tmp_path / "whole" / "whole.h5", tmp_path / "merged.h5")
    odd = model.generate(77, first=123, **beam)
    np.testing.assert_allclose(
        odd.cells, read_showers(tmp_path / "merged.h5").cells[123:200], rtol=1e-4, atol=1e-4
    )


def test_generated_showers_like_others_are_counted_too(run: Path, array: list[Path]) -> None:
    like = read_showers(array[0])
    made = load(run, device="cpu").generate(20, like=like, first=110, allow_extrapolation=True)
    assert np.array_equal(made.incident_energy, np.roll(like.incident_energy, -110)[:20])


def _warned(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in found if issubclass(one.category, SameShowersWarning)]


def test_the_same_showers_beside_are_said(run: Path, tmp_path: Path) -> None:
    simulated(tmp_path / "a.h5", 0, 30)
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    [line] = _warned(lambda: simulated(tmp_path / "b.h5", 20, 30))
    assert "a.h5 has showers 0 to 29 of the same seed 4, made by the same gflash" in line
    model = load(run, device="cpu")
    assert not _warned(lambda: model.write(tmp_path / "c.h5", 10, energy="8GeV"))
    [line] = _warned(lambda: model.write(tmp_path / "d.h5", 10, energy="8GeV", first=9))
    assert "c.h5 has showers 0 to 9 of the same seed 0, made by the same vae" in line


@pytest.mark.parametrize(
    ("first", "options"),
    [(30, {}), (0, {"seed": 5}), (0, {"energy": "8GeV"}), (0, {"particle": "e-"})],
    ids=["range", "seed", "energy", "particle"],
)
def test_other_showers_beside_are_not(first: int, options: dict[str, Any], tmp_path: Path) -> None:
    simulated(tmp_path / "a.h5", 0, 30)
    assert not _warned(lambda: simulated(tmp_path / "b.h5", first, 30, **options))
    assert not _warned(lambda: simulated(tmp_path / "a.h5", 0, 30, force=True))
