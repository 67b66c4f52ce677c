r"""Shower shapes and cells: mean profiles, layer fractions, core cells, covariance of the cells, structural similarity.

**Shape MSE.** The mean squared error of the mean x, y and z profiles in units of the mean bin, averaged over the axes. The published
figures (0.044 and 0.065) come without their normalisation: neither the paper nor the public code of its authors states it; that
code's own validation uses relative errors bin by bin. The mean square of those is ``relative`` in the detail (bins empty in the
reference counted and left out); the figure itself is divided by the mean bin, so that no nearly empty edge bin decides it.

**Layer fractions.** The largest absolute difference over the layers of the mean fraction of the visible energy, in percentage points.

**Core cells.** For each core cell (:func:`~caloforge.statistics.moments.core_cells`) mean and standard deviation over showers, of the
energy divided by the incident energy when that varies; the figure is the mean over the core of generated over reference. The published
selection of 250 +- 2 GeV is replaced by this division, which uses all showers.

**Covariance distance.** Of the covariance of cell energies over incident energy; ``correlation`` in the detail is the same for the
correlations. Only the cells with the most energy in the reference enter, up to a number that the detail gives with their share.

**Structural similarity** (:mod:`caloforge.statistics.pairs`) of pairs of showers of similar incident energy, with the data range
:math:`L = 10^{-4}` GeV of the support-size papers.

References:
    F. Rehm et al., Physics validation of novel convolutional 2D architectures for speeding up high energy physics simulations,
    arXiv:2103.13698; ATL-SOFT-PUB-2018-001 (the generator is chosen by the cells' covariance).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.distances import (
    correlation_distance,
    covariance,
    covariance_distance,
    relative_mse,
    shape_mse,
)
from caloforge.statistics.moments import core_cells, mean_with_error, moment_ratios, weighted_moments
from caloforge.statistics.pairs import (
    WINDOW,
    neighbour_pairs,
    order_at_random,
    rank_pairs,
    structural_similarity,
)
from caloforge.statistics.resampling import floor_at, resample, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Array, cell_pair, layer_energies, profiles
from caloforge.validate.sample import Sample

__all__ = [
    "DATA_RANGE",
    "CoreCells",
    "CovarianceDistance",
    "LayerFractions",
    "ShapeMSE",
    "StructuralSimilarity",
    "core_ratios",
    "fractions",
]

Weights = NDArray[np.uint8] | None

DATA_RANGE = 1e-4
"""Data range L of the structural similarity, GeV."""
_MEV_A_GEV = 1000.0
_PERCENT = 100.0
_COVARIANCES = 10  # most bootstrap samples, each of two covariance matrices


def _mean(x: Array, weights: Weights) -> Array:
    """Return the mean (K,) of rows (N, K), each counted as often as its weight says."""
    return np.asarray(x.mean(axis=0) if weights is None else weights @ x / weights.sum())


class ShapeMSE(Metric):
    """Mean squared error of the mean x, y and z profiles."""

    name: ClassVar[str] = "shape_mse"
    papers: ClassVar[tuple[str, ...]] = ("conv2d-gan",)
    keys: ClassVar[tuple[Key, ...]] = (Key("shape_mse", "Shower-shape MSE", 0.0),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the error averaged over the axes; each axis is in the detail."""
        sides = profiles(reference), profiles(generated)
        bad = {
            f"not_finite_{side}": int((~np.isfinite(next(iter(x.values())).sum(axis=1))).sum())
            for side, x in zip(("reference", "generated"), sides, strict=True)
        }
        axes = list(sides[0])
        cuts = np.cumsum([sides[0][axis].shape[1] for axis in axes])[:-1]
        a, b = (
            np.nan_to_num(np.concatenate([x[axis] for axis in axes], axis=1), posinf=0.0, neginf=0.0)
            for x in sides
        )

        def by_axis(a: Array, b: Array, weights_a: Weights = None, weights_b: Weights = None) -> list[float]:
            means = (np.split(_mean(x, w), cuts) for x, w in ((a, weights_a), (b, weights_b)))
            return [shape_mse(p, g) for p, g in zip(*means, strict=True)]

        boot, floors = resample(by_axis, a, b, settings.n_bootstrap, settings.n_halves, settings.seed)
        below = floor_at(floors.reshape(-1, len(axes)).mean(axis=1), len(a), len(b), degree=2)
        found = by_axis(a, b)
        value = float(np.mean(found))
        means = (np.split(x.mean(axis=0), cuts) for x in (a, b))
        relative = [relative_mse(p, g) for p, g in zip(*means, strict=True)]
        detail: dict[str, Any] = {
            **dict(zip(axes, found, strict=True)),
            "relative": {axis: figure for axis, (figure, _) in zip(axes, relative, strict=True)},
            "empty_bins": {axis: empty for axis, (_, empty) in zip(axes, relative, strict=True)},
            **bad,
        }
        if not np.isfinite(value):
            detail["reason"] = "the reference has no energy along one of the axes"
        return {"shape_mse": Value.with_floor(value, spread(boot.mean(axis=1)), below, **detail)}


def fractions(energies: Array) -> Array:
    """Return layer energies (N, L) as fractions of their sums, without the showers that have none."""
    total = energies.sum(axis=1)
    good = np.isfinite(total) & (total > 0)
    out: Array = energies[good] / total[good, None]
    return out


class LayerFractions(Metric):
    """Largest difference of a layer's mean energy fraction, percentage points."""

    name: ClassVar[str] = "layer_fractions"
    papers: ClassVar[tuple[str, ...]] = ("atlas",)
    keys: ClassVar[tuple[Key, ...]] = (Key("layer_fractions", "Largest layer fraction difference (%)", 0.0),)

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        detector = reference.detector
        return None if detector.n_layers > 1 else f"needs several layers; '{detector.name}' has one"

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the largest difference; the detail has the mean fractions, and how many showers without energy there are."""
        whole = layer_energies(reference), layer_energies(generated)
        a, b = (fractions(energies) for energies in whole)
        detail: dict[str, Any] = {
            "without_energy_reference": len(whole[0]) - len(a),
            "without_energy_generated": len(whole[1]) - len(b),
        }
        if len(a) < 2 or len(b) < 2:
            reason = "fewer than two showers of one of the samples have visible energy"
            return {"layer_fractions": Value.missing(reason, **detail)}

        def largest(a: Array, b: Array, weights_a: Weights = None, weights_b: Weights = None) -> float:
            return float(np.abs(_mean(a, weights_a) - _mean(b, weights_b)).max() * _PERCENT)

        boot, floors = resample(largest, a, b, settings.n_bootstrap, settings.n_halves, settings.seed)
        below = floor_at(floors, len(a), len(b), degree=1)
        for side, x in (("reference", a), ("generated", b)):
            detail[side] = x.mean(axis=0)
            detail[f"{side}_uncertainty"] = x.std(axis=0, ddof=1) / np.sqrt(len(x))
        return {"layer_fractions": Value.with_floor(largest(a, b), spread(boot), below, **detail)}


def core_ratios(
    reference: Array, generated: Array, weights_reference: Weights = None, weights_generated: Weights = None
) -> tuple[float, float]:
    """Return the mean over cells of the ratio of means and of the ratio of standard deviations; NaN without such a ratio.

    Cell energies are (N, c) and (M, c), the weights (N,) and (M,) how often each shower counts.
    """
    ratios = moment_ratios(
        weighted_moments(reference, weights_reference), weighted_moments(generated, weights_generated)
    )
    means, deviations = (float(x.mean()) if x.size else float("nan") for x in ratios)
    return means, deviations


class CoreCells(Metric):
    """Ratio of the means and of the standard deviations of the core cells."""

    name: ClassVar[str] = "core_cells"
    papers: ClassVar[tuple[str, ...]] = ("conv2d-gan",)
    keys: ClassVar[tuple[Key, ...]] = (
        Key("cell_mean_ratio", "Core-cell mean ratio", 1.0),
        Key("cell_std_ratio", "Core-cell standard deviation ratio", 1.0),
    )
    minimum: ClassVar[int] = 4

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``cell_mean_ratio`` and ``cell_std_ratio``."""
        pair = cell_pair(reference, generated, settings)
        cells = core_cells(pair.reference.mean(axis=0), reference.detector.shape)
        energies = np.concatenate([pair.energy_reference, pair.energy_generated])
        varies = bool(np.ptp(energies) > 1e-6 * energies.max())
        a, b = pair.reference[:, cells].astype(np.float64), pair.generated[:, cells].astype(np.float64)
        if varies:
            a, b = a / pair.energy_reference[:, None], b / pair.energy_generated[:, None]
        boot, floors = resample(core_ratios, a, b, settings.n_bootstrap, settings.n_halves, settings.seed)
        out: dict[str, Entry] = {}
        for index, (key, value) in enumerate(zip(self.keys, core_ratios(a, b), strict=True)):
            reason = {} if np.isfinite(value) else {"reason": "no core cell varies in the reference"}
            below = floor_at(floors[:, index], len(a), len(b), degree=1, ideal=1.0)
            detail = {"cells": len(cells), "over_incident_energy": varies, **pair.counts, **reason}
            out[key.name] = Value.with_floor(value, spread(boot[:, index]), below, **detail)
        return out


class CovarianceDistance(Metric):
    """Relative Frobenius distance of the cell covariance matrices."""

    name: ClassVar[str] = "covariance_distance"
    papers: ClassVar[tuple[str, ...]] = ("atlas",)
    keys: ClassVar[tuple[Key, ...]] = (Key("covariance_distance", "Cell covariance distance", 0.0),)
    minimum: ClassVar[int] = 8

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the distance, bootstrapped over showers; the floor is that of two halves."""
        pair = cell_pair(reference, generated, settings)
        mean = pair.reference.mean(axis=0)
        cells = np.sort(np.argsort(mean)[::-1][: settings.covariance_cells])
        a = pair.reference[:, cells] / pair.energy_reference[:, None]
        b = pair.generated[:, cells] / pair.energy_generated[:, None]

        def distance(a: Array, b: Array, weights_a: Weights = None, weights_b: Weights = None) -> float:
            return covariance_distance(covariance(a, weights_a), covariance(b, weights_b))

        samples = min(settings.n_bootstrap, _COVARIANCES)
        boot, floors = resample(distance, a, b, samples, settings.n_halves, settings.seed)
        of_a, of_b = covariance(a), covariance(b)
        value = Value.with_floor(
            covariance_distance(of_a, of_b),
            spread(boot),
            floor_at(floors, len(a), len(b), degree=1),
            correlation=correlation_distance(of_a, of_b),
            cells=len(cells),
            energy_share=float(mean[cells].sum() / mean.sum()) if mean.sum() > 0 else 0.0,
            **pair.counts,
        )
        return {"covariance_distance": value}


class StructuralSimilarity(Metric):
    """Mean structural similarity of reference pairs, generated pairs and mixed pairs."""

    name: ClassVar[str] = "ssim"
    papers: ClassVar[tuple[str, ...]] = ("conv2d-gan",)
    keys: ClassVar[tuple[Key, ...]] = (Key("ssim", "SSIM", 1.0, by="pair"),)
    minimum: ClassVar[int] = 4

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        detector = reference.detector
        if not detector.is_grid:
            return f"needs a regular x-y grid of cells; '{detector.name}' is {detector.order}"
        if min(detector.shape[:2]) < WINDOW:
            return f"needs at least {WINDOW} x {WINDOW} cells a layer; '{detector.name}' has {detector.shape[:2]}"
        return None

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ref_ref, gen_gen and ref_gen; equal samples give three equal numbers."""
        pair = cell_pair(reference, generated, settings, n_max=2 * settings.ssim_pairs)
        rng = generator(settings.seed, "ssim")
        ref, gen = (order_at_random(x, rng) for x in (pair.energy_reference, pair.energy_generated))
        a, b = (x.reshape(-1, *reference.detector.shape) for x in (pair.reference, pair.generated))
        mixed = rank_pairs(ref, gen, min(len(ref), len(gen)) // 2)
        out = {}
        for name, first, second, rows in (
            ("ref_ref", a, a, neighbour_pairs(ref)),
            ("gen_gen", b, b, neighbour_pairs(gen)),
            ("ref_gen", a, b, mixed),
        ):
            limits, device = (_MEV_A_GEV * DATA_RANGE,), settings.torch_device()
            values = structural_similarity(first, rows[0], second, rows[1], limits, device)[:, 0]
            mean, error = mean_with_error(values)
            out[name] = Value(
                mean, error if len(values) > 1 else None, detail={"pairs": len(values), **pair.counts}
            )
        return {"ssim": out}
