"""The amplification study from end to end on parametrised images, whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from caloforge.cli.app import app
from caloforge.errors import InputError
from caloforge.generate import Generator
from caloforge.geometry import get_detector
from caloforge.models.base import ShowerModel
from caloforge.models.stage import Stage
from caloforge.settings import ModelConfig
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.simulate import simulate
from caloforge.studies import run_study
from caloforge.studies.amplification import curves as observables
from caloforge.studies.amplification.curves import (
    QUANTITIES,
    Observed,
    TruthCurves,
    growing_sizes,
    observe_chunks,
    set_sizes,
)

SETTINGS = {"sizes": [200, 400], "sets": 3, "toy": False}


class Spread(ShowerModel):
    """A fixed image whose energy is Gaussian: a bad generator of known observables."""

    Config = ModelConfig
    presets = {"improved": {}}  # noqa: RUF012

    @property
    def noise_size(self) -> int:
        return 1

    def sample(self, noise: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        image = torch.zeros(len(noise), self.detector.n_cells)
        image[:, 44:47] = torch.tensor([100.0, 600.0, 200.0])
        return image * (1 + 0.05 * noise)

    def stages(self) -> tuple[Stage, ...]:
        return ()


@pytest.fixture
def model() -> Generator:
    network = Spread(get_detector("ild-ecal-10x10"), ModelConfig())
    network.condition_low.fill_(0)
    network.condition_high.fill_(1e6)
    return Generator([network.eval()], "spread", "gamma", torch.device("cpu"))


@pytest.fixture(scope="module")
def observed(gflash_images: Path) -> Observed:
    showers = read_showers(gflash_images)
    return observe_chunks(showers.chunks())


def test_observables_are_those_of_the_cells(gflash_images: Path, observed: Observed) -> None:
    images = read_showers(gflash_images)[:50]
    x, y = images.detector.cell_centres[:, 0], images.detector.cell_centres[:, 1]
    start = 0
    for row, image in enumerate(images.cells.astype(np.float64)):  # slow and obvious
        e = np.where(image > 0.1, image, 0.0)
        expected = [e.sum(), e.max(), (e * x).sum() / e.sum(), (e * y).sum() / e.sum()]
        assert observed.values[row] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        high = image[image > 5.0]
        assert observed.counts[row] == len(high)
        assert np.sort(observed.pixels[start : start + len(high)]) == pytest.approx(np.sort(high))
        start += len(high)


def test_three_dimensional_showers_are_projected_on_the_way() -> None:
    showers = simulate("ild-ecal", 20, energy="50GeV", engine="gflash", seed=5)
    seen = observe_chunks(showers.chunks(7))
    images = np.zeros((20, 10, 10))
    for ix in range(30):  # slow and obvious
        for iy in range(30):
            images[:, ix // 3, iy // 3] += showers.grid()[:, ix, iy, :].sum(axis=1)
    images[images <= 0.1] = 0.0
    places = np.arange(10) * 15.0 - 67.5
    assert seen.values[:, 0] == pytest.approx(images.sum(axis=(1, 2)), rel=1e-5)
    assert seen.values[:, 1] == pytest.approx(images.max(axis=(1, 2)), rel=1e-5)
    centre = (images.sum(axis=2) * places).sum(axis=1) / images.sum(axis=(1, 2))
    assert seen.values[:, 2] == pytest.approx(centre, rel=1e-4)


def test_empty_showers_count_as_zeros() -> None:
    image = get_detector("ild-ecal-10x10")
    seen = observe_chunks([Showers(image, np.zeros((3, 100)), np.full(3, 50e3))])
    assert np.array_equal(seen.values, np.zeros((3, 4)))
    assert len(seen.pixels) == 0


def test_parts_and_shuffles_keep_each_showers_cells(observed: Observed) -> None:
    mixed = observed.shuffled(np.random.default_rng(3))
    for row in (0, 17, len(mixed) - 1):
        origin = int(np.flatnonzero((observed.values == mixed.values[row]).all(axis=1))[0])
        ours, theirs = mixed.part(row, row + 1).pixels, observed.part(origin, origin + 1).pixels
        assert np.array_equal(ours, theirs)
    joined = Observed.join([mixed.part(0, 700), mixed.part(700, 1600)])
    assert np.array_equal(joined.pixels, mixed.pixels)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=[one.name for one in QUANTITIES])
def test_further_truth_is_worth_its_size(observed: Observed, quantity: Any) -> None:
    mixed = observed.shuffled(np.random.default_rng(1))
    halves = mixed.part(0, 600), mixed.part(600, 1200)
    truth = TruthCurves(halves, quantity, [200, 600], 3)
    curves = truth.compare(mixed.part(1200, 1600), [100, 400])
    for row, size in enumerate((100, 400)):
        level = int(truth.counts_for(size).sum()) - 1
        expected = truth.scale[level] * (truth.quantiles[level] - 1) / 8 * (1 / size + 1 / truth.n_truth)
        assert abs(curves.divergence[row, level] - expected) < 4 * curves.error[row, level]
    whole = truth.divergence(quantity.of(mixed.part(1200, 1600)))
    assert curves.divergence[1] == pytest.approx(whole)


def test_sizes() -> None:
    assert set_sizes([1000, 5000, 10_000], 6250) == [1000, 5000, 6250]
    assert set_sizes([1000, 5000], 5200) == [1000, 5000]
    assert set_sizes([1000], 500) == [500]
    assert growing_sizes(12_000) == [1000, 2000, 5000, 10_000, 12_000]
    assert growing_sizes(300) == [300]


def test_the_study_tells_truth_from_a_bad_generator(
    gflash_images: Path, other_images: Path, model: Generator, tmp_path: Path
) -> None:
    result = run_study(
        "amplification", gflash_images, other_images, model, n=800, settings=SETTINGS, output=tmp_path / "out"
    )
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    data = content["data"]
    assert data["n_truth"] == 800
    assert data["quantiles"] == [2, 4, 8, 16, 32, 64]
    assert set(data["samples"]) == {"same", "spread"}
    for one in QUANTITIES:
        same, bad = (data["samples"][name][one.name] for name in ("same", "spread"))
        assert same["divergence"][-1][-1] < bad["divergence"][-1][-1]
        size = same["effective_size"][-1]
        assert size["low"] < 2 * 800
        assert size["high"] is None or size["high"] > 0.5 * 800
    rows = [
        row for row in content["rows"] if row["sample"] == "spread" and row["quantity"].endswith("by formula")
    ]
    assert len(rows) == len(QUANTITIES)
    assert all(row["unit"] == "showers" and row["ours"] < 200 for row in rows)
    assert "1,600 GFlash showers (paper: 218,000) in two halves of 800" in content["texts"][0]
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "divergence.png",
        "plateau.png",
        "effective_size.png",
    }
    assert result.path is not None
    assert "Effective size by number of quantiles" in result.path.read_text()


def test_several_trainings_are_averaged_and_give_factors(gflash_images: Path, other_images: Path) -> None:
    images = read_showers(other_images)
    settings = SETTINGS | {"train_size": 100}
    result = run_study(
        "amplification", gflash_images, images[:400], images[400:], labels=["a", "b"], settings=settings
    )
    means = [row for row in result.rows if row.sample == "mean of 2 samples"]
    assert len(means) == len(QUANTITIES)
    assert {row.paper for row in means} == {f"amplification.factor_{one.name}" for one in QUANTITIES}
    assert all(row.quantity.startswith("amplification of 100: ") for row in means)
    values = [row.ours for row in result.rows if row.sample == "a" and row.ours is not None]
    assert min(values) < 40


def test_an_interrupted_study_goes_on_with_the_next_block(
    gflash_images: Path, model: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observables, "BLOCK", 100)
    made: list[int] = []
    stream = Generator.stream

    def watched(fail_at: int) -> Callable[..., Iterator[Showers]]:
        def call(self: Generator, n: int, **options: Any) -> Iterator[Showers]:
            if len(made) == fail_at:
                raise KeyboardInterrupt
            made.append(n)
            return stream(self, n, **options)

        return call

    options: dict[str, Any] = {"n": 500, "settings": SETTINGS}
    monkeypatch.setattr(Generator, "stream", watched(3))
    with pytest.raises(KeyboardInterrupt):
        run_study("amplification", gflash_images, model, output=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "study.json").exists()
    monkeypatch.setattr(Generator, "stream", watched(-1))
    result = run_study("amplification", gflash_images, model, output=tmp_path / "out", **options)
    assert made == [100] * 5
    fresh = run_study("amplification", gflash_images, model, **options)
    assert result.content["data"] == fresh.content["data"]


def test_a_models_conditions_are_those_of_the_truth(gflash_images: Path, model: Generator) -> None:
    from contextlib import ExitStack

    from caloforge.studies.sources import open_sources

    with ExitStack() as stack, open_showers(gflash_images) as truth:
        (source,) = open_sources(stack, [model])
        showers = source.take(2000, truth, seed=1)
    assert source.n is None
    assert len(showers) == 2000
    assert set(showers.incident_energy) == {50_000.0}


def test_wrong_files_are_refused_with_what_is_needed(gflash_images: Path, tmp_path: Path) -> None:
    few = read_showers(gflash_images)[:300].save(tmp_path / "few.h5")
    other = simulate("clic-ecal", 5, energy="50GeV", engine="gflash").save(tmp_path / "clic.h5")
    out = tmp_path / "out"
    for files, message in (
        ([gflash_images], "0 generated samples were given; it needs a file of Geant4 showers"),
        ([few, gflash_images], "300 reference showers are too few; it needs"),
        ([gflash_images, other], "'clic' is of 'clic-ecal', the reference of 'ild-ecal-10x10'"),
        ([gflash_images, tmp_path / "no.h5"], "no such file"),
        ([gflash_images, tmp_path / "no-run"], "no file, no run folder and no shipped model"),
    ):
        done = CliRunner().invoke(app, ["study", "amplification", *map(str, files), "-o", str(out)])
        assert done.exit_code == 2, done.output
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not out.exists()
    with pytest.raises(InputError, match="too few"):
        run_study("amplification", few, gflash_images)


def test_the_command_lists_and_runs(gflash_images: Path, other_images: Path, tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["study"])
    assert listed.exit_code == 0
    assert "amplification" in listed.stdout
    assert "arXiv:2202.07352" in listed.stdout
    half = read_showers(other_images)[:400].save(tmp_path / "half.h5")
    words = ["study", "amplification", gflash_images, half, "--truth", other_images, "-o", tmp_path / "out"]
    words += ["--set", "sizes=[200, 400]", "--set", "toy=false", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["data"]["n_truth"] == 1200
    assert [Path(entry["file"]).name for entry in content["references"]] == ["truth.h5", "same.h5"]
    for words, message in (
        (["study", "amplification"], "needs a file of Geant4 showers"),
        (["study", "nothing", "a.h5"], "unknown study 'nothing'; known: amplification"),
        (["study", "amplification", str(gflash_images)], "name the folder to write with -o"),
    ):
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2
        assert message in refused.stderr
