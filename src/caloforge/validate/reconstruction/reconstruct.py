"""Reconstruction: MIP calibration, clusters of neighbouring hits, energy and direction of the leading cluster.

Clusters of neighbouring hits, for a whole batch of showers at once.

Grids are labelled by :func:`scipy.ndimage.label` on (N, nx, ny, n_layers) with a structure that connects within a shower
only. Other detectors are graphs: the cells of each shower are nodes, the detector's pairs of neighbours are
edges where both cells are hit, and :func:`scipy.sparse.csgraph.connected_components` finds the clusters.

Reconstruction: from cell energies to one calibrated cluster with a direction.

1. Digitisation: n = E / E_MIP of the cell's layer; below 0.5 MIP nothing is read out, above the saturation
   the saturated value is.
2. Clustering: neighbouring hits of a shower belong together (:mod:`caloforge.validate.reconstruction.reconstruct`); the cluster
   of the highest energy is kept.
3. Energy: c sum_l w_l E_l, where w_l is the depth in radiation lengths that the layer samples for each MIP that it
   reads, relative to the detector's median layer (it doubles behind absorbers of twice the thickness), and c is the
   one constant that minimises sum (c W - E_inc)^2 / E_inc over the reference sample, W = sum_l w_l E_l. The same
   c is applied to every sample.
4. Direction: theta of the principal axis of the energy-weighted cell positions.

:meth:`Reconstruction.of` wraps a source so that every observable exists before and after. The steps are those of the
BIB-AE study (E. Buhmann et al., arXiv:2005.05334 and 2303.18150).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from caloforge.errors import IncompatibleError, InputError, TooFewShowersError
from caloforge.geometry import Detector
from caloforge.showers import Showers, ShowerSource
from caloforge.showers.source import Index
from caloforge.validate.observables.batch import ShowerBatch
from caloforge.validate.observables.lateral import principal_angle
from caloforge.validate.observables.spectrum import mip_peak
from caloforge.validate.observables.streaming import chunk_rows, observe, prefetch

__all__ = [
    "Reconstructed",
    "ReconstructedSource",
    "Reconstruction",
    "label_clusters",
    "layer_weights",
    "leading_cluster",
    "mip_energies",
]


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
    """Return the weight of each layer's energy (n_layers,): radiation lengths for each MIP, over the median.

    The radiation lengths of a layer are those of its active slabs and of the slabs before each of them. Without a known
    stack all weights are 1.

    Arguments:
        detector: The detector.
        mip: (n_layers,) MeV.
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
    """What reconstruction says of N showers.

    Attributes:
        showers: The same showers with the cells of the leading cluster only, digitised; MeV visible.
        energy: (N,) calibrated energy of the leading cluster, MeV; 0 without one.
        theta: (N,) its direction, degrees; NaN without one, or with energy in fewer than two layers.
        n_clusters: (N,) number of clusters.
        outside: (N,) fraction of the digitised energy outside the leading cluster; 0 without one.
    """

    showers: Showers
    energy: NDArray[np.float64]
    theta: NDArray[np.float64]
    n_clusters: NDArray[np.int64]
    outside: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Settings and constants of the reconstruction of one detector.

    Arguments:
        detector: The detector.
        mip: (n_layers,) energy of a MIP, MeV.
        threshold: Smallest energy read out, MIP.
        saturation: Largest energy read out, MIP; None for no limit.
        corners: Whether cells of a grid that share only an edge or a corner are neighbours, too.
        calibration: c of the module, incident over weighted visible energy.
    """

    detector: Detector
    mip: NDArray[np.float64]
    threshold: float = 0.5
    saturation: float | None = 3000.0
    corners: bool = True
    calibration: float = 1.0

    @classmethod
    def fit(
        cls,
        reference: ShowerSource,
        threshold: float = 0.5,
        saturation: float | None = 3000.0,
        corners: bool = True,
        mip: ArrayLike | None = None,
    ) -> Reconstruction:
        """Return the reconstruction whose energies are calibrated on a reference sample.

        Arguments:
            reference: Showers of known incident energy.
            threshold: MIP.
            saturation: MIP.
            corners: See the class.
            mip: One energy or (n_layers,), MeV; the detector's own, or the peak of the spectrum, when None.

        Raises:
            TooFewShowersError: When no shower leaves a cluster.
            InputError: When the MIP energy cannot be found.
        """
        detector = reference.detector
        energies = mip_energies(reference) if mip is None else np.asarray(mip, np.float64)
        if not (energies > 0).all():
            msg = "the energy of a MIP must be above 0 MeV"
            raise InputError(msg)
        energies = np.broadcast_to(energies, (detector.n_layers,))
        bare = cls(detector, energies, threshold, saturation, corners)
        linear, square = 0.0, 0.0
        with closing(prefetch(reference.chunks(chunk_rows(detector)))) as chunks:
            for showers in chunks:
                weighted = bare(showers).energy
                linear += float(weighted.sum())
                square += float((weighted**2 / showers.incident_energy).sum())
        if square == 0.0:
            msg = f"no shower of '{detector.name}' has a cell above {threshold} MIP; nothing to calibrate on"
            raise TooFewShowersError(msg)
        return dataclasses.replace(bare, calibration=linear / square)

    def digitise(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is read out of cells (N, n_cells), MeV."""
        unit = self.mip[self.detector.cell_layer].astype(np.float32)
        read = np.where(cells >= np.float32(self.threshold) * unit, cells, np.float32(0))
        return read if self.saturation is None else np.minimum(read, np.float32(self.saturation) * unit)

    def __call__(self, showers: Showers) -> Reconstructed:
        """Reconstruct showers in memory.

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
        after = ShowerBatch(showers.replace(cells=cells))
        outside = np.zeros(read.n)
        np.divide(read.total - after.total, read.total, out=outside, where=read.filled)
        return Reconstructed(
            showers=after.showers,
            energy=self.calibration * (after.layer_energy @ layer_weights(self.detector, self.mip)),
            theta=principal_angle(after),
            n_clusters=n_clusters,
            outside=outside,
        )

    def of(self, source: ShowerSource) -> ReconstructedSource:
        """Return a source of the showers after reconstruction."""
        return ReconstructedSource(source, self)

    def summary(self, source: ShowerSource) -> dict[str, NDArray[np.float64]]:
        """Return energy, theta, n_clusters and outside (N,) of every shower, in one streaming pass."""
        names = ("energy", "theta", "n_clusters", "outside")
        parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
        with closing(prefetch(source.chunks(chunk_rows(self.detector)))) as chunks:
            for showers in chunks:
                found = self(showers)
                for name in names:
                    parts[name].append(np.asarray(getattr(found, name), np.float64))
        return {name: np.concatenate(arrays) if arrays else np.empty(0) for name, arrays in parts.items()}


class ReconstructedSource:
    """Showers after reconstruction, made piece by piece from another source.

    It is read like any other source of showers, so that ``Sample(reconstruction.of(source), label)`` has every
    observable after reconstruction.

    Arguments:
        before: The showers.
        reconstruction: What is done to them.
    """

    def __init__(self, before: ShowerSource, reconstruction: Reconstruction) -> None:
        self.before = before
        self.reconstruction = reconstruction

    def __len__(self) -> int:
        return len(self.before)

    def __getitem__(self, index: Index) -> Showers:
        """Return the chosen showers after reconstruction."""
        return self.reconstruction(self.before[index]).showers

    def take(self, indices: ArrayLike) -> Showers:
        """Return the showers of these indices after reconstruction, in their order."""
        return self.reconstruction(self.before.take(indices)).showers

    def chunks(self, size: int | None = None) -> Iterator[Showers]:
        """Iterate over all showers after reconstruction, ``size`` at a time."""
        for showers in self.before.chunks(size or chunk_rows(self.detector)):
            yield self.reconstruction(showers).showers

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.before.detector

    @property
    def particle(self) -> str:
        """Incident particle."""
        return self.before.particle

    @property
    def source(self) -> str:
        """What made the showers."""
        return self.before.source

    @property
    def seed(self) -> int | None:
        """Seed that they were made with."""
        return self.before.seed

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts, and the constants of the reconstruction."""
        used = self.reconstruction
        return dict(self.before.attributes) | {
            "reconstruction_calibration": used.calibration,
            "reconstruction_threshold_mip": used.threshold,
        }

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,), sorted, of the showers that trained or selected the model that made these."""
        return self.before.seen

    @property
    def has_theta(self) -> bool:
        """Whether angles are given."""
        return self.before.has_theta

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions beside energy and angle."""
        return self.before.condition_names

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energies (N,), MeV."""
        return self.before.incident_energy

    @property
    def incident_theta(self) -> NDArray[np.float64]:
        """Angles (N,), degrees."""
        return self.before.incident_theta

    @property
    def n_empty(self) -> int:
        """Number of showers that reconstruction leaves without any energy."""
        return sum(showers.n_empty for showers in self.chunks())

    def condition(self, name: str) -> NDArray[Any]:
        """Return a condition (N, k)."""
        return self.before.condition(name)
