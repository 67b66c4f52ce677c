"""Reconstruction: MIP calibration, clusters of neighbouring hits, energy and direction of the leading cluster.

1. Digitisation: n = E / E_MIP of the cell's layer; below 0.5 MIP nothing is read out, above the saturation
   the saturated value is.
2. Clustering: neighbouring hits of a shower belong together; the cluster of the highest energy is kept. Grids are labelled by
   :func:`scipy.ndimage.label` on (N, nx, ny, n_layers) with a structure that connects within a shower only. Other detectors are
   graphs: hits are nodes, the detector's pairs of neighbouring cells are edges where both are hit, and
   :func:`scipy.sparse.csgraph.connected_components` finds the clusters.
3. Energy: c W with W = sum_l w_l E_l, where w_l is the depth in radiation lengths that the layer samples for each MIP that it
   reads, relative to the detector's median layer (it doubles behind absorbers of twice the thickness), and c is the
   one constant that minimises sum (c W - E_inc)^2 / E_inc over the reference sample. The same c is applied to every sample.
4. Direction: theta of the principal axis of the energy-weighted cell positions.

:meth:`Reconstruction.of` wraps a source so that every observable exists before and after. The steps are those of the
BIB-AE study (E. Buhmann et al., arXiv:2005.05334 and 2303.18150).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from caloforge.errors import IncompatibleError, InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerSource
from caloforge.showers.views import SourceView
from caloforge.validate.observables.batch import ShowerBatch
from caloforge.validate.observables.shape import principal_angle
from caloforge.validate.observables.spectrum import mip_peak
from caloforge.validate.observables.streaming import chunk_rows, observe, stream

__all__ = [
    "ClusterColumns", "Reconstructed", "ReconstructedSource", "Reconstruction", "label_clusters",
    "layer_weights", "leading_cluster", "mip_energies",
]  # fmt: skip

_MIP_SHOWERS = 1000  # showers from which the MIP peak is measured where the detector does not give it


def mip_energies(source: ShowerSource) -> NDArray[np.float64]:
    """Return the energy of a MIP in each layer (n_layers,), MeV.

    It is the mean energy loss in the layer's active material where the detector knows it, and otherwise the MIP peak
    of the cell spectrum of the first thousand showers, the same for all layers.

    Raises:
        InputError: When the detector does not know it and the spectrum has no peak.
    """
    detector = source.detector
    known = np.array([layer.mip for layer in detector.layers], np.float64)
    if (known > 0).all():
        return known
    table = observe(source[:_MIP_SHOWERS], ["cell_spectrum"], cut=0.0)  # the edge of a cut is no peak
    peak = mip_peak(table.histograms["cell_spectrum"].counts)
    if not np.isfinite(peak):
        msg = f"'{detector.name}' has no known MIP energy and its cell spectrum no MIP peak; give the energy of a MIP"
        raise InputError(msg)
    return np.full(detector.n_layers, peak)


def layer_weights(detector: Detector, mip: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weight of each layer's energy (n_layers,): radiation lengths for each MIP (n_layers,), MeV, over the median.

    Without a known stack all weights are 1; see :meth:`Detector.sampled_depth`.
    """
    if not detector.stack:
        return np.ones(detector.n_layers)
    weights = detector.sampled_depth() / mip
    return weights / np.median(weights)


def label_clusters(batch: ShowerBatch, corners: bool = True) -> NDArray[np.int64]:
    """Return the cluster (H,) of each hit; no cluster spans two showers.

    Arguments:
        batch: Showers; their hits are all cells above the batch's cut.
        corners: Whether cells of a grid that share only an edge or a corner are neighbours, too.
    """
    return _label_grid(batch, corners) if batch.detector.is_grid else _label_graph(batch)


def leading_cluster(batch: ShowerBatch, corners: bool = True) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Find the cluster of the highest energy in each shower.

    Returns:
        Whether each hit (H,) belongs to it, and the number of clusters of each shower (N,).
    """
    label = label_clusters(batch, corners)
    if len(label) == 0:
        return np.zeros(0, bool), np.zeros(batch.n, np.int64)
    label = np.unique(label, return_inverse=True)[1]
    energy = np.bincount(label, batch.energy)
    shower = np.empty(len(energy), np.int64)
    shower[label] = batch.shower
    n_clusters = np.bincount(shower, minlength=batch.n)
    order = np.lexsort((energy, shower))
    leading = order[np.cumsum(n_clusters)[n_clusters > 0] - 1]
    chosen = np.zeros(len(energy), bool)
    chosen[leading] = True
    return chosen[label], n_clusters


def _label_grid(batch: ShowerBatch, corners: bool) -> NDArray[np.int64]:
    hit = np.zeros((batch.n, batch.detector.n_cells), bool)
    hit[batch.shower, batch.cell] = True
    structure = np.zeros((3, 3, 3, 3), bool)
    structure[1] = ndimage.generate_binary_structure(3, 3 if corners else 1)
    labels, _ = ndimage.label(hit.reshape(batch.n, *batch.detector.shape), structure)
    return np.asarray(labels.reshape(hit.shape)[batch.shower, batch.cell], np.int64)


def _label_graph(batch: ShowerBatch) -> NDArray[np.int64]:
    number = np.full((batch.n, batch.detector.n_cells), -1, np.int64)
    number[batch.shower, batch.cell] = np.arange(len(batch.cell))
    edges = batch.detector.neighbours
    starts, ends = number[:, edges[:, 0]], number[:, edges[:, 1]]
    both = (starts >= 0) & (ends >= 0)
    size = len(batch.cell)
    graph = coo_array((np.ones(int(both.sum()), np.int8), (starts[both], ends[both])), (size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """Reconstructed quantities of N showers."""

    batch: ShowerBatch  # the same showers with the cells of the leading cluster only, digitised; MeV visible
    energy: NDArray[np.float64]  # (N,) calibrated energy of the leading cluster, MeV; 0 without one
    theta: NDArray[np.float64]  # (N,) its direction, degrees; NaN with energy in fewer than two layers
    n_clusters: NDArray[np.int64]  # (N,) number of clusters
    outside: NDArray[np.float64]  # (N,) fraction of the digitised energy outside it; 0 without one

    @property
    def showers(self) -> Showers:
        """The showers of the batch."""
        return self.batch.showers


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Settings and constants of the reconstruction of one detector."""

    detector: Detector  # the detector
    mip: NDArray[np.float64]  # (n_layers,) energy of a MIP, MeV
    threshold: float = 0.5  # smallest energy read out, MIP
    saturation: float | None = 3000.0  # largest energy read out, MIP; None for no limit
    corners: bool = True  # whether cells of a grid that share only an edge or a corner are neighbours, too
    calibration: float = 1.0  # c of the module, incident over weighted visible energy

    @classmethod
    def uncalibrated(
        cls, reference: ShowerSource, mip: ArrayLike | None = None, **settings: Any
    ) -> Reconstruction:
        """Return the reconstruction of a source's detector with c = 1.

        Arguments:
            reference: The first thousand showers are read where the detector does not know the energy of a MIP.
            mip: One energy or (n_layers,), MeV; the detector's own, or the peak of the spectrum, when None.
            settings: See the class.

        Raises:
            InputError: When the MIP energy cannot be found.
        """
        energies = mip_energies(reference) if mip is None else np.asarray(mip, np.float64)
        if not (energies > 0).all():
            msg = "the energy of a MIP must be above 0 MeV"
            raise InputError(msg)
        detector = reference.detector
        return cls(detector, np.broadcast_to(energies, (detector.n_layers,)), **settings)

    def calibrated(self, weighted: NDArray[np.float64], incident: NDArray[np.float64]) -> Reconstruction:
        """Return the same with the constant c that fits weighted energies W (N,) of the reference to incident ones (N,), MeV.

        Raises:
            TooFewShowersError: When no shower leaves a cluster.
        """
        square = float((weighted**2 / incident).sum())
        if square == 0.0:
            msg = f"no shower of '{self.detector.name}' has a cell above {self.threshold} MIP; nothing to calibrate on"
            raise TooFewShowersError(msg)
        return dataclasses.replace(self, calibration=float(weighted.sum()) / square)

    @classmethod
    def fit(cls, reference: ShowerSource, mip: ArrayLike | None = None, **settings: Any) -> Reconstruction:
        """Return the reconstruction whose energies are calibrated on a reference sample.

        Arguments:
            reference: Showers of known incident energy, read once.
            mip, settings: See :meth:`uncalibrated`.

        Raises:
            TooFewShowersError: When no shower leaves a cluster.
            InputError: When the MIP energy cannot be found.
        """
        bare = cls.uncalibrated(reference, mip, **settings)
        return bare.calibrated(bare.summary(reference)["energy"], reference.incident_energy)

    def digitise(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is read out of cells (N, n_cells), MeV."""
        unit = self.mip[self.detector.cell_layer].astype(np.float32)
        read = np.where(cells >= np.float32(self.threshold) * unit, cells, np.float32(0))
        return read if self.saturation is None else np.minimum(read, np.float32(self.saturation) * unit)

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        return layer_weights(self.detector, self.mip)

    def __call__(self, showers: Showers, threshold: float = 0.1) -> Reconstructed:
        """Reconstruct showers in memory.

        Arguments:
            threshold: Energy above which a cell of the batch that is returned counts as a hit, MeV.

        Raises:
            IncompatibleError: When they are of another detector.
        """
        if showers.detector != self.detector:
            msg = f"showers of '{showers.detector.name}' cannot be reconstructed as '{self.detector.name}'"
            raise IncompatibleError(msg)
        read = ShowerBatch(showers.replace(cells=self.digitise(showers.cells)))
        keep, n_clusters = leading_cluster(read, self.corners)
        cells = np.zeros_like(read.showers.cells)
        cells[read.shower[keep], read.cell[keep]] = read.energy[keep]
        after = ShowerBatch(showers.replace(cells=cells), threshold)
        outside = np.zeros(read.n)
        np.divide(read.total - after.total, read.total, out=outside, where=read.filled)
        energy = self.calibration * (after.layer_energy @ self._weights)
        return Reconstructed(after, energy, principal_angle(after), n_clusters, outside)

    def of(self, source: ShowerSource) -> ReconstructedSource:
        """Return a source of the showers after reconstruction: ``Sample(reconstruction.of(source), label)``."""
        return ReconstructedSource(source, self)

    def summary(self, source: ShowerSource) -> dict[str, NDArray[np.float64]]:
        """Return energy, theta, n_clusters and outside (N,) of every shower, in one streaming pass."""
        columns = ClusterColumns(self)
        stream(source, [columns])
        return columns.result()


class ClusterColumns:
    """Consumer that reconstructs the showers of a pass and keeps energy, direction and number of the clusters.

    ``threshold``: energy above which a cell counts as a hit after reconstruction, MeV.
    """

    _names = ("energy", "theta", "n_clusters", "outside")

    def __init__(self, reconstruction: Reconstruction, threshold: float = 0.1) -> None:
        self.reconstruction = reconstruction
        self.threshold = threshold
        self._parts: list[list[NDArray[np.float64]]] = []

    def add(self, batch: ShowerBatch) -> None:
        """Reconstruct the next showers."""
        self.found(self.reconstruction(batch.showers, self.threshold))

    def found(self, reconstructed: Reconstructed) -> None:
        """Keep the columns of reconstructed showers; subclasses take more from them."""
        self._parts.append([np.asarray(getattr(reconstructed, name), np.float64) for name in self._names])

    def result(self) -> dict[str, NDArray[np.float64]]:
        """Return energy (MeV), theta (degrees), n_clusters and outside, (N,) each."""
        columns = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        return dict(zip(self._names, columns or [np.empty(0)] * len(self._names), strict=True))


class ReconstructedSource(SourceView):
    """Showers after reconstruction, computed chunk by chunk from another source."""

    def __init__(self, base: ShowerSource, reconstruction: Reconstruction) -> None:
        super().__init__(base)
        self.reconstruction = reconstruction

    def convert(self, showers: Showers) -> Showers:
        """Return showers after reconstruction."""
        return self.reconstruction(showers).showers

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers after reconstruction, ``size`` at a time."""
        return super().chunks(size or chunk_rows(self.detector))

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts, and the constants of the reconstruction."""
        used = {
            "calibration": self.reconstruction.calibration,
            "threshold_mip": self.reconstruction.threshold,
        }
        return super().attributes | {f"reconstruction_{name}": value for name, value in used.items()}
