"""The Geant4 application: what is replaced, with which conditions, where the cells go, what stays with Geant4."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
APPLICATION = HERE.parents[1] / "examples" / "geant4_application"
sys.path[:0] = [str(APPLICATION), str(HERE)]

import application  # noqa: E402
from events import Gun  # noqa: E402
from measure import count_showers, read_run  # noqa: E402
from replacement import START, Particle, ShowerReplacement  # noqa: E402
from stub_model import StubGenerator  # noqa: E402

import caloforge as cf  # noqa: E402
from caloforge.errors import IncompatibleError  # noqa: E402
from caloforge.geometry import Detector, get_detector, load_detector  # noqa: E402
from caloforge.units import EnergySpec  # noqa: E402

PLANE = APPLICATION / "plane.toml"
needs_geant4 = [
    pytest.mark.geant4,
    pytest.mark.skipif(
        not os.environ.get("GEANT4_DATA_DIR") or find_spec("geant4_pybind") is None,
        reason="GEANT4_DATA_DIR is not set, or geant4-pybind is missing",
    ),
]


@pytest.fixture(scope="module")
def plane() -> Detector:
    return load_detector(PLANE)


def replace(
    plane: Detector, grid: NDArray[np.float32] | None = None, **options: Any
) -> tuple[ShowerReplacement, StubGenerator]:
    generator = StubGenerator(grid)
    replacement = ShowerReplacement(generator, plane, **options)  # type: ignore[arg-type]
    generator.model.asked.clear()
    return replacement, generator


def incoming(
    incidence: float = 0.0, azimuth: float = 0.0, x: float = 0.0, y: float = 0.0, name: str = "gamma"
) -> Particle:
    a, b = np.radians([incidence, azimuth])
    direction = (float(np.sin(a) * np.cos(b)), float(np.sin(a) * np.sin(b)), float(np.cos(a)))
    return Particle(name, 50e3, x, y, direction)


def leaning(incidence: float) -> NDArray[np.float32]:
    """A shower of one cell a layer, on the axis that leans towards +y."""
    detector = get_detector("ild-ecal-angled")
    grid = np.zeros(detector.shape, np.float32)
    z = np.array([layer.z for layer in detector.layers])
    row = np.floor(10.5 + z * np.tan(np.radians(incidence)) / 5.0).astype(int)
    grid[15, row, np.arange(30)] = 1.0
    return grid


def test_the_plane_has_the_layers_of_ild(plane: Detector) -> None:
    ild = get_detector("ild-ecal")
    for name in ("z", "depth_x0", "mip", "pitch_x", "pitch_y"):
        assert [getattr(a, name) for a in plane.layers] == pytest.approx(
            [getattr(b, name) for b in ild.layers]
        )


def test_a_model_of_another_calorimeter_is_refused(plane: Detector) -> None:
    generator = StubGenerator()
    generator.model.detector = get_detector("clic-ecal")
    with pytest.raises(IncompatibleError, match="clic-ecal"):
        ShowerReplacement(generator, plane)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("particle", "covered"),
    [
        (incoming(), True),
        (incoming(name="e-"), True),
        (incoming(name="e+"), True),
        (incoming(name="mu-"), False),
        (incoming(59.0), True),
        (incoming(61.0), False),
        (incoming()._replace(energy=9.9e3), False),
        (incoming()._replace(energy=101e3), False),
        (incoming()._replace(direction=(0.0, 0.0, -1.0)), False),
    ],
)
def test_what_the_model_covers(plane: Detector, particle: Particle, covered: bool) -> None:
    assert replace(plane)[0].covers(particle) == covered


def test_all_particles_of_an_event_are_one_batch(plane: Detector) -> None:
    replacement, generator = replace(plane)
    particles = [incoming(10.0, 20.0), incoming(name="e-", x=30.0), incoming(x=-60.0)]
    placed = replacement.showers(particles, seed=4)
    assert len(generator.model.asked) == 1
    np.testing.assert_allclose(generator.model.asked[0], [[50e3, 80], [50e3, 90], [50e3, 90]], rtol=1e-6)
    assert placed.cells.sum() + placed.outside == pytest.approx(3 * 1000.0)
    assert placed.outside == 0
    again = replacement.showers(particles, seed=4)
    np.testing.assert_array_equal(again.cells, placed.cells)


def test_cells_beside_the_calorimeter_are_reported(plane: Detector) -> None:
    grid = np.random.default_rng(1).random(get_detector("ild-ecal-angled").shape).astype(np.float32)
    replacement, _ = replace(plane, grid)
    made = float(grid.sum(dtype=np.float64)) * 50e3 * 0.02
    for x, y in ((0.0, -100.0), (190.0, -195.0), (400.0, 0.0)):
        placed = replacement.showers([incoming(x=x, y=y)], seed=1)
        assert placed.cells.sum() + placed.outside == pytest.approx(made, rel=1e-5)
        assert (placed.outside > 0) == (x > 0)
    assert placed.cells.sum() == 0


def test_a_perpendicular_shower_moves_to_the_cell_that_it_enters(plane: Detector) -> None:
    """Against the slow way: cell by cell."""
    grid = np.random.default_rng(2).random(get_detector("ild-ecal-angled").shape).astype(np.float32)
    replacement, _ = replace(plane, grid, whole_cells=True)
    index, energy = replacement.place(grid, incoming(x=21.0, y=-88.0), np.zeros(3))
    found = np.bincount(index, energy, plane.n_cells).reshape(plane.shape)
    entry = int((21.0 + 200) // 5), int((-88.0 + 200) // 5)
    expected = np.zeros(plane.shape)
    for ix, iy, layer in np.ndindex(*grid.shape):
        expected[entry[0] + ix - 15, entry[1] + iy - 10, layer] += grid[ix, iy, layer]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("incidence", [8.0, 35.0])
@pytest.mark.parametrize("azimuth", [0.0, 30.0, 90.0, 200.0, 315.0])
def test_the_axis_follows_the_line_of_the_particle(plane: Detector, incidence: float, azimuth: float) -> None:
    grid, particle = leaning(incidence), incoming(incidence, azimuth, x=11.3, y=-4.1)
    replacement, _ = replace(plane, grid)
    slope = np.array(particle.direction[:2]) / particle.direction[2]
    means = []
    for draw in np.random.default_rng(3).random((40, 3)):
        index, energy = replacement.place(grid, particle, draw)
        assert (energy == 1).all()
        assert (index >= 0).all()
        centres = plane.cell_centres[index]
        off = centres[:, :2] - [particle.x, particle.y] - centres[:, 2:] * slope
        # the cell in the grid, the rounding, each up to half a cell or one beside the line
        assert np.abs(off).max() < 7.6
        means.append(off.mean(axis=0))
    assert np.abs(np.mean(means, axis=0)).max() < 1.0  # mm; the grid's own rounding of the axis remains


def test_electrons_begin_where_electrons_do(plane: Detector) -> None:
    depth = np.array([layer.depth_x0 for layer in plane.layers])
    for start in (3, 8):
        grid = np.zeros(get_detector("ild-ecal-angled").shape, np.float32)
        grid[15, 10, start:25] = 10.0 * np.exp(-0.1 * np.arange(25 - start))
        replacement, _ = replace(plane, grid)
        first = []
        for draw in np.linspace(0.01, 0.99, 50):
            index, _ = replacement.place(grid, incoming(name="e-"), np.array([0.5, 0.5, draw]))
            first.append((index % plane.n_layers).min())
        assert depth[first].mean() == pytest.approx(START - 1.0, abs=0.1)
        photon, energy = replacement.place(grid, incoming(), np.full(3, 0.5))
        assert (photon % plane.n_layers).min() == start
        assert energy.sum() == pytest.approx(grid.sum(), rel=1e-6)


def test_two_showers_are_distinguished_when_there_is_a_valley() -> None:
    x, y = np.meshgrid(np.arange(80), np.arange(80), indexing="ij")

    def spot(cx: float, cy: float) -> NDArray[np.float64]:
        return np.exp(-np.hypot(x - cx, y - cy) / 1.5)

    assert count_showers(spot(40, 40)) == 1
    assert count_showers(spot(40, 40) + spot(41, 40)) == 1
    assert count_showers(spot(40, 40) + 0.4 * spot(45, 43)) == 2
    assert count_showers(spot(20, 20) + spot(50, 30) + spot(40, 60)) == 3


def test_the_gun_depends_on_seed_and_number_alone() -> None:
    gun = Gun("pi0", EnergySpec.parse("20-60GeV"))
    assert gun.start(1, 5) == gun.start(1, 5)
    starts = [gun.start(1, number) for number in range(300)]
    assert np.allclose([np.linalg.norm(start.direction) for start in starts], 1)
    angles = np.degrees(np.arccos([start.direction[2] for start in starts]))
    assert angles.min() >= 0
    assert angles.max() <= 10
    assert abs(np.mean([start.x for start in starts])) < 4 * 100 / 12**0.5 / 300**0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    path = tmp_path_factory.mktemp("application") / "runs.npz"
    done = subprocess.run([sys.executable, HERE / "geant4_runs.py", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(path) as content:
        return {name: content[name] for name in content.files}


class TestWithGeant4:
    pytestmark = needs_geant4

    def test_the_energy_of_a_photon_is_that_of_simulate(self, runs: dict[str, NDArray[Any]]) -> None:
        ours = runs["photon/full/cells"].sum(axis=1)
        theirs = cf.simulate(PLANE, n=24, energy="10GeV", theta="90", seed=8).visible_energy
        error = np.hypot(ours.std(), theirs.std()) / 24**0.5
        assert error < 0.05 * theirs.mean()
        assert abs(ours.mean() - theirs.mean()) < 4 * error

    def test_the_conditions_at_the_face_are_those_of_the_primary(self, runs: dict[str, NDArray[Any]]) -> None:
        run = {key.rpartition("/")[2]: value for key, value in runs.items() if "leaning/fast" in key}
        direct = np.abs(run["face_energy"] - run["energy"][run["face_event"]]) < 1e-6
        assert direct.sum() >= 5  # one in a hundred may interact in the air
        event = run["face_event"][direct]
        np.testing.assert_allclose(run["face_position"][direct], run["impact"][event], atol=1e-6)
        np.testing.assert_allclose(run["face_direction"][direct], run["direction"][event], atol=1e-9)
        assert run["face_replaced"][direct].all()
        theta = 90 - np.degrees(np.arccos(run["direction"][event][:, 2]))
        rows = [np.flatnonzero(np.isclose(run["asked"][:, 0], energy))[0] for energy in run["energy"][event]]
        np.testing.assert_allclose(run["asked"][rows, 1], theta, atol=1e-4)

    def test_a_killed_photon_leaves_nothing_but_its_model_shower(self, runs: dict[str, NDArray[Any]]) -> None:
        np.testing.assert_allclose(runs["photon/fast/cells"].sum(axis=1), 0.02 * 10e3, rtol=1e-4)

    def test_one_batch_an_event(self, runs: dict[str, NDArray[Any]]) -> None:
        replaced = runs["pion/fast/face_replaced"]
        counts = np.bincount(runs["pion/fast/face_event"], replaced, 6).astype(int)
        assert counts.max() == 2
        np.testing.assert_array_equal(runs["pion/fast/calls"], counts[counts > 0])
        np.testing.assert_array_equal(runs["pion/fast/batches"], counts > 0)

    def test_both_modes_have_the_same_photons(self, runs: dict[str, NDArray[Any]]) -> None:
        full, fast = (np.sort(runs[f"pion/{mode}/face_energy"])[-9:] for mode in ("full", "fast"))
        np.testing.assert_allclose(full, fast)

    @pytest.mark.parametrize("name", ["soft", "muon"])
    def test_what_is_out_of_range_is_simulated_by_geant4(
        self, runs: dict[str, NDArray[Any]], name: str
    ) -> None:
        assert not runs[f"{name}/fast/face_replaced"].any()
        assert runs[f"{name}/fast/batches"].sum() == 0
        np.testing.assert_array_equal(runs[f"{name}/fast/cells"], runs[f"{name}/full/cells"])

    def test_the_command_and_the_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mplhep")
        import compare

        for name, more in (("full", []), ("bib-ae", ["--model", "ild-photon-angled/bib-ae"])):
            done = run_application("-n", "4", "-o", str(tmp_path / f"pi0-{name}"), *more)
            assert done.returncode == 0, done.stderr
            assert "wrote" in done.stdout
        showers = cf.read_showers(tmp_path / "pi0-bib-ae.h5")
        assert (len(showers), showers.detector.name) == (4, "ild-plane")
        assert len(showers.seen) > 0
        assert read_run(tmp_path / "pi0-full.h5").visible == pytest.approx(
            cf.read_showers(tmp_path / "pi0-full.h5").visible_energy, rel=1e-5
        )
        monkeypatch.setattr(compare, "SAMPLES", 3)
        assert compare.main([str(tmp_path), "-o", str(tmp_path / "page")]) == 0
        assert "full over fast" in (tmp_path / "page" / "index.html").read_text()


def run_application(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APPLICATION / "application.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--energy", "20"], "has no unit"),
        (["--incidence", "10-80"], "incidence '10-80'"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert application.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
