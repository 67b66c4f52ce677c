"""Runs of Geant4: reproducible, restartable, quiet, and clear about what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.errors import CaloforgeError, Geant4DataError, IncompatibleError, UnknownNameError
from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers, read_showers
from caloforge.simulate import job, simulate

pytestmark = pytest.mark.geant4

RUN: dict[str, Any] = {"detector": "atlas-em-barrel", "n": 12, "energy": "1GeV", "seed": 31}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks of four showers of 1 GeV."""
    monkeypatch.setattr("caloforge.simulate.geant4._CHUNK_SECONDS", 0.0201)


@pytest.fixture(scope="module")
def truth() -> Showers:
    """The run in one chunk."""
    return simulate(**RUN)


def test_the_same_whatever_the_chunks_and_workers(truth: Showers, capfd: pytest.CaptureFixture[str]) -> None:
    two = simulate(**RUN, workers=2)
    assert (two.cells == truth.cells).all()
    assert (two.incident_energy == truth.incident_energy).all()
    assert all((two.conditions[name] == truth.conditions[name]).all() for name in truth.conditions)
    assert capfd.readouterr() == ("", "")


def test_another_seed_is_another_sample(truth: Showers) -> None:
    other = simulate(**(RUN | {"n": 4, "seed": 32}))
    assert (other.cells != truth.cells[:4]).any(axis=1).all()
    assert len({row.tobytes() for row in truth.cells}) == len(truth)


def test_what_is_recorded(truth: Showers) -> None:
    assert truth.source == "geant4"
    assert truth.attributes["geant4_version"].startswith("11.")
    assert truth.attributes["physics_list"] == "G4EmStandardPhysics_option1"
    assert truth.attributes["production_cut_mm"] == 1.0
    assert 1e-4 < truth.attributes["cpu_seconds_per_shower"] < 1.0


def test_a_killed_worker_costs_its_chunk_only(truth: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    make = job.WorkerProcess.make

    def kill_once(process: job.WorkerProcess, *request: Any) -> bytes | None:
        calls.append(process.pid)
        if len(calls) == 2:
            os.kill(process.pid, signal.SIGKILL)
        return make(process, *request)

    monkeypatch.setattr(job.WorkerProcess, "make", kill_once)
    again = simulate(**RUN)
    assert (again.cells == truth.cells).all()
    assert len(calls) == 4
    assert len(set(calls)) == 2


SCRIPT = """
from caloforge.simulate import simulate
from caloforge.simulate import geant4
geant4._CHUNK_SECONDS = 0.0201
simulate("atlas-em-barrel", n=12, energy="1GeV", seed=31, output={output!r})
"""


def test_a_killed_run_goes_on(truth: Showers, tmp_path: Path) -> None:
    output = tmp_path / "s.h5"
    script = SCRIPT.format(output=str(output)).replace("n=12", "n=4000")
    run = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    parts = output.with_name("s.h5.parts")
    end = time.monotonic() + 120
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    run.kill()
    run.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert len(kept) >= 2
    assert not output.exists()
    time.sleep(0.5)  # until the orphaned worker has seen that its parent is gone
    assert simulate(**RUN, output=output) == output
    assert (read_showers(output).cells == truth.cells).all()
    assert not parts.exists()


def test_scored_cells_are_what_a_loop_over_hits_gives() -> None:
    from caloforge.simulate.geant4.session import fold_hits, index_shape

    detector = get_detector("atlas-em-barrel")
    assert detector.readout is not None
    layers, nx, ny = index_shape(detector)
    rng = np.random.default_rng(0)
    conditions = detector.beam.sample(0, 0, 3).conditions
    events, expected = [], np.zeros((3, detector.n_cells))
    for shower in range(3):
        fine = [(layer, x, y) for layer, grid in enumerate(detector.readout.fine_layers)
                for x in range(grid.nx) for y in range(grid.ny)]  # fmt: skip
        chosen = [fine[k] for k in rng.choice(len(fine), 200, replace=False)]
        energies = rng.random(200)
        events.append(
            np.array([((la * nx + x) * ny + y, e) for (la, x, y), e in zip(chosen, energies, strict=True)])
        )
        shifted = {name: values[shower, 0] for name, values in conditions.items() if name != "impact"}
        for (layer, x, y), energy in zip(chosen, energies, strict=True):
            cell = int(detector.readout.fold([layer], [x], [y], shifted)[0])
            if cell >= 0:
                expected[shower, cell] += energy
    assert layers == 4
    assert fold_hits(detector, events, conditions) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"physics_list": "G4EmStandardPhysics_option9"},
            UnknownNameError,
            "known: G4EmStandardPhysics,.*FTFP_BERT",
        ),
        ({"particle": "unicorn"}, UnknownNameError, "unknown particle 'unicorn'"),
        ({"particle": "pi-"}, IncompatibleError, "no hadronic interactions of 'pi-'"),
    ],
)
def test_wrong_names(
    tiny: Detector, arguments: dict[str, str], error: type[CaloforgeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        simulate(tiny, n=1, **arguments)


@pytest.mark.parametrize("name", ["FTFP_BERT", "QGSP_BERT", "QBBC"])
def test_lists_with_hadrons_simulate_a_pion_or_name_what_is_missing(tiny: Detector, name: str) -> None:
    made: Showers | str
    try:
        made = simulate(tiny, n=2, particle="pi-", energy="1GeV", physics_list=name)
    except Geant4DataError as error:
        made = str(error)
    if isinstance(made, str):
        assert made.startswith(("Geant4 stopped: Data file", "Geant4's data sets have no tables"))
        assert "G4PARTICLEXS" in made
        assert "\n" not in made
    else:
        assert (made.visible_energy > 0).all()


LISTS = """
import os, sys
from caloforge.simulate.geant4 import export_data, find_data
export_data(find_data())
import geant4_pybind as g4
from caloforge.errors import UnknownNameError
from caloforge.simulate.geant4.session import CONSTRUCTORS, build_physics
manager = g4.G4RunManager()
try:
    build_physics("FTFP_BERT_UNKNOWN")
except UnknownNameError as error:
    known = [name for name in error.known if name not in CONSTRUCTORS]
print("known", *known)
physics = build_physics(sys.argv[1])
manager.SetUserInitialization(physics)
print("made", type(physics).__name__)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("name", ["FTFP_BERT", "QGSP_BIC", "QBBC"])
def test_reference_lists_are_made_by_their_names(name: str) -> None:
    """As far as they come without tables: that they are known, made and handed over to Geant4."""
    done = subprocess.run([sys.executable, "-c", LISTS, name], capture_output=True, text=True, check=True)
    known = next(line for line in done.stdout.splitlines() if line.startswith("known "))
    assert {"FTFP_BERT", "QGSP_BERT", "QGSP_BIC", "QBBC"} <= set(known.split())
    assert f"made {name}" in done.stdout.splitlines()


def test_tables_that_are_not_there_are_said_in_one_line(
    tiny: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stem in ("G4EMLOW8.8", "PhotonEvaporation6.1.2", "G4ENSDFSTATE3.0"):
        (tmp_path / stem).mkdir()
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    with pytest.raises(Geant4DataError, match="Geant4 stopped: ") as caught:
        simulate(tiny, n=1)
    assert "\n" not in str(caught.value)
