r"""Cells of a layer given the mean shares of the training showers, and the core's cells their widths too.

Core cells are filled in a fifth of the training showers or more. With the share p of a cell in its layer,

.. math:: p \to p \, e^{a \cdot \phi(c)} \, (p / \bar p(c))^{\gamma - 1}

and shares of a layer scaled to unit sum again: a gain, with features of first order of the conditions
(:class:`~caloforge.models.calibration.gains.ShareGains`), and a power, which narrows or widens the cell's distribution about
the training showers' mean share :math:`\bar p(c)`. Cells that a symmetry turns into one another share both, and are
fitted together. All other cells of a ring have one gain a layer. Empty cells stay empty, and layers keep their energy.

Powers too are :math:`\exp(b \cdot \phi(c))`, within bounds: far ones would be decided by a few cells of much energy. b follows from the
squared deviations of the cells' shares of the shower from their means, of training showers and of generated ones, in the way in which a
follows from shares. In both fits showers count with their energy. Powers come first, gains last; between them the energies of layers
and rings may be changed. All are fitted in turn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from caloforge.models.calibration.gains import Features, GridRings, ShareGains, fit_gains

__all__ = ["CoreCells"]

_FILLED = 0.2
_ROUNDS = 5
_WIDE = 1.5
"""Largest power, and the inverse of the smallest."""
_FAR = 5.0
"""Largest logarithm of p over its mean that a power acts on."""
_TINY = 1e-12
_LEAST = 1e-30
_CHUNK = 512


class CoreCells(nn.Module):
    """Powers and gains of cells; neutral before the fit.

    Arguments:
        rings: The grid's cells by rings and layers.
        width: Encoded conditions.

    Attributes:
        cells: (n_core,) flat indices of the core cells.
        orbit: (n_core,) which gain and power is theirs.
        typical: (features, orbits) of the logarithms of the mean shares.
    """

    cells: Tensor
    orbit: Tensor
    typical: Tensor

    def __init__(self, rings: GridRings, width: int) -> None:
        super().__init__()
        self.rings = [rings]  # in a list: it is the calibration's part, not this one's
        self.gains, self.powers = ShareGains(width, 0, 1), ShareGains(width, 0, 1, _WIDE)
        self.others = ShareGains(width, rings.rings * rings.layers, 1)
        self.features = Features(width, 2)
        self.register_buffer("cells", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("orbit", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("typical", torch.zeros(self.features.size, 0))

    def widened(self, cells: Tensor, encoded: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, with their powers; layers hold what they held. Encoded conditions (B, width)."""
        return self._with(cells, lambda core: self._powered(core, encoded), None)

    def gained(self, cells: Tensor, encoded: Tensor) -> Tensor:
        """Return cells (B, n_cells), MeV, with their gains; layers hold what they held. Encoded conditions (B, width)."""
        return self._with(cells, lambda core: self._gained(core, encoded), self._other_gains(encoded))

    def _with(self, cells: Tensor, change: Callable[[Tensor], Tensor], gains: Tensor | None) -> Tensor:
        """Return cells of which the core's shares are changed, and the others have gains (B, rings, layers) or none."""
        rings = self.rings[0]
        layers = rings.table(cells).sum(1)
        core, rest = self._split(cells, layers)
        new = change(core)
        factors = torch.ones_like(rest) if gains is None else gains
        scale = 1.0 / self._sums(new, rest * factors).clamp_min(_TINY)
        scale = torch.where(layers > 0, scale, torch.ones_like(scale))
        found = cells * rings.spread(factors * scale[:, None])
        return found.index_copy(1, self.cells, new * (layers * scale)[:, self._core_layer])

    @torch.no_grad()
    def fit(
        self,
        true: tuple[Tensor, Tensor, Tensor],
        made: Tensor,
        orbits: Tensor,
        between: Callable[[Tensor], Tensor],
    ) -> None:
        """Choose the core cells and fit everything.

        Arguments:
            true: Cells (N, n_cells), MeV, encoded conditions (N, width) and incident energies (N,), MeV, of training showers.
            made: Cells of generated ones (K N, n_cells), MeV, K times the same conditions in the same order.
            orbits: Which orbit each cell (n_cells,) belongs to; those of one orbit have the same distribution.
            between: Which factors (K N, rings, layers) generated showers get between powers and gains, from their
                table (K N, rings, layers), MeV.
        """
        cells, encoded, energy = true
        copies = len(made) // len(cells)
        self._choose(cells, orbits)
        (core, rest, true_layers), (made_core, made_rest, layers) = (self._parts(x) for x in (cells, made))
        self.features.fit(encoded)
        many = encoded.repeat(copies, 1)
        weight = energy / energy.mean()
        wanted, outside = self._means(core), rest.flatten(1)
        phi = self.features(encoded).double()
        self.typical = _trend(wanted, phi).to(self.typical)
        own = self._of_shower(core, true_layers)
        mean = (phi @ _trend(self._means(own), phi)).exp().float()
        wide = self._squares(own, mean, weight)
        for turn in range(_ROUNDS):
            new, others = self._scaled(self._powered(made_core, many), made_rest)
            factors = between(self._table(new, others) * layers[:, None])
            now = layers * ((self._table(new, others)) * factors).sum(1)
            new, others = self._scaled(new * self._at_core(factors), others * factors)
            new, others = self._scaled(self._gained(new, many), others * self._other_gains(many))
            if 0 < turn < _ROUNDS - 1:
                own = self._of_shower(new, now)
                found = _average(self._squares(own, mean.repeat(copies, 1), weight.repeat(copies)), copies)
                self.powers.features.fit(encoded)
                first = self.powers.features(encoded).double()
                self.powers.weights += 0.5 * fit_gains(wide.double(), found.double(), first).to(
                    self.powers.weights
                )
            self.gains.fit(
                wanted * weight[:, None], _average(self._means(new), copies) * weight[:, None], encoded
            )
            self.others.fit(
                outside * weight[:, None], _average(others.flatten(1), copies) * weight[:, None], encoded
            )

    def _choose(self, true: Tensor, orbits: Tensor) -> None:
        """Find the core cells, as whole orbits, and make room for their constants."""
        filled = (true > 0).double().mean(0)
        size = int(orbits.max()) + 1
        counts = torch.bincount(orbits, minlength=size)
        mean = torch.zeros(size, dtype=filled.dtype, device=filled.device).index_add_(0, orbits, filled)
        core = (mean / counts.clamp_min(1) >= _FILLED)[orbits]
        self.cells = torch.nonzero(core)[:, 0]
        _, self.orbit = torch.unique(orbits[self.cells], return_inverse=True)
        count = int(self.orbit.max()) + 1 if len(self.orbit) else 0
        self.others.weights.zero_()
        for gains in (self.gains, self.powers):
            gains.weights = gains.weights.new_zeros(gains.features.size, count)

    @property
    def _core_layer(self) -> Tensor:
        return self.cells % self.rings[0].layers

    def _parts(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return shares of the core cells (N, n_core) and of the others by ring (N, rings, layers), and layers (N, layers), MeV."""
        parts = []
        for some in torch.split(cells, _CHUNK):
            layers = self.rings[0].table(some).sum(1)
            parts.append((*self._split(some, layers), layers))
        core, rest, sums = (torch.cat(part) for part in zip(*parts, strict=True))
        return core, rest, sums

    def _split(self, cells: Tensor, layers: Tensor) -> tuple[Tensor, Tensor]:
        rings = self.rings[0]
        whole = layers.clamp_min(_TINY)
        core = cells[:, self.cells]
        rest = rings.table(cells) - rings.table_of(core, self.cells)
        return core / whole[:, self._core_layer], (rest / whole[:, None]).clamp_min(0.0)

    def _powered(self, core: Tensor, encoded: Tensor) -> Tensor:
        """Return shares (B, n_core) to their powers, not scaled."""
        typical = (self.features(encoded) @ self.typical)[:, self.orbit]
        away = (core.clamp_min(_LEAST).log() - typical).clamp(-_FAR, _FAR)
        powers = self.powers(encoded)[:, self.orbit]
        changed: Tensor = core * ((powers - 1.0) * away).exp()
        return changed

    def _gained(self, core: Tensor, encoded: Tensor) -> Tensor:
        """Return shares (B, n_core) with their gains, not scaled."""
        gained: Tensor = core * self.gains(encoded)[:, self.orbit]
        return gained

    def _other_gains(self, encoded: Tensor) -> Tensor:
        """Return the gains (B, rings, layers) of the cells outside the core."""
        gains: Tensor = self.others(encoded).view(len(encoded), self.rings[0].rings, -1)
        return gains

    def _at_core(self, factors: Tensor) -> Tensor:
        """Return the factors (B, rings, layers) of the core cells (B, n_core)."""
        ring = self.rings[0].ring[self.cells // self.rings[0].layers]
        return factors[:, ring, self._core_layer]

    def _table(self, core: Tensor, rest: Tensor) -> Tensor:
        """Return the table (B, rings, layers) of shares of the core (B, n_core) and the others (B, rings, layers)."""
        return self.rings[0].table_of(core, self.cells) + rest

    def _sums(self, core: Tensor, rest: Tensor) -> Tensor:
        """Return the sums (B, layers) of shares."""
        return self._table(core, rest).sum(1)

    def _scaled(self, core: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares of unit sum in each layer."""
        sums = self._sums(core, rest).clamp_min(_TINY)
        return core / sums[:, self._core_layer], rest / sums[:, None]

    def _of_shower(self, core: Tensor, layers: Tensor) -> Tensor:
        """Return shares of the shower (N, n_core) of shares of layers (N, n_core), and layers' energies (N, layers), MeV."""
        parts = layers / layers.sum(1, keepdim=True).clamp_min(_TINY)
        return core * parts[:, self._core_layer]

    def _means(self, core: Tensor) -> Tensor:
        """Return the means over orbits (N, orbits) of shares (N, n_core)."""
        count = self.gains.weights.shape[1]
        sums = core.new_zeros(len(core), count).index_add_(1, self.orbit, core)
        return sums / torch.bincount(self.orbit, minlength=count)

    def _squares(self, core: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted squares (N, orbits) of the differences of shares (N, n_core) to means (N, orbits)."""
        return self._means((core - mean[:, self.orbit]).square()) * weight[:, None]


def _trend(shares: Tensor, phi: Tensor) -> Tensor:
    """Return coefficients (F, k) of the logarithms of the means of shares (N, k), for features (N, F)."""
    mean = shares.double().mean(0).clamp_min(_TINY)
    weights = fit_gains(shares.double(), mean.expand(len(shares), -1), phi, shrink=False)
    weights[0] += mean.log()
    return weights


def _average(values: Tensor, copies: int) -> Tensor:
    """Return the mean (N, k) of values (K N, k) over the copies."""
    return values.view(copies, -1, values.shape[1]).mean(0)
