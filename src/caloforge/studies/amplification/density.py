"""The density study: is a kernel density or a histogram of the same training set as accurate as the generator?

Each estimator sees the observables of n showers, not the showers: it is fitted to one quantity at a time (one
observable, two, or all four) and draws as many values of it as wanted. Its smoothness (bandwidth, number of bins) is
what maximises the likelihood of held-out showers in five folds.

References:
    S. Bieringer et al., arXiv:2202.07352, figures 9 and 10, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.progress import progress
from caloforge.random import child_seed, generator
from caloforge.statistics.density import ESTIMATORS
from caloforge.studies.amplification import TruthStudy, headline_level, size_row
from caloforge.studies.amplification.curves import (
    QUANTITIES,
    Observed,
    SampleCurves,
    TruthCurves,
    collect,
    collect_truth,
    count_text,
    set_sizes,
    truth_name,
)
from caloforge.studies.amplification.figures import Panels, divergence_figure
from caloforge.studies.base import Context, StudyResult, StudySettings
from caloforge.studies.cache import Cache
from caloforge.units import plain_number
from caloforge.validate.report.page import Table

__all__ = ["DensitySettings", "DensityStudy", "Fits", "fit_all"]

_GENERATED = 200_000


@dataclass(frozen=True, eq=False)
class Fits:
    """One estimator fitted to training sets of one size."""

    estimator: str
    size: int
    curves: list[SampleCurves]  # mean divergence over the sets, for each quantity of the truth
    choices: NDArray[np.float64]  # (Q, S) chosen bandwidth or number of bins, by quantity and set

    @property
    def label(self) -> str:
        """What figures call it."""
        return f"{ESTIMATORS[self.estimator].label} of {self.size:,}"


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
        training: Size to training sets.
        draws: Values that each estimator draws.
        hashes: Of the files of the truth and the training sets.
    """
    names = ESTIMATORS.names()
    total = len(names) * len(truth) * sum(len(sets) for sets in training.values())
    fits = []
    with progress(total, "fit densities") as advance:

        def fit(name: str, one: TruthCurves, observed: Observed, number: int) -> dict[str, NDArray[Any]]:
            def compute() -> dict[str, Any]:
                values = one.quantity.of(observed)
                estimator = ESTIMATORS[name]().fit(values, seed=child_seed(seed, "density folds", number))
                drawn = estimator.sample(draws, seed=child_seed(seed, f"density {name}", number))
                return {"divergence": one.divergence(drawn), "smoothness": estimator.smoothness}

            size = len(observed)
            key = f"{name}-{one.quantity.name}-{size}-{number}"
            arrays = cache.get(key, compute, *hashes, size, draws)
            advance(1)
            return arrays

        for size, sets in training.items():
            for name in names:
                curves, choices = [], []
                for one in truth:
                    found = [fit(name, one, observed, number) for number, observed in enumerate(sets)]
                    curves.append(_mean_curve(one, [arrays["divergence"] for arrays in found], draws))
                    choices.append([float(arrays["smoothness"]) for arrays in found])
                fits.append(Fits(name, size, curves, np.array(choices)))
    return fits


def _mean_curve(truth: TruthCurves, found: Sequence[NDArray[np.float64]], draws: int) -> SampleCurves:
    """Return the mean divergence over sets as curves of one size; the error is the spread's where there is one."""
    divergence = np.mean(found, axis=0)
    error = truth.error(divergence, draws)
    if len(found) > 1:
        error = np.maximum(error, np.std(found, axis=0, ddof=1) / np.sqrt(len(found)))
    return SampleCurves(truth, np.array([draws]), divergence[None], error[None])


class DensitySettings(StudySettings):
    """Settings of the study.

    Arguments:
        train_sizes: Showers of a training set; those beyond half of the reference showers are left out.
        sets: Most training sets of one size.
        draws: Values that each estimator draws.
        sizes: Sizes of the truth's own samples.
        train_size: Training showers of models that do not say it themselves; 0: not known.
        quantiles: Number of quantiles of the numbers, a power of two; 0: the most that count for the truth.
    """

    train_sizes: tuple[Annotated[int, Field(ge=100)], ...] = (1_000, 5_000)
    sets: Annotated[int, Field(ge=1)] = 5
    draws: Annotated[int, Field(ge=1_000)] = 200_000
    sizes: tuple[Annotated[int, Field(ge=20)], ...] = (1_000, 5_000)
    train_size: Annotated[int, Field(ge=0)] = 0
    quantiles: Annotated[int, Field(ge=0)] = 0


class DensityStudy(TruthStudy):
    """Kernel density and histogram estimators against the generator."""

    name = "density"
    title = "Density estimators against the generator"
    needs = (
        "a file of Geant4 showers (ild-ecal or its 10x10 images, at least 800; further files with --truth), "
        "and optionally models or files of generated showers of the same detector"
    )
    question = "Is a network more accurate than a histogram or a kernel density of the same training showers?"
    Settings = DensitySettings
    least_generated = 0
    least = 800  # one half trains, the other is the truth

    def run(self, context: Context) -> StudyResult:
        """Do the study."""
        settings = context.chosen(DensitySettings)
        training, truth = _split(context, settings)
        fits = fit_all(truth, training, settings.draws, context.seed, context.cache, context.reference_hashes)
        models: dict[str, list[SampleCurves]] = {}
        trained: dict[str, int | None] = {}
        for source in context.generated:
            observed = collect(context, source, context.size(_GENERATED))
            models[source.label] = [one.compare(observed, [len(observed)]) for one in truth]
            trained[source.label] = source.trained_on or settings.train_size or None
        sets = " and ".join(f"{len(sets)} x {size:,}" for size, sets in training.items())
        limit = (
            f"{count_text(context)}: {sets} for training, the truth is two halves of {truth[0].n_truth:,}, enough for "
            f"{int(truth[0].quantiles[-1])} quantiles; dashed: beyond n/10 quantiles"
        )
        level = headline_level(truth[0], settings.quantiles)
        judged = [(fit.label, fit.curves, fit.size) for fit in fits]
        rows = [
            size_row(name, curve.truth.quantity, curve.formula(level), size, "by formula", published=False)
            for name, curves, size in (*judged, *((name, models[name], trained[name]) for name in models))
            for curve in curves
        ]
        figures = []
        for size in training:
            shown = models | {fit.label: fit.curves for fit in fits if fit.size == size}
            caption = (
                f"Divergence of estimators fitted to {size:,} showers and of the generated samples, against the number of "
                "quantiles."
            )
            panels = Panels(truth, shown, truth_name(context), limit)
            title = f"{size:,} training showers"
            figures.append(divergence_figure(panels, f"divergence_{size}", title, caption))
        method = (
            f"Amplification factors are by formula, 1/n_eff = 8 D/(n_quant - 1) - 1/n_truth, in "
            f"{int(truth[0].quantiles[level])} quantiles. An estimator is fitted to each quantity separately; the generator "
            "makes whole images, from which all quantities are computed."
        )
        return StudyResult(
            rows,
            figures,
            [limit + ".", method],
            {"Chosen by cross-validation": [_choices(fits)]},
            _data(truth, fits, models, training),
            {truth_name(context): context.n_reference}
            | {name: int(found[0].sizes[-1]) for name, found in models.items()},
        )


def _split(
    context: Context, settings: DensitySettings
) -> tuple[dict[int, list[Observed]], list[TruthCurves]]:
    """Return disjoint training sets by size, and the truth made of the showers that are in none of them."""
    every = collect_truth(context).shuffled(generator(context.seed, "density split"))
    most = len(every) // 2
    sizes = [size for size in sorted(settings.train_sizes) if size <= most] or [most]
    pool = min(most, max(sizes[-1], sizes[0] * settings.sets))
    training = {
        size: [every.part(k * size, (k + 1) * size) for k in range(min(settings.sets, pool // size))]
        for size in sizes
    }
    half = (len(every) - pool) // 2
    halves = every.part(pool, pool + half), every.part(pool + half, pool + 2 * half)
    own = set_sizes(settings.sizes, half)
    quantities = [quantity for quantity in QUANTITIES if quantity.columns]
    return training, [TruthCurves(halves, quantity, own, settings.sets) for quantity in quantities]


def _choices(fits: Sequence[Fits]) -> Table:
    """Return what cross-validation chose for each quantity and training size: mean and spread over the sets."""
    rows = []
    for number, curve in enumerate(fits[0].curves):
        row = [curve.truth.quantity.text]
        for values in (fit.choices[number] for fit in fits):
            spread = f" ± {plain_number(values.std(ddof=1), 2)}" if len(values) > 1 else ""
            row.append(f"{plain_number(values.mean())}{spread}")
        rows.append(row)
    caption = "KDE: bandwidth in standard deviations; histogram: bins of each observable."
    return Table(["quantity", *(fit.label for fit in fits)], rows, caption, key="choices")


def _data(
    truth: Sequence[TruthCurves],
    fits: Sequence[Fits],
    models: Mapping[str, Sequence[SampleCurves]],
    training: Mapping[int, Sequence[Observed]],
) -> dict[str, Any]:
    """Return every curve and choice."""
    return {
        "n_truth": truth[0].n_truth,
        "quantiles": truth[0].quantiles,
        "training": {str(size): len(sets) for size, sets in training.items()},
        "truth": {one.quantity.name: one.as_dict() for one in truth},
        "estimators": [
            {
                "estimator": fit.estimator,
                "train_size": fit.size,
                "quantities": {
                    curve.truth.quantity.name: curve.as_dict() | {"chosen": chosen}
                    for curve, chosen in zip(fit.curves, fit.choices, strict=True)
                },
            }
            for fit in fits
        ],
        "samples": {
            name: {curve.truth.quantity.name: curve.as_dict() for curve in curves}
            for name, curves in models.items()
        },
    }
