"""Density estimators fitted to training sets of the truth, and their divergence from further truth.

Each estimator sees the observables of n showers, not the showers: it is fitted to one quantity at a time (one
observable, two, or all four) and draws as many values of it as wanted. Its smoothness (bandwidth, number of bins) is
what maximises the likelihood of held-out showers in five folds.

References:
    S. Bieringer et al., arXiv:2202.07352, figures 9 and 10, table 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.models.baselines import ESTIMATORS
from caloforge.progress import progress
from caloforge.random import child_seed
from caloforge.studies.amplification.curves import SampleCurves, TruthCurves
from caloforge.studies.amplification.observables import Observed
from caloforge.studies.cache import Cache

__all__ = ["Fits", "fit_all", "smoothness"]

LABELS = {"kde": "KDE", "histogram": "histogram"}


@dataclass(frozen=True)
class Fits:
    """One estimator fitted to training sets of one size.

    Arguments:
        estimator: Its name in the registry.
        size: Showers of a training set.
        curves: Mean divergence over the sets, for each quantity of the truth.
        choices: (Q, S) chosen bandwidth or number of bins, by quantity and set.
    """

    estimator: str
    size: int
    curves: list[SampleCurves]
    choices: NDArray[np.float64]

    @property
    def label(self) -> str:
        """What figures call it."""
        return f"{LABELS.get(self.estimator, self.estimator)} of {self.size:,}"


def smoothness(estimator: Any) -> float:
    """Return what cross-validation has chosen: the bandwidth (standard deviations) or the number of bins."""
    chosen: float = getattr(estimator, "bandwidth", 0.0) or getattr(estimator, "n_bins", 0)
    return float(chosen)


def fit_all(
    truth: Sequence[TruthCurves],
    training: Mapping[int, Sequence[Observed]],
    draws: int,
    seed: int,
    cache: Cache,
    hashes: Sequence[str],
) -> list[Fits]:
    """Fit every estimator to every training set; finished fits come from the cache.

    Arguments:
        truth: The quantities with their truth.
        training: Size to training sets.
        draws: Values that each estimator draws.
        seed: Seed of the folds and draws.
        cache: Where the divergences are kept.
        hashes: What the truth and the training sets were made of.
    """
    names = ESTIMATORS.names()
    total = len(names) * len(truth) * sum(len(sets) for sets in training.values())
    fits = []
    with progress(total, "fit densities") as advance:
        for size, sets in training.items():
            for name in names:
                curves, choices = [], []
                for one in truth:
                    found = []
                    for arrays in _fit_sets(name, one, sets, draws, seed, cache, [*hashes, size]):
                        found.append(arrays)
                        advance(1)
                    curves.append(_mean_curve(one, [arrays["divergence"] for arrays in found], draws))
                    choices.append([float(arrays["smoothness"]) for arrays in found])
                fits.append(Fits(name, size, curves, np.array(choices)))
    return fits


def _fit_sets(
    name: str,
    truth: TruthCurves,
    sets: Sequence[Observed],
    draws: int,
    seed: int,
    cache: Cache,
    inputs: Sequence[Any],
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the divergence and the smoothness of the fit to each set."""
    for number, observed in enumerate(sets):
        values = truth.quantity.of(observed)

        def compute(
            values: NDArray[np.float64] = values, number: int = number
        ) -> dict[str, NDArray[np.float64]]:
            estimator = ESTIMATORS[name]().fit(values, seed=child_seed(seed, "density folds", number))
            drawn = estimator.sample(draws, seed=child_seed(seed, f"density {name}", number))
            return {"divergence": truth.divergence(drawn), "smoothness": np.array(smoothness(estimator))}

        key = f"{name}-{truth.quantity.name}-{len(observed)}-{number}"
        yield cache.get(key, compute, *inputs, draws)


def _mean_curve(truth: TruthCurves, found: Sequence[NDArray[np.float64]], draws: int) -> SampleCurves:
    """Return the mean divergence over sets as curves of one size; the error is the spread's where there is one."""
    divergence = np.mean(found, axis=0)
    error = np.array([truth.error(float(d), level, draws) for level, d in enumerate(divergence)])
    if len(found) > 1:
        error = np.maximum(error, np.std(found, axis=0, ddof=1) / np.sqrt(len(found)))
    return SampleCurves(np.array([draws]), divergence[None], error[None])
