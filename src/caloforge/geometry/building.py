"""Build detectors of TOML files: the stack of slabs, the readout layers and the folding of deposits into cells.

A layer is a run of sampling units: an absorber, an active slab behind it, then a gap of the medium. All of its active slabs add up to
one readout layer, in rows and columns of cells (:class:`Cells`) or in rings around the beam (:class:`Rings`). A layer without materials has
a depth only; such a detector can be read and learned, not simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from caloforge.errors import InputError
from caloforge.geometry.beam import Beam
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import Material, active_over_passive
from caloforge.geometry.readout import (
    CylindricalLayer,
    FineGrid,
    LayerReadout,
    MeshReadout,
    Readout,
    ReadoutLayer,
)

__all__ = ["Cells", "LayerPlan", "Plates", "Rings", "build_detector", "estimated_fraction"]

_MOST_FINE = 100_000_000  # cells of a layer's plates, those beyond the scored ones included
_WHOLE = 1e-6  # of a cell, by which plates may reach beyond a whole number of cells


@dataclass(frozen=True)
class Cells:
    """Rows and columns of equal cells, centred on x = y = 0."""

    nx: int
    ny: int
    pitch_x: float  # mm
    pitch_y: float  # mm

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.nx * self.ny


@dataclass(frozen=True)
class Rings:
    """Rings around the beam, each cut into equal angles."""

    r_edges: tuple[float, ...]  # mm
    n_alpha: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return (len(self.r_edges) - 1) * self.n_alpha


@dataclass(frozen=True)
class LayerPlan:
    """One layer."""

    cells: Cells | Rings
    depth: float  # mm along z, all units together
    units: int = 1  # sampling units
    absorber: Material | None = None  # of a unit; None without one
    absorber_mm: float = 0.0
    active: Material | None = None  # None where the materials are not known
    active_mm: float = 0.0
    gap_mm: float = 0.0

    def parts(self, medium: Material) -> list[tuple[Material, float]]:
        """Return the passive matter of one unit, each with its length, mm."""
        absorber = [] if self.absorber is None else [(self.absorber, self.absorber_mm)]
        return [*absorber, (medium, self.gap_mm)]


@dataclass(frozen=True)
class Plates:
    """Properties that all layers share."""

    medium: Material
    padding: tuple[float, float]  # mm in x and y by which plates reach beyond the scored cells, on each side
    inner_radius: float = 0.0  # mm, of concentric cylinders; 0 for flat plates


def build_detector(
    name: str,
    description: str,
    plans: Sequence[LayerPlan],
    plates: Plates,
    beam: Beam,
    sampling_fraction: float | None = None,
    definition: str = "",
) -> Detector:
    """Return the detector; its models are conditioned on the angle too where the beam's angle varies.

    Raises:
        InputError: When cylinders are so curved that an active slab would lie in two layers of the mesh.
    """
    first = plans[0].cells
    known = plans[0].active is not None
    radii = [plan.cells.r_edges[-1] for plan in plans if isinstance(plan.cells, Rings)]
    scored = [(one.nx * one.pitch_x / 2, one.ny * one.pitch_y / 2) for one in map(_square, plans) if one]
    size = _largest([(radius, radius) for radius in radii] + scored)
    half = (size[0] + plates.padding[0], size[1] + plates.padding[1])
    equal = isinstance(first, Cells) and all(plan.cells == first for plan in plans)
    folds = tuple(_fold(one, half) for one in map(_square, plans) if one)
    if folds:  # plates are as large as the largest active slab, which has whole cells
        half = _largest(_half(fold.fine) for fold in folds)
    stack, layers = _stack(plans, plates, half, folds)
    edges = np.concatenate([[0.0], np.cumsum([plan.depth for plan in plans])])
    readout: Readout | MeshReadout | None = Readout(folds, interleaved=equal) if known else None
    if known and isinstance(first, Rings):
        rings = [plan.cells for plan in plans if isinstance(plan.cells, Rings)]
        readout = MeshReadout(
            tuple(one.r_edges for one in rings), tuple(one.n_alpha for one in rings), tuple(map(float, edges))
        )
        _check_curvature(plans, plates.inner_radius, readout.radius)
    fraction = sampling_fraction
    if fraction is None:
        fraction = estimated_fraction(plans, plates.medium, beam) if known else 1.0
    return Detector(
        name=name,
        description=description,
        order="cylindrical" if isinstance(first, Rings) else "xyl" if equal else "layered",
        layers=layers,
        beam=beam,
        sampling_fraction=fraction,
        sampling_source="measured" if sampling_fraction else "estimated" if known else "calibrated",
        stack=stack,
        medium=plates.medium if known else None,
        readout=readout,
        model_conditions=(
            "incident_energy",
            *(() if beam.theta.low == beam.theta.high else ("incident_theta",)),
        ),
        definition=definition,
        inner_radius=plates.inner_radius,
    )


def _largest(sizes: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the largest size in x and the largest in y."""
    x, y = zip(*sizes, strict=True)
    return max(x), max(y)


def _half(grid: FineGrid) -> tuple[float, float]:
    return grid.nx * grid.pitch_x / 2, grid.ny * grid.pitch_y / 2


def _square(plan: LayerPlan) -> Cells | None:
    return plan.cells if isinstance(plan.cells, Cells) else None


def _fold(cells: Cells, half: tuple[float, float]) -> LayerReadout:
    """Return the folding of a layer whose active slabs are at least as large as the plates, in whole cells."""
    beyond = [
        max(0, int(np.ceil((size - n * pitch / 2) / pitch - _WHOLE)))
        for size, n, pitch in zip(half, (cells.nx, cells.ny), (cells.pitch_x, cells.pitch_y), strict=True)
    ]
    fine = FineGrid(cells.nx + 2 * beyond[0], cells.ny + 2 * beyond[1], cells.pitch_x, cells.pitch_y)
    if fine.nx * fine.ny > _MOST_FINE:
        msg = f"plates of {fine.nx:,} x {fine.ny:,} cells of a layer; expected at most {_MOST_FINE:,}: give larger cells or less padding"
        raise InputError(msg)
    return LayerReadout(fine, cells.nx, cells.ny, start_x=beyond[0], start_y=beyond[1])


def _stack(
    plans: Sequence[LayerPlan], plates: Plates, half: tuple[float, float], folds: Sequence[LayerReadout]
) -> tuple[tuple[Slab, ...], tuple[ReadoutLayer | CylindricalLayer, ...]]:
    """Return the slabs and the readout layers."""
    slabs: list[Slab] = []
    layers: list[ReadoutLayer | CylindricalLayer] = []
    z = depth = 0.0
    medium = plates.medium

    def add(material: Material, thickness: float, layer: int = -1) -> None:
        nonlocal z, depth
        size = half
        if layer >= 0 and folds:
            size = _half(folds[layer].fine)
        if plates.inner_radius:
            size = (half[0], plates.inner_radius + z + thickness)
        if thickness > 0:
            slabs.append(Slab(material, thickness, z, *size, layer))
        z += thickness
        depth += thickness / material.x0

    for number, plan in enumerate(plans):
        middles: list[tuple[float, float]] = []
        for _ in range(plan.units if plan.active is not None else 0):
            assert plan.active is not None
            if plan.absorber is not None:
                add(plan.absorber, plan.absorber_mm)
            middles.append((z + plan.active_mm / 2, depth + plan.active_mm / 2 / plan.active.x0))
            add(plan.active, plan.active_mm, number)
            add(medium, plan.gap_mm)
        if plan.active is None:
            middles, z = [(z + plan.depth / 2, 0.0)], z + plan.depth
        middle_z, middle_depth = (sum(values) / len(values) for values in zip(*middles, strict=True))
        mip = 0.0 if plan.active is None else plan.active.mip_energy(plan.active_mm * plan.units)
        layers.append(_layer(f"layer {number}", plan.cells, middle_z, middle_depth, mip))
    return tuple(slabs), tuple(layers)


def _layer(
    name: str, cells: Cells | Rings, z: float, depth: float, mip: float
) -> ReadoutLayer | CylindricalLayer:
    if isinstance(cells, Rings):
        return CylindricalLayer(name, cells.r_edges, cells.n_alpha, z, depth, mip)
    return ReadoutLayer(name, cells.nx, cells.ny, cells.pitch_x, cells.pitch_y, z, depth, mip)


def _check_curvature(plans: Sequence[LayerPlan], inner: float, radius: float) -> None:
    """Check that each layer's first active slab, where it recedes most from the plane, is still in its layer."""
    if not inner:
        return
    if inner <= radius:
        raise InputError(f"'inner_radius' {inner:g} mm is not larger than the mesh, {radius:g} mm")
    start = inner
    for number, plan in enumerate(plans):
        front = start + plan.absorber_mm
        sagitta = front - np.sqrt(front**2 - radius**2)
        if sagitta > plan.absorber_mm:
            msg = (
                f"'inner_radius' {inner:g} mm: cylinders recede by {sagitta:.3g} mm within the mesh, more than the"
                f" {plan.absorber_mm:g} mm before the active slab of layer {number}; make the mesh narrower or leave"
                " 'inner_radius' out for flat plates"
            )
            raise InputError(msg)
        start += plan.depth


def estimated_fraction(plans: Sequence[LayerPlan], medium: Material, beam: Beam) -> float:
    """Estimate the sampling fraction: visible over deposited energy, for showers that do not leak.

    The share of each layer, from energy losses and :func:`~caloforge.geometry.materials.active_over_passive`, averaged over the
    mean shower of the beam as the Particle Data Group parametrises it: a gamma distribution with b = 0.5 and the maximum
    at ln(E/Ec) + 0.5 radiation lengths for photons, - 0.5 for electrons.
    """
    share, length, critical = [], [], []
    for plan in plans:
        assert plan.active is not None
        parts = plan.parts(medium)
        visible = plan.active.mip_energy(plan.active_mm) * active_over_passive(
            parts, plan.active, plan.active_mm
        )
        share.append(visible / (visible + sum(material.mip_energy(mm) for material, mm in parts)))
        parts.append((plan.active, plan.active_mm))
        depths = [plan.units * mm / material.x0 for material, mm in parts]
        length.append(sum(depths))
        critical.append(
            sum(depth * material.critical_energy for depth, (material, _) in zip(depths, parts, strict=True))
        )
    energy = float(beam.energy.values(np.array([0.5]))[0])
    t_max = np.log(energy / (sum(critical) / sum(length))) + (0.5 if beam.particle == "gamma" else -0.5)
    middle = np.cumsum(length) - np.array(length) / 2
    power = 0.5 * max(t_max, 0.5)  # a - 1
    log_density = power * np.log(middle) - 0.5 * middle
    weight = np.array(length) * np.exp(log_density - log_density.max())
    return float(weight @ share / weight.sum())
