"""``simulate``: showers of a detector, in memory or in a file."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

from caloforge.cluster import Cluster, connected
from caloforge.errors import (
    IncompatibleError,
    InputError,
    OutputExistsError,
    SameShowersWarning,
    did_you_mean,
)
from caloforge.files import check_output
from caloforge.geometry import Beam, Detector, MeshReadout, get_detector
from caloforge.progress import progress
from caloforge.registry import Registry
from caloforge.showers import Showers, ShowerWriter
from caloforge.showers.hdf5 import check_ending
from caloforge.showers.ranges import check_first, made_before, range_facts
from caloforge.showers.writing import check_layout
from caloforge.simulate.chunks import Chunk, InMemory, Parts, make_chunks, plan
from caloforge.simulate.job import MANTISSA_BITS, THRESHOLD, Engine, Job
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["ENGINES", "simulate"]

ENGINES: Registry[Callable[..., Engine]] = Registry(
    "engine",
    {"geant4": "caloforge.simulate.geant4:Geant4Engine", "gflash": "caloforge.simulate.gflash:GFlashEngine"},
    group="caloforge.engines",
)


@overload
def simulate(
    detector: str | Path | Detector,
    n: int,
    energy: str | EnergySpec | None = None,
    theta: str | float | AngleSpec | None = None,
    particle: str | None = None,
    engine: str = "geant4",
    seed: int = 0,
    workers: int = 1,
    output: None = None,
    force: bool = False,
    threshold: float | None = None,
    mantissa_bits: int = MANTISSA_BITS,
    layout: str = "dense",
    first: int = 0,
    scheduler: str | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Showers: ...


@overload
def simulate(
    detector: str | Path | Detector,
    n: int,
    energy: str | EnergySpec | None = None,
    theta: str | float | AngleSpec | None = None,
    particle: str | None = None,
    engine: str = "geant4",
    seed: int = 0,
    workers: int = 1,
    *,
    output: str | Path,
    force: bool = False,
    threshold: float | None = None,
    mantissa_bits: int = MANTISSA_BITS,
    layout: str = "dense",
    first: int = 0,
    scheduler: str | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Path: ...


def simulate(
    detector: str | Path | Detector,
    n: int,
    energy: str | EnergySpec | None = None,
    theta: str | float | AngleSpec | None = None,
    particle: str | None = None,
    engine: str = "geant4",
    seed: int = 0,
    workers: int = 1,
    output: str | Path | None = None,
    force: bool = False,
    threshold: float | None = None,
    mantissa_bits: int = MANTISSA_BITS,
    layout: str = "dense",
    first: int = 0,
    scheduler: str | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Showers | Path:
    """Simulate showers.

    Shower i depends on the arguments and i alone: not on ``n``, ``first`` nor ``workers``. With an ``output``, finished
    chunks are stored in ``OUTPUT.parts/`` until all are finished, and the same call repeated continues from there.

    Arguments:
        detector: Name, TOML file or detector.
        n: Number of showers.
        energy: Incident energies such as ``50GeV``; by default those of the detector's beam.
        theta: Polar angles in degrees such as ``90`` or ``30-90``; likewise.
        particle: Geant4's name of the particle; likewise.
        engine: Name in ``ENGINES``.
        seed: Seed.
        workers: Number of processes.
        output: HDF5 file to write; None for showers in memory.
        force: Replace an output that exists, and chunks of another simulation beside it.
        threshold: Cells below it are set to zero, MeV; by default 1e-4, or the cut of the published data set where its
            evaluation has one.
        mantissa_bits: Bits of mantissa of the cells; 23 are all.
        layout: Of the output: "dense", with all cells, or "sparse", with those that have energy.
        first: Number of the first shower: made are the showers ``first`` to ``first + n`` of the seed.
        scheduler: Address of a Dask scheduler whose workers simulate (:mod:`caloforge.cluster`), in place of processes here.
        say: Called before the work with a line on what of the beam was not given, and what it is.
        options: The engine's own. Geant4's are ``physics_list``, an electromagnetic constructor or a reference list;
            ``production_cut``, mm, by default 1.0, or 0.7 in a reference list, as in Geant4; and ``download_data``, True
            to let geant4-pybind download missing data sets. None counts as not set, and a detector of a published data set
            may have its own defaults (:attr:`Detector.simulation`).

    Returns:
        The showers, or the path of the file.

    Warns:
        SameShowersWarning: When a file beside the output has some of these showers.

    Raises:
        InputError: When an argument is out of range.
        UnknownNameError: When there is no such engine or layout.
        IncompatibleError: When the detector cannot be simulated, or not at these angles.
        SimulationError: When the engine failed.
    """
    for name, value in (("n", n), ("workers", workers)):
        if value < 1:
            raise InputError(f"{name} is {value}; expected 1 or more")
    check_first(first)
    place = get_detector(detector)
    if not place.simulable:
        msg = f"detector '{place.name}' has no stack of slabs and cannot be simulated"
        raise IncompatibleError(msg)
    check_layout(layout)
    there = None
    if output is not None:
        try:
            check_output(check_ending(output), force)
        except OutputExistsError as error:
            there = error
    chosen = {option: value for option, value in options.items() if value is not None}
    job = Job(
        engine=_make_engine(engine, {**place.simulation.get(engine, {}), **chosen}),
        detector=place,
        beam=place.beam.replace(energy=energy, theta=theta, particle=particle),
        seed=seed,
        threshold=(place.evaluation_cut or THRESHOLD) if threshold is None else threshold,
        mantissa_bits=mantissa_bits,
    )
    if isinstance(place.readout, MeshReadout) and not job.beam.theta.low == job.beam.theta.high == 90.0:
        msg = (
            f"the mesh of detector '{place.name}' is for particles at 90 degrees, not theta {job.beam.theta}"
        )
        raise IncompatibleError(msg)
    chunks = plan(n, job.engine.chunk_size(place, job.beam), first)
    if (
        there is None
        and say is not None
        and (line := _assumed(job.beam, energy=energy, theta=theta, particle=particle))
    ):
        say(line)
    if output is None:
        store = InMemory(job)
        with connected(scheduler) as cluster:
            _make(store, chunks, n, workers, cluster)
        made = [store.take(chunk) for chunk in chunks]
        seconds = sum(part.attributes["cpu_seconds"] for part in made)
        return Showers.concatenate(made).replace(attributes=_attributes(job, made[0], first, n, seconds))
    path = Path(output)
    folder = path.with_name(path.name + ".parts")
    if there is not None:
        Parts(folder, job).remove_joined(path)
        raise there
    if same := made_before(path, {**_facts(job), **range_facts(first, n)}):
        warnings.warn(same, SameShowersWarning, stacklevel=2)
    with connected(scheduler) as cluster, Parts(folder, job, force) as parts:
        _make(parts, chunks, n, workers, cluster)
        _join(parts, chunks, path, force, layout)
        parts.remove()
    return path


def _assumed(beam: Beam, **given: object) -> str:
    """Return a line on what of the beam is not given, and what it is; empty where all is."""
    taken = {"energy": str(beam.energy), "theta": f"{beam.theta} degrees", "particle": beam.particle}
    left = [name for name in taken if given[name] is None]
    values = ", ".join(f"{name} {taken[name]}" for name in left)
    return f"not given (--{', --'.join(left)}): taken from the detector's beam: {values}" if left else ""


def _make_engine(name: str, options: dict[str, Any]) -> Engine:
    """Return an engine with its options, or refuse options that it does not have."""
    build = ENGINES[name]
    known = inspect.signature(build).parameters
    for option in options.keys() - known.keys():
        raise InputError(
            f"engine '{name}' has no option '{option}'; {did_you_mean(option, list(known)) if known else 'it has no options'}"
        )
    return build(**options)


def _make(store: InMemory, chunks: Sequence[Chunk], n: int, workers: int, cluster: Cluster | None) -> None:
    label = f"simulating {store.job.detector.name} with {store.job.engine.name}"
    with progress(n, label) as advance:
        make_chunks(store, chunks, workers, advance, cluster)


def _facts(job: Job) -> dict[str, Any]:
    """Return the attributes of a file that its showers follow from."""
    beam = {
        "beam_energy": str(job.beam.energy),
        "beam_theta": str(job.beam.theta),
        "particle": job.beam.particle,
    }
    made = {"detector": job.detector.name, "source": job.engine.name, "seed": job.seed}
    return {**job.engine.attributes(), **made, **beam}


def _attributes(job: Job, chunk: Showers, first: int, n: int, seconds: float) -> dict[str, Any]:
    """Return the attributes of the whole: those of one chunk and of the job, and the mean processor time."""
    facts = {name: value for name, value in chunk.attributes.items() if name != "cpu_seconds"}
    return {**facts, **job.attributes(), **range_facts(first, n), "cpu_seconds_per_shower": seconds / n}


def _join(parts: Parts, chunks: Sequence[Chunk], path: Path, force: bool, layout: str) -> None:
    """Write the chunks in order, one at a time, into one file."""
    job, seconds = parts.job, 0.0
    first, n = chunks[0].start, sum(chunk.n for chunk in chunks)
    with ShowerWriter(
        path, job.detector, job.beam.particle, job.engine.name, job.seed, force=force, layout=layout
    ) as writer:
        for chunk in chunks:
            showers = parts.take(chunk)
            seconds += showers.attributes["cpu_seconds"]
            writer.append(showers)
            writer.attributes = _attributes(job, showers, first, n, seconds)
