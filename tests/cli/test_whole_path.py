"""The whole path through the command line, with what it leaves behind checked; and the demo."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import read_showers
from caloforge.validate.driver import validate
from caloforge.validate.plots.draw import Drawing
from caloforge.validate.report.page import Images

Run = Callable[..., Any]
EPOCHS = (
    "--set",
    "batch_size=32",
    "--set",
    "optimizer.warmup=5",
    "--set",
    "epochs=8",
    "--set",
    "validate_every=8",
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the steps below fill one after the other."""
    return tmp_path_factory.mktemp("path")


def test_simulate(folder: Path, run: Run) -> None:
    for seed, name in ((1, "train.h5"), (2, "truth.h5")):
        text = run(
            "simulate",
            "atlas-em-barrel",
            "-n",
            400,
            "--engine",
            "gflash",
            "--seed",
            seed,
            "-o",
            folder / name,
        )
        assert f"wrote {folder / name}" in text.stdout
    with h5py.File(folder / "truth.h5") as file:  # the format as any tool sees it
        assert file["showers"].shape == (400, 266)
        assert file["showers"].dtype == np.float32
        assert file["incident_energies"].shape == (400, 1)
        assert set(file["conditions"]) == {"alignment_phi", "alignment_eta", "impact"}
        assert dict(file.attrs)["detector"] == "atlas-em-barrel"
        assert dict(file.attrs)["source"] == "gflash"
        assert dict(file.attrs)["seed"] == 2
    truth = read_showers(folder / "truth.h5")
    fraction = (truth.visible_energy / truth.incident_energy).mean()
    assert fraction == pytest.approx(get_detector("atlas-em-barrel").sampling_fraction, rel=0.1)


def test_train(folder: Path, run: Run, refused: Callable[..., str]) -> None:
    command = ("train", "vae", folder / "train.h5", "-o", folder / "run", *EPOCHS)
    info = json.loads(run(*command, "--json").stdout)
    assert info["status"] == "finished"
    assert info["train_showers"] + info["held_out_showers"] == 400
    assert 50 < info["held_out_showers"] < 110
    assert info["seen"]["training"] + info["seen"]["selection"] == 400
    assert len(info["data"]["sha256"]) == 64
    with (folder / "run" / "metrics.csv").open() as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "cells"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    assert "--force" in refused(*command)
    assert "wrote" in run(*command, "--resume").stdout  # finished: nothing to do
    assert "seed" in refused(*command, "--resume", "--seed", 5)


def test_generate_like(folder: Path, run: Run) -> None:
    text = run("generate", folder / "run", "--like", folder / "truth.h5", "-o", folder / "fake.h5").stdout
    assert "400 showers of vae in atlas-em-barrel" in text
    truth, fake = read_showers(folder / "truth.h5"), read_showers(folder / "fake.h5")
    assert np.array_equal(fake.incident_energy, truth.incident_energy)
    assert set(fake.conditions) == set(truth.conditions) - {"impact"}
    for name, values in fake.conditions.items():
        assert np.array_equal(truth.conditions[name], values)
    assert np.isfinite(fake.cells).all()
    assert (fake.cells >= 0).all()
    assert (fake.visible_energy > 0).mean() > 0.9
    assert fake.source == "vae"


def test_generate_is_counted(folder: Path, run: Run, refused: Callable[..., str]) -> None:
    fixed = ("--energy", "50GeV", "--seed", 7)
    run("generate", folder / "run", "-n", 230, *fixed, "-o", folder / "a.h5")
    run("generate", folder / "run", "-n", 120, *fixed, "--batch-size", 50, "-o", folder / "b.h5")
    run("generate", folder / "run", "-n", 230, *fixed, "--batch-size", 50, "-o", folder / "e.h5")
    a, b, c = (read_showers(folder / f"{name}.h5") for name in "abe")
    assert np.array_equal(a.cells, c.cells)
    assert np.array_equal(a.cells[:100], b.cells[:100])
    np.testing.assert_allclose(a.cells[100:120], b.cells[100:], rtol=1e-4, atol=1e-4)  # blocks of 8
    assert (a.incident_energy == 50_000.0).all()
    line = refused("generate", folder / "run", "-n", 5, "--energy", "2TeV", "-o", folder / "c.h5")
    assert "--allow-extrapolation" in line
    assert "--set" in refused(
        "generate", folder / "run", "-n", 5, *fixed, "--set", "steps", "-o", folder / "c.h5"
    )
    line = refused("generate", folder / "run", "-n", 5, *fixed, "--set", "steps=3", "-o", folder / "c.h5")
    assert "steps" in line
    assert not (folder / "c.h5").exists()


def test_training_showers_are_no_reference(
    folder: Path, run: Run, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # drawn by the tests of the studies
        "caloforge.studies.page.draw_figures",
        lambda figures, _folder: [Images({one.title: b""}, one.caption) for one in figures],
    )
    for verb in (("validate",), ("study", "layers")):
        line = refused(*verb, folder / "train.h5", folder / "fake.h5", "-o", folder / "refused")
        assert "400 of 400 reference showers were used to train or select 'fake'; use --allow-seen" in line
    line = refused("study", "layers", folder / "train.h5", folder / "run", "-o", folder / "refused")
    assert "400 of 400 reference showers were used to train or select 'run'" in line
    assert not (folder / "refused").exists()
    words = (
        "study",
        "layers",
        folder / "train.h5",
        folder / "fake.h5",
        "-o",
        folder / "layers",
        "--allow-seen",
    )
    result = run(*words)
    assert "400 of 400 reference showers were used to train or select the model" in result.stderr
    content = json.loads((folder / "layers" / "study.json").read_text())
    assert content["seen"] == {"fake": {"n": 400, "of": 400}}
    assert "--allow-seen" in content["command"]
    assert "400 of 400 reference showers" in (folder / "layers" / "report.html").read_text()


def test_an_unfinished_training_says_so_in_every_verb(
    folder: Path, run: Run, refused: Callable[..., str]
) -> None:
    short = ("--set", "max_seconds=1e-9")
    line = refused("train", "vae", folder / "train.h5", "-o", folder / "short", *EPOCHS, *short, code=1)
    assert "unfinished: stage vae not trained" in line
    assert "--resume" in line
    assert json.loads((folder / "short" / "run.json").read_text())["status"] == "unfinished"
    made = run("generate", folder / "short", "-n", 20, "--energy", "50GeV", "-o", folder / "short.h5")
    assert made.stderr.splitlines() == [
        "caloforge: warning: vae: the model is unfinished: stage vae not trained"
    ]
    with h5py.File(folder / "short.h5") as file:
        assert file.attrs["model_status"] == "unfinished: stage vae not trained"
        assert len(file["seen_identities"]) == 400


@pytest.mark.slow
def test_validate(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("plotly", reason="needs the extra 'report'")
    monkeypatch.setattr(  # all are drawn by the tests of the report
        "caloforge.validate.report.build.Drawing", lambda figures, folder: Drawing(figures[:2], folder)
    )
    limits = folder / "limits.toml"
    limits.write_text('[limits]\n"auc_high" = { max = 0.1 }\n')
    report = folder / "report"
    line = refused_with_output(
        run(
            *("validate", folder / "truth.h5", folder / "fake.h5", "-o", report),
            *("--fail-on", limits, "--quick"),
            code=1,
        )
    )
    assert "auc_high" in line
    assert "0.1" in line
    metrics = json.loads((report / "metrics.json").read_text())
    wanted = (
        "auc_low auc_high auc_low_floor auc_high_floor fpd kpd separation_power ks wasserstein shape_mse "
        "sampling_fraction cell_mean_ratio cell_std_ratio precision recall density coverage n_reference n_generated"
    )
    assert set(wanted.split()) <= set(metrics)
    assert metrics["n_reference"] == metrics["n_generated"] == 400
    assert metrics["auc_high"]["uncertainty"] > 0
    page = (report / "report.html").read_text()
    assert "atlas-em-barrel" in page
    assert list((report / "figures").glob("*.png"))
    assert list((report / "figures").glob("*.pdf"))


def refused_with_output(result: Any) -> str:
    """Return the line on standard error of a comparison that failed its limits, and check that it says what it wrote."""
    assert "report.html" in result.stdout
    (line,) = result.stderr.splitlines()
    return str(line)


def test_view(folder: Path, run: Run) -> None:
    pytest.importorskip("plotly", reason="needs the extra 'report'")
    run("view", folder / "truth.h5", "--event", 3, "-o", folder / "shower.html")
    run("view", folder / "truth.h5", "--event", 3, "-o", folder / "shower.png")
    assert "atlas-em-barrel" in (folder / "shower.html").read_text()
    assert (folder / "shower.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_demo(
    tmp_path: Path, run: Run, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly", reason="needs the extra 'report'")
    monkeypatch.setattr("caloforge.cli.demo.HELD_OUT", 300)
    monkeypatch.setattr(  # drawn above already
        "caloforge.validate.report.build.Drawing", lambda figures, folder: Drawing([], folder)
    )
    monkeypatch.setattr("caloforge.validate.driver.validate", partial(validate, settings={"quick": True}))
    output = tmp_path / "demo"
    quick = ("--set", "epochs=2", "--set", "train_size=300", "--set", "validate_every=2")
    text = run("demo", "-o", output, *quick).stdout
    assert f"wrote {output / 'report' / 'report.html'}" in text
    assert "AUC" in text
    truth, fake = read_showers(output / "geant4-held-out.h5"), read_showers(output / "vae.h5")
    assert len(truth) == len(fake) == 300
    assert np.array_equal(truth.incident_energy, fake.incident_energy)
    training = read_showers(output / "geant4-training.h5")
    assert len(training) == 4500
    assert not set(map(bytes, truth.cells)) & set(map(bytes, training.cells))
    assert "--force" in refused("demo", "-o", output)


def test_an_interrupted_command_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a simulation: exit code 130, one line, and no file under the final name."""
    code = (
        "import signal, sys\n"
        "from caloforge.simulate.gflash import GFlashEngine\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "GFlashEngine.run = stop\n"
        "from caloforge.cli.app import main\n"
        "sys.argv[1:] = ['simulate', 'atlas-em-barrel', '-n', '5', '--engine', 'gflash', '-o', 'x.h5']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    said, failed = done.stderr.splitlines()
    assert said.startswith("caloforge: not given (--energy, --theta, --particle): ")
    assert "interrupted" in failed
    assert not (tmp_path / "x.h5").exists()
