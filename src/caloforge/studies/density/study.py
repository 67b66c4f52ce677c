"""The density study: kernel density and histogram of the training set against the generator.

Density estimators fitted to training sets of the truth, and their divergence from further truth.

Each estimator sees the observables of n showers, not the showers: it is fitted to one quantity at a time (one
observable, two, or all four) and draws as many values of it as wanted. Its smoothness (bandwidth, number of bins) is
what maximises the likelihood of held-out showers in five folds.

References:
    S. Bieringer et al., arXiv:2202.07352, figures 9 and 10, table 1.

The density study: does a kernel density or a histogram of the same training set do what the generator does?

References:
    S. Bieringer et al., arXiv:2202.07352, figures 9 and 10, table 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from caloforge.data import packed_projections
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.random import child_seed, generator
from caloforge.studies.amplification import figures
from caloforge.studies.amplification.curves import SampleCurves, TruthCurves, set_sizes
from caloforge.studies.amplification.observables import (
    QUANTITIES,
    Observed,
    collect,
    collect_truth,
    common_detector,
    counted,
    made_by,
)
from caloforge.studies.amplification.study import headline, size_row
from caloforge.studies.base import Cache, Context, Figure, Row, Study, StudyResult, StudySettings
from caloforge.studies.density.estimators import ESTIMATORS
from caloforge.validate.report.page import Table

__all__ = ["DensitySettings", "DensityStudy", "Fits", "fit_all", "smoothness"]


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


GENERATED = 200_000
"""Showers of each model unless told otherwise."""
LEAST = 800
"""Fewest trusted showers: one half trains, the other is the truth."""


class DensitySettings(StudySettings):
    """Settings of the study.

    Arguments:
        train_sizes: Showers of a training set; those beyond half of the trusted showers are left out.
        sets: Most training sets of one size.
        draws: Values that each estimator draws.
        sizes: Sizes of the truth's own samples.
        train_size: Training showers of the models, where a model does not say it itself; 0: not known.
        quantiles: Number of quantiles of the numbers, a power of two; 0: the most that count for the truth.
    """

    train_sizes: tuple[Annotated[int, Field(ge=100)], ...] = (1_000, 5_000)
    sets: Annotated[int, Field(ge=1)] = 5
    draws: Annotated[int, Field(ge=1_000)] = 200_000
    sizes: tuple[Annotated[int, Field(ge=20)], ...] = (1_000, 5_000)
    train_size: Annotated[int, Field(ge=0)] = 0
    quantiles: Annotated[int, Field(ge=0)] = 0


class DensityStudy(Study):
    """Kernel density and histogram estimators against the generator."""

    name: ClassVar[str] = "density"
    title: ClassVar[str] = "Density estimators against the generator"
    source: ClassVar[str] = "calomplification"
    needs: ClassVar[str] = (
        "a file of Geant4 showers (ild-ecal or its 10x10 images, at least 800; further files with --truth), "
        "and, if wanted, models or files of generated showers of the same detector"
    )
    Settings: ClassVar[type[StudySettings]] = DensitySettings
    least_generated: ClassVar[int] = 0

    @classmethod
    def default_reference(cls) -> Path | None:
        """Return the packed images that ship with the package, when they are there."""
        return packed_projections()

    def space(self, detector: Detector) -> str:
        """Return the detector of the images, for showers that are projected to them."""
        return common_detector([detector]).name

    def check(self, context: Context) -> None:
        """Check detectors and the number of showers."""
        super().check(context)
        common_detector([source.detector for source in (*context.references, *context.generated)])
        total = sum(source.n or 0 for source in context.references)
        if total < LEAST:
            self.refuse(f"{total} trusted showers are too few")

    def run(self, context: Context) -> StudyResult:
        """Do the study."""
        settings = context.chosen(DensitySettings)
        training, truth = _split(context, settings)
        fits = fit_all(truth, training, settings.draws, context.seed, context.cache, context.reference_hashes)
        detector = common_detector([source.detector for source in (*context.references, *context.generated)])
        models: dict[str, list[SampleCurves]] = {}
        trained_on: dict[str, int | None] = {}
        for source in context.generated:
            wanted = context.size(GENERATED)
            observed = collect(source, wanted, context.trusted[0], detector, context.seed, context.cache)
            models[source.label] = [one.compare(observed, [len(observed)]) for one in truth]
            trained_on[source.label] = source.trained_on or settings.train_size or None
        limit = _limit(context, truth[0], training)
        level = headline(truth[0], settings.quantiles)
        rows = [row for one in fits for row in _rows(one.label, truth, one.curves, level, one.size)]
        for name, curves in models.items():
            rows += _rows(name, truth, curves, level, trained_on[name])
        return StudyResult(
            rows,
            [_figure(size, truth, fits, models, made_by(context), limit) for size in training],
            [limit + ".", _WHAT.format(quantiles=int(truth[0].quantiles[level]))],
            {"Chosen by cross-validation": [_choices(truth, fits)]},
            _data(truth, fits, models, training),
            {made_by(context): sum(source.n or 0 for source in context.references)}
            | {name: int(found[0].sizes[-1]) for name, found in models.items()},
        )


_WHAT = (
    "Amplification factors are by formula, 1/n_eff = 8 D/(n_quant - 1) - 1/n_truth, in {quantiles} quantiles. An estimator "
    "is fitted to each quantity by itself; the generator makes whole images, from which all quantities follow at once."
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
        size: [
            every.part(number * size, (number + 1) * size)
            for number in range(min(settings.sets, pool // size))
        ]
        for size in sizes
    }
    half = (len(every) - pool) // 2
    halves = every.part(pool, pool + half), every.part(pool + half, pool + 2 * half)
    own = set_sizes(settings.sizes, half)
    quantities = [quantity for quantity in QUANTITIES if quantity.columns]
    return training, [TruthCurves(halves, quantity, own, settings.sets) for quantity in quantities]


def _limit(context: Context, truth: TruthCurves, training: Mapping[int, Sequence[Observed]]) -> str:
    """Say how many trusted showers there are, what they were used for and what that limits."""
    trained = " and ".join(f"{len(sets)} x {size:,}" for size, sets in training.items())
    return (
        f"{counted(context)}: {trained} for training, the truth is two halves of "
        f"{truth.n_truth:,}, enough for {int(truth.quantiles[-1])} quantiles; dashed: beyond n/10 quantiles"
    )


def _rows(
    name: str, truth: Sequence[TruthCurves], curves: Sequence[SampleCurves], level: int, trained: int | None
) -> list[Row]:
    rows = []
    for one, curve in zip(truth, curves, strict=True):
        size = one.formula(float(curve.divergence[-1, level]), float(curve.error[-1, level]), level)
        rows.append(size_row(name, one.quantity, size, trained, "by formula", published=False))
    return rows


def _figure(
    size: int,
    truth: Sequence[TruthCurves],
    fits: Sequence[Fits],
    models: Mapping[str, Sequence[SampleCurves]],
    made: str,
    limit: str,
) -> Figure:
    """Return the figure of one training size: estimators, generators, samples of the truth."""
    shown: dict[str, Sequence[SampleCurves]] = {one.label: one.curves for one in fits if one.size == size}
    panels = figures.Panels(truth, {**models, **shown}, made, limit)
    caption = (
        f"Divergence of estimators fitted to {size:,} showers and of the generated samples, against the number of "
        "quantiles."
    )
    return Figure(
        f"divergence_{size}", f"{size:,} training showers", caption, figures.draw_divergence(panels)
    )


def _choices(truth: Sequence[TruthCurves], fits: Sequence[Fits]) -> Table:
    """Return what cross-validation chose for each quantity and training size: mean and spread over the sets."""
    rows: list[list[Any]] = []
    for number, one in enumerate(truth):
        row: list[Any] = [one.quantity.name.replace("_", " ")]
        for fit in fits:
            values = fit.choices[number]
            spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
            row.append(f"{values.mean():.3g}{spread}")
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
                    one.quantity.name: curve.as_dict() | {"chosen": np.asarray(chosen)}
                    for one, curve, chosen in zip(truth, fit.curves, fit.choices, strict=True)
                },
            }
            for fit in fits
        ],
        "samples": {
            name: {one.quantity.name: curve.as_dict() for one, curve in zip(truth, curves, strict=True)}
            for name, curves in models.items()
        },
    }
