"""Metrics that compare a generated sample with a reference, and all of them as the dictionary of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from caloforge.errors import TooFewShowersError
from caloforge.validate.metrics.base import METRICS, Entry, Key, Metric, Settings, Value, jsonable
from caloforge.validate.metrics.classifiers import forget_tests
from caloforge.validate.metrics.features import forget_cells
from caloforge.validate.sample import Sample

__all__ = ["METRICS", "Entry", "Key", "Metric", "Progress", "Settings", "Value", "compute_metrics"]

Progress = Callable[[str, int, int], None]
"""Called before each metric with its name, how many are done, and how many there are."""


def compute_metrics(
    reference: Sample,
    generated: Sample,
    settings: Settings | None = None,
    names: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compute metrics and return plain data for JSON.

    Arguments:
        reference: The sample to compare with.
        generated: The sample to judge.
        settings: Options of all metrics.
        names: Metrics of the registry to compute; the default ones when None.
        progress: Called before each metric, and at the end.

    Returns:
        ``n_reference``, ``n_generated``, an entry for each key of the metrics computed, and ``skipped``: keys that are
        missing and why. An entry is ``{"value", "uncertainty", "floor", "floor_uncertainty", "detail"}`` (as far
        as known) or a dictionary of such by observable, pair or sample.

    Raises:
        UnknownNameError: When a name is in no registry.
        TooFewShowersError: When a metric that was requested by name needs more showers.
    """
    chosen = settings or Settings()
    by_name, smaller = names is not None, min(reference.n, generated.n)
    wanted = [METRICS[name]() for name in (names if names is not None else METRICS.names())]
    out: dict[str, Any] = {"n_reference": reference.n, "n_generated": generated.n}
    skipped: dict[str, str] = {}
    for done, metric in enumerate(wanted):
        if progress is not None:
            progress(metric.name, done, len(wanted))
        reason = None if by_name or metric.wanted(chosen) else "runs when it is requested"
        reason = reason or metric.not_applicable(reference, generated, chosen)
        if reason is None:
            try:
                if smaller < metric.minimum:
                    msg = f"{metric.name} needs at least {metric.minimum} showers a side, there are {smaller}"
                    raise TooFewShowersError(msg)
                out.update(metric.compute(reference, generated, chosen))
            except TooFewShowersError as error:
                if by_name:
                    raise
                reason = str(error)
        if reason is not None:
            skipped.update((key.top, reason) for key in metric.keys)
    forget_cells(generated)
    forget_tests(generated)
    if progress is not None:
        progress("", len(wanted), len(wanted))
    plain: dict[str, Any] = jsonable({**out, "skipped": skipped})
    return plain
