r"""Showers of a trained generator on a grid given the mean shape and the widths that the training showers have.

After training, showers are generated under the conditions of the training showers, up to four for each, and compared with them.
Then each generated shower is changed in three steps, which together keep its visible energy:

1. within a layer the core cells get powers, which set their widths (:class:`~caloforge.models.calibration.core_cells.CoreCells`);
2. energies of layers and of rings around the beam get means, widths and correlations
   (:class:`~caloforge.models.calibration.covariance.ShapeMap`);
3. within a layer core cells get gains, which set their means, other cells a gain for their ring.

They are fitted in turn, each to what the others leave.

It is fitted to training showers alone, and holds few numbers: for 25 x 25 x 25 cells about 2,500 for 353 orbits of core cells, 350 for
the others and 1,700 for 32 energies, all smooth in the conditions. Where the angle is a condition showers are not round about the
beam: there are then no rings, hardly any cell is filled in many showers, and what is left is the layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.calibration.core_cells import CoreCells
from caloforge.models.calibration.covariance import ShapeMap
from caloforge.models.calibration.gains import GridRings
from caloforge.models.stage import TrainingData
from caloforge.random import normals

__all__ = ["GridCalibration", "cell_orbits"]

_COPIES = 4
_MOST_CELLS = 150_000_000
"""Generated cells that are kept in memory."""
_CHUNK = 256
_TINY = 1e-9


def cell_orbits(shape: tuple[int, ...], allowed: Tensor) -> Tensor:
    """Return an orbit for each cell (n_cells,): cells that the symmetries turn into one another have the same.

    Arguments:
        shape: Of the grid.
        allowed: (3,) 1 or 0: mirror x, mirror y, swap.
    """
    images = [torch.arange(int(np.prod(shape))).view(shape)]
    mirror_x, mirror_y, swap = (allowed > 0.5).tolist()
    images += [image.transpose(0, 1) for image in images if swap]
    images += [image.flip(0) for image in images if mirror_x]
    images += [image.flip(1) for image in images if mirror_y]
    least = torch.stack(images).amin(0).flatten()
    orbits: Tensor = torch.unique(least, return_inverse=True)[1]
    return orbits.to(allowed.device)


class GridCalibration(nn.Module):
    """Change generated showers; of no use before the fit.

    Arguments:
        detector: A grid.
        width: Encoded conditions, all continuous.
        angled: Whether the angle is one of them.
    """

    known: Tensor

    def __init__(self, detector: Detector, width: int, angled: bool) -> None:
        super().__init__()
        self.shape, self.angled = detector.shape, angled
        self.rings = GridRings(detector, not angled)
        self.map = ShapeMap(self.rings.rings, self.rings.layers, width)
        self.core = CoreCells(self.rings, width)
        self.register_buffer("known", torch.zeros(1))

    @property
    def fitted(self) -> bool:
        """Whether it follows from showers."""
        return bool(self.known > 0)

    def forward(self, cells: Tensor, encoded: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, of the same sums, of generated ones under encoded conditions (B, width)."""
        if not self.fitted:
            return cells
        changed = self.core.widened(cells, encoded)
        changed = changed * self.rings.spread(self.map(self.rings.table(changed), encoded))
        changed = self.core.gained(changed, encoded)
        total = changed.sum(1)
        ratio = torch.where(total > _TINY, cells.sum(1) / total.clamp_min(_TINY), torch.ones_like(total))
        return changed * ratio[:, None]

    @torch.no_grad()
    def fit(self, true: Tensor, made: Tensor, encoded: Tensor, energy: Tensor, allowed: Tensor) -> None:
        """Set all constants.

        Arguments:
            true: Cells of training showers (N, n_cells), MeV.
            made: Cells of generated ones (K N, n_cells), MeV, K times the same conditions in the same order.
            encoded: Encoded conditions (N, width).
            energy: Incident energies (N,), MeV.
            allowed: The symmetries that hold, see :func:`cell_orbits`.
        """
        many = encoded.repeat(len(made) // len(true), 1)
        table = torch.cat([self.rings.table(some) for some in torch.split(true, _CHUNK)])
        if self.angled:
            allowed = allowed * allowed.new_tensor([1.0, 0.0, 0.0])  # the others change the angle

        def mapped(now: Tensor) -> Tensor:
            self.map.fit((table, encoded), (now, many))
            factors: Tensor = self.map(now, many)
            return factors

        self.core.fit((true, encoded, energy), made, cell_orbits(self.shape, allowed), mapped)
        self.known.fill_(1.0)

    @torch.no_grad()
    def fit_to(
        self,
        data: TrainingData,
        make: Callable[[Tensor, Tensor], Tensor],
        noise: int,
        encode: Callable[[Tensor], tuple[Tensor, Tensor]],
        allowed: Tensor,
    ) -> None:
        """Generate showers under the conditions of the training showers, and set all constants.

        Arguments:
            data: Training showers.
            make: The generator: noise (B, noise) and conditions (B, C) to cells (B, n_cells), MeV.
            noise: Normal numbers a shower.
            encode: From conditions to encoded ones (B, width) and incident energies (B,).
            allowed: The symmetries that hold.
        """
        batches = list(data.batches(_CHUNK))
        cells, conditions = (torch.cat([getattr(b, k) for b in batches]) for k in ("cells", "conditions"))
        copies = max(1, min(_COPIES, _MOST_CELLS // max(1, cells.numel())))
        many = conditions.repeat(copies, 1)
        made = cells.new_empty(len(many), cells.shape[1])
        for first in range(0, len(many), _CHUNK):
            rows = many[first : first + _CHUNK]
            numbers = normals(0, "calibration", first, len(rows), noise).astype(np.float32)
            made[first : first + _CHUNK] = make(torch.from_numpy(numbers).to(rows.device), rows)
        self.fit(cells, made, *encode(conditions), allowed)
