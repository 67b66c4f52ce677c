"""Metrics that compare a generated sample with a reference, and all of them as the dictionary of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from caloforge.cluster import Cluster
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
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """Compute metrics and return plain data for JSON.

    Arguments:
        reference: The sample to compare with.
        generated: The sample to judge.
        settings: Options of all metrics.
        names: Metrics of the registry to compute; the default ones when None.
        progress: Called before each metric, and at the end.
        cluster: Compute on its workers, which find the files of the samples under the same paths.

    Returns:
        ``n_reference``, ``n_generated``, an entry for each key of the metrics computed, and ``skipped``: keys that are
        missing and why. An entry is ``{"value", "uncertainty", "floor", "floor_uncertainty", "detail"}`` (as far
        as known) or a dictionary of such by observable, pair or sample.

    Raises:
        UnknownNameError: When a name is in no registry.
        TooFewShowersError: When a metric that was requested by name needs more showers.
    """
    chosen = settings or Settings()
    wanted = list(names if names is not None else METRICS.names())
    say = progress or (lambda name, done, of: None)
    found: dict[str, _Found] = {}
    if cluster is None:
        for name in wanted:
            say(name, len(found), len(wanted))
            found[name] = _compute(name, reference, generated, chosen, names is not None)
        forget_cells(generated)
        forget_tests(generated)
    else:
        groups: dict[str, list[str]] = {}
        for name in wanted:
            groups.setdefault(METRICS[name].together or f"{name} alone", []).append(name)
        longest = sorted(groups.values(), key=len, reverse=True)  # those that share work are the longest
        samples = cluster.everywhere(reference), cluster.everywhere(generated)
        tasks = [(*samples, chosen, group, names is not None) for group in longest]
        for number, result in cluster.results(_compute_group, tasks):
            found |= result
            say(tasks[number][3][-1], len(found), len(wanted))
    say("", len(wanted), len(wanted))
    out: dict[str, Any] = {"n_reference": reference.n, "n_generated": generated.n}
    skipped: dict[str, str] = {}
    for name in wanted:
        out |= found[name][0]
        skipped |= found[name][1]
    plain: dict[str, Any] = jsonable({**out, "skipped": skipped})
    return plain


_Found = tuple[dict[str, Entry], dict[str, str]]
"""Entries of a metric, and its keys that are missing with the reason."""


def _compute(name: str, reference: Sample, generated: Sample, settings: Settings, by_name: bool) -> _Found:
    """Compute one metric."""
    metric, smaller = METRICS[name](), min(reference.n, generated.n)
    reason = None if by_name or metric.wanted(settings) else "runs when it is requested"
    reason = reason or metric.not_applicable(reference, generated, settings)
    if reason is None:
        try:
            if smaller < metric.minimum:
                msg = f"{metric.name} needs at least {metric.minimum} showers a side, there are {smaller}"
                raise TooFewShowersError(msg)
            return metric.compute(reference, generated, settings), {}
        except TooFewShowersError as error:
            if by_name:
                raise
            reason = str(error)
    return {}, {key.top: reason for key in metric.keys}


def _compute_group(
    reference: Sample, generated: Sample, settings: Settings, names: list[str], by_name: bool
) -> dict[str, _Found]:
    """Compute metrics that share work, on a worker; what is kept for them there is not kept for others."""
    one, other = reference.copy(), generated.copy()
    return {name: _compute(name, one, other, settings, by_name) for name in names}
