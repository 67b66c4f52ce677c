"""Samples after reconstruction: their observables, and energy and direction of the leading cluster.

One reconstruction is calibrated on the reference and applied to every sample of the comparison; both it and the samples
after it are kept in the memo of the samples, since metrics and figures need the same ones. c enters linearly, so that the
reference is reconstructed once, with c = 1, and multiplied by c when it is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError
from caloforge.showers.views import Selection
from caloforge.validate.metrics.features import histograms_key
from caloforge.validate.observables.spectrum import CellCounter
from caloforge.validate.observables.streaming import ObservableColumns, stream
from caloforge.validate.reconstruction import ClusterColumns, Reconstructed, Reconstruction
from caloforge.validate.sample import Sample

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.showers import ShowerSource

__all__ = ["MAIN", "After", "AfterColumns", "can_reconstruct", "fitted", "reconstruct", "why_not"]

_MOST = 10_000  # showers whose cells are counted for the figures

MAIN = (
    "visible_energy", "peak_energy", "hits", "shower_depth", "shower_start", "depth_90", "radius_90",
    "centre_x", "centre_y", "second_moment_x", "second_moment_y", "second_moment_z",
)  # fmt: skip
"""Observables with one number a shower that are compared after reconstruction."""


@dataclass(frozen=True, eq=False)
class After:
    """A sample after reconstruction."""

    sample: Sample  # the digitised cells of the leading clusters; its observables are computed
    response: NDArray[np.float64]  # (n,) calibrated over incident energy; 0 without a cluster
    direction: NDArray[np.float64]  # (n,) theta of its axis minus the incident angle, degrees, or NaN
    n_clusters: NDArray[np.float64]  # (n,) number of clusters
    outside: NDArray[np.float64]  # (n,) fraction of the digitised energy outside the leading cluster

    @property
    def clusters(self) -> dict[str, NDArray[np.float64]]:
        """What the clusters say, by name, (n,) each."""
        names = "cluster_response", "cluster_direction", "clusters", "outside_cluster"
        return dict(zip(names, (self.response, self.direction, self.n_clusters, self.outside), strict=True))


def why_not(detector: Detector, wanted: bool | None) -> str:
    """Return why samples are not compared after reconstruction; empty when they are.

    ``wanted`` is the user's choice, None for grids whose layers have a known MIP energy.
    """
    if wanted is None and not (detector.is_grid and all(layer.mip > 0 for layer in detector.layers)):
        return f"needs a grid of known MIP energy, which '{detector.name}' is not; --reconstruction forces it"
    return "switched off" if wanted is False else ""


# keys of the memo of samples
_BARE, _FITTED, _AFTER = ("reconstruction, c = 1",), ("reconstruction",), ("after reconstruction",)


class AfterColumns(ClusterColumns):
    """Consumer that reconstructs the showers of a sample, the reference or another one, for :func:`reconstruct`.

    Raises:
        InputError: When no MIP energy is known or found.
    """

    def __init__(self, reference: Sample, sample: Sample) -> None:
        if _BARE not in reference.memo:
            reference.memo[_BARE] = Reconstruction.uncalibrated(_source(reference))
        super().__init__(reference.memo[_BARE], sample.threshold)
        self._reference, self._sample = reference, sample
        self._observables = ObservableColumns(sample.detector, sample.n, threshold=sample.threshold)
        rows = None if sample.n <= _MOST else sample.choose(_MOST)
        self._cells = CellCounter(sample.detector, sample.threshold, rows)

    @classmethod
    def of(cls, reference: Sample, sample: Sample) -> AfterColumns | None:
        """Return the consumer for a sample; None where the reconstruction cannot be calibrated on the reference."""
        if sample is not reference and can_reconstruct(reference):
            return None
        try:
            return cls(reference, sample)
        except InputError as error:
            reference.memo[_FITTED] = error
            return None

    def found(self, reconstructed: Reconstructed) -> None:
        """Keep what is needed of reconstructed showers."""
        super().found(reconstructed)
        self._observables.add(reconstructed.batch)
        self._cells.add(reconstructed.batch)

    def finish(self) -> None:
        """Calibrate on the reference, if this is it, and keep the sample after reconstruction."""
        table, found = self._observables.table(), self.result()
        if self._sample is self._reference:
            try:
                used = self.reconstruction.calibrated(found["energy"], table.incident_energy)
            except InputError as error:
                self._reference.memo[_FITTED] = error
                return
            self._reference.memo[_FITTED] = used
        used = fitted(self._reference)
        after = Sample(used.of(_source(self._sample)), self._sample.label, self._sample.threshold)
        after.observables = table
        after.memo[histograms_key(after, _MOST)] = self._cells.result()
        response = used.calibration * found["energy"] / table.incident_energy
        direction = found["theta"] - table.incident_theta
        result = After(after, response, direction, found["n_clusters"], found["outside"])
        self._sample.memo[_AFTER] = used, result


def fitted(reference: Sample) -> Reconstruction:
    """Return the reconstruction that is calibrated on a sample.

    Raises:
        InputError: When no MIP energy is known or found, or no shower leaves a cluster.
    """
    if _FITTED not in reference.memo:
        _read(reference, reference)
    found = reference.memo[_FITTED]
    if isinstance(found, InputError):
        raise found
    used: Reconstruction = found
    return used


def reconstruct(reference: Sample, sample: Sample) -> After:
    """Return a sample after the reconstruction that is calibrated on the reference.

    Raises:
        InputError: See :func:`fitted`.
    """
    used = fitted(reference)
    if _AFTER not in sample.memo or sample.memo[_AFTER][0] is not used:
        _read(reference, sample)
    after: After = sample.memo[_AFTER][1]
    return after


def can_reconstruct(reference: Sample) -> str:
    """Return why a reconstruction cannot be calibrated on a sample; empty when it can."""
    try:
        fitted(reference)
    except InputError as error:
        return str(error)
    return ""


def _read(reference: Sample, sample: Sample) -> None:
    columns = AfterColumns.of(reference, sample)
    if columns is not None:
        stream(sample, [columns], sample.threshold)
        columns.finish()


def _source(sample: Sample) -> ShowerSource:
    """Return the sample's showers as a source: a part of it where the sample is a part."""
    whole = len(sample.rows) == len(sample.source)
    return sample.source if whole else Selection(sample.source, sample.rows)
