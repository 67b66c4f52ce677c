"""validate reads every shower once, and what it keeps equals what a separate pass would give."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.files import sha256_file
from caloforge.geometry import get_detector
from caloforge.showers import ShowerFile, Showers, datasets, write_showers
from caloforge.validate import driver
from caloforge.validate.driver import read_samples, validate
from caloforge.validate.inputs import open_inputs
from caloforge.validate.metrics.base import METRICS, Settings
from caloforge.validate.metrics.features import cell_histograms
from caloforge.validate.observables import observe
from caloforge.validate.plots.draw import Drawing
from caloforge.validate.plots.families import FAMILIES
from caloforge.validate.reconstruction import Reconstruction
from caloforge.validate.reconstruction.sample import reconstruct
from caloforge.validate.sample import KeptCells, Sample

CELLS = ("spectrum", "reconstructed", "prdc", "ssim")


def showers(n: int, seed: int, detector: str = "ild-ecal") -> Showers:
    """Return columns of hits of known MIP energy through the middle of a grid, with noise around them."""
    rng = np.random.default_rng(seed)
    geometry = get_detector(detector)
    cells = np.zeros((n, *geometry.shape), np.float32)
    middle = geometry.shape[0] // 2
    depth = np.exp(-((np.arange(geometry.n_layers) - 0.35 * geometry.n_layers) ** 2) / 50)
    column = rng.gamma(20.0, 0.05, (n, 3, 3, geometry.n_layers)) * depth
    cells[:, middle - 1 : middle + 2, middle - 1 : middle + 2] = 40 * column
    cells[:, :4, :4] = rng.uniform(0.01, 0.3, (n, 4, 4, geometry.n_layers))
    energy = rng.choice([20_000.0, 40_000.0], n)
    return Showers(geometry, cells.reshape(n, -1), energy, particle="gamma", source="geant4", seed=seed)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    made = [showers(60, seed) for seed in (1, 2)]
    made[1] = made[1].replace(source="model", seen=np.array([1, 2, 3], np.uint64))
    return [each.save(folder / f"{k}.h5") or folder / f"{k}.h5" for k, each in enumerate(made)]


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[int]]:
    """Count how often each row of the cells is read from each file."""
    counts: dict[str, Counter[int]] = {}
    original = ShowerFile._read_cells

    def counted(self: ShowerFile, start: int, stop: int) -> Any:
        counts.setdefault(self.path.stem, Counter()).update(range(start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(ShowerFile, "_read_cells", counted)
    return counts


@pytest.mark.parametrize("match", [False, True])
def test_every_shower_is_read_once(
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_read: dict[str, Counter[int]],
    match: bool,
) -> None:
    from caloforge.validate.report import build

    METRICS.names()
    monkeypatch.setattr(METRICS, "_entries", {k: v for k, v in METRICS._entries.items() if k in CELLS})
    monkeypatch.setattr(build, "Drawing", lambda figures, folder: Drawing([], folder))
    settings = {"device": "cpu", "quick": True, "n_bootstrap": 2, "n_halves": 1, "ssim_pairs": 4}
    output = None if match else tmp_path / "out"
    report = validate(*files, output=output, settings=settings, match_conditions=match)
    assert {"ssim", "spectrum_chi2", "precision", "reconstructed"} <= set(report.metrics)
    assert report.metrics["samples"]["1"]["seen"] == {"n": 0, "of": report.metrics["n_reference"]}
    assert report.metrics["reference"]["sha256"] == sha256_file(files[0])
    assert sorted(rows_read) == ["0", "1"]
    for name, counts in rows_read.items():
        assert set(counts.values()) == {1}, name
        assert match or len(counts) == 60


def test_the_mip_peak_needs_the_first_showers_twice(
    tmp_path: Path, rows_read: dict[str, Counter[int]]
) -> None:
    """A detector without known MIP energies: the only thing that is fitted before the pass."""
    rng = np.random.default_rng(3)
    detector = get_detector("calochallenge-2")
    shape = (30, detector.n_cells)
    cells = np.where(
        rng.random(shape) < 0.4, np.abs(rng.normal(6.0, 1.0, shape)), rng.exponential(1.0, shape)
    )
    cells *= rng.random(shape) < 0.1
    for name in ("0", "1"):
        Showers(detector, cells, np.full(30, 1e4), source="geant4").save(tmp_path / f"{name}.h5")
    paths = [tmp_path / "0.h5", tmp_path / "1.h5"]
    with ExitStack() as stack:
        _read(stack, paths, Settings(device="cpu", reconstruction=True))
    assert {name: set(counts.values()) for name, counts in rows_read.items()} == {"0": {2}, "1": {1}}


def _read(stack: ExitStack, paths: list[Path], settings: Settings) -> list[Sample]:
    inputs = open_inputs(stack, paths)
    samples = [Sample(entry.source, entry.label, settings.threshold) for entry in inputs]
    read_samples(inputs, samples, settings)
    assert [entry.sha256 for entry in inputs] == [sha256_file(path) for path in paths]
    return samples


@pytest.mark.parametrize("n_max", [10_000, 20])
def test_one_pass_gives_what_single_passes_give(files: list[Path], n_max: int) -> None:
    settings = Settings(device="cpu", n_max=n_max, seed=3)
    size = min(60, n_max)
    with ExitStack() as stack:
        samples = _read(stack, files, settings)
        used = Reconstruction.fit(samples[0].source)
        for sample in samples:
            source = sample.source
            table, whole = observe(source), Sample(source, "whole")
            for name in table.names:
                np.testing.assert_array_equal(sample.observables[name], table[name], err_msg=name)
            np.testing.assert_array_equal(sample.observables.cells.std, table.cells.std)
            first, second = (cell_histograms(each, n_max, settings.seed) for each in (sample, whole))
            assert (first.counts != second.counts).nnz == 0
            after = reconstruct(samples[0], sample)
            np.testing.assert_allclose(
                after.response, used.summary(source)["energy"] / source.incident_energy
            )
            np.testing.assert_array_equal(after.sample.observables["hits"], observe(used.of(source))["hits"])
            expected = whole.take(size, settings.seed)
            row = int(whole.choose(size, settings.seed)[-1])
            np.testing.assert_array_equal(sample.at(row).cells[0], expected.cells[-1])
            kept = sample.take(size, settings.seed)
            np.testing.assert_array_equal(kept.cells, expected.cells)
            np.testing.assert_array_equal(kept.incident_energy, expected.incident_energy)


def test_kept_cells_are_sparse_where_that_is_smaller() -> None:
    thin = showers(40, 1)
    full = thin.replace(cells=thin.cells + 1.0)
    sizes = []
    for given in (thin, full):
        kept = KeptCells(np.array([0, 3, 4, 17, 39]))
        from caloforge.validate.observables.streaming import stream

        stream(given, [kept], chunk_size=16)
        np.testing.assert_array_equal(kept.cells(), given.cells[kept.rows])
        np.testing.assert_array_equal(kept.cells(2, 4), given.cells[[4, 17]])
        sizes.append(
            sum(values.nbytes + (0 if index is None else index.nbytes) for _, index, values in kept._blocks)
        )
    assert sizes[0] < 0.1 * sizes[1] == 0.1 * 5 * 4 * thin.detector.n_cells


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 162 MB of cells, of which 16 MiB may be kept for classifiers."""
    some = showers(100, 1)
    write_showers(tmp_path / "large.h5", (some for _ in range(15)))
    settings = Settings(device="cpu", max_bytes=1 << 24, reconstruction=False)
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            _read(stack, [tmp_path / "large.h5"] * 2, settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1500 * 4 * some.detector.n_cells * 0.7


def test_damaged_cells_are_an_error_of_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caloforge.errors import FileFormatError

    good = showers(20, 1)
    good.save(tmp_path / "a.h5")
    good.save(tmp_path / "b.h5")
    monkeypatch.setattr(datasets, "read_rows", lambda path, dataset, start, out: out.fill(np.nan))
    with pytest.raises(FileFormatError):
        validate(tmp_path / "a.h5", tmp_path / "b.h5", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- results that are kept


def test_results_do_not_survive_a_change_of_the_code(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of the package stays the same while the code changes; the digest of the code does not."""
    import caloforge.validate.metrics as metrics_module
    from caloforge.errors import OutputExistsError
    from caloforge.validate.report import build

    monkeypatch.setattr(build, "Drawing", lambda figures, folder: Drawing([], folder))
    FAMILIES.names()
    monkeypatch.setattr(FAMILIES, "_entries", {})
    numbers = iter((1.0, 2.0))

    def measured(*given: Any, **more: Any) -> dict[str, Any]:
        return {"fpd": {"value": next(numbers)}, "skipped": {}}

    monkeypatch.setattr(metrics_module, "compute_metrics", measured)
    arguments: dict[str, Any] = {"output": tmp_path / "out", "settings": {"reconstruction": False}}
    assert validate(*files, **arguments).metrics["fpd"]["value"] == 1.0
    assert validate(*files, **arguments).metrics["fpd"]["value"] == 1.0
    monkeypatch.setattr(driver, "source_digest", lambda *parts: "changed")
    with pytest.raises(OutputExistsError):
        validate(*files, **arguments)
    assert validate(*files, force=True, **arguments).metrics["fpd"]["value"] == 2.0
