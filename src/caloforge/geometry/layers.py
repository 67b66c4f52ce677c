"""One readout layer: a rectangular grid of cells, or a polar mesh of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CylindricalLayer", "ReadoutLayer"]


@dataclass(frozen=True)
class ReadoutLayer:
    """A rectangular grid of cells, x (eta) by y (phi), y fastest.

    Arguments:
        name: Its name.
        nx: Cells in x.
        ny: Cells in y.
        pitch_x: mm.
        pitch_y: mm.
        z: Mean depth of its active material, mm.
        depth_x0: Radiation lengths from z = 0 to that depth.
        mip: Mean energy, MeV, that a minimum-ionising particle leaves in its active material.
        x_centre: Centre of the grid, mm.
        y_centre: Centre of the grid, mm.
    """

    name: str
    nx: int
    ny: int
    pitch_x: float
    pitch_y: float
    z: float
    depth_x0: float = 0.0
    mip: float = 0.0
    x_centre: float = 0.0
    y_centre: float = 0.0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.nx * self.ny

    @property
    def x(self) -> NDArray[np.float64]:
        """Centres of the columns (nx,), mm."""
        return _centred(self.x_centre, self.nx, self.pitch_x)

    @property
    def y(self) -> NDArray[np.float64]:
        """Centres of the rows (ny,), mm."""
        return _centred(self.y_centre, self.ny, self.pitch_y)

    def centres(self) -> NDArray[np.float64]:
        """Return the cells' centres (n_cells, 3), mm."""
        x, y = np.meshgrid(self.x, self.y, indexing="ij")
        return np.stack([x.ravel(), y.ravel(), np.full(self.n_cells, self.z)], axis=1)

    def areas(self) -> NDArray[np.float64]:
        """Return the cells' areas (n_cells,), mm2."""
        return np.full(self.n_cells, self.pitch_x * self.pitch_y)

    def boxes(self) -> NDArray[np.float64]:
        """Return each cell's extent (n_cells, 4) as (low 1, high 1, low 2, high 2), here in x and y, mm."""
        centres = self.centres()
        half = np.array([self.pitch_x, self.pitch_y]) / 2
        low, high = centres[:, :2] - half, centres[:, :2] + half
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


@dataclass(frozen=True)
class CylindricalLayer:
    """A polar mesh of voxels, alpha by r, r fastest; alpha runs from -pi to pi.

    Arguments:
        name: Its name.
        r_edges: Edges of the radial bins, mm.
        n_alpha: Number of angular bins.
        z: Depth, mm; the ordinal of the layer where depths are not published.
    """

    name: str
    r_edges: tuple[float, ...]
    n_alpha: int
    z: float
    depth_x0: float = 0.0
    mip: float = 0.0

    @property
    def n_r(self) -> int:
        """Number of radial bins."""
        return len(self.r_edges) - 1

    @property
    def n_cells(self) -> int:
        """Number of voxels."""
        return self.n_r * self.n_alpha

    @property
    def r(self) -> NDArray[np.float64]:
        """Centres of the radial bins (n_r,), mm."""
        return _middles(np.asarray(self.r_edges, np.float64))

    @property
    def alpha(self) -> NDArray[np.float64]:
        """Centres of the angular bins (n_alpha,), radians."""
        return _middles(np.linspace(-np.pi, np.pi, self.n_alpha + 1))

    def centres(self) -> NDArray[np.float64]:
        """Return the voxels' centres (n_cells, 3), mm; on the axis where there is one angular bin."""
        alpha, r = np.meshgrid(self.alpha, self.r, indexing="ij")
        on = 0.0 if self.n_alpha == 1 else 1.0
        x, y = on * r * np.cos(alpha), on * r * np.sin(alpha)
        return np.stack([x.ravel(), y.ravel(), np.full(self.n_cells, self.z)], axis=1)

    def radii(self) -> NDArray[np.float64]:
        """Return the voxels' radii (n_cells,), mm."""
        return np.tile(self.r, self.n_alpha)

    def areas(self) -> NDArray[np.float64]:
        """Return the voxels' areas (n_cells,), mm2."""
        edges = np.asarray(self.r_edges)
        ring = np.pi * (edges[1:] ** 2 - edges[:-1] ** 2) / self.n_alpha
        return np.tile(ring, self.n_alpha)

    def boxes(self) -> NDArray[np.float64]:
        """Return each voxel's extent (n_cells, 4): alpha (radians), then r (mm)."""
        edges = np.linspace(-np.pi, np.pi, self.n_alpha + 1)
        a, r = np.arange(self.n_alpha), np.arange(self.n_r)
        ia, ir = (index.ravel() for index in np.meshgrid(a, r, indexing="ij"))
        radial = np.asarray(self.r_edges)
        return np.stack([edges[ia], edges[ia + 1], radial[ir], radial[ir + 1]], axis=1)


def _centred(centre: float, n: int, pitch: float) -> NDArray[np.float64]:
    """Return the centres (n,) of equal bins around ``centre``."""
    steps: NDArray[np.float64] = np.arange(n, dtype=np.float64)
    return centre + (steps + (0.5 - n / 2)) * pitch


def _middles(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middles (n,) of bins with these edges (n + 1,)."""
    middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
    return middles
