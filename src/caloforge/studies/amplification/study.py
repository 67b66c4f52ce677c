"""The amplification study: how many showers of the truth a generated sample is worth.

The amplification study: what a generated sample is worth in showers of the truth.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.data import packed_projections
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.studies.amplification import figures
from caloforge.studies.amplification.curves import SampleCurves, TruthCurves, growing_sizes, set_sizes
from caloforge.studies.amplification.estimators import EffectiveSize, ToyResult, run_toy
from caloforge.studies.amplification.observables import (
    QUANTITIES,
    Observed,
    Quantity,
    collect,
    collect_truth,
    common_detector,
    counted,
    made_by,
)
from caloforge.studies.base import Context, Figure, Row, Study, StudyResult, StudySettings
from caloforge.studies.page import number_text
from caloforge.validate.report.page import Table

__all__ = [
    "AmplificationSettings",
    "AmplificationStudy",
    "all_curves",
    "headline",
    "mean_rows",
    "quantile_table",
    "sample_rows",
    "size_row",
    "toy_row",
]


def sample_rows(
    name: str,
    truth: Sequence[TruthCurves],
    curves: Sequence[SampleCurves],
    level: int,
    trained: int | None,
) -> list[Row]:
    """Return the headline of one sample: each quantity by formula and by comparison."""
    rows = []
    for one, curve in zip(truth, curves, strict=True):
        size = one.formula(float(curve.divergence[-1, level]), float(curve.error[-1, level]), level)
        rows.append(size_row(name, one.quantity, size, trained, "by formula"))
        at = min(level, _comparable(one))
        compared = one.comparison(float(curve.divergence[-1, at]), float(curve.error[-1, at]), at)
        note = f"by comparison in {int(one.quantiles[at])} quantiles"
        if compared is None:
            limit = one.sizes[0] / (trained or 1)
            note = f"{note}: below {limit:,.3g}"
            rows.append(
                Row(
                    _quantity(one.quantity, trained),
                    None,
                    None,
                    _paper(one.quantity, trained),
                    "",
                    note,
                    name,
                )
            )
        else:
            rows.append(size_row(name, one.quantity, compared, trained, note))
    return rows


def _comparable(truth: TruthCurves) -> int:
    """Return the place of the largest number of quantiles that counts for every sample of the truth."""
    return max(0, int(truth.counts_for(truth.sizes[0]).sum()) - 1)


def size_row(
    name: str,
    quantity: Quantity,
    size: EffectiveSize,
    trained: int | None,
    note: str,
    published: bool = True,
) -> Row:
    """Return a row of an effective size, or of the amplification factor where the training set is known.

    Arguments:
        name: Label of the sample.
        quantity: What is looked at.
        size: Its effective size.
        trained: Showers of the training set.
        note: How it was found.
        published: Whether the paper's number stands beside it.
    """
    shown = size.over(trained) if trained else size
    if shown.value is None:
        note = f"{note}: above {shown.low:,.3g}"
    unit = "" if trained else "showers"
    key = _paper(quantity, trained) if published else None
    return Row(_quantity(quantity, trained), shown.value, shown.error, key, unit, note, name)


def _quantity(quantity: Quantity, trained: int | None) -> str:
    kind = f"amplification of {trained:,}" if trained else "effective size"
    return f"{kind}: {quantity.name.replace('_', ' ')}"


def _paper(quantity: Quantity, trained: int | None) -> str | None:
    return f"amplification.factor_{quantity.name}" if trained else None


def mean_rows(
    truth: Sequence[TruthCurves],
    samples: Mapping[str, Sequence[SampleCurves]],
    level: int,
    trained_on: Mapping[str, int | None],
) -> list[Row]:
    """Return rows of the mean over several trainings of one size, with the spread between them as uncertainty."""
    sizes = set(trained_on.values())
    if len(samples) < 2 or len(sizes) != 1:
        return []
    rows = []
    for number, one in enumerate(truth):
        found = np.array([curves[number].divergence[-1, level] for curves in samples.values()])
        error = float(found.std(ddof=1) / np.sqrt(len(found)))
        size = one.formula(float(found.mean()), error, level)
        label = f"mean of {len(found)} samples"
        rows.append(
            size_row(label, one.quantity, size, next(iter(sizes)), "by formula, error from the spread")
        )
    return rows


def toy_row(toy: ToyResult) -> Row:
    """Return the row that shows that the estimator gives back a known number."""
    note = f"{toy.sample_size:,} values of a Gaussian truth must give back their number"
    return Row("check: effective size of a sample of the truth", toy.sample, toy.sample_error, note=note)


def quantile_table(
    truth: Sequence[TruthCurves],
    samples: Mapping[str, Sequence[SampleCurves]],
    trained_on: Mapping[str, int | None],
) -> Table:
    """Return effective sizes (amplification factors) by formula at every number of quantiles."""
    columns = ["sample", "quantity", *(str(int(n_quant)) for n_quant in truth[0].quantiles)]
    rows: list[list[Any]] = []
    for name, curves in samples.items():
        trained = trained_on[name]
        for one, curve in zip(truth, curves, strict=True):
            sizes = [
                one.formula(float(d), float(e), level).over(trained or 1)
                for level, (d, e) in enumerate(zip(curve.divergence[-1], curve.error[-1], strict=True))
            ]
            texts = [f"> {s.low:.3g}" if s.value is None else number_text(s.value, s.error) for s in sizes]
            rows.append([name, one.quantity.name.replace("_", " "), *texts])
    caption = "By number of quantiles; amplification factors where the training set is known, else showers."
    return Table(columns, rows, caption, key="by-quantiles", texts=(0, 1))


def all_curves(
    truth: Sequence[TruthCurves],
    samples: Mapping[str, Sequence[SampleCurves]],
    toy: ToyResult | None,
    trained_on: Mapping[str, int | None],
    level: int,
) -> dict[str, Any]:
    """Return every curve, by quantity."""
    content: dict[str, Any] = {
        "n_truth": truth[0].n_truth,
        "quantiles": truth[0].quantiles,
        "headline_quantiles": int(truth[0].quantiles[level]),
        "trained_on": dict(trained_on),
        "truth": {one.quantity.name: one.as_dict() for one in truth},
        "samples": {},
    }
    for name, curves in samples.items():
        content["samples"][name] = {
            one.quantity.name: curve.as_dict()
            | {
                "effective_size": [
                    one.formula(float(d), float(e), at).as_dict()
                    for at, (d, e) in enumerate(zip(curve.divergence[-1], curve.error[-1], strict=True))
                ],
                "effective_size_by_comparison": [
                    None if found is None else found.as_dict()
                    for found in (
                        one.comparison(float(d), float(e), at)
                        for at, (d, e) in enumerate(zip(curve.divergence[-1], curve.error[-1], strict=True))
                    )
                ],
            }
            for one, curve in zip(truth, curves, strict=True)
        }
    if toy is not None:
        content["toy"] = {
            "quantiles": toy.quantiles, "known": toy.known, "found": toy.found, "uncertainty": toy.error,
            "sample": toy.sample, "sample_size": toy.sample_size, "sample_uncertainty": toy.sample_error,
        }  # fmt: skip
    return content


GENERATED = 1_000_000
"""Showers of each model unless told otherwise."""
LEAST = 400
"""Fewest trusted showers: two halves with ten quantiles that count."""


class AmplificationSettings(StudySettings):
    """Settings of the study.

    Arguments:
        sizes: Sizes of the truth's own samples; those beyond half of the trusted showers are left out.
        sets: Most independent samples of one size from each half.
        train_size: Training showers of the models, where a model does not say it itself; 0: not known.
        quantiles: Number of quantiles of the headline, a power of two; 0: the most that count for the truth.
        toy: Show the estimator on a Gaussian with a known answer as well.
    """

    sizes: tuple[Annotated[int, Field(ge=20)], ...] = (1_000, 5_000, 10_000, 50_000)
    sets: Annotated[int, Field(ge=1)] = 5
    train_size: Annotated[int, Field(ge=0)] = 0
    quantiles: Annotated[int, Field(ge=0)] = 0
    toy: bool = True


class AmplificationStudy(Study):
    """Quantile divergences, effective sizes and amplification factors."""

    name: ClassVar[str] = "amplification"
    title: ClassVar[str] = "Amplification: what a generated sample is worth"
    source: ClassVar[str] = "calomplification"
    needs: ClassVar[str] = (
        "a file of Geant4 showers that no model was trained on (ild-ecal or its 10x10 images, at least 400; "
        "further files with --truth) and one or more models or files of generated showers of the same detector"
    )
    Settings: ClassVar[type[StudySettings]] = AmplificationSettings

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
        settings = context.chosen(AmplificationSettings)
        halves = _halves(context)
        sizes = set_sizes(settings.sizes, len(halves[0]))
        truth = [TruthCurves(halves, quantity, sizes, settings.sets) for quantity in QUANTITIES]
        level = headline(truth[0], settings.quantiles)
        samples: dict[str, list[SampleCurves]] = {}
        trained_on: dict[str, int | None] = {}
        detector = common_detector([source.detector for source in (*context.references, *context.generated)])
        for source in context.generated:
            wanted = context.size(GENERATED)
            observed = collect(source, wanted, context.trusted[0], detector, context.seed, context.cache)
            steps = growing_sizes(len(observed))
            samples[source.label] = [curves.compare(observed, steps) for curves in truth]
            trained_on[source.label] = source.trained_on or settings.train_size or None
        panels = figures.Panels(truth, samples, made_by(context), _limit(context, truth[0]))
        toy = run_toy(len(halves[0]), min(1000, len(halves[0])), seed=context.seed) if settings.toy else None
        rows = [
            row
            for name, curves in samples.items()
            for row in sample_rows(name, truth, curves, level, trained_on[name])
        ]
        rows += mean_rows(truth, samples, level, trained_on)
        rows += [] if toy is None else [toy_row(toy)]
        return StudyResult(
            rows,
            _figures(panels, level, trained_on, toy),
            _texts(context, truth[0], level, toy),
            {"Effective size by number of quantiles": [quantile_table(truth, samples, trained_on)]},
            all_curves(truth, samples, toy, trained_on, level),
            {made_by(context): 2 * len(halves[0])}
            | {name: int(found[0].sizes[-1]) for name, found in samples.items()},
        )


def _halves(context: Context) -> tuple[Observed, Observed]:
    """Return the trusted showers, observed, shuffled and halved."""
    every = collect_truth(context).shuffled(generator(context.seed, "amplification halves"))
    size = len(every) // 2
    return every.part(0, size), every.part(size, 2 * size)


def headline(truth: TruthCurves, wanted: int) -> int:
    """Return the place of the headline's number of quantiles among those that count for the truth."""
    if not wanted:
        return len(truth.quantiles) - 1
    return int(np.searchsorted(truth.quantiles, wanted, "right")) - 1 if wanted >= 2 else 0


def _limit(context: Context, truth: TruthCurves) -> str:
    """Say how many trusted showers there are and what that limits."""
    most = int(truth.quantiles[-1])
    return (
        f"truth: {counted(context)} in two halves of {truth.n_truth:,}. "
        f"They limit it to {most} quantiles and to comparison with samples up to {truth.sizes[-1]:,}; "
        "dashed: beyond n/10 quantiles"
    )


def _texts(context: Context, truth: TruthCurves, level: int, toy: ToyResult | None) -> list[str]:
    check = "" if toy is None else _check(toy, int(truth.quantiles[level]))
    return [
        _limit(context, truth) + ".",
        f"The numbers below are for {int(truth.quantiles[level])} quantiles. By formula: "
        "1/n_eff = 8 D/(n_quant - 1) - 1/n_truth; by comparison: the size of the truth's own samples with the "
        "same divergence, which ends at the largest of them. The amplification factor is n_eff over the number of "
        f"training showers.{check}",
        "The truth must not hold the showers that a model was trained on; a model that repeats them looks better "
        "than it is.",
    ]


def _check(toy: ToyResult, quantiles: int) -> str:
    """Say what the estimator makes of an amplification that is known."""
    at = int(np.searchsorted(toy.quantiles, quantiles).clip(max=len(toy.quantiles) - 1))
    found, error, known = (float(curve[at]) for curve in (toy.found, toy.error, toy.known))
    return (
        f" Of Gaussian fits against a truth of as many values the estimator finds {number_text(found, error)} "
        f"in {int(toy.quantiles[at])} quantiles, where {known:.3g} is right."
    )


def _figures(
    panels: figures.Panels, level: int, trained_on: Mapping[str, int | None], toy: ToyResult | None
) -> list[Figure]:
    drawn = [
        Figure(
            "divergence",
            "Quantile divergence",
            "Divergence from the truth against the number of quantiles: lines with bands are samples of the truth "
            "and their spread. Dashed: fewer than ten showers a quantile.",
            figures.draw_divergence(panels),
        ),
        Figure(
            "plateau",
            "Plateau",
            "Divergence against the size of the generated sample: where it is flat, more showers say nothing new.",
            figures.draw_plateau(panels, level),
        ),
        Figure(
            "effective_size",
            "Effective size",
            "By formula, with one standard deviation; open triangles are lower limits (two standard deviations). "
            "Dotted: the size of the training set.",
            figures.draw_effective(panels, trained_on),
        ),
    ]
    if toy is not None:
        caption = "The same estimator on Gaussian fits, whose amplification is known in closed form."
        drawn.append(Figure("toy", "Check of the estimator", caption, figures.draw_toy(toy)))
    return drawn
