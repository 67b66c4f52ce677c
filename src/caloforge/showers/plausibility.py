"""Plausibility checks of showers: units of energies and angles, and the order of the axes.

A file of another program may be in GeV, in radians, or list the layers first; its numbers are valid all the same, and every result from them
would be wrong. Three things are compared with the detector, for a sample of the showers:

- the response, visible over incident energy over the sampling fraction, which is 1 but for fluctuations and leakage. GeV in place of MeV is a factor 1000;
- the polar angles: 90 degrees is perpendicular, so that angles which are all below 3.2 are radians;
- the order of the axes, by a misfit that is about 0.2 for the right order and 0.6 to 2 for the others, and which is refused when another order has less than half
  of it. In a grid it is the sum of three terms: half the sum over the layers of |p_l - q_l|, where p_l is the mean share of layer l and q_l that of the mean
  longitudinal shower of the Particle Data Group (Review of Particle Physics, "Passage of particles through matter": a gamma distribution with b = 0.5 and its maximum at
  ln(E/Ec) + 0.5 radiation lengths for photons, - 0.5 for electrons), times the energy loss in each active slab; the share of energy outside of 5 x 5 cells around each layer's
  highest one; and the slopes dx/dz and dy/dz of the shower beyond those of its angle. In a mesh of voxels it is the distance of the angular profile from a uniform
  one, likewise, plus the share of the outer half of the radial bins, plus what the longitudinal profile rises and falls beyond once.

The bounds are wide, so that beams, leakage and models of any quality pass; only muons leave less than the bounds allow, and are not judged by energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.units import plain_number

__all__ = [
    "SAMPLE",
    "Finding",
    "arranged",
    "axis_sizes",
    "check_angles",
    "check_axes",
    "check_energies",
]

SAMPLE: Final = 64
"""How many showers are enough for a judgement."""

_MOST = 3.0  # visible over incident energy
_LOW, _HIGH = 1 / 20, 5.0  # response
_SCALED = 0.5  # sampling fraction above which a detector's energies are divided by one
_UNSCALED = 0.015  # response of energies that lack the division by a sampling fraction
_BAD, _BETTER = 0.15, 0.5  # misfit of an order of axes, and that of another one relative to it
_AROUND = 2  # cells on each side of a layer's highest one
_LEAN = 0.3  # slope of inclined showers, of the expected one
_RADIANS = 3.2
_MUONS = frozenset({"mu-", "mu+"})
_SHOWERING = {
    "gamma": 0.5,
    "e-": -0.5,
    "e+": -0.5,
}  # the shower's maximum, in radiation lengths from ln(E/Ec)


class Finding(NamedTuple):
    """What is implausible, and the options of ``caloforge convert`` that resolve it."""

    message: str
    remedy: str
    clear: bool = True  # whether it cannot be right, or has a known cause; otherwise it is worth a warning

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def check_energies(
    visible: NDArray[np.float64], incident: NDArray[np.float64], detector: Detector, particle: str = ""
) -> Finding | None:
    """Compare visible with incident energies.

    Arguments:
        visible: Sum of the cells of each shower (n,), MeV.
        incident: Incident energies (n,), MeV.
        detector: Whose sampling fraction the ratio should be.
        particle: Incident particle; muons leave little and are not judged.
    """
    total = float(incident.sum())
    if not len(incident) or not total > 0 or particle in _MUONS:
        return None
    ratio = float(visible.sum()) / total
    response = ratio / detector.sampling_fraction
    said = f"cells hold {plain_number(ratio)} times the incident energy, {detector.sampling_fraction:.3g} is expected in '{detector.name}'"
    if ratio == 0:
        return Finding("no cell of the showers has energy", "settle it with --key cells=NAME")
    if ratio > _MOST:
        if _LOW <= response / 1000 <= _HIGH:
            return Finding(
                f"{said}: incident energies look like GeV, or cells like keV",
                "settle it with --energy-unit GeV or --cell-unit keV",
            )
        return Finding(said, "settle it with --energy-unit and --cell-unit")
    if response > _HIGH:
        return Finding(
            f"{said}: they look divided by the sampling fraction",
            f"settle it with --cell-scale {detector.sampling_fraction:.4g}, or another --detector",
        )
    if response >= _LOW:
        return None
    if _LOW <= response * 1000 <= _HIGH:
        return Finding(
            f"{said}: cells look like GeV, or incident energies like keV",
            "settle it with --cell-unit GeV or --energy-unit keV",
        )
    if detector.sampling_fraction > _SCALED and response > _UNSCALED:
        return Finding(
            f"{said}: they look like the energies of the active material, not divided by the sampling fraction",
            f"settle it with --cell-scale, some {1 / response:.0f}",
        )
    return Finding(said, "settle it with --energy-unit, --cell-unit or --cell-scale", clear=False)


def check_angles(theta: NDArray[np.float64]) -> Finding | None:
    """Find angles (n,) that are said to be degrees, 90 being perpendicular, and look like radians."""
    if not len(theta) or not np.isfinite(theta).all() or theta.max() >= _RADIANS or theta.min() <= 0:
        return None
    return Finding(
        f"angles are {theta.min():.3g} to {theta.max():.3g} degrees, where 90 is perpendicular: they look like radians",
        "settle it with --angle-unit rad",
    )


def axis_sizes(detector: Detector) -> dict[str, int]:
    """Return the number of cells along each axis, by its letter and in the detector's order; empty when the cells are not regular.

    x, y and z (the layers) of a grid; z, a (alpha) and r of a mesh of voxels. Axes of one cell are left out.
    """
    sizes = zip("xyz" if detector.is_grid else "zar", detector.shape, strict=False)
    return {letter: size for letter, size in sizes if size > 1} if len(detector.shape) == 3 else {}


def arranged(raw: NDArray[np.float32], axes: str, sizes: Mapping[str, int]) -> NDArray[np.float32]:
    """Return cells (n, ...) stored in the order ``axes``, such as "zxy", flat in the order of ``sizes`` (n, n_cells)."""
    shaped = raw.reshape(len(raw), *(sizes[letter] for letter in axes))
    return shaped.transpose(0, *(axes.index(letter) + 1 for letter in sizes)).reshape(len(raw), -1)


def check_axes(
    raw: NDArray[np.float32],
    axes: str,
    incident: NDArray[np.float64],
    theta: NDArray[np.float64],
    detector: Detector,
    particle: str = "",
) -> Finding | None:
    """Look for an order of the axes that fits the detector much better than the one which is said to be that of the file.

    Arguments:
        raw: Cells (n, n_cells), or (n, k, l, m), as they are stored, in any unit.
        axes: Order of their axes, such as "zxy"; see :func:`axis_sizes`.
        incident: Incident energies (n,), MeV.
        theta: Angles (n,), degrees.
        detector: A regular one; others are not judged.
        particle: Incident particle, by default the beam's; grids are judged by photons, electrons and positrons alone.
    """
    sizes = axis_sizes(detector)
    filled = raw.reshape(len(raw), -1).sum(1, dtype=np.float64) > 0
    if len(sizes) < 3 or min(sizes.values()) < 3 or not filled.any():
        return None
    raw, incident, theta = raw[filled], incident[filled], theta[filled]
    shift = _SHOWERING.get(particle or detector.beam.particle)
    if detector.is_grid and (not detector.stack or shift is None):
        return None
    expected = _expected(detector, incident, theta, shift) if shift is not None and detector.is_grid else None
    misfits = {}
    for order in map("".join, permutations(sizes)):
        if raw.ndim == 2 or raw.shape[1:] == tuple(sizes[letter] for letter in order):
            grid = arranged(raw, order, sizes).reshape(-1, *detector.shape)
            misfits[order] = (
                _grid_misfit(grid, expected, theta, detector) if expected is not None else _mesh_misfit(grid)
            )
    if axes not in misfits or not np.isfinite(misfits[axes]):
        return None
    # Exchanged x and y do not change the layers: of orders that fit alike the one that keeps x before y is named.
    best = min(misfits, key=lambda order: (round(misfits[order], 2), order.replace("z", "")))
    if misfits[axes] > _BAD and misfits[best] < _BETTER * misfits[axes]:
        kind = "layers" if detector.is_grid else "radii and angles"
        return Finding(
            f"axes look exchanged: in the order {axes} energies are not spread over the {kind} of '{detector.name}' as those of a shower "
            f"(misfit {misfits[axes]:.2f}, {misfits[best]:.2f} in the order {best})",
            f"settle it with --axes {best}",
        )
    return _check_lean(arranged(raw, axes, sizes), axes, theta, detector) if detector.is_grid else None


def _check_lean(
    cells: NDArray[np.float32], axes: str, theta: NDArray[np.float64], detector: Detector
) -> Finding | None:
    """Find inclined showers that lean in x, where theta says that they lean in y, or to the other side."""
    inclined = np.abs(theta - 90.0) > 10.0
    if not inclined.any():
        return None
    lean = _tangents(theta[inclined])
    x, y = (
        float((slope * lean).sum() / (lean * lean).sum())
        for slope in _slopes(cells[inclined].reshape(-1, *detector.shape), detector)
    )
    if abs(x) > _LEAN and abs(x) > 2 * abs(y):
        other = axes.translate(str.maketrans("xy", "yx"))
        return Finding(
            f"inclined showers lean in x, where theta says that they lean in y (slopes {x:.2f} and {y:.2f} of the expected one)",
            f"settle it with --axes {other}",
        )
    if y < -_LEAN:
        return Finding(
            f"inclined showers lean to the other side than theta says (slope {y:.2f} of the expected one): below 90 degrees is towards +y",
            "settle it with --angle-from opposite",
        )
    return None


def _tangents(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return dy/dz of particles with these angles, degrees; exactly 0 at 90."""
    return np.where(theta == 90.0, 0.0, 1.0 / np.tan(np.radians(theta)))


def _slopes(grid: NDArray[np.float32], detector: Detector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return dx/dz and dy/dz (n,) of the line through the layers' centres of gravity, weighted with their energies."""
    z = np.array([layer.z for layer in detector.layers])
    layers = grid.sum((1, 2), dtype=np.float64)
    weight = layers / layers.sum(1, keepdims=True)
    dz = z - (weight * z).sum(1, keepdims=True)
    first = detector.layers[0]
    slopes = []
    for other, pitch in ((2, getattr(first, "pitch_x", 1.0)), (1, getattr(first, "pitch_y", 1.0))):
        planes = grid.sum(other, dtype=np.float64)  # (n, x or y, z)
        place = np.arange(planes.shape[1]) * pitch
        centre = np.einsum("nkz,k->nz", planes, place) / np.maximum(layers, 1e-30)
        moment = (weight * dz * (centre - (weight * centre).sum(1, keepdims=True))).sum(1)
        slopes.append(moment / np.maximum((weight * dz * dz).sum(1), 1e-30))
    return slopes[0], slopes[1]


def _expected(
    detector: Detector, incident: NDArray[np.float64], theta: NDArray[np.float64], shift: float
) -> NDArray[np.float64]:
    """Return the mean share of each layer (n_layers,) of showers of these energies, MeV, and angles, degrees."""
    radiation = np.array([slab.thickness / slab.material.x0 for slab in detector.stack])
    critical = sum(
        x * slab.material.critical_energy for x, slab in zip(radiation, detector.stack, strict=True)
    ) / float(radiation.sum())
    depth = np.array([layer.depth_x0 for layer in detector.layers])
    loss = np.array([layer.mip or 1.0 for layer in detector.layers])
    t = depth / np.sin(np.radians(theta))[:, None]  # (n, n_layers)
    power = 0.5 * np.maximum(np.log(np.maximum(incident / critical, 1.0)) + shift, 0.5)[:, None]
    density = np.exp(power * np.log(np.maximum(t, 1e-3)) - 0.5 * t) * loss
    share: NDArray[np.float64] = (density / density.sum(1, keepdims=True)).mean(0)
    return share


def _grid_misfit(
    grid: NDArray[np.float32], expected: NDArray[np.float64], theta: NDArray[np.float64], detector: Detector
) -> float:
    layers = grid.sum((1, 2), dtype=np.float64)
    share = (layers / layers.sum(1, keepdims=True)).mean(0)
    x, y = _slopes(grid, detector)
    beyond = abs(x.mean()) + max(0.0, abs(y.mean()) - float(np.abs(_tangents(theta)).mean()))
    return float(np.abs(share - expected).sum() / 2 + _spread(grid, layers) + min(1.0, beyond))


def _spread(grid: NDArray[np.float32], layers: NDArray[np.float64]) -> float:
    """Return the mean share of a shower's energy that is outside of 5 x 5 cells around each layer's highest one."""
    n, nx, ny, nz = grid.shape
    place = grid.reshape(n, nx * ny, nz).argmax(1)  # (n, nz)
    shower, layer = np.arange(n)[:, None], np.arange(nz)
    near = np.zeros((n, nz))
    for dx in range(-_AROUND, _AROUND + 1):
        for dy in range(-_AROUND, _AROUND + 1):
            x, y = place // ny + dx, place % ny + dy
            inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
            near += np.where(inside, grid[shower, x.clip(0, nx - 1), y.clip(0, ny - 1), layer], 0.0)
    return float(np.mean(1.0 - near.sum(1) / layers.sum(1)))


def _mesh_misfit(grid: NDArray[np.float32]) -> float:
    total = grid.sum((1, 2, 3), dtype=np.float64)
    alpha = (grid.sum((1, 3), dtype=np.float64) / total[:, None]).mean(0)
    radii = (grid.sum((1, 2), dtype=np.float64) / total[:, None]).mean(0)
    depth = (grid.sum((2, 3), dtype=np.float64) / total[:, None]).mean(0)
    uneven = np.abs(alpha - 1 / len(alpha)).sum() / 2
    rough = np.abs(np.diff(depth, prepend=0, append=0)).sum() / 2 - depth.max()  # 0 with one maximum
    return float(uneven + radii[(len(radii) + 1) // 2 :].sum() + rough)
