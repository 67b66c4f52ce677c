"""Fitted flows of a grid and of rows, real showers as their data, and what a loop over cells says of the layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from flows import fitted, normals, showers
from numpy.typing import NDArray
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.flow.cells import LayerTargets
from caloforge.models.flow.feedback import LayerFeedback, LayerMoments
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.path import EMPTY, SpikeSlab
from caloforge.showers import Showers

RATE = 1.0 / 0.48
"""d ln e / d value of bright cells."""


@dataclass(frozen=True)
class Case:
    """An untrained fitted flow with showers: values of the flow, and what their own summary says of the layers."""

    model: FlowMatching
    cells: Tensor  # (N, n_cells), MeV
    values: Tensor  # (N, n_cells)
    encoded: Tensor
    summary: Tensor
    to: LayerMoments

    @property
    def feedback(self) -> LayerFeedback:
        assert self.model.cell_net.feedback is not None
        return self.model.cell_net.feedback

    @property
    def posterior(self) -> SpikeSlab:
        assert isinstance(self.model.cell_net.posterior, SpikeSlab)
        return self.model.cell_net.posterior

    def rows(self, n: int) -> Case:
        """The first showers."""
        to = LayerMoments(*(part[:n] for part in self.to))
        return Case(self.model, self.cells[:n], self.values[:n], self.encoded[:n], self.summary[:n], to)

    def noisy(self, time: float | Tensor, seed: int = 0) -> Tensor:
        """The values (N, n_cells) with noise at a time."""
        t = time[:, None] if isinstance(time, Tensor) else time
        return torch.lerp(normals(*self.values.shape, seed=seed), self.values, t)


def blobs(name: str, n: int) -> Showers:
    """Showers of a grid: Gaussian noise on a narrow profile, whose middle is nearly always filled."""
    detector = get_detector(name)
    rng = np.random.default_rng(0)
    energy = np.geomspace(1e4, 1e5, n)
    x, y, z = detector.cell_centres.T
    x, y, depth = x - x.mean(), y - y.mean(), z - z.min() + 1.0
    radius = np.hypot(x, y) / np.ptp(x)
    shape = depth**3 * np.exp(-depth / 20.0) * np.exp(-radius / 0.1)
    empty = np.where(radius < 0.15, 0.01, 0.5)
    cells = shape * rng.gamma(1.0, 1.0, (n, detector.n_cells)) * (rng.random((n, detector.n_cells)) > empty)
    cells *= (0.02 * energy * rng.normal(1.0, 0.05, n) / cells.sum(1))[:, None]
    return Showers(detector, np.where(cells > 0.01, cells, 0.0), energy)


@cache
def case(name: str, n: int = 40, **settings: object) -> Case:
    """Showers of rows (ATLAS) or of a grid."""
    if name == "atlas-em-barrel":
        source, model = showers(), fitted("flow-matching", core=0.8, **settings)
    else:
        source = blobs(name, 300)
        torch.manual_seed(1)
        config = FlowMatching.resolve({"preset": "small", "core": 0.8, **settings})
        model = FlowMatching(source.detector, config)
        model.fit_transforms(source)
        model.eval()
    assert len(model.core.cells) > 2
    source = source[np.linspace(0, len(source) - 1, n).astype(int)]
    cells = model.clean(torch.from_numpy(source.cells))
    conditions = model.condition_matrix(source)
    encoded, energy = model.encoder(conditions), conditions[:, 0]
    middle = torch.full((n, model.summary.rows, model.summary.kinds), 0.5)
    middle[:, :, 5:] = 0.01  # nearly no blur of the widths
    with torch.no_grad():
        summary = model.summary(cells, energy, encoded, middle)
        values = model.core(model.values(cells), summary, encoded)
        to = model.layer_moments(model.summary.decode(summary, energy, encoded), summary, encoded)
    return Case(model, cells, values, encoded, summary, to)


def of_the_cells(it: Case) -> LayerMoments:
    """What the showers' cells, not their summary, say of the layers."""
    with torch.no_grad():
        measured = it.model.summary.measure(it.cells, torch.ones(len(it.cells)))[:, :-1]
        _, filled, faint, *moments = measured.unbind(2)
        sums = it.model.summary.view(it.cells).sum(2)
        targets = LayerTargets(sums, filled - faint, faint, *moments)
        return it.model.layer_moments(targets, it.summary, it.encoded)


Layer = tuple[NDArray[np.float64], ...]


def by_hand(it: Case, x: Tensor, time: float, row: int, layer: int, to: LayerMoments) -> Layer:
    """p, mean energy of filled cells (in layer energies), x and y of each cell of a layer, cell by cell."""
    model, posterior, feedback = it.model, it.posterior, it.feedback
    members = model.detector.layer_cells[layer]
    centres = model.detector.cell_centres[members, :2]
    middle = (centres.min(0) + centres.max(0)) / 2
    place = (centres - middle) / np.maximum(np.ptp(centres, axis=0) / 2, 1e-6)
    core = {int(cell): number for number, cell in enumerate(model.core.cells)}
    table = feedback.table[layer if feedback.relative else 0].double().numpy()
    knots = np.linspace(-1.0, 10.0, len(table))
    found = []
    for cell in members:
        noisy, noise = float(x[row, cell]), (1.0 - time) ** 2 + 0.02**2
        width = float(posterior.spread[cell])
        centre = float(posterior.centre[cell])
        whole = time**2 * width**2 + noise
        odds = float(posterior.logit[cell])
        odds += 0.5 * ((noisy - time * EMPTY) ** 2 / noise - (noisy - time * centre) ** 2 / whole)
        odds -= 0.5 * math.log(whole / noise)
        p = 1.0 / (1.0 + math.exp(-min(max(odds, -40.0), 40.0)))
        value = centre + time * width**2 / whole * (noisy - time * centre)
        unit = 1.0
        if int(cell) in core:
            unit = float(model.core.spread[core[int(cell)]])
            value = float(to.base[row, cell]) + unit * value
        square = min(width**2 * noise / whole * (unit * RATE) ** 2, 1.0)
        log = float(np.interp(value, knots, table))
        if not feedback.relative:
            log -= math.log(max(float(to.sums[row, layer]), 1e-12))
        found.append((p, math.exp(min(log + 0.5 * square, 0.0))))
    return (*np.array(found).T, *place.T)


def expected_moments(p: NDArray[np.float64], e: NDArray[np.float64], place: Layer) -> list[float]:
    """Energy, centres and widths of the expected layer, cell by cell."""
    whole = sum(a * b for a, b in zip(p, e, strict=True))
    centres, widths = [], []
    for along in place:
        centre = sum(a * b * f for a, b, f in zip(p, e, along, strict=True)) / max(whole, 1e-12)
        square = sum(a * b * (f - centre) ** 2 for a, b, f in zip(p, e, along, strict=True))
        centres.append(centre)
        widths.append(math.sqrt(square / max(whole, 1e-12)))
    return [whole, *centres, *widths]


def targets_of_layer(to: LayerMoments, row: int, layer: int) -> list[float]:
    """Energy (1), centres and widths."""
    x, y, xx, yy = (float(value) for value in to.moments[row, layer].double())
    return [1.0, x, y, math.sqrt(max(xx - x * x, 0.0)), math.sqrt(max(yy - y * y, 0.0))]
