"""Spots: from the mean response of showers to energies in cells.

Each unit's visible energy becomes a Poisson number of spots with the energies of :mod:`.spots`, at radii of
:mod:`.radial` around the shower axis. The radius is perpendicular to the axis, so a spot of an inclined
shower that lies at an offset b in the plane of inclination sits b/sin(theta) further in y, and b cos(theta)
nearer in z: it may belong to another unit than the point of the axis that it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector, Primaries
from caloforge.simulate.gflash.column import Column
from caloforge.simulate.gflash.radial import radial_profile
from caloforge.simulate.gflash.response import Response
from caloforge.simulate.gflash.spots import SpotSpectrum, spot_spectrum

__all__ = ["Spots", "draw_spots", "to_cells"]

Float = NDArray[np.float32]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Spots:
    """Deposits of n showers, one after the other; every field (m,).

    Arguments:
        shower: Which shower, 0 to n.
        unit: Sampling unit that the spot lies in, -1 before the first and behind the last.
        x: mm.
        y: mm.
        energy: MeV.
    """

    shower: Index
    unit: Index
    x: Float
    y: Float
    energy: Float

    def __len__(self) -> int:
        return len(self.x)


def draw_spots(
    column: Column, response: Response, primaries: Primaries, factor: float, random: np.random.Generator
) -> Spots:
    """Draw the spots of showers.

    Arguments:
        column: The detector's sampling units.
        response: The showers' mean response.
        primaries: Where they start and with what angle and energy.
        factor: Calibration of the response.
        random: Source of random numbers.
    """
    n, units = response.visible.shape
    spectra = [spot_spectrum(slab.material, slab.thickness) for slab in column.slabs]
    count = random.poisson(factor * response.visible / [spectrum.mean for spectrum in spectra])
    index = np.repeat(np.arange(n * units), count.ravel())
    m = len(index)
    shower, unit = index // units, index % units
    radial = radial_profile(primaries.energy[:, None], response.tau, response.medium.columns)
    radius = radial.radius(random.random(m, dtype=np.float32), index)
    radius *= column.moliere_radius.astype(np.float32)[unit]
    angle = random.random(m, dtype=np.float32) * np.float32(2 * np.pi)
    across, along = radius * np.cos(angle), radius * np.sin(angle)
    energy = _energies(spectra, unit, random.integers(0, 1 << 16, m, dtype=np.uint16))
    x = primaries.x.astype(np.float32)[shower] + across
    sine, cosine = np.sin(np.radians(primaries.theta)), np.cos(np.radians(primaries.theta))
    cosine[np.abs(cosine) < 1e-12] = 0.0
    if not cosine.any():
        return Spots(shower, unit, x, primaries.y.astype(np.float32)[shower] + along, energy)
    low, high = column.edges[:-1], column.edges[1:]
    z = low[unit] + (high - low)[unit] * random.random(m, dtype=np.float32) - along * cosine[shower]
    unit = np.searchsorted(column.edges, z) - 1
    unit[unit >= units] = -1
    lean = (cosine / sine)[shower]
    y = primaries.y[shower] + column.z[unit] * lean + along / sine[shower]
    return Spots(shower, unit, x, y.astype(np.float32), energy)


def to_cells(
    detector: Detector, column: Column, spots: Spots, n: int, conditions: dict[str, NDArray[Any]]
) -> Float:
    """Sum the spots of ``n`` showers in the detector's cells (n, n_cells), MeV."""
    assert detector.readout is not None
    names = detector.readout.alignment_names
    each = {name: conditions[name][:, 0][spots.shower] for name in names}
    cell = detector.readout.digitise(spots.x, spots.y, column.layer[spots.unit], each)
    inside = (cell >= 0) & (spots.unit >= 0)
    flat = spots.shower[inside] * detector.n_cells + cell[inside]
    sums = np.bincount(flat, spots.energy[inside], n * detector.n_cells)
    cells: Float = sums.reshape(n, detector.n_cells).astype(np.float32)
    return cells


def _energies(spectra: list[SpotSpectrum], unit: Index, pick: NDArray[np.uint16]) -> Float:
    """Return the energies of spots in ``unit`` (m,) from the entries ``pick`` (m,) of their slabs' tables."""
    different = list(dict.fromkeys(spectra))
    if len(different) == 1:
        return different[0].table[pick]
    which = np.array([different.index(spectrum) for spectrum in spectra])
    tables = np.concatenate([spectrum.table for spectrum in different])
    energy: Float = tables[(which[unit] << 16) + pick]
    return energy
