r"""Quantile Jensen-Shannon divergence in one or more dimensions.

Bins of equal probability come from splitting the reference at medians, the dimensions in turn. With
:math:`p_i` and :math:`g_i` the fractions of reference and test showers in bin :math:`i`,

.. math:: D = \frac12 \sum_i \left( g_i \ln\frac{2 g_i}{g_i + p_i} + p_i \ln\frac{2 p_i}{g_i + p_i} \right) .

For ``n`` test showers from the truth :math:`E[D] \approx (n_{quant} - 1) / (8 n)`, to which the reference's
own size adds the like: :math:`(n_{quant} - 1)/8\,(1/n + 1/n_{ref})`. Only :math:`n_{quant} \le n/10` counts. The
halves of the floor have at least ten showers a bin too: they have fewer bins when they are too small for all, and the
floor is multiplied by the ratio of the numbers of filled bins less one, as in this formula (its spread by the root of
that ratio: the divergence of equal distributions is distributed as chi-squared with so many degrees of freedom).

Any number of bins is allowed: a node of ``m`` bins is split so that its left child gets ``m // 2`` of them
and the same share of the showers (the median when ``m`` is even). Equal values never part: they go to the
side that leaves the split nearest to its share, so that ties make bins unequal, or empty; the fractions
:math:`p_i` are counted, not assumed.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352.
    A. Butter et al., GANplifying event samples, SciPost Phys. 10 (2021) 139, arXiv:2008.06545.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError
from caloforge.random import generator
from caloforge.statistics.resampling import Floor, floor_at, halves, spread
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import finite_columns, joint_columns

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = [
    "QuantileBins",
    "QuantileDivergence",
    "expected_divergence",
    "jensen_shannon",
    "quantile_divergence",
    "quantiles_for",
]

_MOST_BINS = 256
_SHOWERS_A_BIN = 10


def jensen_shannon(p: ArrayLike, g: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence (natural logarithm, 0 to ln 2) of counts or fractions (K,)."""
    a, b = np.asarray(p, np.float64), np.asarray(g, np.float64)
    a, b = a / a.sum(), b / b.sum()
    middle = a + b
    total = 0.0
    for part in (a, b):
        filled = part > 0
        total += float(np.sum(part[filled] * np.log(2.0 * part[filled] / middle[filled])))
    return max(0.0, 0.5 * total)


def _threshold(ordered: NDArray[np.float64], k: int) -> float:
    """Return the value that has the first ``k`` of sorted values below or at it; equal values stay together."""
    if ordered[k - 1] < ordered[k]:
        return _between(ordered[k - 1], ordered[k])
    first = int(np.searchsorted(ordered, ordered[k], "left"))
    behind = int(np.searchsorted(ordered, ordered[k], "right"))
    if first > 0 and k - first <= behind - k:
        return _between(ordered[first - 1], ordered[first])
    return float(ordered[k])


def _between(low: float, high: float) -> float:
    middle = float(low + 0.5 * (high - low))
    return middle if middle < high else float(low)


class QuantileBins:
    """Bins of equal probability of a reference set.

    Arguments:
        reference: Values (N,) or (N, d).
        n_quant: Number of bins, at least 2 and at most N.

    Attributes:
        counts: Reference entries of each bin (n_quant,).
    """

    def __init__(self, reference: ArrayLike, n_quant: int) -> None:
        values = np.asarray(reference, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if n_quant < 2:
            msg = f"quantile bins: {n_quant} asked for, at least 2 are needed"
            raise InputError(msg)
        if len(values) < n_quant:
            msg = f"quantile bins: {len(values)} reference entries are fewer than the {n_quant} bins"
            raise TooFewShowersError(msg)
        if not np.isfinite(values).all():
            msg = "quantile bins: the reference holds values that are not finite"
            raise InputError(msg)
        self.n_quant, self.dimensions = n_quant, values.shape[1]
        self._edges: NDArray[np.float64] | None = None
        if self.dimensions == 1:
            ordered = np.sort(values[:, 0])
            cuts = [i * len(ordered) // n_quant for i in range(1, n_quant)]
            self._edges = np.array([_threshold(ordered, k) for k in cuts])
            self.counts = np.diff(
                np.searchsorted(ordered, self._edges, "right"), prepend=0, append=len(ordered)
            )
        else:
            self._build(values)

    def _build(self, values: NDArray[np.float64]) -> None:
        """Split node after node; node i has the children ``child[i]`` and cuts at ``cut[i]``."""
        child: list[tuple[int, int]] = [(0, 0)]
        cut: list[float] = [np.inf]
        leaf: list[int] = [-1]
        counts: list[int] = []
        front = [(0, self.n_quant, np.arange(len(values)))]
        self._depth = 0
        while front:
            axis, ahead = self._depth % self.dimensions, []
            column = values[:, axis]
            for node, bins, members in front:
                if bins == 1:
                    child[node], leaf[node] = (node, node), len(counts)
                    counts.append(len(members))
                    continue
                x = column[members]
                k = len(members) * (bins // 2) // bins
                cut[node] = self._split(x, k)
                low = x <= cut[node]
                child[node] = (len(cut), len(cut) + 1)
                for part, share in ((members[low], bins // 2), (members[~low], bins - bins // 2)):
                    ahead.append((len(cut), share, part))
                    child.append((0, 0))
                    cut.append(np.inf)
                    leaf.append(-1)
            front = ahead
            self._depth += 1
        self._child, self._cut = np.array(child), np.array(cut)
        self._leaf, self.counts = np.array(leaf), np.array(counts)

    @staticmethod
    def _split(x: NDArray[np.float64], k: int) -> float:
        if len(x) == 0:
            return 0.0
        if not 0 < k < len(x):
            return float(x.min()) if k <= 0 else float(x.max())
        part = np.partition(x, (k - 1, k))
        return _between(part[k - 1], part[k]) if part[k - 1] < part[k] else _threshold(np.sort(x), k)

    def count(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return how many of the values (M,) or (M, d) fall into each bin (n_quant,)."""
        x = np.asarray(values, np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if x.shape[1] != self.dimensions:
            msg = f"quantile bins: values have {x.shape[1]} dimensions, the bins {self.dimensions}"
            raise InputError(msg)
        if self._edges is not None:
            ordered = np.sort(x[:, 0])
            return np.diff(np.searchsorted(ordered, self._edges, "right"), prepend=0, append=len(ordered))
        node = np.zeros(len(x), np.int64)
        for level in range(self._depth):
            right = x[:, level % self.dimensions] > self._cut[node]
            node = self._child[node, right.astype(np.int64)]
        return np.bincount(self._leaf[node], minlength=self.n_quant)


def quantile_divergence(reference: ArrayLike, generated: ArrayLike, n_quant: int) -> float:
    """Return the quantile Jensen-Shannon divergence.

    Arguments:
        reference: Values (N,) or (N, d); the bins are theirs.
        generated: Values (M,) or (M, d).
        n_quant: Number of bins.
    """
    bins = QuantileBins(reference, n_quant)
    return jensen_shannon(bins.counts, bins.count(generated))


def expected_divergence(n_quant: int, n: int, n_reference: float = np.inf) -> float:
    """Return the expected divergence of ``n`` showers from the truth, for a reference of ``n_reference``."""
    return (n_quant - 1) / 8.0 * (1.0 / n + 1.0 / n_reference)


def quantiles_for(n: int, asked: int | None = None) -> int:
    """Return the number of bins for samples of ``n`` showers: what is asked for, or the most that count.

    Raises:
        TooFewShowersError: When there are not ten showers a bin.
    """
    if asked is None:
        asked = min(_MOST_BINS, 1 << max(1, (n // _SHOWERS_A_BIN).bit_length() - 1))
    if asked * _SHOWERS_A_BIN > n:
        needed = asked * _SHOWERS_A_BIN
        msg = f"quantile divergence: {asked} bins need {needed} showers a side (ten a bin), there are {n}"
        raise TooFewShowersError(msg)
    return asked


def _compare(a: NDArray[np.float64], b: NDArray[np.float64], settings: Settings) -> Value:
    """Return the divergence of two sets (N,) or (N, d) with bootstrap error and floor."""
    n_quant = quantiles_for(min(len(a), len(b)), settings.n_quantiles)
    bins = QuantileBins(a, n_quant)
    p, g = bins.counts, bins.count(b)
    rng = generator(settings.seed, "quantile bootstrap")
    draws = zip(
        rng.multinomial(len(a), p / len(a), settings.n_bootstrap),
        rng.multinomial(len(b), g / len(b), settings.n_bootstrap),
        strict=True,
    )
    boot = np.array([jensen_shannon(x, y) for x, y in draws])
    filled = int((p > 0).sum())
    detail = {
        "n_quantiles": n_quant,
        "filled_bins": filled,
        "expected": expected_divergence(filled, len(b), len(a)),
    }
    below = _floor(a, len(b), n_quant, filled, settings)
    return Value(
        jensen_shannon(p, g), spread(boot), below.value, below.uncertainty, {**detail, **below.detail}
    )


def _floor(a: NDArray[np.float64], m: int, n_quant: int, filled: int, settings: Settings) -> Floor:
    """Return the floor from halves of the reference with ten showers a bin; none when they cannot have two bins.

    Arguments:
        a: Reference (N,) or (N, d).
        m: Generated showers.
        n_quant: Bins of the compared samples, of which ``filled`` have reference showers.
        filled: See ``n_quant``.
        settings: Number of halves, seed.
    """
    bins = min(n_quant, len(a) // 2 // _SHOWERS_A_BIN)
    if bins < 2:
        return Floor()
    found, in_half = [], []
    for index in range(settings.n_halves):
        first, second = halves(len(a), index, settings.seed)
        of_half = QuantileBins(a[first], bins)
        found.append(jensen_shannon(of_half.counts, of_half.count(a[second])))
        in_half.append(int((of_half.counts > 0).sum()))
    freedom = float(np.mean(in_half)) - 1.0
    growth = (filled - 1) / freedom if freedom > 0 else 1.0
    below = floor_at(np.array(found), len(a), m, degree=2, growth=growth)
    error = None if below.uncertainty is None else below.uncertainty / growth**0.5 if growth > 0 else 0.0
    return Floor(below.value, error, {**below.detail, "floor_quantiles": bins})


class QuantileDivergence(Metric):
    """Quantile Jensen-Shannon divergence of each observable and of the sets that the studies use together."""

    name: ClassVar[str] = "quantile_jsd"
    keys: ClassVar[tuple[Key, ...]] = (Key("quantile_jsd", "Quantile JSD", 0.0, by="observable"),)
    minimum: ClassVar[int] = 2 * _SHOWERS_A_BIN

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the divergence by observable; joint sets are named ``a*b``."""
        out = {}
        for column in [*finite_columns(reference, generated), *joint_columns(reference, generated)]:
            if column.reason:
                out[column.name] = Value(float("nan"), detail={"reason": column.reason, **column.counts})
                continue
            value = _compare(column.reference, column.generated, settings)
            detail = {**value.detail, **column.counts}
            out[column.name] = Value(
                value.value, value.uncertainty, value.floor, value.floor_uncertainty, detail
            )
        return {"quantile_jsd": out}
