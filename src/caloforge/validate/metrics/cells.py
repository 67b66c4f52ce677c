r"""Moments of cells: core cells, and the covariance of the cells.

Mean and standard deviation of the core cells, generated over reference.

For clic-ecal the core is the published cube of cells [10, 16]^3; elsewhere it is the cells whose mean energy in
the reference is at least a tenth of the largest cell's. For each core cell the mean and the standard
deviation over showers are taken, of the energy divided by the incident energy when that varies; the figure is
the mean over the core of generated over reference. The published selection of 250 +- 2 GeV is replaced by this
division, which uses all showers; validate a sample of that energy to have the same. The error is the
spread over bootstrap samples of the showers.

References:
    F. Rehm et al., arXiv:2103.13698.

Distance of the cells' covariance matrices.

.. math:: d = \frac{|C_{gen} - C_{ref}|_F}{|C_{ref}|_F}

with the Frobenius norm, of the covariance of cell energies over incident energy; ``correlation`` in the detail
is the same for the correlation matrices (their norm taken without the diagonal). Only the cells with the most
energy in the reference enter, up to a number that the detail gives with their share of the energy.

References:
    ATL-SOFT-PUB-2018-001, where the generator is chosen by the cells' covariance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.statistics.resampling import bootstrap_counts, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import cell_pair

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.validate.sample import Sample

__all__ = [
    "CoreCells",
    "CovarianceDistance",
    "core_cells",
    "correlation_distance",
    "covariance",
    "covariance_distance",
    "moment_ratios",
]


_CUBES = {"clic-ecal": (10, 17)}  # first and behind the last index along each axis
_SHARE = 0.1


def core_cells(detector: Detector, mean: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the flat indices of the core cells.

    Arguments:
        detector: The detector.
        mean: Mean energy of each cell in the reference (n_cells,).
    """
    if detector.name in _CUBES:
        cut = slice(*_CUBES[detector.name])
        inside = np.zeros(detector.shape, bool)
        inside[cut, cut, cut] = True
        return np.flatnonzero(inside.ravel())
    return np.flatnonzero((mean >= _SHARE * mean.max()) & (mean > 0))


def moment_ratios(
    reference: NDArray[np.floating],
    generated: NDArray[np.floating],
    weights_reference: NDArray[np.floating] | None = None,
    weights_generated: NDArray[np.floating] | None = None,
) -> tuple[float, float]:
    """Return the mean over cells of the ratio of means and of the ratio of standard deviations.

    Cells that are constant in the reference have no ratio and are left out.

    Arguments:
        reference: Cell energies (N, c).
        generated: Cell energies (M, c).
        weights_reference: How often each shower counts (N,).
        weights_generated: How often each shower counts (M,).
    """
    mean_r, std_r = _moments(reference, weights_reference)
    mean_g, std_g = _moments(generated, weights_generated)
    good_mean, good_std = mean_r > 0, std_r > 0
    means = np.mean(mean_g[good_mean] / mean_r[good_mean]) if good_mean.any() else np.nan
    deviations = np.mean(std_g[good_std] / std_r[good_std]) if good_std.any() else np.nan
    return float(means), float(deviations)


def _moments(
    x: NDArray[np.floating], weights: NDArray[np.floating] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    mean = w @ x / w.sum()
    variance = w @ (x - mean) ** 2 / (w.sum() - 1.0)
    return mean, np.sqrt(variance)


class CoreCells(Metric):
    """Ratio of the means and of the standard deviations of the core cells."""

    name: ClassVar[str] = "core_cells"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("cell_mean_ratio", "Core-cell mean ratio", 1.0),
        Key("cell_std_ratio", "Core-cell standard deviation ratio", 1.0),
    )
    minimum: ClassVar[int] = 4

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``cell_mean_ratio`` and ``cell_std_ratio``."""
        pair = cell_pair(reference, generated, settings)
        cells = core_cells(reference.detector, pair.reference.mean(axis=0))
        energies = np.concatenate([pair.energy_reference, pair.energy_generated])
        varies = bool(np.ptp(energies) > 1e-6 * energies.max())
        a, b = pair.reference[:, cells].astype(np.float64), pair.generated[:, cells].astype(np.float64)
        if varies:
            a, b = a / pair.energy_reference[:, None], b / pair.energy_generated[:, None]
        values = moment_ratios(a, b)
        weights_a = bootstrap_counts(len(a), settings.n_bootstrap, settings.seed, "reference")
        weights_b = bootstrap_counts(len(b), settings.n_bootstrap, settings.seed, "generated")
        boot = np.array([moment_ratios(a, b, wa, wb) for wa, wb in zip(weights_a, weights_b, strict=True)])
        floor = []
        for index in range(settings.n_halves):
            first, second = halves(len(a), index, settings.seed)
            floor.append(moment_ratios(a[first], a[second]))
        floors = np.array(floor)
        detail = {"cells": len(cells), "over_incident_energy": varies, **pair.counts}
        out: dict[str, Entry] = {}
        for index, key in enumerate(self.keys):
            reason = {} if np.isfinite(values[index]) else {"reason": "no core cell varies in the reference"}
            below = floor_at(floors[:, index], len(a), len(b), degree=1, ideal=1.0)
            out[key.name] = Value(
                values[index],
                spread(boot[:, index]),
                below.value,
                below.uncertainty,
                {**detail, **below.detail, **reason},
            )
        return out


def covariance(x: NDArray[np.floating], weights: NDArray[np.uint8] | None = None) -> NDArray[np.float64]:
    """Return the covariance (d, d) of rows (N, d), each counted as often as its weight says (N,)."""
    rows = np.asarray(x, np.float64)
    w = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    total = w.sum()
    mean = w @ rows / total
    rooted = np.sqrt(w)[:, None] * (rows - mean)
    out: NDArray[np.float64] = rooted.T @ rooted / (total - 1.0)
    return out


def covariance_distance(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Return the relative Frobenius distance of two covariance matrices (d, d); NaN for a zero reference."""
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(generated - reference)) / norm if norm > 0 else float("nan")


def _correlation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation matrix with a zero diagonal; rows of constant cells are zero."""
    variance = np.diag(matrix)
    scale = np.where(variance > 0, 1.0 / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
    out: NDArray[np.float64] = matrix * scale[:, None] * scale
    np.fill_diagonal(out, 0.0)
    return out


def correlation_distance(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """Return the relative Frobenius distance of the off-diagonal correlations of two covariances (d, d)."""
    return covariance_distance(_correlation(reference), _correlation(generated))


class CovarianceDistance(Metric):
    """Relative Frobenius distance of the cell covariance matrices."""

    name: ClassVar[str] = "covariance_distance"
    keys: ClassVar[tuple[Key, ...]] = (Key("covariance_distance", "Cell covariance distance", 0.0),)
    minimum: ClassVar[int] = 8

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance, bootstrapped over showers; the floor is that of two halves."""
        pair = cell_pair(reference, generated, settings)
        mean = pair.reference.mean(axis=0)
        cells = np.sort(np.argsort(mean)[::-1][: settings.covariance_cells])
        a = pair.reference[:, cells] / pair.energy_reference[:, None]
        b = pair.generated[:, cells] / pair.energy_generated[:, None]
        of_a, of_b = covariance(a), covariance(b)
        value = covariance_distance(of_a, of_b)
        samples = min(settings.n_bootstrap, 10)  # each is two covariance matrices
        boot = []
        weights_a = bootstrap_counts(len(a), samples, settings.seed, "reference")
        weights_b = bootstrap_counts(len(b), samples, settings.seed, "generated")
        for wa, wb in zip(weights_a, weights_b, strict=True):
            boot.append(covariance_distance(covariance(a, wa), covariance(b, wb)))
        floor = []
        for index in range(settings.n_halves):
            first, second = halves(len(a), index, settings.seed)
            floor.append(covariance_distance(covariance(a[first]), covariance(a[second])))
        below = floor_at(np.array(floor), len(a), len(b), degree=1)
        detail = {
            "correlation": correlation_distance(of_a, of_b),
            "cells": len(cells),
            "energy_share": float(mean[cells].sum() / mean.sum()) if mean.sum() > 0 else 0.0,
            **below.detail,
            **pair.counts,
        }
        out = Value(value, spread(np.array(boot)), below.value, below.uncertainty, detail)
        return {"covariance_distance": out}
