r"""The card of a shipped model: its quality on sealed showers and its speed.

As many showers are generated as there are test showers, under the same conditions, so that every floor is that of two equal samples.

For an observable with means :math:`\mu` and standard deviations :math:`\sigma` over N reference and M generated showers:

.. math:: \text{shift} = \frac{\mu_g - \mu_r}{\sigma_r}, \qquad
          \text{ratio} = \frac{\mu_g}{\mu_r}, \qquad \text{width} = \frac{\sigma_g}{\sigma_r} .

Errors are those of :mod:`caloforge.statistics.moments`. Energies are divided by the incident energy where that varies.
``generated_std_uncertainty`` is the error of :math:`\sigma_g` alone. The floor of a ratio is the standard deviation of the ratio
of two reference samples.

The spectrum of cell energies is the mean number of cells a shower in five bins a decade from 1e-4 to 1e4 MeV, with the cells below
(0 to 1e-4 MeV) first and those above last. With the counts :math:`k_{s}` of N showers in a bin the error of their mean is
:math:`\sigma(k) / \sqrt N`, the spread between showers, since the cells of one shower fluctuate together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.files import sha256_file, source_commit
from caloforge.generate import Generator
from caloforge.showers import Showers, ShowerSource, open_showers
from caloforge.showers.seen import SeenCheck, seeds_of
from caloforge.showers.views import JoinedShowers, project_showers
from caloforge.statistics.moments import levels, mean_and_std
from caloforge.validate.metrics import compute_metrics
from caloforge.validate.metrics.base import Settings
from caloforge.validate.metrics.features import cell_histograms
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.spectrum import FINE_EDGES
from caloforge.validate.resolution import EnergySlices, response_curve
from caloforge.validate.sample import Sample
from caloforge.validate.shape_tests import (
    compare_cores,
    core_energies,
    core_window,
    reference_core,
    shape_tests,
)
from caloforge.zoo.shipping import add_to_card, made
from caloforge.zoo.store import Card

__all__ = [
    "SPECTRUM_CARD_EDGES", "TestShowers", "compare_moments", "describe_conditions", "mean_spectrum",
    "measure", "measure_card", "moments", "open_test_showers", "spectrum",
]  # fmt: skip


_FEWEST = 10


def moments(reference: Sample, generated: Sample) -> dict[str, dict[str, Any]]:
    """Return means, ratios and widths by observable; those that are constant or not finite are left out."""
    energy = reference.incident_energy
    varies = bool(np.ptp(energy) > 1e-6 * energy.max())
    found = {}
    for name, values in reference.observables.values.items():
        if values.ndim != 1 or name not in generated.observables:
            continue
        a, b = reference.observables[name], generated.observables[name]
        unit = OBSERVABLES[name].unit
        if varies and unit == "MeV":
            a, b, unit = a / energy, b / generated.incident_energy, "of the incident energy"
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        if min(len(a), len(b)) >= _FEWEST and a.std() > 0:
            found[name] = {"unit": unit, **compare_moments(a, b)}
    return found


def compare_moments(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> dict[str, float]:
    """Compare an observable (N,) of the reference with that of generated showers (M,).

    ``ratio`` is only returned for observables that cannot be negative.
    """
    mean_a, error_a, std_a, of_std_a = mean_and_std(reference)
    mean_b, error_b, std_b, of_std_b = mean_and_std(generated)
    out = {
        "reference": mean_a, "generated": mean_b,
        "reference_std": std_a, "generated_std": std_b, "generated_std_uncertainty": of_std_b,
        "shift": (mean_b - mean_a) / std_a, "shift_uncertainty": float(np.hypot(error_a, error_b)) / std_a,
        "width": std_b / std_a, "width_uncertainty": float(np.hypot(of_std_b, of_std_a * std_b / std_a)) / std_a,
    }  # fmt: skip
    if reference.min() >= 0 and mean_a > 0:
        m = len(generated)
        out["ratio"] = mean_b / mean_a
        out["ratio_uncertainty"] = float(np.hypot(error_b, error_a * mean_b / mean_a)) / mean_a
        out["ratio_floor"] = float(np.hypot(error_a, std_a / np.sqrt(m))) / mean_a
    return out


_MERGED = 4  # of the 20 bins a decade
_DECADES = 8
SPECTRUM_CARD_EDGES: NDArray[np.float64] = FINE_EDGES[: 20 * _DECADES + 1 : _MERGED]
"""Edges (41,) of the bins, MeV."""


def mean_spectrum(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean number of cells a shower (42,), and its error (42,): below the edges, 40 bins, above."""
    histograms = cell_histograms(sample, n_max=sample.n)
    fine = np.arange(len(FINE_EDGES) + 1)
    wide = np.where(fine == 0, 0, 1 + np.minimum((fine - 1) // _MERGED, len(SPECTRUM_CARD_EDGES) - 1))
    counts = histograms.sums(wide, np.arange(len(histograms.groups)))
    if sample.n < 2:
        return counts.mean(axis=0), np.full(counts.shape[1], np.nan)
    return counts.mean(axis=0), counts.std(axis=0, ddof=1) / np.sqrt(sample.n)


def spectrum(reference: Sample, generated: Sample) -> dict[str, Any]:
    """Return the spectrum of cell energies for a card.

    Returns:
        ``low`` and ``high`` (MeV) and ``bins`` of the logarithmic bins; for ``reference`` and ``generated`` the ``cells``
        a shower and their ``uncertainty``, each (bins + 2,): below, the bins, above.
    """
    low, high = float(SPECTRUM_CARD_EDGES[0]), float(SPECTRUM_CARD_EDGES[-1])
    out: dict[str, Any] = {"low": low, "high": high, "bins": len(SPECTRUM_CARD_EDGES) - 1}
    for side, sample in (("reference", reference), ("generated", generated)):
        cells, errors = mean_spectrum(sample)
        out[side] = {"cells": cells.tolist(), "uncertainty": errors.tolist()}
    return out


_MOST_VALUES = 32
_QUANTILES = 41


def describe_conditions(source: ShowerSource) -> dict[str, list[dict[str, Any]]]:
    """Return, by condition, a description of each of its columns; of angles where the showers have any.

    Returns:
        ``incident_energy`` (MeV), ``incident_theta`` (degrees) and the named conditions, each a list of
        ``{"values", "counts"}`` or ``{"quantiles"}``.
    """
    beam = ["incident_energy", "incident_theta"] if source.has_theta else ["incident_energy"]
    return {
        name: [_describe(column) for column in source.condition(name).astype(np.float64).T]
        for name in (*beam, *source.condition_names)
    }


def _describe(column: NDArray[np.float64]) -> dict[str, Any]:
    values = levels(column, _MOST_VALUES)
    if values is not None:
        counts = np.bincount(np.searchsorted(values, column, "right") - 1, minlength=len(values))
        return {"values": values.tolist(), "counts": counts.tolist()}
    quantiles = np.quantile(column, np.linspace(0.0, 1.0, _QUANTILES))
    return {"quantiles": [float(f"{value:.7g}") for value in quantiles]}


_KEPT = ("value", "uncertainty", "floor", "floor_uncertainty")
_DETAILS = (
    "p", "reason", "generated", "reference", "classifier", "n_used", "lower_limit", "extrapolated", "n_2sigma", "n_5sigma",
    "energy_low", "energy_high", "significance", "significant", "finding",
)  # fmt: skip
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
    stack: ExitStack, detector: str, files: Sequence[str | Path], generator: Generator | None = None,
    sealed: Collection[int] = (),
) -> TestShowers:  # fmt: skip
    """Open files of showers that a model has not seen, until the stack ends.

    Arguments:
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
    generator: Generator, test: TestShowers, settings: Settings | None = None, n: int | None = None,
    bins: int = 5, names: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the ``metrics`` of a card.

    Arguments:
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
    showers = {
        "n": reference.n,
        "sealed": test.sealed,
        "seeds": list(test.seeds),
        "parts": list(test.described),
    }
    found: dict[str, Any] = _rounded(
        {
            "reference": showers,
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
        response_curve(x.observables["visible_energy"] / fraction, x.incident_energy, edges=slices.edges)
        for x in (reference, generated)
    ]
    rows = []
    for index in range(len(slices)):
        row = {"energy": slices.centres[index], "n": int(curves[1].n[index])}
        for name in ("response", "resolution"):
            x, y = (getattr(curve, name)[index] for curve in curves)
            dx, dy = (getattr(curve, f"{name}_error")[index] for curve in curves)
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
        kept = ("feature", "kind", "importance", "uncertainty")
        known["features"] = [{key: feature[key] for key in kept} for feature in features[:_FEATURES]]
    return {key: entry[key] for key in _KEPT if key in entry} | known


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
    card: Card, files: Sequence[str | Path], sealed: Collection[int] = (), n: int | None = None,
    settings: Settings | None = None, names: Sequence[str] | None = None,
) -> Card:  # fmt: skip
    """Measure a shipped model on showers that it has not seen, write its card, and return it.

    The card's ``metrics`` are replaced; the weights and everything else of the card stay.

    Arguments:
        sealed: See :func:`open_test_showers`.
        n: See :func:`measure`, as for ``settings`` and ``names``.

    Raises:
        InputError: When there are no showers, or a file has a seed that is not sealed.
        SeenShowersError: When the model was trained or selected on some of the showers.
    """
    generator = card.generator()
    with ExitStack() as stack:
        test = open_test_showers(stack, generator.detector.name, files, generator, sealed)
        metrics = measure(generator, test, settings, n=n, names=names)
    return add_to_card(card, {"metrics": metrics})
