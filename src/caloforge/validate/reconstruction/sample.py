"""Samples after reconstruction: their observables, and what the leading cluster says of energy and direction.

One reconstruction is fitted on the reference and applied to every sample of the comparison; both it and the samples
after it are kept as long as the samples before it, since metrics and figures ask for the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.showers.views import Selection
from caloforge.validate.observables.streaming import chunk_rows
from caloforge.validate.reconstruction.reconstruct import ReconstructedSource, Reconstruction
from caloforge.validate.sample import Sample

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.showers import Showers, ShowerSource

__all__ = ["MAIN", "After", "can_reconstruct", "fitted", "reconstruct", "why_not"]

MAIN = (
    "visible_energy",
    "peak_energy",
    "hits",
    "shower_depth",
    "shower_start",
    "depth_90",
    "radius_90",
    "centre_x",
    "centre_y",
    "second_moment_x",
    "second_moment_y",
    "second_moment_z",
)
"""Observables with one number a shower that are compared after reconstruction."""


@dataclass(frozen=True, eq=False)
class After:
    """A sample after reconstruction.

    Attributes:
        sample: The digitised cells of the leading clusters; its observables are computed.
        response: (n,) calibrated energy of the leading cluster over the incident energy; 0 without a cluster.
        direction: (n,) theta of the cluster's axis minus the incident angle, degrees; NaN without an axis.
        n_clusters: (n,) number of clusters.
        outside: (n,) fraction of the digitised energy outside the leading cluster.
    """

    sample: Sample
    response: NDArray[np.float64]
    direction: NDArray[np.float64]
    n_clusters: NDArray[np.float64]
    outside: NDArray[np.float64]

    @property
    def clusters(self) -> dict[str, NDArray[np.float64]]:
        """What the clusters say, by name, (n,) each."""
        return {
            "cluster_response": self.response,
            "cluster_direction": self.direction,
            "clusters": self.n_clusters,
            "outside_cluster": self.outside,
        }


def why_not(detector: Detector, wanted: bool | None) -> str:
    """Return why samples are not compared after reconstruction; empty when they are.

    Arguments:
        detector: The detector.
        wanted: Whether it is asked for; None for grids whose layers have a known MIP energy.
    """
    if wanted is None and not (detector.is_grid and all(layer.mip > 0 for layer in detector.layers)):
        return (
            f"needs a grid of known MIP energy, which '{detector.name}' is not; --reconstruction asks for it"
        )
    return "not asked for" if wanted is False else ""


_FITTED: WeakKeyDictionary[Sample, Reconstruction] = WeakKeyDictionary()
_AFTER: WeakKeyDictionary[Sample, tuple[Reconstruction, After]] = WeakKeyDictionary()


def fitted(reference: Sample) -> Reconstruction:
    """Return the reconstruction that is calibrated on a sample.

    Raises:
        InputError: When no MIP energy is known or found, or no shower leaves a cluster.
    """
    if reference not in _FITTED:
        _FITTED[reference] = Reconstruction.fit(_source(reference))
    return _FITTED[reference]


def reconstruct(reference: Sample, sample: Sample) -> After:
    """Return a sample after the reconstruction that is calibrated on the reference.

    Raises:
        InputError: See :func:`fitted`.
    """
    used = fitted(reference)
    known = _AFTER.get(sample)
    if known is None or known[0] is not used:
        _AFTER[sample] = known = (used, _reconstruct(used, sample))
    return known[1]


def can_reconstruct(reference: Sample) -> str:
    """Return why a reconstruction cannot be calibrated on a sample; empty when it can."""
    try:
        fitted(reference)
    except InputError as error:
        return str(error)
    return ""


def _source(sample: Sample) -> ShowerSource:
    """Return the sample's showers as a source: a part of it where the sample is a part."""
    whole = len(sample.rows) == len(sample.source)
    return sample.source if whole else Selection(sample.source, sample.rows)


class _Recorded(ReconstructedSource):
    """Notes what the clusters say while the showers pass by."""

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers after reconstruction, ``size`` at a time."""
        self.notes: list[tuple[NDArray[np.float64], ...]] = []
        for showers in self.before.chunks(size or chunk_rows(self.detector)):
            found = self.reconstruction(showers)
            self.notes.append((found.energy, found.theta, found.n_clusters.astype(np.float64), found.outside))
            yield found.showers


def _reconstruct(used: Reconstruction, sample: Sample) -> After:
    source = _Recorded(_source(sample), used)
    after = Sample(source, sample.label, sample.threshold)
    observed = after.observables
    energy, theta, n_clusters, outside = (np.concatenate(parts) for parts in zip(*source.notes, strict=True))
    return After(
        after,
        energy / observed.incident_energy,
        theta - observed.incident_theta,
        n_clusters,
        outside,
    )
