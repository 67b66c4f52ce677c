r"""Kolmogorov-Smirnov probabilities of shower shapes at each energy.

Two kinds are given.

- Of a mean shape (x, y, z profile): with the cumulated, normalised mean profiles :math:`P` and :math:`G` of N and M showers,
  :math:`D = \max |P - G|` and the probability :math:`Q(D \sqrt{NM / (N + M)})` of the Kolmogorov distribution. A shower counts
  as one entry, although it fills its profile with thousands of particles: so the probability is near 1 unless
  shapes really differ. That is how probabilities above 80 % for most shapes can come about; of equal
  distributions a proper test gives 80 % or more in one case of five.
- Of a quantity of one number a shower (moments, depth, energies): the proper two-sample test. For equal distributions
  its probability is uniform between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.metrics.distances import ks_test
from caloforge.validate.metrics.features import profiles
from caloforge.validate.sample import Sample

__all__ = ["QUANTITIES", "ShapeTests", "profile_test", "shape_tests"]

FEWEST = 20
"""Showers of each sample in a slice below which nothing is said."""
QUANTITIES = (
    "visible_energy",
    "peak_energy",
    "hits",
    "shower_depth",
    "depth_90",
    "radius_90",
    "centre_x",
    "centre_y",
    "second_moment_x",
    "second_moment_y",
    "second_moment_z",
    "core_mean",
    "core_std",
)
"""Observables of one number a shower that are tested."""


@dataclass(frozen=True, eq=False)
class ShapeTests:
    """Probabilities and statistics by shape and energy, NaN where there are too few showers.

    Attributes:
        shapes: Names of the mean shapes, then of the quantities.
        n_profiles: How many of them are mean shapes.
        p: (shapes, S) probabilities.
        statistic: (shapes, S) largest distances of the cumulated distributions.
    """

    shapes: tuple[str, ...]
    n_profiles: int
    p: NDArray[np.float64]
    statistic: NDArray[np.float64]


def profile_test(reference: NDArray[np.float64], generated: NDArray[np.float64]) -> tuple[float, float]:
    """Return statistic and probability of two mean profiles of showers.

    Arguments:
        reference: (N, k) each shower's profile.
        generated: (M, k).
    """
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

    Arguments:
        reference: The reference.
        generated: The sample.
        members: Slice of each shower, of the reference (N,) and of the sample (M,).
        slices: Number of slices S.
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
