"""One observable's histogram in every sample, with binning chosen from the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caloforge.validate.plots.panel import Array, Curve, Panel

__all__ = ["choose_edges", "histogram_panel", "mean_panel"]

_FEW, _MANY = 12, 50


def choose_edges(reference: Array, others: Sequence[Array] = ()) -> tuple[Array, bool]:
    """Return bin edges that show the reference, and whether they are logarithmic.

    The range holds all but 1 in 500 of the reference and the middle 98 % of the other samples, these only to twice
    the reference's range. Whole numbers get whole bins. Values over more than two decades get logarithmic bins.

    Arguments:
        reference: (N,) finite values.
        others: The same of the other samples.
    """
    low, high = np.quantile(reference, [0.001, 0.999])
    span = high - low
    if span <= 0:
        width = max(abs(low) * 0.05, 0.5)
        return np.linspace(low - width, high + width, _FEW + 1), False
    number = int(np.clip(2.0 * len(reference) ** (1 / 3), _FEW, _MANY))
    first, last = _reach(low, high, span, others)
    positive = reference[reference > 0]
    small = float(np.quantile(positive, 0.01)) if len(positive) else 0.0
    if len(positive) > 0.98 * len(reference) and high > 100 * small:
        first = max(low, float(positive.min()), small / 10)
        return np.geomspace(first / 1.05, last * 1.05, number + 1), True
    if np.array_equal(reference, np.round(reference)):
        step = max(1, int(np.ceil(span / number)))
        return np.arange(np.floor(first) - 0.5, np.ceil(last) + step, step), False
    width = 1.08 * span / number  # set by the reference, so that a broad sample does not coarsen it
    before, after = (
        np.ceil((low - first) / width + 0.04 * number),
        np.ceil((last - high) / width + 0.04 * number),
    )
    edges = low + width * np.arange(-before, number + after + 1)
    return (edges[edges > -width] if reference.min() >= 0 else edges), False


def _reach(low: float, high: float, span: float, others: Sequence[Array]) -> tuple[float, float]:
    """Return the range with the middle 98 % of the other samples, at most one span more at each end."""
    first, last = low, high
    for values in others:
        if len(values):
            start, end = np.quantile(values, [0.01, 0.99])
            first, last = min(first, max(start, low - span)), max(last, min(end, high + span))
    return float(first), float(last)


def histogram_panel(
    name: str,
    title: str,
    x_label: str,
    values: Sequence[Array],
    labels: Sequence[str],
    edges: Array | None = None,
) -> Panel | None:
    """Return normalised histograms of (N,) values, one a sample; None when the reference has no finite value.

    Every bin holds the fraction of all showers of its sample, with the binomial uncertainty neglecting the
    bin's own share: sqrt(n) / N. Entries out of range and values that are not finite are counted in the note.
    """
    finite = [sample[np.isfinite(sample)] for sample in values]
    if not len(finite[0]):
        return None
    bins, log_x = choose_edges(finite[0], finite[1:]) if edges is None else (edges, False)
    curves, notes = [], []
    for role, (label, sample, whole) in enumerate(zip(labels, finite, values, strict=True)):
        counts = np.histogram(sample, bins)[0].astype(float)
        outside, missing = len(sample) - int(counts.sum()), len(whole) - len(sample)
        if outside or missing:
            parts = [f"{outside} out of range" if outside else "", f"{missing} undefined" if missing else ""]
            notes.append(f"{label}: {', '.join(part for part in parts if part)} of {len(whole)}")
        total = max(len(whole), 1)
        curves.append(Curve(role, label, counts / total, np.sqrt(counts) / total))
    shape = curves[0].y[curves[0].y > 0]
    log_y = len(shape) > 4 and float(shape.max()) > 200.0 * float(np.median(shape))
    return Panel(
        name, title, x_label, "fraction of showers", bins, tuple(curves), log_x, log_y, note="; ".join(notes)
    )


def mean_panel(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    edges: Array,
    values: Sequence[Array],
    labels: Sequence[str],
    ticks: tuple[str, ...] = (),
    log_y: bool = False,
) -> Panel:
    """Return the mean over showers of (N, k) values, one curve a sample, with the error of the mean.

    Values that are not finite are left out of the mean of their bin.
    """
    curves = []
    for role, (label, sample) in enumerate(zip(labels, values, strict=True)):
        data = np.asarray(sample, np.float64)
        known = np.isfinite(data)
        n = known.sum(axis=0)
        safe = np.maximum(n, 1)
        filled = np.where(known, data, 0.0)
        mean = filled.sum(axis=0) / safe
        spread = np.sqrt(np.where(known, (data - mean) ** 2, 0.0).sum(axis=0) / np.maximum(n - 1, 1) / safe)
        curves.append(Curve(role, label, np.where(n > 0, mean, np.nan), spread))
    return Panel(name, title, x_label, y_label, edges, tuple(curves), log_y=log_y, ticks=ticks)
