r"""Calibration of showers on a grid: mean shape, widths and correlations of energies, as the training showers have them.

Showers are seen as the energies of core cells, those that are filled in a fifth of the training showers or more, of all other cells
in rings around the beam, and of layers (:mod:`~caloforge.models.calibration.grid_parts`). Three steps, which together keep the visible energy:

1. powers of the core cells' shares of their layer, which set their widths (:class:`CorePowers`);
2. energies of layers and rings get means, widths and correlations (:class:`ShapeMap`);
3. gains of the core cells, and one for the other cells of each ring of a layer, which set their means (:class:`CoreGains`).

They are fitted in turn, each to what the others leave. There are few constants: for 25 x 25 x 25 cells about 2,500 for 353
orbits of core cells, 350 for the others and 1,700 for 32 energies, all smooth in the conditions. Where the angle is a condition
showers are not round about the beam: there are then no rings, and hardly any cell is filled in many showers, so that mostly the
layers are calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.models.calibration.base import Calibration, Sample, Step
from caloforge.models.calibration.grid_parts import GridParts, GridShowers, cell_orbits
from caloforge.models.calibration.moments import ConditionalMoments, Gains, Polynomial, fit_gains
from caloforge.models.nn.conditions import BeamSymmetry

__all__ = ["CoreGains", "CorePowers", "GridCalibration", "ShapeMap"]

_TINY = 1e-12


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
    transport between normal distributions). With one ring the layers alone are changed. Roots have no
    long tails where parts fluctuate as much as those of a few GeV do, unlike
    logarithms. A shower is then multiplied by a factor for each layer and one for each ring, found in turn and bounded. Its sum stays.
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
            values = self._roots(self._table(showers))
            moments.fit(showers.encoded, values)
            z = moments(values, showers.encoded).clamp(-_REACH, _REACH).double()
            covariance = z.T.cov().reshape(len(self.matrix), -1)
            covariances.append(covariance + floor * torch.eye(len(covariance)).to(covariance))
        truth, ours = covariances
        root, back = _power(ours, 0.5), _power(ours, -0.5)
        self.matrix.copy_(back @ _power(root @ truth @ root, 0.5) @ back)

    def forward(self, showers: GridShowers) -> GridShowers:
        """Return showers with changed energies of layers and rings."""
        return self.parts.multiplied(showers, self.factors(self._table(showers), showers.encoded))

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

    def _table(self, showers: GridShowers) -> Tensor:
        return self.parts.shares(showers) * showers.layers[:, None]

    @staticmethod
    def _roots(table: Tensor) -> Tensor:
        """Return v (B, size)."""
        layers, rings = table.sum(1), table.sum(2)
        sums = torch.cat([layers, rings], 1) if table.shape[1] > 1 else layers
        return (sums / table.sum((1, 2))[:, None].clamp_min(_NOTHING)).clamp_min(0.0).sqrt()


class GridCalibration(Calibration):
    """Powers, map and gains; cells below a threshold, MeV, are emptied in the end. All conditions are continuous."""

    rounds = 5

    def __init__(
        self, detector: Detector, width: int, angled: bool, symmetry: BeamSymmetry, threshold: float = 0.0
    ) -> None:
        parts = GridParts(detector, not angled)
        super().__init__(CorePowers(parts, width), ShapeMap(parts, width), CoreGains(parts, width))
        self.parts = parts
        self.shape, self.angled, self.threshold = detector.shape, angled, threshold
        self._symmetry = (symmetry,)  # in a tuple: it is the model's submodule, not this one's

    def begin(self, sample: Sample) -> GridShowers:
        """Return the parts of showers."""
        return self.parts.split(sample.cells, sample.encoded, sample.energy)

    def end(self, sample: Sample, showers: GridShowers) -> Tensor:
        """Return cells (B, n_cells), MeV, of the sums of before."""
        changed = self.parts.join(sample.cells, showers)
        changed = changed * _kept_sum(sample.cells.sum(1), changed.sum(1))[:, None]
        return torch.where(changed < self.threshold, torch.zeros_like(changed), changed)

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
