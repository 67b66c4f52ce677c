r"""Calibration of showers on a grid: mean shape, widths and correlations of energies, as the training showers have them.

Showers are seen as the energies of core cells, those that are filled in a fifth of the training showers or more, of all other cells
in rings around the beam, and of layers (:class:`GridParts`). Three steps, which together keep the visible energy:

1. powers of the core cells' shares of their layer, which set their widths (:class:`CorePowers`);
2. energies of layers and rings get means, widths and correlations (:class:`ShapeMap`);
3. gains of the core cells, and one for the other cells of each ring of a layer, which set their means (:class:`CoreGains`).

They are fitted in turn, each to what the others leave. There are few constants: for 25 x 25 x 25 cells about 2,500 for 353
orbits of core cells, 350 for the others and 1,700 for 32 energies, all smooth in the conditions. Where the angle is a condition
showers are not round about the beam: there are then no rings, and hardly any cell is filled in many showers, so that mostly the
layers are calibrated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.geometry import Detector
from caloforge.models.base import in_chunks
from caloforge.models.calibration.base import Calibration, Sample, Step
from caloforge.models.calibration.moments import ConditionalMoments, Gains, fit_gains
from caloforge.models.calibration.regression import Polynomial
from caloforge.models.calibration.spectrum import SpectrumMap
from caloforge.models.nn.conditions import BeamSymmetry

__all__ = ["CoreGains", "CorePowers", "GridCalibration", "GridParts", "ShapeMap", "cell_orbits"]

_TINY = 1e-12
_EDGES = (0.5, 1.2, 1.6, 2.5, 3.7, 6.1)  # distances from the beam between rings, in cells
_FILLED = 0.2  # least part of the training showers in which a core cell is filled
_CHUNK = 512


def cell_orbits(shape: tuple[int, ...], allowed: Tensor) -> Tensor:
    """Return the orbit of each cell (n_cells,): the same for cells that mirror x, mirror y and swap, as ``allowed`` (3,), exchange."""
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

    def split(self, cells: Tensor, encoded: Tensor, energy: Tensor) -> GridShowers:
        """Return cells (B, n_cells), MeV, by their parts."""
        parts = []
        for (some,) in in_chunks(_CHUNK, cells):
            table = self.member @ some.view(some.shape[0], -1, self.layers)  # (B, rings, layers)
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

    def table(self, showers: GridShowers) -> Tensor:
        """Return the energies (B, rings, layers), MeV, of rings in layers."""
        return self.shares(showers) * showers.layers[:, None]

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
        table = core.new_zeros(core.shape[0], self.rings * self.layers).index_add_(1, where, core)
        return table.view(-1, self.rings, self.layers)


class _CoreStep(Step):
    """Base of the steps that know the parts."""

    def __init__(self, parts: GridParts) -> None:
        super().__init__()
        self._parts = (parts,)  # in a tuple: it is the calibration's submodule, not this one's

    @property
    def parts(self) -> GridParts:
        """The parts of showers."""
        return self._parts[0]


_WIDE = 1.5
"""Largest power, and the inverse of the smallest: others would be decided by a few cells of much energy."""
_FAR = 5.0  # largest logarithm of p over its mean that a power acts on
_LEAST = 1e-30


class CorePowers(_CoreStep):
    r"""Powers of core cells' shares p of their layer, :math:`p \to p \, (p / \bar p(c))^{\gamma(c) - 1}`.

    They narrow or widen a cell's distribution about the training showers' mean share. :math:`\ln \gamma` is linear in the conditions and
    follows from the squared deviations of the cells' shares of the shower from their means, of training and of generated showers, as
    gains do from shares. Showers count with their energy. Empty cells stay empty.
    """

    typical: Tensor  # (features, orbits) of the logarithms of the mean shares

    def __init__(self, parts: GridParts, width: int) -> None:
        super().__init__(parts)
        self.powers = Gains(width, 0, most=_WIDE)
        self.terms = Polynomial(width, width, 2, cross=False)
        self.register_buffer("typical", torch.zeros(self.terms.size, 0))

    def fit(self, reference: GridShowers, generated: GridShowers, turn: int) -> None:
        """Set the mean shares, and all powers to 1, in the first round."""
        if turn == 0:
            self.terms.fit(reference.encoded)
            phi = self.terms(reference.encoded).double()
            self.typical = _log_mean(self.parts.orbit_means(reference.core), phi).to(self.typical)
            self.powers.weights = self.typical.new_zeros(self.powers.terms.size, self.parts.orbits)

    def refine(self, reference: GridShowers, finished: GridShowers, turn: int) -> None:
        """Change the powers by half of what the widths lack, except in the first round and the last."""
        if not 0 < turn < GridCalibration.rounds - 1:
            return
        phi = self.terms(reference.encoded).double()
        own = self.parts.of_shower(reference)
        mean = (phi @ _log_mean(self.parts.orbit_means(own), phi)).exp().to(own)
        weight = reference.energy / reference.energy.mean()

        def squares(shares: Tensor, copies: int) -> Tensor:
            apart = shares - mean.repeat(copies, 1)[:, self.parts.orbit]
            return _average(self.parts.orbit_means(apart.square()), len(mean)).double() * weight[:, None]

        wide, found = squares(own, 1), squares(self.parts.of_shower(finished), len(finished.core) // len(own))
        self.powers.terms.fit(reference.encoded)
        change = fit_gains(wide, found, self.powers.terms(reference.encoded).double())
        self.powers.weights += 0.5 * change.to(self.powers.weights)

    def forward(self, showers: GridShowers) -> GridShowers:
        """Return showers with changed core cells; layers keep their energy."""
        orbit = self.parts.orbit
        typical = (self.terms(showers.encoded) @ self.typical)[:, orbit]
        away = (showers.core.clamp_min(_LEAST).log() - typical).clamp(-_FAR, _FAR)
        powers = self.powers(showers.encoded)[:, orbit]
        return self.parts.changed(showers, showers.core * ((powers - 1.0) * away).exp())


class CoreGains(_CoreStep):
    """Gains of core cells, one for each orbit, and of the other cells of each ring and layer; layers keep their energy."""

    def __init__(self, parts: GridParts, width: int) -> None:
        super().__init__(parts)
        self.core, self.others = Gains(width, 0), Gains(width, parts.rings * parts.layers)

    def fit(self, reference: GridShowers, generated: GridShowers, turn: int) -> None:
        """Set all gains to 1 in the first round."""
        if turn == 0:
            self.core.weights = self.core.weights.new_zeros(self.core.terms.size, self.parts.orbits)
            self.others.weights.zero_()

    def refine(self, reference: GridShowers, finished: GridShowers, turn: int) -> None:
        """Fit the gains to the shares of training showers."""
        n = len(reference.core)
        weight = (reference.energy / reference.energy.mean())[:, None]
        core = [self.parts.orbit_means(showers.core) for showers in (reference, finished)]
        others = [showers.others.flatten(1) for showers in (reference, finished)]
        for gains, (true, made) in ((self.core, core), (self.others, others)):
            gains.fit(true * weight, _average(made, n) * weight, reference.encoded)

    def forward(self, showers: GridShowers) -> GridShowers:
        """Return showers with changed shares of layers."""
        core = showers.core * self.core(showers.encoded)[:, self.parts.orbit]
        return self.parts.changed(showers, core, self.others(showers.encoded).view_as(showers.others))


_GENERATED, _REFERENCE = 6, 3
"""Degrees of the moments: generated showers are many, and what remains of their trends is widened with their deviations;
training showers are few, and change smoothly."""
_REACH = 8.0  # most standard deviations: a number of rare late showers is far out, and belongs to its width
_MOST = 2.0  # largest factor in one turn
_TURNS = 3
_FLOOR = 0.01  # least variance of generated showers along any direction, in units of that of one number
_NOTHING = 1e-9


class ShapeMap(_CoreStep):
    r"""Give energies of layers and of rings around the beam the means, widths and correlations of the training showers.

    With the roots :math:`v = \sqrt f` of the parts f of a shower in its layers and in its rings, standardised with mean and width under the
    conditions, z for generated and t for training showers,

    .. math:: z \to M z, \qquad M = G^{-1/2} (G^{1/2} T G^{1/2})^{1/2} G^{-1/2},

    G and T the covariances of z and t: of all linear maps that give z the covariance T the one that moves showers least (the optimal
    transport between normal distributions). With one ring the layers alone are changed. Roots, unlike logarithms, have no long
    tails where parts fluctuate as much as those of a few GeV do. A shower is then multiplied by a factor for each layer and one for
    each ring, found in turn and bounded. Its sum stays.
    """

    matrix: Tensor

    def __init__(self, parts: GridParts, width: int) -> None:
        super().__init__(parts)
        size = parts.layers + (parts.rings if parts.rings > 1 else 0)
        self.generated = ConditionalMoments(width, width, size, _GENERATED)
        self.reference = ConditionalMoments(width, width, size, _REFERENCE)
        self.register_buffer("matrix", torch.eye(size))

    def fit(self, reference: GridShowers, generated: GridShowers, turn: int) -> None:
        """Set moments and map."""
        covariances = []
        for moments, showers, floor in (
            (self.reference, reference, 0.0),
            (self.generated, generated, _FLOOR),
        ):
            values = self._roots(self.parts.table(showers))
            moments.fit(showers.encoded, values)
            z = moments(values, showers.encoded).clamp(-_REACH, _REACH).double()
            covariance = z.T.cov().reshape(len(self.matrix), -1)
            covariances.append(covariance + floor * torch.eye(len(covariance)).to(covariance))
        truth, ours = covariances
        root, back = _power(ours, 0.5), _power(ours, -0.5)
        self.matrix.copy_(back @ _power(root @ truth @ root, 0.5) @ back)

    def forward(self, showers: GridShowers) -> GridShowers:
        """Return showers with changed energies of layers and rings."""
        return self.parts.multiplied(showers, self.factors(self.parts.table(showers), showers.encoded))

    def factors(self, table: Tensor, encoded: Tensor) -> Tensor:
        """Return the factors (B, rings, layers) of energies (B, rings, layers), MeV, under encoded conditions (B, width)."""
        z = self.generated(self._roots(table), encoded).clamp(-_REACH, _REACH)
        parts = self.reference.inverse(z @ self.matrix.T, encoded).clamp(0.0, 1.0).square()
        total = table.sum((1, 2), keepdim=True)
        n = table.shape[2]
        wanted = [parts[:, n:, None], parts[:, None, :n]] if table.shape[1] > 1 else [parts[:, None]]
        wanted = [part / part.sum((1, 2), keepdim=True).clamp_min(_NOTHING) * total for part in wanted]
        factors = torch.ones_like(table)
        for _ in range(_TURNS if len(wanted) > 1 else 1):
            for energies in wanted:
                along = 2 if energies.shape[2] == 1 else 1
                factors = factors * _ratio(energies, (table * factors).sum(along, keepdim=True))
        return factors * _ratio(total, (table * factors).sum((1, 2), keepdim=True))

    @staticmethod
    def _roots(table: Tensor) -> Tensor:
        """Return v (B, size)."""
        layers, rings = table.sum(1), table.sum(2)
        sums = torch.cat([layers, rings], 1) if table.shape[1] > 1 else layers
        return (sums / table.sum((1, 2))[:, None].clamp_min(_NOTHING)).clamp_min(0.0).sqrt()


class GridCalibration(Calibration):
    """Powers, map and gains, then the spectrum of the cells. All conditions are continuous."""

    rounds = 5

    def __init__(self, detector: Detector, width: int, angled: bool, symmetry: BeamSymmetry) -> None:
        parts = GridParts(detector, not angled)
        steps = CorePowers(parts, width), ShapeMap(parts, width), CoreGains(parts, width)
        super().__init__(*steps, last=SpectrumMap(detector))
        self.parts = parts
        self.shape, self.angled = detector.shape, angled
        self._symmetry = (symmetry,)  # in a tuple: it is the model's submodule, not this one's

    def begin(self, sample: Sample) -> GridShowers:
        """Return the parts of showers."""
        return self.parts.split(sample.cells, sample.encoded, sample.energy)

    def end(self, sample: Sample, showers: GridShowers) -> Tensor:
        """Return cells (B, n_cells), MeV, of the sums of before."""
        changed = self.parts.join(sample.cells, showers)
        return changed * _kept_sum(sample.cells.sum(1), changed.sum(1))[:, None]

    @torch.no_grad()
    def fit(self, reference: Sample, generated: Sample) -> None:
        """Choose the core cells and set all constants, see ``Calibration``."""
        allowed = self._symmetry[0].allowed
        if self.angled:
            allowed = allowed * allowed.new_tensor([1.0, 0.0, 0.0])  # the others change the angle
        self.parts.choose(reference.cells, cell_orbits(self.shape, allowed))
        super().fit(reference, generated)


def _kept_sum(before: Tensor, after: Tensor) -> Tensor:
    return torch.where(after > _NOTHING, before / after.clamp_min(_NOTHING), torch.ones_like(after))


def _ratio(wanted: Tensor, there: Tensor) -> Tensor:
    return _kept_sum(wanted.expand_as(there), there).clamp(1.0 / _MOST, _MOST)


def _power(matrix: Tensor, power: float) -> Tensor:
    """Return a power of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    result: Tensor = (vectors * values.clamp_min(1e-6) ** power) @ vectors.T
    return result


def _log_mean(shares: Tensor, phi: Tensor) -> Tensor:
    """Return coefficients (F, k) of the logarithms of the means of shares (N, k), for features (N, F)."""
    mean = shares.double().mean(0).clamp_min(_TINY)
    weights = fit_gains(shares.double(), mean.expand(len(shares), -1), phi, shrink=False)
    weights[0] += mean.log()
    return weights


def _average(values: Tensor, n: int) -> Tensor:
    """Return the mean (n, k) of values (K n, k) over the K copies of the same conditions."""
    return values.view(-1, n, values.shape[1]).mean(0)
