r"""Means, widths and resolution of the observables, and the sampling fraction, generated over reference.

Where the incident energy varies, showers are compared in slices of it (each value, or ten quantiles), so that the distribution of the
energies is no part of the errors; energies are then divided by the incident energy. With means :math:`\mu_s` and standard
deviations :math:`\sigma_s` in slice s, and the reference's share :math:`w_s` of the showers,

.. math:: \text{ratio} = \frac{\sum_s w_s \mu_{g,s}}{\sum_s w_s \mu_{r,s}}, \qquad
          \text{shift} = \frac{\sum_s w_s (\mu_{g,s} - \mu_{r,s})}{\sqrt{\sum_s w_s \sigma_{r,s}^2}}, \qquad
          \text{width} = \sum_s w_s \frac{\sigma_{g,s}}{\sigma_{r,s}}, \qquad
          \text{resolution} = \sum_s w_s \frac{h_{g,s} / q_{g,s}}{h_{r,s} / q_{r,s}} ,

the last one of the response (visible over incident energy) with half the width h of the central 68.3 % and the median q, so that a few
showers in a tail do not decide; those widen the response's ``width``. Errors of means and standard deviations are those of
:mod:`caloforge.statistics.moments`, those of the resolution from bootstrap samples. The floor is exactly 1 (0 for the shift): the
uncertainty contains the fluctuations of both samples.

The sampling fraction is the mean over showers of visible over incident energy, as a whole and in the same slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import generator
from caloforge.statistics.moments import (
    central_width,
    condition_bins,
    levels,
    mean_and_std,
    mean_with_error,
    ratio_with_error,
    significance_of_largest,
)
from caloforge.statistics.resampling import floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.sample import Sample

__all__ = ["Moments", "SamplingFraction", "Slice"]

Array = NDArray[np.float64]

_FEWEST = 8  # showers a side in a slice that is compared
_LAYERS = "layer_energy"


@dataclass(frozen=True, eq=False)
class Slice:
    """An observable in a slice of the incident energy."""

    energy: float
    """Mean incident energy of the reference, MeV."""
    weight: float
    """The reference's share of its showers."""
    values: tuple[Array, Array]
    """Finite values (n,) of the reference and (m,) of the generated sample."""
    reference: tuple[float, float, float, float]
    generated: tuple[float, float, float, float]
    """Mean, its error, standard deviation, its error."""

    def mean_ratio(self) -> tuple[float, float]:
        """Return generated over reference mean, with its error."""
        return ratio_with_error(self.generated[:2], self.reference[:2])

    def width_ratio(self) -> tuple[float, float]:
        """Return generated over reference standard deviation, with its error."""
        return ratio_with_error(self.generated[2:], self.reference[2:])


def compare_slices(
    reference: Array, generated: Array, energy_reference: Array, energy_generated: Array, edges: Array
) -> list[Slice]:
    """Return an observable (n,) and (m,) in slices of the incident energies (n,) and (m,), MeV, between edges (K + 1,), MeV.

    Slices of fewer than eight finite values a side, or where the reference is constant, are left out.
    """
    parts = []
    for low, high in pairwise(edges):
        in_a = (energy_reference >= low) & (energy_reference < high) & np.isfinite(reference)
        in_b = (energy_generated >= low) & (energy_generated < high) & np.isfinite(generated)
        if min(in_a.sum(), in_b.sum()) >= _FEWEST and np.ptp(reference[in_a]) > 0.0:
            parts.append((float(energy_reference[in_a].mean()), reference[in_a], generated[in_b]))
    total = sum(len(a) for _, a, _ in parts)
    return [Slice(e, len(a) / total, (a, b), mean_and_std(a), mean_and_std(b)) for e, a, b in parts]


class Moments(Metric):
    """Mean, width and resolution of the observables, generated over reference."""

    name: ClassVar[str] = "moments"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("moments.ratio", "Ratio of means", 1.0, by="observable"),
        Key("moments.width", "Ratio of widths", 1.0, by="observable"),
        Key("moments.shift", "Shift of the mean (widths)", 0.0, by="observable"),
        Key("moments.resolution", "Ratio of resolutions", 1.0),
    )
    minimum: ClassVar[int] = _FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``moments``: ``ratio`` (of what cannot be negative), ``width`` and ``shift`` by observable, and ``resolution``.

        Where there are several slices they are in the detail of ``resolution`` and of the ratios of ``response`` and ``hits``, with
        ``worst``: the slice of the most significant deviation, its significance corrected for their number.
        """
        edges = _energy_slices(reference.incident_energy)
        ratio: dict[str, Value] = {}
        width: dict[str, Value] = {}
        shift: dict[str, Value] = {}
        resolution: Entry = Value.missing("too few showers in each slice of the energy")
        for name, unit, a, b in _columns(reference, generated):
            slices = compare_slices(a, b, reference.incident_energy, generated.incident_energy, edges)
            if not slices:
                continue
            if np.nanmin(a) >= 0 and sum(s.weight * s.reference[0] for s in slices) > 0:
                ratio[name] = _ratio(slices, unit, name in ("response", "hits"))
            width[name] = _width(slices)
            shift[name] = _shift(slices, unit)
            if name == "response":
                resolution = _resolution(slices, settings)
        return {"moments": {"ratio": ratio, "width": width, "shift": shift, "resolution": resolution}}


def _energy_slices(energy: Array) -> Array:
    """Return the edges (K + 1,) of the slices of incident energies (n,); one slice when they do not vary."""
    if levels(energy, 1) is not None:
        return np.array([-np.inf, np.inf])
    return condition_bins(energy, open_ends=True)


def _columns(reference: Sample, generated: Sample) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield name, unit and values of both samples for every observable of one number a shower, and the layers' energies."""
    first, second = reference.observables, generated.observables
    varies = levels(reference.incident_energy, 1) is None
    for name in first.names:
        if name not in second or OBSERVABLES[name].counts:
            continue
        a, b, unit = first[name], second[name], OBSERVABLES[name].unit
        if a.ndim == 2 and name != _LAYERS:
            continue
        if varies and unit == "MeV":
            a, b = ((x.T / s.incident_energy).T for x, s in ((a, reference), (b, generated)))
            unit = "of the incident energy"
        if a.ndim == 1:
            yield name, unit, a, b
        else:
            yield from ((f"{name}[{k}]", unit, a[:, k], b[:, k]) for k in range(a.shape[1]))


def _ratio(slices: list[Slice], unit: str, by_slice: bool) -> Value:
    """Return the ratio of the means over all slices."""
    w, r, er, g, eg = np.array([(s.weight, *s.reference[:2], *s.generated[:2]) for s in slices]).T
    below = float(w @ r)
    value = float(w @ g) / below
    error = float(np.sqrt((w**2) @ (eg**2 + (value * er) ** 2))) / below
    detail: dict[str, Any] = {"reference": below, "generated": float(w @ g), "unit": unit}
    if by_slice and len(slices) > 1:
        pairs = [(s.energy, *s.mean_ratio()) for s in slices if s.reference[0] > 0]
        detail |= _by_slice([{"energy": e, "ratio": x, "uncertainty": u} for e, x, u in pairs])
    return Value(value, error, 1.0, 0.0, detail)


def _width(slices: list[Slice]) -> Value:
    """Return the mean over the slices of the ratios of the standard deviations."""
    w, value, error = np.array([(s.weight, *s.width_ratio()) for s in slices]).T
    return Value(float(w @ value), float(np.sqrt((w**2) @ error**2)), 1.0, 0.0)


def _resolution(slices: list[Slice], settings: Settings) -> Value:
    """Return the mean over the slices of the ratios of the resolutions, with the slices in the detail."""
    rows = []
    for number, part in enumerate(slices):
        pairs = []
        for side, x in zip(("reference", "generated"), part.values, strict=True):
            rng = generator(settings.seed, f"resolution/{side}", number)
            drawn = x[rng.integers(0, len(x), (settings.n_bootstrap, len(x)))]
            pairs.append((float(_relative_width(x[None])[0]), spread(_relative_width(drawn))))
        ((r, _), (g, _)), (ratio, error) = pairs, ratio_with_error(pairs[1], pairs[0])
        if r > 0 and np.isfinite(ratio):
            row = {"energy": part.energy, "ratio": ratio, "uncertainty": error}
            rows.append({**row, "reference": r, "generated": g, "weight": float(len(part.values[0]))})
    if not rows:
        return Value.missing("no slice of the energy has a response above zero")
    w = np.array([row["weight"] for row in rows])
    w /= w.sum()
    value = float(w @ [row["ratio"] for row in rows])
    error = float(np.sqrt(w**2 @ [row["uncertainty"] ** 2 for row in rows]))
    detail = {key: float(w @ [row[key] for row in rows]) for key in ("reference", "generated")}
    return Value(value, error, 1.0, 0.0, detail | (_by_slice(rows) if len(rows) > 1 else {}))


def _relative_width(x: Array) -> Array:
    """Return half the central 68.3 % over the median along the last axis of (S, n): (S,); NaN for a median of zero."""
    half, middle = central_width(x)
    return np.where(middle > 0, half / np.where(middle > 0, middle, 1.0), np.nan)


def _shift(slices: list[Slice], unit: str) -> Value:
    """Return the difference of the means in standard deviations of the reference within a slice."""
    w, r, er, sr, g, eg = np.array([(s.weight, *s.reference[:3], *s.generated[:2]) for s in slices]).T
    scale = float(np.sqrt(w @ sr**2))
    error = float(np.sqrt((w**2) @ (er**2 + eg**2)))
    return Value(float(w @ (g - r)) / scale, error / scale, 0.0, 0.0, {"width": scale, "unit": unit})


def _by_slice(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the ratios in the slices, and the one of the most significant deviation from 1."""
    known = [row for row in rows if row["uncertainty"] > 0]
    if not known:
        return {}
    worst = max(known, key=lambda row: abs(row["ratio"] - 1.0) / row["uncertainty"])
    z = abs(worst["ratio"] - 1.0) / worst["uncertainty"]
    return {"slices": rows, "worst": {**worst, "significance": significance_of_largest(z, len(known))}}


class SamplingFraction(Metric):
    """Mean visible over incident energy of both samples and their ratio."""

    name: ClassVar[str] = "sampling_fraction"
    keys: ClassVar[tuple[Key, ...]] = (Key("sampling_fraction", "Sampling fraction", 1.0, by="sample"),)

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``reference``, ``generated`` and their ``ratio``, whose detail has the slices of the energy."""
        sides: list[tuple[Array, Array]] = []
        detail: dict[str, Any] = {"bins": []}
        for side, sample in (("reference", reference), ("generated", generated)):
            energy = sample.incident_energy
            fraction = sample.observables["visible_energy"] / energy
            finite = np.isfinite(fraction)
            detail[f"not_finite_{side}"] = int(finite.size - finite.sum())
            sides.append((fraction[finite], energy[finite]))
        (x, ex), (y, ey) = sides
        for low, high in pairwise(condition_bins(np.round(ex, 6), open_ends=True)):
            in_x, in_y = (ex >= low) & (ex < high), (ey >= low) & (ey < high)
            a, b = mean_with_error(x[in_x]), mean_with_error(y[in_y])
            ratio = ratio_with_error(b, a)
            row = {"energy": float(ex[in_x].mean()) if in_x.any() else None}
            row |= {"n_reference": int(in_x.sum()), "n_generated": int(in_y.sum())}
            for name, (value, error) in (("reference", a), ("generated", b), ("ratio", ratio)):
                row |= {name: value, f"{name}_uncertainty": error}
            detail["bins"].append(row)
        first, second = halves(x.size, 0, settings.seed)
        floor, error = ratio_with_error(mean_with_error(x[second]), mean_with_error(x[first]))
        below = floor_at(np.array([floor]), x.size, max(y.size, 1), degree=1, ideal=1.0, uncertainty=error)
        of_reference, of_generated = mean_with_error(x), mean_with_error(y)
        out = {
            "reference": Value(*of_reference),
            "generated": Value(*of_generated),
            "ratio": Value.with_floor(*ratio_with_error(of_generated, of_reference), below, **detail),
        }
        return {"sampling_fraction": out}
