r"""Numbers of the flagship's page that come from several measurements: groups, series, differences to the baseline.

A choice is compared with the mean of the M trainings of the baseline (one for each seed), network by network: classifiers of the
same number have the same split of the same showers. With the K differences :math:`d_i` the uncertainty is

.. math:: \sigma^2 = \Bigl(\frac1K + \frac{n_\mathrm{test}}{n_\mathrm{rest}}\Bigr) s_d^2 + \Bigl(1 + \frac1M\Bigr) s_\mathrm{seed}^2,

the first term for splits that overlap, the second for one training against M with the scatter s_seed of the baseline's AUC
between seeds, which is left out when there is one seed.

References:
    C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52 (2003) 239, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flagship_plan import BASELINE, GROUPS

__all__ = [
    "AUCS",
    "Difference",
    "ablations",
    "by_group",
    "by_series",
    "difference",
    "losses",
    "repeats",
    "seed_scatter",
]

Entry = Mapping[str, Any]
AUCS = ("auc_high", "auc_low")
_TEST_TO_REST = 0.25
"""Classifiers hold out a fifth of the showers."""


@dataclass(frozen=True)
class Difference:
    """A difference of AUC with one standard deviation."""

    value: float
    uncertainty: float

    @property
    def significant(self) -> bool:
        """Whether it is more than two standard deviations."""
        return abs(self.value) > 2.0 * self.uncertainty


def by_group(entries: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """Return the entries of each group."""
    return {
        group: {name: entry for name, entry in entries.items() if group in entry["figure"]}
        for group in GROUPS
    }


def by_series(entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each series, teachers by their steps, then students."""
    series: dict[str, list[Entry]] = {}
    for entry in entries.values():
        series.setdefault(entry["series"], []).append(entry)
    order = {
        name: sorted(group, key=lambda e: (e["kind"] != "teacher", e["steps"]))
        for name, group in series.items()
    }
    return order


def repeats(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the baseline and its trainings with other seeds: ablations that change no setting."""
    return {name: entry for name, entry in entries.items() if name == BASELINE or not entry["set"]}


def seed_scatter(baselines: Sequence[Entry], auc: str) -> float | None:
    """Return the standard deviation of an AUC between seeds; None for one seed."""
    values = [entry["figures"][auc]["value"] for entry in baselines]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(entry: Entry, baselines: Sequence[Entry], auc: str) -> Difference:
    """Return the difference of an AUC to the mean of the baselines.

    Where the measurements do not have the same two or more networks, the uncertainties are added as if independent.
    """
    ours = entry["figures"][auc].get("networks", [])
    theirs = [base["figures"][auc].get("networks", []) for base in baselines]
    scatter = seed_scatter(baselines, auc) or 0.0
    of_seeds = scatter**2 * (1.0 + 1.0 / len(baselines))
    if len(ours) > 1 and all(len(one) == len(ours) for one in theirs):
        d = np.array(ours) - np.mean(theirs, axis=0)
        variance = (1.0 / len(d) + _TEST_TO_REST) * float(d.var(ddof=1))
        return Difference(float(d.mean()), float(np.sqrt(variance + of_seeds)))
    values, errors = (
        [one["figures"][auc].get(key) or 0.0 for one in (entry, *baselines)]
        for key in ("value", "uncertainty")
    )
    variance = errors[0] ** 2 + float(np.mean(np.square(errors[1:]))) / len(baselines)
    return Difference(values[0] - float(np.mean(values[1:])), float(np.sqrt(variance + of_seeds)))


def losses(entries: Mapping[str, Entry]) -> dict[str, tuple[Difference, ...]]:
    """Return, by student, by how much each AUC is above that of its teacher with most steps."""
    found = {}
    for group in by_series(entries).values():
        teachers = [entry for entry in group if entry["kind"] == "teacher"]
        for entry in group:
            if teachers and entry["kind"] == "student":
                found[entry["title"]] = tuple(difference(entry, teachers[-1:], auc) for auc in AUCS)
    return found


def ablations(entries: Mapping[str, Entry]) -> dict[str, tuple[Difference, ...]]:
    """Return, by name, the difference in each AUC of every choice; nothing when the baseline is not there."""
    if BASELINE not in entries:
        return {}
    baselines = list(repeats(entries).values())
    return {
        name: tuple(difference(entry, baselines, auc) for auc in AUCS)
        for name, entry in entries.items()
        if entry["set"]
    }
