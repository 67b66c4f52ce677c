"""One measurement in a separate process, so that memory and the first shower are not those of what ran before.

``measure`` starts ``python -c "from caloforge.benchmark.measure import main; main()"``, which reads a request (JSON) from standard
input and writes the answer into a file. The memory counted is the peak of the resident set minus the resident set after the
imports; on a GPU it is the peak that torch allocated there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caloforge.errors import CaloforgeError, InputError
from caloforge.files import write_json
from caloforge.generate.timing import GeneratorTime, time_call
from caloforge.geometry import detector_from_definition
from caloforge.showers import Showers
from caloforge.simulate import simulate
from caloforge.text_files import read_json
from caloforge.units import EnergySpec
from caloforge.zoo import load

__all__ = ["PROBE", "FailedMeasurementError", "RefusedMeasurementError", "main", "measure", "showers_within"]

PROBE = 100
"""Batches of up to so many showers are made in full at least once; larger ones only if there is time."""
PARTS = 4
"""Geant4's showers are made in so many parts, whose scatter gives the uncertainty."""


class RefusedMeasurementError(InputError):
    """What the measuring process refused as bad input."""


class FailedMeasurementError(CaloforgeError):
    """What failed in the measuring process, such as too little memory."""


def showers_within(batch: int, ms: float, seconds: float) -> int:
    """Return how many showers of a batch to make in a call, two of which should end within a time.

    Arguments:
        ms: Known time of a shower, ms.
        seconds: The time, s.

    Returns:
        The batch itself, a smaller multiple of :data:`PROBE`, or 0 when not even two of these would fit.
    """
    fitting = int(500.0 * seconds / ms) if ms > 0 else batch
    if batch <= max(PROBE, fitting):
        return batch
    fewer = fitting // PROBE * PROBE
    return fewer if fewer > PROBE else 0


def measure(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Measure in a new process and return what it found.

    Arguments:
        request: ``kind`` (``model``, ``gflash`` or ``geant4``), ``energy``, ``theta``, ``seed``, ``seconds``, ``threads``, and of
            a model ``source``, ``device`` and ``batch``, of a simulation ``detector``, ``definition``, ``particle`` and ``showers``.
        folder: Where temporary files may be written.

    Raises:
        RefusedMeasurementError: When the process refused its input.
        FailedMeasurementError: When it failed, or ended before it answered.
    """
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    threads = {name: str(request["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from caloforge.benchmark.measure import main; main()"],
        input=json.dumps({**request, "folder": str(folder)}),
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join([root, *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    if not answer.is_file():
        code = done.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-1:]
        raise FailedMeasurementError(f"the process {how}" + (f": {last[0]}" if last else ""))
    found: dict[str, Any] = read_json(answer)
    if "refused" in found:
        raise RefusedMeasurementError(found["refused"])
    if "failed" in found:
        raise FailedMeasurementError(found["failed"])
    return found


def main() -> None:
    """Answer one request; see :func:`measure`."""
    request = json.load(sys.stdin)
    torch.set_num_threads(int(request["threads"]))
    kinds = {"model": _model, "gflash": _gflash, "geant4": _geant4}
    try:
        found = kinds[request["kind"]](request)
    except InputError as error:
        found = {"refused": str(error)}
    except (CaloforgeError, RuntimeError, MemoryError) as error:
        found = {"failed": str(error).partition("\n")[0] or type(error).__name__}
    write_json(Path(request["folder"]) / "answer.json", found)


class _Memory:
    """Peak memory of this process above that at construction; on a GPU that allocated there."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
        self._before = _resident("VmRSS")

    def peak_mb(self) -> float:
        """Return the peak so far, MB."""
        if self._cuda:
            return float(torch.cuda.max_memory_allocated()) / 1e6
        return max(0.0, _resident("VmHWM") - self._before) / 1e6


def _resident(field: str) -> float:
    """Return VmRSS (now) or VmHWM (the peak) in bytes; where there is no /proc, the peak that the system counted."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return 1024.0 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(before: tuple[float, float], n: int = 1) -> dict[str, float]:
    """Return wall and processor time since then, ms; of a shower when there were ``n``."""
    wall, cpu = (1e3 * (now - then) / n for now, then in zip(_clocks(), before, strict=True))
    return {"wall_ms": wall, "cpu_ms": cpu}


def _as_dict(found: GeneratorTime) -> dict[str, Any]:
    """Return medians and half the central 68 % of the repeats, ms a shower; of one call there is no scatter."""
    several = found.repeats > 1
    return {
        "wall_ms": found.wall_ms,
        "wall_uncertainty": found.wall_error if several else None,
        "cpu_ms": found.cpu_ms,
        "cpu_uncertainty": found.cpu_error if several else None,
        "repeats": found.repeats,
    }


def _model(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load a model, make the first showers, then time it to memory and to file."""
    device, batch, seconds, seed = (request[name] for name in ("device", "batch", "seconds", "seed"))
    memory = _Memory(device)
    began = _clocks()
    generator = load(request["source"], device)
    loaded = _since(began)
    ask = {"energy": request["energy"], "theta": request["theta"], "batch_size": batch}
    n = min(batch, PROBE)
    before = _clocks()
    showers = generator.generate(n, seed=seed, **ask)
    first, whole = _since(before, n), _since(began)
    out: dict[str, Any] = {"load": loaded, "first_call": {**first, "showers": n, "from_loading": whole}}
    if batch > n:
        wall = first["wall_ms"]
        if generator.device.type != "cpu":
            wall = _large(lambda size: generator.generate(size, seed=seed, **ask), n, batch, seconds)
        n = showers_within(batch, wall, seconds)
        if n == 0:
            return {**out, "skipped": f"a call takes about {batch * wall / 1e3:.0f} s"}

    def to_memory(repeat: int) -> Showers:
        return generator.generate(n, seed=seed + repeat, **ask)

    def to_file(repeat: int) -> Path:
        return generator.write(path, n, seed=seed + repeat, force=True, **ask)

    path = Path(request["folder"]) / "showers.h5"
    slow = n * first["wall_ms"] / 1e3 > seconds and n == len(showers)
    if slow:
        out["memory"] = {**_as_dict(GeneratorTime(first["wall_ms"], 0, first["cpu_ms"], 0, n, 1, device)),
                         "note": "the first call"}  # fmt: skip
        peak = memory.peak_mb()
        before = _clocks()
        showers.save(path, force=True)
        written = _since(before, n)
        out["file"] = {name: first[name] + written[name] for name in written} | {
            "wall_uncertainty": None, "cpu_uncertainty": None, "repeats": 1, "note": "the first call, and its showers written",
        }  # fmt: skip
    else:
        del showers
        found = time_call(to_memory, n, generator.device.type, seconds)
        out["memory"], peak = _as_dict(found), memory.peak_mb()
        out["file"] = _as_dict(time_call(to_file, n, generator.device.type, seconds))
    out["showers"], out["bytes_per_shower"] = n, path.stat().st_size / n
    out["peak_mb"], out["peak_file_mb"] = peak, memory.peak_mb()
    path.unlink()
    return out


def _large(generate: Callable[[int], Any], n: int, batch: int, seconds: float) -> float:
    """Return the milliseconds of a shower of a GPU, whose calls hardly take longer for ten times as many: ``n``, then more up to ``batch``."""
    while True:
        before = _clocks()
        generate(n)
        wall = _since(before, n)["wall_ms"]
        more = min(10 * n, batch)
        if more == n or more * wall / 1e3 > 5.0 * seconds:
            return wall
        n = more


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a simulation: a user's own detector comes as its definition."""
    definition = request["definition"]
    detector = detector_from_definition(definition) if definition else request["detector"]
    asked = {name: request[name] for name in ("particle", "energy", "theta")}
    return {"detector": detector, **asked, "workers": 1}


def _gflash(request: Mapping[str, Any]) -> dict[str, Any]:
    """Time the parametrisation, to memory and to file."""
    n, seed, seconds = request["showers"], request["seed"], request["seconds"]
    ask = _asked(request) | {"engine": "gflash"}
    path = Path(request["folder"]) / "showers.h5"
    memory = _Memory("cpu")
    before = _clocks()
    simulate(n=1, seed=seed, **ask)
    first = _since(before)
    calls: dict[str, Callable[[int], object]] = {
        "memory": lambda repeat: simulate(n=n, seed=seed + repeat, **ask),
        "file": lambda repeat: simulate(n=n, seed=seed + repeat, output=path, force=True, **ask),
    }
    out: dict[str, Any] = {"first_call": {**first, "showers": 1}, "showers": n}
    for name, call in calls.items():
        out[name] = _as_dict(time_call(call, n, seconds=seconds))
        out.setdefault("peak_mb", memory.peak_mb())
    out["bytes_per_shower"] = path.stat().st_size / n
    path.unlink()
    return out


def _geant4(request: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate with Geant4 in parts; the time is that of the showers alone, without Geant4's start."""
    number, seed = int(request["showers"]), int(request["seed"])
    sizes = [len(part) for part in np.array_split(np.arange(number), min(PARTS, number))]
    parts = [simulate(n=size, seed=seed + index, **_asked(request)) for index, size in enumerate(sizes)]
    times = (
        np.array([1e3 * float(part.attributes["cpu_seconds_per_shower"]) for part in parts]) * sizes
    )  # ms, (parts,)
    energies = np.array([float(part.incident_energy.sum()) for part in parts])  # MeV, (parts,)
    rates, mean = times / energies, EnergySpec.parse(request["energy"]).mean
    error = float(rates.std(ddof=1) / np.sqrt(len(rates))) * mean if len(rates) > 1 else None
    facts = parts[0].attributes
    return {
        "cpu_ms": float(times.sum() / energies.sum()) * mean,
        "cpu_uncertainty": error,
        "showers": number,
        "mean_energy_mev": float(energies.sum()) / number,
        "beam_mean_energy_mev": mean,
        **{
            name: facts[name]
            for name in ("geant4_version", "physics_list", "production_cut_mm")
            if name in facts
        },
    }
