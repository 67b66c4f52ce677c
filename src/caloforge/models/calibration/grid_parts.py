"""Showers on a grid by their parts: core cells, the other cells in rings around the beam, and layers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector

__all__ = ["GridParts", "GridShowers", "cell_orbits"]

_TINY = 1e-12
_EDGES = (0.5, 1.2, 1.6, 2.5, 3.7, 6.1)  # distances from the beam between rings, in cells
_FILLED = 0.2  # least part of the training showers in which a core cell is filled
_CHUNK = 512


def cell_orbits(shape: tuple[int, ...], allowed: Tensor) -> Tensor:
    """Return an orbit for each cell (n_cells,) of a grid: cells that the symmetries turn into one another have the same.

    ``allowed`` are 1 or 0 for mirror x, mirror y, swap (3,).
    """
    images = [torch.arange(int(np.prod(shape))).view(shape)]
    mirror_x, mirror_y, swap = (allowed > 0.5).tolist()
    images += [image.transpose(0, 1) for image in images if swap]
    images += [image.flip(0) for image in images if mirror_x]
    images += [image.flip(1) for image in images if mirror_y]
    least = torch.stack(images).amin(0).flatten()
    orbits: Tensor = torch.unique(least, return_inverse=True)[1]
    return orbits.to(allowed.device)


class GridShowers(NamedTuple):
    """Showers by their parts."""

    core: Tensor  # (B, n_core), share of each core cell in its layer
    others: Tensor  # (B, rings, layers), share of the other cells of each ring
    layers: Tensor  # (B, layers), MeV
    factors: Tensor  # (B, rings, layers), by which the energies of the other cells have changed
    encoded: Tensor  # (B, width), encoded conditions
    energy: Tensor  # (B,), incident energy, MeV


class GridParts(nn.Module):
    """Which cells are the core, which of them have the same distribution, and the rings of the others.

    ``upright`` says whether showers are round about the beam; otherwise there is one ring, of all cells.
    """

    ring: Tensor
    member: Tensor
    cells: Tensor  # (n_core,) flat indices of the core cells
    orbit: Tensor  # (n_core,) the orbit of each; cells of an orbit share their constants

    def __init__(self, detector: Detector, upright: bool) -> None:
        super().__init__()
        nx, ny, self.layers = detector.shape
        centres = detector.cell_centres.reshape(nx, ny, self.layers, 3)[:, :, 0, :2]
        pitch = float(np.diff(centres[:, 0, 0]).min()) if nx > 1 else 1.0
        away = np.hypot(centres[..., 0] - detector.beam.x, centres[..., 1] - detector.beam.y) / pitch
        ring = np.digitize(away, _EDGES) if upright else np.zeros((nx, ny), np.int64)
        self.rings = int(ring.max()) + 1
        flat = torch.from_numpy(ring.reshape(-1).astype(np.int64))
        member = nn.functional.one_hot(flat, self.rings).float().T.contiguous()
        self.register_buffer("ring", flat, persistent=False)
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("cells", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("orbit", torch.zeros(0, dtype=torch.int64))

    @property
    def orbits(self) -> int:
        """Number of orbits."""
        return int(self.orbit.max()) + 1 if len(self.orbit) else 0

    def choose(self, cells: Tensor, orbits: Tensor) -> None:
        """Find the core cells, whole orbits (n_cells,), of training showers (N, n_cells)."""
        filled = (cells > 0).double().mean(0)
        size = int(orbits.max()) + 1
        mean = torch.zeros(size, dtype=filled.dtype, device=filled.device).index_add_(0, orbits, filled)
        core = (mean / torch.bincount(orbits, minlength=size).clamp_min(1) >= _FILLED)[orbits]
        self.cells = torch.nonzero(core)[:, 0]
        _, self.orbit = torch.unique(orbits[self.cells], return_inverse=True)

    def table(self, cells: Tensor) -> Tensor:
        """Return energies (B, rings, layers) of cells (B, n_cells)."""
        return self.member @ cells.view(len(cells), -1, self.layers)

    def split(self, cells: Tensor, encoded: Tensor, energy: Tensor) -> GridShowers:
        """Return cells (B, n_cells), MeV, by their parts."""
        parts = []
        for some in torch.split(cells, _CHUNK):
            table = self.table(some)
            core, layers = some[:, self.cells], table.sum(1)
            whole = layers.clamp_min(_TINY)
            others = (table - self._core_table(core)).clamp_min(0.0) / whole[:, None]
            parts.append((core / whole[:, self._layer], others, layers))
        core, others, layers = (torch.cat(part) for part in zip(*parts, strict=True))
        return GridShowers(core, others, layers, torch.ones_like(others), encoded, energy)

    def join(self, cells: Tensor, showers: GridShowers) -> Tensor:
        """Return cells (B, n_cells), MeV: those of before (B, n_cells) changed as the showers are."""
        core = showers.core * showers.layers[:, self._layer]
        return (cells * showers.factors[:, self.ring].flatten(1)).index_copy(1, self.cells, core)

    def shares(self, showers: GridShowers) -> Tensor:
        """Return the shares (B, rings, layers) of rings in their layers, core cells included."""
        return self._core_table(showers.core) + showers.others

    def changed(self, showers: GridShowers, core: Tensor, factors: Tensor | None = None) -> GridShowers:
        """Return showers with new core shares (B, n_core) and factors (B, rings, layers) on the others; layers keep their energy."""
        others = showers.others if factors is None else showers.others * factors
        sums = (self._core_table(core) + others).sum(1)
        scale = torch.where(showers.layers > 0, 1.0 / sums.clamp_min(_TINY), torch.ones_like(sums))
        factors = scale[:, None] if factors is None else factors * scale[:, None]
        return showers._replace(
            core=core * scale[:, self._layer],
            others=others * scale[:, None],
            factors=showers.factors * factors,
        )

    def multiplied(self, showers: GridShowers, factors: Tensor) -> GridShowers:
        """Return showers with all energies multiplied by factors (B, rings, layers)."""
        layers = showers.layers * (self.shares(showers) * factors).sum(1)
        at_core = factors[:, self.ring[self.cells // self.layers], self._layer]
        new = self.changed(showers, showers.core * at_core, factors)
        return new._replace(layers=layers, factors=showers.factors * factors)

    def orbit_means(self, core: Tensor) -> Tensor:
        """Return the means over orbits (N, orbits) of numbers of core cells (N, n_core)."""
        sums = core.new_zeros(len(core), self.orbits).index_add_(1, self.orbit, core)
        return sums / torch.bincount(self.orbit, minlength=self.orbits)

    def of_shower(self, showers: GridShowers) -> Tensor:
        """Return the core cells' shares (B, n_core) of the shower's energy."""
        parts = showers.layers / showers.layers.sum(1, keepdim=True).clamp_min(_TINY)
        return showers.core * parts[:, self._layer]

    @property
    def _layer(self) -> Tensor:
        return self.cells % self.layers

    def _core_table(self, core: Tensor) -> Tensor:
        """Return numbers of core cells (B, n_core) summed by ring and layer (B, rings, layers)."""
        where = self.ring[self.cells // self.layers] * self.layers + self._layer
        table = core.new_zeros(len(core), self.rings * self.layers).index_add_(1, where, core)
        return table.view(-1, self.rings, self.layers)
