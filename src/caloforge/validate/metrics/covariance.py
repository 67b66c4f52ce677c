r"""Distance of the cells' covariance matrices.

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

from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import cell_pair
from caloforge.validate.metrics.floors import floor_at
from caloforge.validate.metrics.resampling import bootstrap_counts, halves, spread

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["CovarianceDistance", "correlation_distance", "covariance", "covariance_distance"]


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
