r"""Means and widths of observables and the spectrum of cell energies, for a card.

Means and widths of the observables of one number a shower, generated beside reference.

For an observable with means :math:`\mu` and standard deviations :math:`\sigma` over N reference and M generated showers:

.. math:: \text{shift} = \frac{\mu_g - \mu_r}{\sigma_r}, \qquad
          \text{ratio} = \frac{\mu_g}{\mu_r}, \qquad \text{width} = \frac{\sigma_g}{\sigma_r} .

Errors are those of :mod:`caloforge.statistics.moments`. Energies are divided by the incident energy where
that varies. ``generated_std_uncertainty`` is the error of :math:`\sigma_g` alone. The floor of a ratio is the
standard deviation of the ratio of two reference samples.

The spectrum of cell energies for a card: mean number of cells a shower in logarithmic bins, with errors.

Five bins a decade from 1e-4 to 1e4 MeV, with the cells below (0 to 1e-4 MeV) first and those above last. With the counts
:math:`k_{s}` of N showers in a bin the error of their mean is :math:`\sigma(k) / \sqrt N`, the spread between showers, since
the cells of one shower fluctuate together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.showers import Showers, ShowerSource
from caloforge.statistics.moments import mean_and_std
from caloforge.validate.metrics.features import cell_histograms
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.spectrum import FINE_EDGES
from caloforge.validate.sample import Sample

__all__ = [
    "SPECTRUM_CARD_EDGES",
    "compare_moments",
    "describe_conditions",
    "mean_spectrum",
    "moments",
    "showers_like",
    "spectrum",
]


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
    (mean_a, error_a, std_a, of_std_a), (mean_b, error_b, std_b, of_std_b) = map(
        mean_and_std, (reference, generated)
    )
    out = {
        "reference": mean_a,
        "generated": mean_b,
        "reference_std": std_a,
        "generated_std": std_b,
        "generated_std_uncertainty": of_std_b,
        "shift": (mean_b - mean_a) / std_a,
        "shift_uncertainty": float(np.hypot(error_a, error_b)) / std_a,
        "width": std_b / std_a,
        "width_uncertainty": float(np.hypot(of_std_b, of_std_a * std_b / std_a)) / std_a,
    }
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
    errors = (
        counts.std(axis=0, ddof=1) / np.sqrt(sample.n) if sample.n > 1 else np.full(counts.shape[1], np.nan)
    )
    return counts.mean(axis=0), errors


def spectrum(reference: Sample, generated: Sample) -> dict[str, Any]:
    """Return the spectrum of cell energies for a card.

    Arguments:
        reference: Geant4.
        generated: The model.

    Returns:
        ``low`` and ``high`` (MeV) and ``bins`` of the logarithmic bins; for ``reference`` and ``generated`` the ``cells``
        a shower and their ``uncertainty``, each (bins + 2,): below, the bins, above.
    """
    out: dict[str, Any] = {
        "low": float(SPECTRUM_CARD_EDGES[0]),
        "high": float(SPECTRUM_CARD_EDGES[-1]),
        "bins": len(SPECTRUM_CARD_EDGES) - 1,
    }
    for side, sample in (("reference", reference), ("generated", generated)):
        cells, errors = mean_spectrum(sample)
        out[side] = {"cells": cells.tolist(), "uncertainty": errors.tolist()}
    return out


_MOST_VALUES = 32
_QUANTILES = 41
_ENERGY, _THETA = "incident_energy", "incident_theta"


def describe_conditions(source: ShowerSource) -> dict[str, list[dict[str, Any]]]:
    """Return, by condition, a description of each of its columns.

    Arguments:
        source: The showers; angles are described where they have any.

    Returns:
        ``incident_energy`` (MeV), ``incident_theta`` (degrees) and the named conditions, each a list of
        ``{"values", "counts"}`` or ``{"quantiles"}``.
    """
    found: dict[str, NDArray[Any]] = {_ENERGY: source.incident_energy}
    if source.has_theta:
        found[_THETA] = source.incident_theta
    found |= {name: source.condition(name) for name in source.condition_names}
    return {
        name: [_describe(column) for column in np.asarray(values, np.float64).reshape(len(source), -1).T]
        for name, values in found.items()
    }


def _describe(column: NDArray[np.float64]) -> dict[str, Any]:
    values, counts = np.unique(column, return_counts=True)
    if len(values) <= _MOST_VALUES:
        return {"values": values.tolist(), "counts": counts.tolist()}
    quantiles = np.quantile(column, np.linspace(0.0, 1.0, _QUANTILES))
    return {"quantiles": [float(f"{value:.7g}") for value in quantiles]}


def showers_like(
    described: Mapping[str, Sequence[Mapping[str, Any]]], detector: Detector, n: int, seed: int = 0
) -> Showers:
    """Return empty showers whose conditions are distributed as described, for ``generate(like=...)``.

    Arguments:
        described: What :func:`describe_conditions` returned.
        detector: The detector.
        n: Number of showers.
        seed: Seed of the draws.
    """
    drawn = {
        name: np.stack(
            [
                _draw(column, generator(seed, f"conditions/{name}", index), n)
                for index, column in enumerate(columns)
            ],
            axis=1,
        )
        for name, columns in described.items()
    }
    energy, theta = drawn.pop(_ENERGY)[:, 0], drawn.pop(_THETA, None)
    empty = np.zeros((n, detector.n_cells), np.float32)
    conditions = {name: values.astype(np.float32) for name, values in drawn.items()}
    return Showers(detector, empty, energy, None if theta is None else theta[:, 0], conditions)


def _draw(column: Mapping[str, Any], rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    if "values" in column:
        counts = np.asarray(column["counts"], np.float64)
        return np.asarray(rng.choice(np.asarray(column["values"]), n, p=counts / counts.sum()), np.float64)
    quantiles = np.asarray(column["quantiles"], np.float64)
    return np.interp(rng.random(n), np.linspace(0.0, 1.0, len(quantiles)), quantiles)
