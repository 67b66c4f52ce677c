"""The detector: its stack of slabs, its readout cells, which cells touch, and quantities derived from them.

Flat order of the cells:

- ``xyl``: index = (ix * ny + iy) * n_layers + layer, a regular grid of shape (nx, ny, n_layers);
- ``layered``: layer after layer, each x (eta) by y (phi), the last index fastest;
- ``cylindrical``: layer after layer, each alpha by r, r fastest (the CaloChallenge's order).

Slabs are flat plates, or, with an inner radius R, concentric cylinders around the line y = 0, z = -R along x: depths are then measured
along the beam, which is a radius.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import IncompatibleError
from caloforge.geometry.beam import Beam
from caloforge.geometry.materials import Material
from caloforge.geometry.readout import CylindricalLayer, MeshReadout, Readout, ReadoutLayer

__all__ = ["Detector", "Order", "SamplingSource", "Slab", "face_neighbours", "project"]

Order = Literal["xyl", "layered", "cylindrical"]
SamplingSource = Literal["measured", "estimated", "calibrated"]

_TOLERANCE = 1e-6  # relative overlap below which two faces only touch along an edge


@dataclass(frozen=True)
class Slab:
    """One plate of the stack."""

    material: Material
    thickness: float  # mm along z
    z: float  # front face, mm
    half_x: float  # half width, mm; of a cylinder half its length
    half_y: float  # half height, mm; of a cylinder its outer radius
    layer: int = -1  # readout layer of an active slab, -1 for a passive one

    @property
    def active(self) -> bool:
        """Whether its deposits are read out."""
        return self.layer >= 0


@dataclass(frozen=True, eq=False)
class Detector:
    """A calorimeter, or the mesh of a published data set.

    Raises:
        IncompatibleError: When cylinders have no mesh as readout.
    """

    name: str  # its name, as in files and commands
    description: str
    order: Order  # flat order of the cells, see the module
    layers: tuple[ReadoutLayer | CylindricalLayer, ...]  # readout layers, front to back
    beam: Beam
    sampling_fraction: float  # see ``sampling_source``
    stack: tuple[Slab, ...] = ()  # slabs from z = 0 on; empty when the geometry is not known
    medium: Material | None = None
    readout: Readout | MeshReadout | None = (
        None  # folding of scored deposits into cells; None when it cannot be simulated
    )
    model_conditions: tuple[str, ...] = ("incident_energy",)  # default conditions of models
    definition: str = ""  # JSON text of a user's own detector, stored with its files; empty for built-in ones
    # energy below which the data set's own evaluation sets a cell to 0, MeV; 0 without one
    evaluation_cut: float = 0.0
    # what the sampling fraction is: mean visible over incident energy in the default beam, leakage included, as measured;
    # visible over deposited energy, estimated from energy losses, for showers that do not leak; or 1, energies being calibrated
    sampling_source: SamplingSource = "measured"
    inner_radius: float = 0.0  # mm, of the front of a stack of concentric cylinders; 0 for flat plates
    # options by the name of the engine, such as Geant4's physics list, that the published data call for
    simulation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inner_radius > 0.0 and not isinstance(self.readout, MeshReadout):
            msg = f"detector '{self.name}': concentric cylinders need a mesh as readout"
            raise IncompatibleError(msg)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detector):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash((self.name, self.order, self.n_cells))

    @property
    def _identity(self) -> tuple[object, ...]:
        """What distinguishes it: cells, matter, and how deposits become cells; not the default beam."""
        return (self.name, self.order, self.layers, self.stack, self.medium, self.readout, self.inner_radius)

    @property
    def n_layers(self) -> int:
        """Number of readout layers."""
        return len(self.layers)

    @cached_property
    def n_cells(self) -> int:
        """Number of readout cells."""
        return sum(layer.n_cells for layer in self.layers)

    @property
    def shape(self) -> tuple[int, ...]:
        """(nx, ny, n_layers) of a regular grid, (layers, alpha, r) of a regular mesh, (n_cells,) otherwise."""
        first = self.layers[0]
        if self.order == "xyl" and isinstance(first, ReadoutLayer):
            return (first.nx, first.ny, self.n_layers)
        if isinstance(first, CylindricalLayer) and all(
            isinstance(layer, CylindricalLayer) and (layer.n_r, layer.n_alpha) == (first.n_r, first.n_alpha)
            for layer in self.layers
        ):
            return (self.n_layers, first.n_alpha, first.n_r)
        return (self.n_cells,)

    @property
    def is_grid(self) -> bool:
        """Whether the cells form a regular (nx, ny, n_layers) grid."""
        return self.order == "xyl"

    @property
    def is_mesh(self) -> bool:
        """Whether the cells form a regular (layers, alpha, r) mesh with the same angles and rings in every layer."""
        rings = {layer.r_edges if isinstance(layer, CylindricalLayer) else () for layer in self.layers}
        return len(self.shape) == 3 and not self.is_grid and len(rings) == 1

    @property
    def is_flat(self) -> bool:
        """Whether all layers are flat, rows and columns of equal cells."""
        return all(isinstance(layer, ReadoutLayer) for layer in self.layers)

    @property
    def simulable(self) -> bool:
        """Whether showers can be simulated in it."""
        return bool(self.stack) and self.readout is not None

    @property
    def condition_sizes(self) -> dict[str, int]:
        """Sizes of the named conditions beside energy and angle."""
        return self.beam.condition_sizes

    @cached_property
    def cell_layer(self) -> NDArray[np.int64]:
        """Layer of each cell (n_cells,)."""
        counts = [layer.n_cells for layer in self.layers]
        if self.order == "xyl":
            return np.tile(np.arange(self.n_layers), counts[0])
        return np.repeat(np.arange(self.n_layers), counts)

    @cached_property
    def layer_cells(self) -> tuple[NDArray[np.int64], ...]:
        """Flat indices of each layer's cells, in the order of the layer's own (x, y) or (alpha, r) grid."""
        return tuple(np.flatnonzero(self.cell_layer == layer) for layer in range(self.n_layers))

    @cached_property
    def cell_centres(self) -> NDArray[np.float64]:
        """Nominal centres (n_cells, 3), mm; meshes have x = r cos(alpha), y = r sin(alpha)."""
        centres = np.empty((self.n_cells, 3))
        for layer, cells in zip(self.layers, self.layer_cells, strict=True):
            centres[cells] = layer.centres()
        return centres

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """Pairs (n_edges, 2), i < j, of cells that share a face, within a layer or across two."""
        return face_neighbours(self.layers, self.layer_cells)

    @cached_property
    def depth_x0(self) -> float:
        """Depth of the stack in radiation lengths; 0 when the stack is not known."""
        return sum(slab.thickness / slab.material.x0 for slab in self.stack)

    def sampled_depth(self, active: bool = True) -> NDArray[np.float64]:
        """Return the radiation lengths that each layer samples (n_layers,): the slabs since the last active one, with it if ``active``."""
        depth, waiting = np.zeros(self.n_layers), 0.0
        for slab in self.stack:
            if active or not slab.active:
                waiting += slab.thickness / slab.material.x0
            if slab.active:
                depth[slab.layer] += waiting
                waiting = 0.0
        return depth

    @cached_property
    def absorber_ratios(self) -> NDArray[np.float64]:
        """Absorber in front of each layer over the thinnest (n_layers,), in radiation lengths; 1 where it is not known.

        A layer behind twice the absorber samples a shower half as often, so that its energy counts twice. Layers without
        absorber of their own (less than a tenth of the thickest) count as the thinnest.
        """
        depth = self.sampled_depth(active=False)
        absorbers = depth[depth > 0.1 * depth.max()]
        return np.maximum(depth / absorbers.min(), 1.0) if len(absorbers) else np.ones(self.n_layers)

    @cached_property
    def relative_depth(self) -> NDArray[np.float64]:
        """Depth of each layer from -1 (first) to 1 (last), in radiation lengths of absorber where known (n_layers,)."""
        passed: NDArray[np.float64] = np.cumsum(self.absorber_ratios)
        depth: NDArray[np.float64] = (
            2.0 * (passed - passed[0]) / max(float(passed[-1] - passed[0]), 1e-6) - 1.0
        )
        return depth

    @property
    def length(self) -> float:
        """Length of the stack, mm, from z = 0 to the end of the last slab."""
        return self.stack[-1].z + self.stack[-1].thickness if self.stack else 0.0

    def layer_shift(self, conditions: Mapping[str, ArrayLike]) -> NDArray[np.float64] | None:
        """Return the cells' offsets from their nominal centres (N, n_layers, 2) mm; None when they never move.

        ``conditions`` are the showers' named ones, each (N, 1).

        Raises:
            IncompatibleError: When an alignment is missing.
        """
        names = self.readout.alignment_names if self.readout is not None else ()
        if self.readout is None or not names:
            return None
        for name in names:
            if name not in conditions:
                msg = f"detector '{self.name}' needs the condition '{name}' of each shower to place its cells"
                raise IncompatibleError(msg)
        shifts = [self.readout.shift(layer, conditions) for layer in range(self.n_layers)]
        n = max(len(shift) for shift in shifts)
        return np.stack([np.broadcast_to(shift, (n, 2)) for shift in shifts], axis=1)

    def grid(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return flat cells (N, n_cells) as (N, *shape), without a copy."""
        return cells.reshape(len(cells), *self.shape)


def face_neighbours(
    layers: Sequence[ReadoutLayer | CylindricalLayer], layer_cells: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the pairs of cells that share a face, (n_edges, 2) flat indices, the smaller one first, sorted."""
    pairs: list[NDArray[np.int64]] = []
    for layer, cells in zip(layers, layer_cells, strict=True):
        pairs.append(cells[_within(layer)])
    for k in range(len(layers) - 1):
        local = _across(layers[k], layers[k + 1])
        pairs.append(np.stack([layer_cells[k][local[:, 0]], layer_cells[k + 1][local[:, 1]]], axis=1))
    edges = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(edges, axis=0)


def _within(layer: ReadoutLayer | CylindricalLayer) -> NDArray[np.int64]:
    """Return the pairs (E, 2) of one layer, in its own indices; alpha closes on itself."""
    polar = isinstance(layer, CylindricalLayer)
    shape = (layer.n_alpha, layer.n_r) if isinstance(layer, CylindricalLayer) else (layer.nx, layer.ny)
    index = np.arange(layer.n_cells).reshape(shape)
    steps = [(index[:-1], index[1:]), (index[:, :-1], index[:, 1:])]
    if polar and len(index) > 2:
        steps.append((index[-1:], index[:1]))
    return np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in steps])


def _across(
    front: ReadoutLayer | CylindricalLayer, back: ReadoutLayer | CylindricalLayer
) -> NDArray[np.int64]:
    """Return the pairs (E, 2) whose faces overlap, in the two layers' own indices: those that overlap along both axes."""
    a, b = front.intervals(), back.intervals()
    one, two = (_touching(low_high, other) for low_high, other in zip(a, b, strict=True))
    first = one[:, None, 0] * len(a[1]) + two[None, :, 0]
    second = one[:, None, 1] * len(b[1]) + two[None, :, 1]
    return np.stack([first.ravel(), second.ravel()], axis=1)


def _touching(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pairs (E, 2) of intervals (n, 2) and (m, 2) that overlap."""
    overlap = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    size = np.minimum((a[:, 1] - a[:, 0])[:, None], (b[:, 1] - b[:, 0])[None, :])
    return np.argwhere(overlap > _TOLERANCE * size)


def project(cells: NDArray[np.float32], source: Detector, image: Detector) -> NDArray[np.float32]:
    """Sum a grid over its layers and pool it to the cells of an image, such as ``ild-ecal`` to ``ild-ecal-10x10``.

    Arguments:
        cells: Flat cells (N, n_cells) of the source, MeV.
        source: A grid detector.
        image: A one-layer grid whose numbers of cells divide those of the source.

    Returns:
        Flat cells (N, n_cells) of the image, MeV; total energies are those of the source.

    Raises:
        IncompatibleError: When the grids do not fit.
    """
    fits = source.is_grid and image.is_grid and image.n_layers == 1
    if not fits or source.shape[0] % image.shape[0] or source.shape[1] % image.shape[1]:
        msg = f"detector '{source.name}' {source.shape} cannot be projected to '{image.name}' {image.shape}"
        raise IncompatibleError(msg)
    nx, ny, n_layers = source.shape
    px, py = nx // image.shape[0], ny // image.shape[1]
    blocks = cells.reshape(len(cells), image.shape[0], px, image.shape[1], py, n_layers)
    images: NDArray[np.float32] = blocks.sum(axis=(2, 4, 5), dtype=np.float64).astype(np.float32)
    return images.reshape(len(cells), image.n_cells)
