r"""Core cells and Kolmogorov-Smirnov probabilities of shower shapes at each energy.

Core cells at one energy: the mean of generated over reference means, and the same of standard deviations.

The paper takes showers of 250 +- 2 GeV and the cells [10, 16]^3. Where a file has too few showers there, the window is
widened until it has enough, and each cell is divided by the shower's energy over the middle of the window, so that a
wide window does not widen the cells' spread. The result says which window was used.

References:
    F. Rehm et al., arXiv:2103.13698.

Two kinds of Kolmogorov-Smirnov probabilities:

- Of a mean shape (x, y, z profile): with the cumulated, normalised mean profiles :math:`P` and :math:`G` of N and M showers,
  :math:`D = \max |P - G|` and the probability :math:`Q(D \sqrt{NM / (N + M)})` of the Kolmogorov distribution. A shower counts
  as one entry, although it fills its profile with thousands of particles: so the probability is near 1 unless
  shapes really differ. That is how probabilities above 80 % for most shapes can come about; of equal
  distributions a proper test gives 80 % or more in one case of five.
- Of a quantity of one number a shower (moments, depth, energies): the proper two-sample test. For equal distributions
  its probability is uniform between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.showers import ShowerSource
from caloforge.statistics.distances import ks_test
from caloforge.statistics.moments import core_cells
from caloforge.statistics.resampling import halves, resample, spread
from caloforge.validate.metrics.features import profiles
from caloforge.validate.metrics.shapes import core_ratios
from caloforge.validate.sample import Sample

__all__ = [
    "QUANTITIES", "CoreRatios", "CoreWindow", "ShapeTests", "compare_cores", "core_energies", "core_window",
    "profile_test", "reference_core", "shape_tests",
]  # fmt: skip


_WIDENED = (1.0, 2.5, 5.0, 12.5, 25.0, 50.0)  # factors by which the window is widened in turn
_BLOCK = 500  # showers read at once


@dataclass(frozen=True)
class CoreWindow:
    """Energies of the showers that are compared."""

    energy: float  # middle, MeV
    half_width: float  # MeV; infinite for all showers
    n: int  # reference showers in it

    def rows(self, energy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which of the energies (N,) are inside, (K,) ascending."""
        return np.flatnonzero(np.abs(energy - self.energy) <= self.half_width * (1 + 1e-9))

    @property
    def text(self) -> str:
        """The window as people write it."""
        if not np.isfinite(self.half_width):
            return f"all energies, scaled to {self.energy / 1000:g} GeV"
        return f"{self.energy / 1000:g} ± {self.half_width / 1000:g} GeV"


@dataclass(frozen=True, eq=False)
class CoreRatios:
    """Core cells of a generated sample over the reference's."""

    n: int  # generated showers in the window
    mean: float  # mean over cells of the ratio of means
    mean_error: float  # one standard deviation, from bootstrap samples of the showers
    std: float  # mean over cells of the ratio of standard deviations
    std_error: float  # likewise
    floor: tuple[float, float]  # the same two numbers between two halves of the reference
    cell_mean: NDArray[np.float64]  # (c,) ratio of means of each cell
    cell_std: NDArray[np.float64]  # (c,) ratio of standard deviations of each cell


def core_window(
    energies: Sequence[NDArray[np.float64]], middle: float, half_width: float, wanted: int
) -> CoreWindow:
    """Return the narrowest window in which every sample has enough showers; all showers when there is none.

    Arguments:
        energies: (N,) of each sample, the reference first, MeV.
        middle: MeV.
        half_width: The paper's, MeV; it is widened as far as needed.
        wanted: Showers of each sample.
    """
    for factor in _WIDENED:
        window = CoreWindow(middle, factor * half_width, 0)
        counts = [len(window.rows(energy)) for energy in energies]
        if min(counts) >= wanted and window.half_width < middle:
            return CoreWindow(middle, window.half_width, counts[0])
    return CoreWindow(middle, float("inf"), len(energies[0]))


def core_energies(
    source: ShowerSource, window: CoreWindow, cells: NDArray[np.int64], most: int = 4000
) -> NDArray[np.float64]:
    """Return the energies of cells (c,) of ``most`` showers in a window, scaled to its middle (K, c), MeV."""
    parts = [part[:, cells] for part in _scaled(source, window, most)]
    return np.concatenate(parts) if parts else np.empty((0, len(cells)))


def _scaled(source: ShowerSource, window: CoreWindow, most: int) -> Iterator[NDArray[np.float64]]:
    """Yield blocks (k, n_cells) of the showers in a window, scaled to its middle."""
    energy = np.asarray(source.incident_energy, np.float64)
    rows = window.rows(energy)[:most]
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        yield source.take(some).cells * (window.energy / energy[some])[:, None]


def reference_core(
    source: ShowerSource, window: CoreWindow, most: int = 4000
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the core cells (c,) as the reference has them, and their energies (K, c), MeV."""
    mean = np.zeros(source.detector.n_cells)
    for block in _scaled(source, window, most):
        mean += block.sum(axis=0)
    cells = core_cells(mean, source.detector.shape)
    return cells, core_energies(source, window, cells, most)


def compare_cores(
    reference: NDArray[np.float64], generated: NDArray[np.float64], n_bootstrap: int = 30, seed: int = 0
) -> CoreRatios:
    """Compare core cells (N, c) with generated ones (M, c), MeV; errors are those of bootstrap samples."""
    n, m = len(reference), len(generated)
    if n < 4 or m < 4:
        unknown = float("nan")
        empty = np.full(reference.shape[1], np.nan)
        return CoreRatios(m, unknown, unknown, unknown, unknown, (unknown, unknown), empty, empty)
    mean, std = core_ratios(reference, generated)
    repeats, _ = resample(core_ratios, reference, generated, n_bootstrap, 0, seed)
    first, second = halves(n, 0, seed)
    ratios = []
    for moment in ("mean", "std"):
        a, b = (getattr(np, moment)(x, axis=0) for x in (reference, generated))
        ratios.append(np.divide(b, a, out=np.full(len(a), np.nan), where=a > 0))
    floor, errors = core_ratios(reference[first], reference[second]), (spread(x) for x in repeats.T)
    return CoreRatios(m, mean, next(errors), std, next(errors), floor, *ratios)


FEWEST = 20
"""Showers of each sample in a slice below which nothing is said."""
QUANTITIES = (
    "visible_energy", "peak_energy", "hits", "shower_depth", "depth_90", "radius_90", "centre_x", "centre_y",
    "second_moment_x", "second_moment_y", "second_moment_z", "core_mean", "core_std",
)  # fmt: skip
"""Observables of one number a shower that are tested."""


@dataclass(frozen=True, eq=False)
class ShapeTests:
    """Probabilities and statistics by shape and energy, NaN where there are too few showers."""

    shapes: tuple[str, ...]  # names of the mean shapes, then of the quantities
    n_profiles: int  # how many of them are mean shapes
    p: NDArray[np.float64]  # (shapes, S) probabilities
    statistic: NDArray[np.float64]  # (shapes, S) largest distances of the cumulated distributions


def profile_test(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> tuple[float, float]:
    """Return statistic and probability of the mean of showers' profiles, (N, k) and (M, k)."""
    from scipy.stats import kstwobign

    p, g = reference.sum(axis=0), generated.sum(axis=0)
    if p.sum() <= 0 or g.sum() <= 0:
        return float("nan"), float("nan")
    distance = float(np.abs(np.cumsum(p) / p.sum() - np.cumsum(g) / g.sum()).max())
    n, m = len(reference), len(generated)
    return distance, float(kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def shape_tests(
    reference: Sample, generated: Sample, members: Sequence[NDArray[np.int64]], slices: int
) -> ShapeTests:
    """Test every shape in every slice of energy.

    ``members``: slice of each shower, of the reference (N,) and of the sample (M,); ``slices``: number of slices S.
    """
    shapes_a, shapes_b = profiles(reference), profiles(generated)
    names = [name for name in QUANTITIES if name in reference.observables]
    found = np.full((2, len(shapes_a) + len(names), slices), np.nan)
    for number in range(slices):
        rows_a, rows_b = (np.flatnonzero(member == number) for member in members)
        if min(len(rows_a), len(rows_b)) < FEWEST:
            continue
        for index, axis in enumerate(shapes_a):
            found[:, index, number] = profile_test(shapes_a[axis][rows_a], shapes_b[axis][rows_b])
        for index, name in enumerate(names, start=len(shapes_a)):
            a, b = reference.observables[name][rows_a], generated.observables[name][rows_b]
            a, b = a[np.isfinite(a)], b[np.isfinite(b)]
            if min(len(a), len(b)) >= FEWEST:
                found[:, index, number] = ks_test(a, b)
    shapes = tuple([f"mean {axis} profile" for axis in shapes_a] + names)
    return ShapeTests(shapes, len(shapes_a), found[1], found[0])
