"""``simulate``: showers of a detector, in memory or in a file."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from caloforge.errors import IncompatibleError, InputError
from caloforge.files import check_output
from caloforge.geometry import Detector, get_detector
from caloforge.progress import progress
from caloforge.registry import Registry
from caloforge.showers import Showers, ShowerWriter
from caloforge.simulate.chunks import Chunk, Parts, make_parts, plan
from caloforge.simulate.engine import Engine
from caloforge.simulate.job import MANTISSA_BITS, THRESHOLD, Job
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["ENGINES", "simulate"]

ENGINES: Registry[Callable[..., Engine]] = Registry(
    "engine",
    {
        "geant4": "caloforge.simulate.geant4:Geant4Engine",
        "gflash": "caloforge.simulate.gflash:GFlashEngine",
    },
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
    physics_list: str | None = None,
    production_cut: float | None = None,
    download_data: bool = False,
    threshold: float = THRESHOLD,
    mantissa_bits: int = MANTISSA_BITS,
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
    physics_list: str | None = None,
    production_cut: float | None = None,
    download_data: bool = False,
    threshold: float = THRESHOLD,
    mantissa_bits: int = MANTISSA_BITS,
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
    physics_list: str | None = None,
    production_cut: float | None = None,
    download_data: bool = False,
    threshold: float = THRESHOLD,
    mantissa_bits: int = MANTISSA_BITS,
) -> Showers | Path:
    """Simulate showers.

    Shower i depends on the arguments and i alone: not on ``n``, nor on ``workers``. With an ``output``, finished
    chunks lie in ``OUTPUT.parts/`` until all are done, and the same call made again goes on from there.

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
        physics_list: Geant4's physics: an electromagnetic constructor or a reference list.
        production_cut: Geant4's production cut, mm; by default 1.0, or 0.7 in a reference list, as in Geant4.
        download_data: Let geant4-pybind download Geant4's data sets when they are missing.
        threshold: Cells below it are set to zero, MeV.
        mantissa_bits: Bits of mantissa that cells keep; 23 keeps all.

    Returns:
        The showers, or the path of the file.

    Raises:
        InputError: When an argument is not what it must be.
        IncompatibleError: When the detector cannot be simulated.
        SimulationError: When the engine failed.
    """
    for name, value in (("n", n), ("workers", workers)):
        if value < 1:
            msg = f"{name} is {value}; expected 1 or more"
            raise InputError(msg)
    place = get_detector(detector)
    if not place.simulable:
        msg = f"detector '{place.name}' is a mesh without a stack of slabs and cannot be simulated"
        raise IncompatibleError(msg)
    options = {"physics_list": physics_list, "production_cut": production_cut}
    chosen = {name: value for name, value in options.items() if value is not None}
    if download_data:
        chosen["download_data"] = True
    if output is not None:
        check_output(output, force)
    job = Job(
        engine=_make_engine(engine, chosen),
        detector=place,
        beam=place.beam.replace(energy=energy, theta=theta, particle=particle),
        seed=seed,
        threshold=threshold,
        mantissa_bits=mantissa_bits,
    )
    if output is None:
        with tempfile.TemporaryDirectory(prefix="caloforge-") as folder, Parts(Path(folder), job) as parts:
            return _in_memory(parts, _make(parts, n, workers), n)
    path = Path(output)
    with Parts(path.with_name(path.name + ".parts"), job, force) as parts:
        _to_file(parts, _make(parts, n, workers), n, path, force)
        parts.remove()
    return path


def _make_engine(name: str, options: dict[str, Any]) -> Engine:
    """Return an engine with its options, or refuse options that it does not have."""
    build = ENGINES[name]
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            msg = f"engine '{name}' has no option '{option}'"
            raise InputError(msg)
    return build(**options)


def _make(parts: Parts, n: int, workers: int) -> list[Chunk]:
    """Make every chunk and return them in order."""
    job = parts.job
    chunks = plan(n, job.engine.chunk_size(job.detector, job.beam))
    with progress(n, f"simulating {job.detector.name} with {job.engine.name}") as advance:
        make_parts(parts, chunks, workers, advance)
    return chunks


def _attributes(parts: Parts, chunks: Sequence[Chunk], n: int) -> dict[str, Any]:
    """Return the attributes of the whole, with the mean processor time over all chunks."""
    found = [parts.attributes(chunk) for chunk in chunks]
    seconds = sum(float(entry["cpu_seconds"]) for entry in found)
    first = {name: value for name, value in found[0].items() if name != "cpu_seconds"}
    return {**first, **parts.job.attributes(), "n": n, "cpu_seconds_per_shower": seconds / n}


def _in_memory(parts: Parts, chunks: Sequence[Chunk], n: int) -> Showers:
    showers = Showers.concatenate([parts.read(chunk) for chunk in chunks])
    return showers.replace(attributes=_attributes(parts, chunks, n))


def _to_file(parts: Parts, chunks: Sequence[Chunk], n: int, path: Path, force: bool) -> None:
    """Join the parts in order, one at a time."""
    job = parts.job
    stream: Iterator[Showers] = (parts.read(chunk) for chunk in chunks)
    with ShowerWriter(
        path,
        job.detector,
        particle=job.beam.particle,
        source=job.engine.name,
        seed=job.seed,
        attributes=_attributes(parts, chunks, n),
        force=force,
    ) as writer:
        for showers in stream:
            writer.append(showers)
