r"""Energies, depth and lateral profiles of the layers, in slices of incident energy.

Means over the showers of a slice are arrays (S, ...) with their errors; a slice of fewer than ten showers gives NaN.

A rectangular layer has the axes x (eta) and y (phi), one bin a column or row. Where a layer's cells move with an alignment
of the shower, the bins are as narrow as the steps of the alignment, at rest in the frame of the beam: a
cell's energy is shared equally among the bins that it covers. A polar mesh has alpha and r, one bin each.

With the energy :math:`e_{ik}` of shower :math:`i` in bin :math:`k` of a layer's axis and :math:`L_i = \sum_k e_{ik}`, the profile is the
part of the layer's energy in each bin,

.. math:: p_k = \frac{\sum_i e_{ik}}{\sum_i L_i}, \qquad
    \sigma^2(p_k) = \frac{\sum_i (e_{ik} - p_k L_i)^2}{\left(\sum_i L_i\right)^2} ,

the error of a ratio, from the spread between showers: the bins of a shower are correlated.

References:
    ATLAS Collaboration, Deep generative models for fast shower simulation in ATLAS, ATL-SOFT-PUB-2018-001.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import CylindricalLayer, Detector, ReadoutLayer
from caloforge.showers import ShowerSource
from caloforge.statistics.distances import ks_test
from caloforge.validate.observables import observe
from caloforge.validate.resolution import EnergySlices, ResponseCurve, response_curve

__all__ = [
    "Depth",
    "LayerAxis",
    "LayerProfile",
    "LayerSample",
    "Means",
    "deviation",
    "layer_axes",
    "layer_profiles",
    "measure_layers",
]


_ROUND = 6  # decimals of a mm to which shifts differ


@dataclass(frozen=True, eq=False)
class LayerAxis:
    """One lateral axis of one layer."""

    layer: int  # number of the layer
    name: str  # "x", "y", "alpha" or "r"
    unit: str  # "mm" or "rad"
    edges: NDArray[np.float64]  # (k + 1,) bin edges
    shape: tuple[int, int]  # cells of the layer along its first and second axis
    summed: int  # which of the two is summed over
    parts: int = 1  # bins that a cell covers
    lowest: float = 0.0  # smallest shift of the cells, mm
    step: float = 0.0  # width of a bin where cells move, mm; 0 where they do not

    @property
    def coordinate(self) -> int:
        """0 along the layer's first axis, 1 along its second."""
        return 1 - self.summed

    def profile(
        self, cells: NDArray[np.floating], shift: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the energy of each shower in each bin (N, k).

        ``cells`` (N, cells of the layer) are in the layer's own order; ``shift`` (N,), mm, is None where cells do not move.
        """
        n = len(cells)
        columns: NDArray[np.float64] = np.asarray(
            cells.reshape(n, *self.shape).sum(axis=1 + self.summed, dtype=np.float64)
        )
        if self.step == 0.0 or shift is None:
            return columns
        shared = np.repeat(columns / self.parts, self.parts, axis=1)
        first = np.round((shift - self.lowest) / self.step).astype(np.int64)
        out = np.zeros((n, len(self.edges) - 1))
        for start in np.unique(first):
            rows = first == start
            out[rows, start : start + shared.shape[1]] = shared[rows]
        return out


@lru_cache(maxsize=16)
def layer_axes(detector: Detector) -> tuple[LayerAxis, ...]:
    """Return both lateral axes of every layer, layer by layer."""
    shifts = _possible_shifts(detector)
    axes: list[LayerAxis] = []
    for index, layer in enumerate(detector.layers):
        if isinstance(layer, CylindricalLayer):
            shape = (layer.n_alpha, layer.n_r)
            alpha = np.linspace(-np.pi, np.pi, layer.n_alpha + 1)
            axes.append(LayerAxis(index, "alpha", "rad", alpha, shape, 1))
            axes.append(LayerAxis(index, "r", "mm", np.asarray(layer.r_edges, np.float64), shape, 0))
            continue
        for coordinate in (0, 1):
            values = np.zeros(1) if shifts is None else shifts[:, index, coordinate]
            axes.append(_rectangular(index, layer, coordinate, values))
    return tuple(axes)


def _possible_shifts(detector: Detector) -> NDArray[np.float64] | None:
    """Return the cells' offsets for every combination of the alignments (M, n_layers, 2), mm."""
    alignments = detector.beam.alignments
    if detector.readout is None or not alignments:
        return None
    grids = np.meshgrid(*[np.arange(count) for _, count in alignments], indexing="ij")
    conditions = {name: grid.reshape(-1, 1) for (name, _), grid in zip(alignments, grids, strict=True)}
    return detector.layer_shift(conditions)


def _rectangular(index: int, layer: ReadoutLayer, coordinate: int, shifts: NDArray[np.float64]) -> LayerAxis:
    n, pitch = ((layer.nx, layer.pitch_x), (layer.ny, layer.pitch_y))[coordinate]
    first = float((layer.x, layer.y)[coordinate][0]) - pitch / 2
    shape, name, summed = (layer.nx, layer.ny), "xy"[coordinate], 1 - coordinate
    values = np.unique(np.round(shifts, _ROUND))
    if len(values) == 1:
        edges = first + float(values[0]) + pitch * np.arange(n + 1, dtype=np.float64)
        return LayerAxis(index, name, "mm", edges, shape, summed)
    parts = max(1, round(pitch / float(np.diff(values).min())))
    step = pitch / parts
    bins = n * parts + round(float(np.ptp(values)) / step)
    edges = first + float(values[0]) + step * np.arange(bins + 1, dtype=np.float64)
    return LayerAxis(index, name, "mm", edges, shape, summed, parts, float(values[0]), step)


_CHUNK_BYTES = 16 * 2**20
_LEAST_SHARE = 0.01  # part of the layer's energy from which on a bin counts in a comparison


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """The profile along one axis of one layer in S slices of ``n`` (S,) showers.

    ``mean`` (S, k) is the part of the layer's energy, NaN where it has none; ``error`` (S, k) is one standard deviation.
    """

    axis: LayerAxis
    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


class _Sums:
    """Running sums over the showers of each slice, along one axis: e, e^2, e L (S, k), L and L^2 (S,)."""

    def __init__(self, axis: LayerAxis, slices: int) -> None:
        self.axis = axis
        self.first, self.second, self.cross = np.zeros((3, slices, len(axis.edges) - 1))
        self.total, self.squares = np.zeros((2, slices))

    def add(self, energy: NDArray[np.float64], member: NDArray[np.float64]) -> None:
        """Add the energies (N, k) of showers; member (S, N) is 1 where a shower is in a slice."""
        layer = energy.sum(axis=1)
        self.first += member @ energy
        self.second += member @ energy**2
        self.cross += member @ (energy * layer[:, None])
        self.total += member @ layer
        self.squares += member @ layer**2

    def result(self, n: NDArray[np.int64]) -> LayerProfile:
        total = np.where(self.total > 0, self.total, np.nan)[:, None]
        mean = self.first / total
        square = self.second - 2 * mean * self.cross + mean**2 * self.squares[:, None]
        return LayerProfile(self.axis, n, mean, np.sqrt(np.maximum(square, 0.0)) / total)


def layer_profiles(source: ShowerSource, member: NDArray[np.int64], slices: int) -> list[LayerProfile]:
    """Return the average profiles along both axes of every layer; ``member`` (N,) is each shower's slice, -1 for none."""
    detector = source.detector
    sums = [_Sums(axis, slices) for axis in layer_axes(detector)]
    size = int(np.clip(_CHUNK_BYTES // (4 * detector.n_cells), 1, 4096))
    start = 0
    for showers in source.chunks(size):
        here = member[start : start + len(showers)]
        start += len(showers)
        if (here < 0).all():
            continue
        inside = (here[None, :] == np.arange(slices)[:, None]).astype(np.float64)
        shift = detector.layer_shift(showers.conditions)
        if shift is not None:
            shift = np.broadcast_to(shift, (len(showers), *shift.shape[1:]))
        for entry in sums:
            axis = entry.axis
            moved = None if shift is None else shift[:, axis.layer, axis.coordinate]
            entry.add(axis.profile(showers.cells[:, detector.layer_cells[axis.layer]], moved), inside)
    n = np.array([int((member == s).sum()) for s in range(slices)])
    return [entry.result(n) for entry in sums]


def deviation(reference: LayerProfile, generated: LayerProfile, number: int) -> tuple[float, float, float]:
    """Return how far a generated profile is off in the bins that matter, in one slice.

    The bins are those in which the reference has at least a hundredth of the layer's energy; the deviation is
    :math:`|g_k / p_k - 1|`.

    Returns:
        The largest deviation, its error, and the mean deviation weighted with the reference's energy; NaN where
        there is no such bin.
    """
    chosen = np.nan_to_num(reference.mean[number]) >= _LEAST_SHARE
    if not chosen.any() or not np.isfinite(generated.mean[number][chosen]).all():
        return float("nan"), float("nan"), float("nan")
    p, g = reference.mean[number][chosen], generated.mean[number][chosen]
    ratio = g / p
    error = np.hypot(generated.error[number][chosen], ratio * reference.error[number][chosen]) / p
    worst = int(np.abs(ratio - 1).argmax())
    weighted = float((np.abs(ratio - 1) * p).sum() / p.sum())
    return float(abs(ratio[worst] - 1)), float(error[worst]), weighted


_COLUMNS = (
    "visible_energy",
    "layer_energy",
    "layer_fraction",
    "shower_depth",
    "layer_centre_x",
    "layer_centre_y",
    "layer_width_x",
    "layer_width_y",
)
_FEWEST = 10
_VALUES, _PROFILE = "values/", "profile/"


@dataclass(frozen=True, eq=False)
class Means:
    """Means over showers, (S, ...), with their errors."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Depth:
    """Shower depth in each slice, layers: mean, its error and standard deviation, all (S,).

    ``ks_p`` (S,) is the Kolmogorov-Smirnov probability against the reference, 1 for the reference itself.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    width: NDArray[np.float64]
    ks_p: NDArray[np.float64]


def measure_layers(source: ShowerSource, slices: EnergySlices, label: str) -> dict[str, NDArray[Any]]:
    """Measure all N showers of a source in the reference's slices; return plain arrays for a :class:`LayerSample`."""
    table = observe(source, _COLUMNS, label=label)
    member = slices.members(np.asarray(source.incident_energy, np.float64))
    arrays: dict[str, NDArray[Any]] = {"energy": table.incident_energy, "member": member}
    arrays |= {f"{_VALUES}{name}": np.asarray(table.values[name]) for name in _COLUMNS}
    for index, profile in enumerate(layer_profiles(source, member, len(slices))):
        arrays |= {f"{_PROFILE}{index}/mean": profile.mean, f"{_PROFILE}{index}/error": profile.error}
        arrays["n"] = profile.n
    return arrays


class LayerSample:
    """The layers of N showers in S slices of energy of the reference, over the arrays of :func:`measure_layers`.

    Attributes:
        n: (S,) showers of each slice.
        profiles: Both axes of every layer, in each slice.
    """

    def __init__(
        self,
        label: str,
        arrays: Mapping[str, NDArray[Any]],
        detector: Detector,
        slices: EnergySlices,
        reference: LayerSample | None = None,
    ) -> None:
        self.label, self.detector, self.slices = label, detector, slices
        self.reference = self if reference is None else reference
        self.energy, self.member = arrays["energy"], arrays["member"].astype(np.int64)
        self.n = arrays["n"].astype(np.int64)
        self._values = {name: arrays[f"{_VALUES}{name}"].astype(np.float64) for name in _COLUMNS}
        self.profiles = [
            LayerProfile(axis, self.n, arrays[f"{_PROFILE}{k}/mean"], arrays[f"{_PROFILE}{k}/error"])
            for k, axis in enumerate(layer_axes(detector))
        ]

    def in_slice(self, name: str, number: int) -> NDArray[np.float64]:
        """Return an observable of the showers of a slice (K,) or (K, L)."""
        found: NDArray[np.float64] = self._values[name][self.member == number]
        return found

    def _means(self, values: NDArray[np.float64]) -> Means:
        """Return mean and error (S, L) of values (N, L), NaN entries left out."""
        mean, error = np.full((2, len(self.slices), values.shape[1]), np.nan)
        for number in range(len(self.slices)):
            found = values[self.member == number]
            n = np.isfinite(found).sum(axis=0)
            enough = n >= _FEWEST
            centre = np.where(enough, np.nansum(found, axis=0) / np.maximum(n, 1), np.nan)
            square = np.nansum((found - centre) ** 2, axis=0)
            mean[number] = centre
            error[number] = np.where(
                enough, np.sqrt(square / np.maximum(n - 1, 1) / np.maximum(n, 1)), np.nan
            )
        return Means(mean, error)

    @cached_property
    def fractions(self) -> Means:
        """Mean part of the visible energy in each layer (S, L); showers without energy are left out."""
        filled = self._values["visible_energy"] > 0
        return self._means(np.where(filled[:, None], self._values["layer_fraction"], np.nan))

    def lateral(self, quantity: str) -> dict[str, Means]:
        """Return the mean energy-weighted "centre" or "width" of each layer (S, L), mm, in x and y.

        Layers without energy are left out.
        """
        seen = self._values["layer_energy"] > 0
        return {
            axis: self._means(np.where(seen, self._values[f"layer_{quantity}_{axis}"], np.nan))
            for axis in ("x", "y")
        }

    @cached_property
    def depth(self) -> Depth:
        """Shower depth in each slice."""
        out = np.full((4, len(self.slices)), np.nan)
        for number in range(len(self.slices)):
            pair = (one.in_slice("shower_depth", number) for one in (self, self.reference))
            mine, theirs = (values[np.isfinite(values)] for values in pair)
            if min(len(mine), len(theirs)) >= _FEWEST:
                width = float(mine.std(ddof=1))
                p = 1.0 if self is self.reference else ks_test(theirs, mine)[1]
                out[:, number] = mine.mean(), width / np.sqrt(len(mine)), width, p
        return Depth(*out)

    @cached_property
    def response(self) -> ResponseCurve:
        """Visible energy over sampling fraction and incident energy: mean and width in each slice."""
        measured = self._values["visible_energy"] / self.detector.sampling_fraction
        return response_curve(measured, self.energy, edges=self.slices.edges, fewest=_FEWEST)

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """How far the average profiles are off, (profiles, S, 3).

        The last axis is that of :func:`~caloforge.studies.layers.measure.deviation`: the largest deviation in bins
        of at least a hundredth of the layer's energy, its error, and the mean deviation weighted with the energy.
        """
        out = np.full((len(self.profiles), len(self.slices), 3), np.nan)
        for index, (known, found) in enumerate(zip(self.reference.profiles, self.profiles, strict=True)):
            for number in np.flatnonzero((known.n >= _FEWEST) & (found.n >= _FEWEST)):
                out[index, number] = deviation(known, found, int(number))
        return out
