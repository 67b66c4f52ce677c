r"""One flow for several detectors of one grid: constants of each, and those of a detector that it has never seen.

The networks see what each layer is to a shower (:mod:`~caloforge.geometry.terms`). What a flow fits to the showers of a detector before a
network sees them is either

- common to all detectors: the scale of the conditions, the quantiles of the standardised summary, and the table of cell values, which is fitted
  to the energies in units of that of a minimum-ionising particle; or
- each detector's: trends of the summary (:class:`~caloforge.models.calibration.moments.ConditionalMoments`), the averages of the cells, and after the
  training the calibration (:mod:`~caloforge.models.flow.calibrated`) without its last map.

Those of a detector that was not trained on follow from the others' by kriging in the terms of the layers: each coefficient of a row of the
summary, each average of a cell at its place in the layer, and each number of a layer's calibration is a function of the row's terms u,

.. math:: f(u) = a + b \cdot u + g(u), \qquad \langle g(u) g(u') \rangle = \exp(-|u - u'|^2 / 2 \lambda^2) ,

known at the rows of all detectors but for noise of variance :math:`\epsilon`. Length :math:`\lambda` and noise of each number are those with which it
follows best, in each detector, from the others'. Trends of energies are those of what the flow's
showers have more than a rule of thumb says (:func:`~caloforge.geometry.terms.mean_profile`).

References:
    C. Rasmussen, C. Williams, Gaussian Processes for Machine Learning, MIT Press 2006, sections 2.2 and 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector
from caloforge.geometry.terms import TERMS, layer_terms, mean_profile
from caloforge.models.flow.path import EMPTY
from caloforge.showers import Showers
from caloforge.units import plain_number

__all__ = ["DetectorFamily", "check_family", "kriged"]

_SEED = 21
_ENOUGH = 40  # showers by which a layer's trend is known
_LEAST_EACH = 100  # showers of each detector that a calibration takes at least
_MOST = 5_000  # showers of each detector that constants are fitted to
_LENGTHS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
_NOISES = (1e-4, 1e-3, 1e-2, 1e-1)
_ENERGIES = 24  # at which expected trends are compared
_LINEAR = 10.0  # variance of a and b
_FAR = 4.0  # largest square of an error, in squares of the numbers' widths
_BEYOND = 0.1  # how far numbers may lie beyond those of the other detectors, in parts of their range
_OUTSIDE = 0.1  # how far a detector's terms may lie beyond those of the training without a word, in parts of their range
_SAME = 1e-5  # difference of the terms of equal detectors
_TINY = 1e-9


def check_family(detectors: Sequence[Detector]) -> None:
    """Check that one flow can serve detectors.

    Raises:
        IncompatibleError: When one is no grid of known plates, or their grids differ.
    """
    first = detectors[0]
    for one in detectors:
        layer_terms(one)
        if not one.is_grid:
            raise IncompatibleError(
                f"detector '{one.name}' is no regular grid; a model of several detectors needs layers of equal cells"
            )
        if one.shape != first.shape:
            raise IncompatibleError(
                f"detector '{one.name}' has {_shape(one)} cells, '{first.name}' {_shape(first)}; one model serves detectors of one grid"
            )
        if one.model_conditions != first.model_conditions:
            raise IncompatibleError(
                f"detector '{one.name}' has the conditions {', '.join(one.model_conditions)}, '{first.name}' {', '.join(first.model_conditions)}"
            )


def _shape(detector: Detector) -> str:
    return " x ".join(map(str, detector.shape))


def _kernel(a: Tensor, b: Tensor, length: float) -> Tensor:
    """Return the covariances (n, m) of f at terms (n, F) and (m, F)."""
    return _LINEAR * (1.0 + a @ b.T) + torch.exp(-torch.cdist(a, b).square() / (2.0 * length**2))


def kriged(known: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """Return numbers (n, C) of a detector by those of others, see the module.

    Arguments:
        known: Terms (K, n, F) of the n rows of the K other detectors.
        values: Their numbers (K, n, C).
        wanted: Terms (n, F).
    """
    many, rows, _ = known.shape
    flat, terms = values.flatten(0, 1), known.flatten(0, 1)
    middle, scale = flat.mean(0), flat.std(0, unbiased=False).clamp_min(_TINY)
    unit = (flat - middle) / scale
    eye = torch.eye(len(terms), dtype=terms.dtype, device=terms.device)
    best, found = torch.full_like(middle, torch.inf), torch.zeros(rows, values.shape[2]).to(values)
    for length, noise in product(_LENGTHS, _NOISES):
        inverse = torch.linalg.inv(_kernel(terms, terms, length) + noise * eye)
        solved = inverse @ unit
        blocks = inverse.view(many, rows, many, rows).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        missed = torch.linalg.solve(blocks, solved.view(many, rows, -1))  # by each detector from the others
        error = missed.square().clamp_max(_FAR).sum((0, 1))
        found = torch.where(error < best, _kernel(wanted, terms, length) @ solved, found)
        best = torch.minimum(error, best)
    low, high = unit.amin(0), unit.amax(0)
    margin = _BEYOND * (high - low)
    return torch.minimum(torch.maximum(found, low - margin), high + margin) * scale + middle


class DetectorFamily(nn.Module):
    """The detectors that a flow was trained on, none at first, and their constants."""

    terms: Tensor  # (K, rows, F)
    middle: Tensor  # (F,) mean of the layers' terms
    scale: Tensor  # (F,) their standard deviations
    trends: Tensor  # (K, 2, coefficients, rows, kinds) of means and of logarithms of widths
    counts: Tensor  # (K, rows, kinds) showers in which a number of the summary is defined
    averages: Tensor  # (K, 3, n_cells) logits, centres and logarithms of widths
    calibration: Tensor  # (K, n_layers, numbers) factors of filled cells, maps of values and gains by ring, after the training
    knots: Tensor  # (2, knots) of the cells' table: ln of the energy over that of a minimum-ionising particle, and its value

    def __init__(self, model: Any) -> None:
        super().__init__()
        detector = model.detector
        if model.config.feedback:
            raise ConfigError("feedback and detector_conditions exclude one another; set one of them")
        check_family([detector])
        own = torch.from_numpy(layer_terms(detector)).float()
        self.register_buffer("terms", own[None][:0])
        self.register_buffer("middle", own[:-1].mean(0))
        self.register_buffer(
            "scale", own[:-1].std(0).clamp_min(0.1) if len(own) > 2 else torch.ones(len(TERMS))
        )
        for name in ("trends", "counts", "averages", "calibration", "knots"):
            self.register_buffer(name, torch.zeros(0))
        self.show(model, detector)

    def __len__(self) -> int:
        return len(self.terms)

    def clear(self) -> None:
        """Forget the detectors, not the scale of the terms."""
        self.terms = self.terms[:0]
        for name in ("trends", "counts", "averages", "calibration", "knots"):
            setattr(self, name, getattr(self, name).new_zeros(0))

    @torch.no_grad()
    def calibrate(self, model: Any, data: Any, generator: torch.Generator) -> None:
        """Calibrate a flow on the showers of each of its detectors (``DetectorDatasets``), but for the last map of energies.

        The number of showers of the settings is shared by all detectors, from a hundred on.
        """
        each = max(_LEAST_EACH, model.config.calibration // len(self))
        found = []
        for number, part in data.parts:
            self.enter(model, number)
            model.calibrate(part.subset(min(each, len(part))), generator)
            found.append(self._calibrated(model))
        model.forget_spectrum()
        self.calibration = torch.stack(found)
        self.enter(model, 0)

    @staticmethod
    def _calibrated(model: Any) -> Tensor:
        """Return the calibration (n_layers, numbers) of the present detector."""
        maps, gains, rings = model.values.calibrated, model.rings.gains.weights, model.rings.rings
        of_rings = gains.view(len(gains), -1, rings).transpose(0, 1).flatten(1)
        return torch.cat([model.filled_factor[:, None], maps.x[0, 0], maps.y[0, 0], of_rings], 1)

    @staticmethod
    def _set_calibration(model: Any, table: Tensor) -> None:
        """Set the calibration (n_layers, numbers)."""
        maps, gains, rings = model.values.calibrated, model.rings.gains, model.rings.rings
        parts = [1, maps.knots, maps.knots, len(gains.weights) * rings]
        factor, x, y, of_rings = torch.split(table, parts, 1)
        model.filled_factor.copy_(factor[:, 0])
        maps.x[0, 0].copy_(x.cummax(1).values)
        maps.y[0, 0].copy_(y.cummax(1).values)
        gains.weights.copy_(torch.unflatten(of_rings, 1, (-1, rings)).transpose(0, 1).flatten(1))
        gains.terms.low.copy_(model.summary.trend.terms.low)
        gains.terms.high.copy_(model.summary.trend.terms.high)

    def fit(self, model: Any, parts: Sequence[Showers]) -> None:
        """Fit common and separate constants of a flow to the showers of each detector; it is then the first one's.

        Raises:
            IncompatibleError: When the detectors differ in their grids.
        """
        check_family([one.detector for one in parts])
        model.symmetry.allow(np.concatenate([np.asarray(one.incident_theta) for one in parts]))
        matrix = torch.cat([model.condition_matrix(one) for one in parts])
        model.condition_low.copy_(matrix.amin(0))
        model.condition_high.copy_(matrix.amax(0))
        generator = torch.Generator().manual_seed(_SEED)
        parts = [one.take(np.arange(min(len(one), _MOST))) for one in parts]
        matrices = [model.condition_matrix(one) for one in parts]
        model.encoder.fit(torch.cat(matrices))
        summary, values, averages = model.summary, model.values, model.averages
        cells = [model.clean(torch.from_numpy(np.array(one.cells))) for one in parts]
        encoded = [model.encoder(matrix) for matrix in matrices]
        energies = [torch.from_numpy(np.asarray(one.incident_energy)).float() for one in parts]
        trends, counts, rest, fewest = [], [], [], []
        for part in zip(cells, energies, encoded, strict=True):
            found, known, least = summary.fit_trend(*part, generator)
            rest.append((found, known))
            counts.append(known.sum(0).view(summary.rows, summary.kinds).float())
            fewest.append(least)
            table = torch.stack([summary.trend.mean, summary.trend.spread])
            trends.append(table.view(2, -1, summary.rows, summary.kinds))
        summary.trend.terms.fit(torch.cat(encoded))
        summary.fewest.copy_(torch.stack(fewest).amin(0))
        summary.fit_tables(rest)
        self.terms = torch.stack([torch.from_numpy(layer_terms(one.detector)).float() for one in parts])
        mips = self.terms[:, -1, -1].exp()
        values.fit_energies(
            torch.cat([x[x > model.config.cut] / mip for x, mip in zip(cells, mips, strict=True)]), generator
        )
        self.knots = torch.stack([values.table.x[0, 0, 0], values.table.y[0, 0, 0]])
        averaged = []
        for x, mip in zip(cells, mips, strict=True):
            self._set_table(model, mip)
            value = values(x)
            averages.fit(value, value > EMPTY, model.core.cells)
            averaged.append(torch.stack([averages.logit, averages.centre, averages.spread.log()]))
        self.trends, self.counts, self.averages = map(torch.stack, (trends, counts, averaged))
        layers = self.terms[:, :-1].flatten(0, 1)
        self.middle.copy_(layers.mean(0))
        self.scale.copy_(layers.std(0).clamp_min(1e-3))
        self.enter(model, 0)

    def outside(self, detector: Detector) -> list[str]:
        """Return in which terms a detector lies outside those that were trained on, by more than a tenth of their range."""
        terms, lines = torch.from_numpy(layer_terms(detector)).to(self.terms), []
        for k, name in enumerate(TERMS):
            low, high = float(self.terms[..., k].min()), float(self.terms[..., k].max())
            least, most = float(terms[:, k].min()), float(terms[:, k].max())
            if least < low - _OUTSIDE * (high - low) - _SAME or most > high + _OUTSIDE * (high - low) + _SAME:
                ends = [least, most, low, high] if not k else np.exp([least, most, low, high])
                mine, trained = (" to ".join(map(plain_number, pair)) for pair in (ends[:2], ends[2:]))
                lines.append(
                    f"detector '{detector.name}' is outside those of the training in {name}: {mine}, trained {trained}; compare with simulated showers"
                )
        return lines

    def standardised(self, terms: Tensor) -> Tensor:
        """Return terms (..., F) in units of those of all layers."""
        return (terms - self.middle) / self.scale

    def show(self, model: Any, detector: Detector) -> None:
        """Let the networks of a flow see the terms of a detector."""
        terms = torch.from_numpy(layer_terms(detector)).to(self.terms)
        for network in (model.summary_net, model.cell_net):
            network.terms.table.copy_(self.standardised(terms))

    def enter(self, model: Any, number: int) -> None:
        """Make a flow that of one of the detectors."""
        table = self.standardised(self.terms[number])
        for network in (model.summary_net, model.cell_net):
            network.terms.table.copy_(table)
        self._set(model, self.trends[number], self.averages[number], self.terms[number, -1, -1].exp())
        if self.calibration.numel():
            self._set_calibration(model, self.calibration[number])

    def become(self, model: Any, detector: Detector) -> None:
        """Make a flow that of a detector: constants of the training where it was trained on, else those that follow from the others'."""
        terms = torch.from_numpy(layer_terms(detector)).to(self.terms)
        away = (self.terms - terms).abs().amax((1, 2))
        if float(away.min()) < _SAME:
            self.enter(model, int(away.argmin()))
            return
        self.show(model, detector)
        known, wanted = self.standardised(self.terms).double(), self.standardised(terms).double()
        trends, averages = self._trusted(), self.averages.double()
        trends[:, 0, :, :, 0] -= self._expected(model, self.terms)
        many, nx, ny, layers = len(self), *detector.shape
        of_rows = trends.permute(0, 3, 1, 2, 4)  # (K, rows, 2, coefficients, kinds)
        of_layers = averages.view(many, 3, nx * ny, layers).permute(0, 3, 1, 2)
        sizes = [of_rows[0, 0].numel(), 3 * nx * ny, self.calibration.numel() // (many * layers)]
        calibration = self.calibration.double().view(many, layers, -1)
        numbers = torch.cat([of_rows[:, :-1].flatten(2), of_layers.flatten(2), calibration], 2)
        found = kriged(known[:, :-1], numbers, wanted[:-1])
        whole = kriged(known[:, -1:], of_rows[:, -1:].flatten(2), wanted[-1:])
        layered, average, calibration = torch.split(found, sizes, 1)
        rows = torch.cat([layered, whole])
        trend = rows.view(-1, *of_rows.shape[2:]).permute(1, 2, 0, 3)
        trend[0, :, :, 0] += self._expected(model, terms[None])[0]
        average = average.reshape(layers, 3, nx * ny).permute(1, 2, 0).flatten(1)
        self._set(model, trend, average, terms[-1, -1].exp())
        if calibration.numel():
            self._set_calibration(model, calibration.to(self.calibration))

    def _trusted(self) -> Tensor:
        """Return the trends, those of layers in which few showers have a number taken from the nearest layer in which enough have."""
        n = self.trends.shape[3] - 1
        place = torch.arange(n, device=self.trends.device)
        away = (place[:, None] - place).abs()[None, :, :, None]
        few = (self.counts[:, None, :-1] < _ENOUGH) * (2 * n)
        nearest = (away + few).argmin(2)[:, None, None].expand(-1, *self.trends.shape[1:3], -1, -1)
        trends = self.trends.double().clone()
        trends[:, :, :, :-1] = trends[:, :, :, :-1].gather(3, nearest)
        return trends

    @staticmethod
    def _expected(model: Any, terms: Tensor) -> Tensor:
        """Return the coefficients (K, coefficients, rows) of the trends of energies that a mean profile has, for terms (K, rows, F)."""
        low, high = model.condition_low, model.condition_high
        conditions = (0.5 * (low + high)).repeat(_ENERGIES, 1)
        column = model.columns["incident_energy"].start
        conditions[:, column] = (
            torch.logspace(0.0, 1.0, _ENERGIES).to(low) ** torch.log10(high / low)[column] * low[column]
        )
        phi = model.summary.trend.terms(model.encoder(conditions)).double()
        energy = conditions[:, column].double().cpu().numpy()
        profiles = np.stack([mean_profile(one, energy) for one in terms.double().cpu().numpy()])
        found: Tensor = torch.linalg.pinv(phi, rtol=1e-6) @ torch.from_numpy(profiles).to(phi)
        return found

    def _set(self, model: Any, trends: Tensor, averages: Tensor, mip: Tensor) -> None:
        """Set the constants of a detector."""
        trend = model.summary.trend
        trend.mean.copy_(trends[0].flatten(1))
        trend.spread.copy_(trends[1].flatten(1))
        logit, centre, spread = averages
        model.averages.logit.copy_(logit)
        model.averages.centre.copy_(centre)
        model.averages.spread.copy_(spread.exp())
        self._set_table(model, mip)

    def _set_table(self, model: Any, mip: Tensor) -> None:
        """Set the table of cell values of a detector whose minimum-ionising particles leave ``mip``, MeV, in a layer."""
        model.values.table.set_column(0, self.knots[0] + mip.log(), self.knots[1])
