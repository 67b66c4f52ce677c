"""The card of a shipped model: its quality on sealed showers and its speed.

As many showers are generated as there are test showers, under the same conditions, so that every floor is that of two equal samples.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caloforge.errors import InputError
from caloforge.files import sha256_file
from caloforge.generate import Generator
from caloforge.generate.timing import time_generator
from caloforge.provenance import source_commit
from caloforge.showers import Showers, ShowerSource, open_showers
from caloforge.showers.seen import SeenCheck, seeds_of
from caloforge.showers.views import JoinedShowers, project_showers
from caloforge.validate.metrics import compute_metrics
from caloforge.validate.metrics.base import Settings
from caloforge.validate.resolution import EnergySlices, response_curve
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import (
    compare_cores,
    core_energies,
    core_window,
    reference_core,
    shape_tests,
)
from caloforge.zoo.card_statistics import describe_conditions, moments, spectrum
from caloforge.zoo.shipping import add_to_card, made
from caloforge.zoo.store import Card

__all__ = [
    "TestShowers",
    "hardware_name",
    "measure",
    "measure_card",
    "open_test_showers",
    "speed_of",
]


_CPU = Path("/proc/cpuinfo")


def hardware_name(device: str) -> str:
    """Return the name of the GPU or of the CPU of this machine."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    if _CPU.is_file():
        for line in _CPU.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def speed_of(
    generator: Generator, like: ShowerSource, batch: int = 100, seconds: float = 5.0
) -> dict[str, Any]:
    """Time a generator where it is: on a CPU with one thread, in processor time; on a GPU by the clock.

    Arguments:
        generator: The model.
        like: Showers whose conditions it takes.
        batch: Showers at once.
        seconds: How long to repeat.

    Returns:
        ``ms`` a shower, ``uncertainty``, ``batch``, ``threads`` and ``hardware``.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = time_generator(generator, like, batch, seconds)
    finally:
        torch.set_num_threads(threads)
    return {
        "ms": float(f"{found.cost_ms:.4g}"),
        "uncertainty": float(f"{found.cost_error:.2g}"),
        "batch": batch,
        "threads": 1,
        "hardware": hardware_name(found.device),
    }


_KEPT = ("value", "uncertainty", "floor", "floor_uncertainty")
_DETAILS = (
    "p",
    "reason",
    "generated",
    "reference",
    "classifier",
    "n_used",
    "lower_limit",
    "extrapolated",
    "n_2sigma",
    "n_5sigma",
    "energy_low",
    "energy_high",
    "significance",
    "significant",
    "finding",
)
_MANY = 8  # layers up to which a card has the figures of each
_FEATURES = 8  # features of the attribution that a card keeps
_LIKELY = 0.8  # the probability that the comparison of Conv2D and Conv3D counts from
_CORE = (250_000.0, 2_000.0, 200)  # its energy, the half width around it (MeV), showers wanted


@dataclass(frozen=True)
class TestShowers:
    """Showers that a model has not seen."""

    showers: ShowerSource  # all of them
    described: tuple[dict[str, Any], ...]  # where they come from, an entry for each file
    seeds: tuple[int, ...] = ()  # the simulation seeds of all files
    sealed: bool = False  # whether all seeds are sealed: nobody has made a choice by looking at these showers


def open_test_showers(
    stack: ExitStack,
    detector: str,
    files: Sequence[str | Path],
    generator: Generator | None = None,
    sealed: Collection[int] = (),
) -> TestShowers:
    """Open files of showers that a model has not seen.

    Arguments:
        stack: Closes the files.
        detector: The model's detector; showers of others are projected to it.
        files: Files of other seeds than those of the training.
        generator: The model, to check that it has seen none of the showers.
        sealed: Sealed simulation seeds of the data set; where there are any, all files must have such seeds.

    Raises:
        InputError: When there are no showers at all, or a file has a seed that is not sealed.
        SeenShowersError: When the model was trained or selected on some of the showers.
    """
    parts: list[ShowerSource] = []
    described = []
    seeds: set[int] = set()
    for path in map(Path, files):
        file = stack.enter_context(open_showers(path))
        own = seeds_of(file)
        if sealed and not (own and set(own) <= set(sealed)):
            msg = (
                f"{path}: has the simulation seeds {', '.join(map(str, own)) or 'none'}; expected sealed seeds of the data "
                f"set, {min(sealed)} to {max(sealed)}"
            )
            raise InputError(msg)
        seeds.update(own)
        parts.append(file if file.detector.name == detector else project_showers(file, detector))
        described.append({"file": path.name, "sha256": sha256_file(path), "showers": len(file), **made(file)})
    if not parts:
        msg = "no showers to measure with; expected files that the model was not trained on"
        raise InputError(msg)
    if generator is not None:
        SeenCheck(parts).require_unseen([(generator.name, generator)])
    joined = parts[0] if len(parts) == 1 else JoinedShowers(parts)
    return TestShowers(joined, tuple(described), tuple(sorted(seeds)), bool(sealed))


def measure(
    generator: Generator,
    test: TestShowers,
    settings: Settings | None = None,
    n: int | None = None,
    bins: int = 5,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the ``metrics`` of a card.

    Arguments:
        generator: The shipped model.
        test: The showers to compare with.
        settings: Options of the metrics; one seed fixes all random choices, the generated showers too.
        n: Showers of the reference at most, drawn at random.
        bins: Slices in energy, where it has more than a few values.
        names: Metrics to compute; by default all that run unless switched off.
    """
    chosen = settings or Settings(seed=1)
    reference = Sample(test.showers, "Geant4")
    source: ShowerSource = test.showers
    if n is not None and n < reference.n:
        source = reference.take(n, chosen.seed)
        reference = Sample(source, "Geant4")
    fake = generator.generate(like=source, seed=chosen.seed)
    generated = Sample(fake, generator.name)
    slices = EnergySlices.of(reference.incident_energy, bins)
    figures = compute_metrics(reference, generated, chosen, names)
    found: dict[str, Any] = _rounded(
        {
            "reference": {
                "n": reference.n,
                "sealed": test.sealed,
                "seeds": list(test.seeds),
                "parts": list(test.described),
            },
            "commit": source_commit(),
            "generated": {"n": generated.n, "seed": chosen.seed},
            "figures": {key: _slim(entry) for key, entry in figures.items() if key != "skipped"},
            "moments": moments(reference, generated),
            "spectrum": spectrum(reference, generated),
            "response": _response(reference, generated, slices),
            "core": _core(source, fake, chosen.seed),
            "ks_by_energy": _probabilities(reference, generated, slices),
        }
    )
    # exact values: a model may know the discrete energies of its training and interpolate between them
    return found | {"conditions": describe_conditions(source)}


def _response(reference: Sample, generated: Sample, slices: EnergySlices) -> list[dict[str, Any]]:
    """Return response and resolution in slices of energy, generated over reference with errors."""
    fraction = reference.detector.sampling_fraction
    curves = [
        response_curve(
            sample.observables["visible_energy"] / fraction, sample.incident_energy, edges=slices.edges
        )
        for sample in (reference, generated)
    ]
    n = curves[1].n
    rows = []
    for index in range(len(slices)):
        row = {"energy": slices.centres[index], "n": int(n[index])}
        for name in ("response", "resolution"):
            (x, dx), (y, dy) = (
                (getattr(curve, name)[index], getattr(curve, f"{name}_error")[index]) for curve in curves
            )
            ratio = y / x
            row[f"{name}_ratio"] = ratio
            row[f"{name}_uncertainty"] = float(np.hypot(dy / x, ratio * dx / x))
        rows.append(row)
    return rows


def _core(source: ShowerSource, fake: Showers, seed: int) -> dict[str, Any]:
    """Return the ratios of the core cells at one energy, as the shapes study has them."""
    energies = [np.asarray(one.incident_energy, np.float64) for one in (source, fake)]
    middle, half, wanted = _CORE
    if np.ptp(energies[0]) < 1e-6 * energies[0].max():
        middle, half = float(energies[0].mean()), float(energies[0].mean()) / 100
    window = core_window(energies, middle, half, wanted)
    cells, known = reference_core(source, window)
    found = compare_cores(known, core_energies(fake, window, cells), seed=seed)
    return {
        "showers": window.text,
        "n": found.n,
        "mean_ratio": {"value": found.mean, "uncertainty": found.mean_error, "floor": found.floor[0]},
        "std_ratio": {"value": found.std, "uncertainty": found.std_error, "floor": found.floor[1]},
    }


def _probabilities(reference: Sample, generated: Sample, slices: EnergySlices) -> dict[str, Any]:
    """Return the Kolmogorov-Smirnov probabilities of each shape in each slice of energy."""
    members = [slices.members(sample.incident_energy) for sample in (reference, generated)]
    tests = shape_tests(reference, generated, members, len(slices))
    profiles = tests.p[: tests.n_profiles]
    known = profiles[np.isfinite(profiles)]
    return {
        "energies": slices.centres.tolist(),
        "profiles_above_80_percent": float((known > _LIKELY).mean()) if known.size else None,
        "p": {shape: row.tolist() for shape, row in zip(tests.shapes, tests.p, strict=True)},
    }


def _slim(entry: Any) -> Any:
    """Return a metric without the details that no reader of a card needs: of many layers, each one's figures."""
    if not isinstance(entry, Mapping):
        return entry
    if "value" not in entry:
        observables = Counter(key.partition("[")[0] for key in entry)
        few = (key for key in entry if "[" not in key or observables[key.partition("[")[0]] <= _MANY)
        return {key: _slim(entry[key]) for key in few}
    detail = entry.get("detail", {})
    known = {key: detail[key] for key in _DETAILS if not isinstance(detail.get(key, []), list)}
    features = detail.get("features")
    if isinstance(features, list):  # of the attribution; elsewhere it is their number
        known["features"] = [_slim_feature(feature) for feature in features[:_FEATURES]]
    return {key: entry[key] for key in _KEPT if key in entry} | known


def _slim_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a discriminating feature that a card keeps."""
    return {key: feature[key] for key in ("feature", "kind", "importance", "uncertainty")}


def _rounded(item: Any) -> Any:
    """Return plain data with five digits of every number."""
    if isinstance(item, Mapping):
        return {key: _rounded(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_rounded(value) for value in item]
    if isinstance(item, float | np.floating):
        return float(f"{item:.5g}") if np.isfinite(item) else None
    return item


def measure_card(
    card: Card,
    files: Sequence[str | Path],
    sealed: Collection[int] = (),
    n: int | None = None,
    settings: Settings | None = None,
    names: Sequence[str] | None = None,
) -> Card:
    """Measure a shipped model on showers that it has not seen, write its card, and return it.

    The card's ``metrics`` are replaced; the weights and everything else of the card stay.

    Arguments:
        card: The shipped model.
        files: Files of sealed showers.
        sealed: Sealed simulation seeds of the data set; where there are any, all files must have such seeds.
        n: Showers at most, drawn at random.
        settings: Options of the metrics.
        names: Metrics to compute; by default all that run unless switched off.

    Raises:
        InputError: When there are no showers, or a file has a seed that is not sealed.
        SeenShowersError: When the model was trained or selected on some of the showers.
    """
    generator = card.generator()
    with ExitStack() as stack:
        test = open_test_showers(stack, generator.detector.name, files, generator, sealed)
        metrics = measure(generator, test, settings, n=n, names=names)
    return add_to_card(card, {"metrics": metrics})
