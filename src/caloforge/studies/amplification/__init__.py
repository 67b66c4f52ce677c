"""The amplification study: effective size of a generated sample, in showers of the truth.

References:
    S. Bieringer et al., Calomplification - the power of generative calorimeter models, arXiv:2202.07352.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from caloforge.data import packed_projections
from caloforge.geometry import Detector
from caloforge.random import generator
from caloforge.statistics.effective_size import EffectiveSize, ToyResult, run_toy
from caloforge.studies.amplification.curves import (
    QUANTITIES,
    Quantity,
    SampleCurves,
    TruthCurves,
    collect,
    collect_truth,
    count_text,
    growing_sizes,
    image_detector,
    set_sizes,
    truth_name,
)
from caloforge.studies.amplification.figures import (
    Panels,
    divergence_figure,
    effective_figure,
    plateau_figure,
    toy_figure,
)
from caloforge.studies.base import Context, Row, Study, StudyResult, StudySettings
from caloforge.studies.page import number_text
from caloforge.units import plain_number
from caloforge.validate.report.page import Table

__all__ = ["AmplificationSettings", "AmplificationStudy", "TruthStudy", "headline_level", "size_row"]

_GENERATED = 1_000_000


class TruthStudy(Study):
    """A study that divides the reference showers, images of them for ``ild-ecal``, into truths and samples."""

    source = "calomplification"
    papers = ("calomplification", "ganplification")
    least: ClassVar[int]  # fewest reference showers

    @classmethod
    def default_reference(cls) -> Path | None:
        """Return the packed images that ship with the package, when they are there."""
        return packed_projections()

    def space(self, detector: Detector) -> Detector:
        """Return the detector of the images, for showers that are projected to them."""
        return image_detector(detector)

    def check(self, context: Context) -> None:
        """Check detectors and the number of showers."""
        super().check(context)
        if context.n_reference < self.least:
            self.refuse(f"{context.n_reference} reference showers are too few")


class AmplificationSettings(StudySettings):
    """Settings of the study.

    Arguments:
        sizes: Sizes of the truth's own samples; those beyond half of the reference showers are left out.
        sets: Most independent samples of one size from each half.
        train_size: Training showers of models that do not say it themselves; 0: not known.
        quantiles: Number of quantiles of the headline, a power of two; 0: the most that count for the truth.
        toy: Show the estimator on a Gaussian with a known answer as well.
    """

    sizes: tuple[Annotated[int, Field(ge=20)], ...] = (1_000, 5_000, 10_000, 50_000)
    sets: Annotated[int, Field(ge=1)] = 5
    train_size: Annotated[int, Field(ge=0)] = 0
    quantiles: Annotated[int, Field(ge=0)] = 0
    toy: bool = True


class AmplificationStudy(TruthStudy):
    """Quantile divergences, effective sizes and amplification factors."""

    name = "amplification"
    title = "Amplification: effective size of a generated sample"
    needs = (
        "a file of Geant4 showers that no model was trained on (ild-ecal or its 10x10 images, at least 400; "
        "further files with --truth) and one or more models or files of generated showers of the same detector"
    )
    question = "How many Geant4 showers is a generated sample worth?"
    Settings = AmplificationSettings
    least = 400  # two halves with ten quantiles that count

    def run(self, context: Context) -> StudyResult:
        """Do the study."""
        settings = context.chosen(AmplificationSettings)
        every = collect_truth(context).shuffled(generator(context.seed, "amplification halves"))
        half = len(every) // 2
        halves = every.part(0, half), every.part(half, 2 * half)
        sizes = set_sizes(settings.sizes, half)
        truth = [TruthCurves(halves, quantity, sizes, settings.sets) for quantity in QUANTITIES]
        level = headline_level(truth[0], settings.quantiles)
        samples: dict[str, list[SampleCurves]] = {}
        trained: dict[str, int | None] = {}
        for source in context.generated:
            observed = collect(context, source, context.size(_GENERATED))
            samples[source.label] = [one.compare(observed, growing_sizes(len(observed))) for one in truth]
            trained[source.label] = source.trained_on or settings.train_size or None
        toy = run_toy(half, min(1000, half), seed=context.seed) if settings.toy else None
        limit = (
            f"truth: {count_text(context)} in two halves of {half:,}. These allow up to {int(truth[0].quantiles[-1])} "
            f"quantiles and a comparison with samples of up to {sizes[-1]:,}; dashed: beyond n/10 quantiles"
        )
        panels = Panels(truth, samples, truth_name(context), limit)
        figures = [
            divergence_figure(panels),
            plateau_figure(panels, level),
            effective_figure(panels, trained),
        ]
        used = {name: int(curves[0].sizes[-1]) for name, curves in samples.items()}
        return StudyResult(
            rows=_rows(samples, trained, level, toy),
            figures=[*figures, *([] if toy is None else [toy_figure(toy)])],
            texts=_texts(limit, int(truth[0].quantiles[level]), toy),
            blocks={"Effective size by number of quantiles": [_quantile_table(truth[0], samples, trained)]},
            data=_data(truth, samples, toy, trained, level),
            showers={truth_name(context): 2 * half} | used,
        )


def headline_level(truth: TruthCurves, wanted: int) -> int:
    """Return the place of the headline's number of quantiles among those that count for the truth."""
    if not wanted:
        return len(truth.quantiles) - 1
    return int(np.searchsorted(truth.quantiles, wanted, "right")) - 1 if wanted >= 2 else 0


def _rows(
    samples: Mapping[str, Sequence[SampleCurves]],
    trained: Mapping[str, int | None],
    level: int,
    toy: ToyResult | None,
) -> list[Row]:
    """Return each quantity of each sample by formula and by comparison, means over samples, and the check."""
    rows = []
    for name, curves in samples.items():
        row = partial(size_row, name, trained=trained[name])
        for curve in curves:
            truth = curve.truth
            rows.append(row(curve.truth.quantity, curve.formula(level), note="by formula"))
            # the largest number of quantiles that counts for every sample of the truth
            at = min(level, max(0, int(truth.counts_for(truth.sizes[0]).sum()) - 1))
            note = f"by comparison in {int(truth.quantiles[at])} quantiles"
            rows.append(
                row(truth.quantity, curve.comparison(at), note=note, smallest=truth.sizes[0], published=False)
            )
    if len(samples) > 1 and len(set(trained.values())) == 1:
        for same in zip(*samples.values(), strict=True):
            found = np.array([curve.divergence[-1, level] for curve in same])
            truth, error = same[0].truth, float(found.std(ddof=1) / np.sqrt(len(found)))
            size = truth.formula(float(found.mean()), error, level)
            label, note = f"mean of {len(found)} samples", "by formula, error from the spread"
            rows.append(size_row(label, truth.quantity, size, next(iter(trained.values())), note))
    if toy is not None:
        note = f"{toy.sample_size:,} values of a Gaussian truth must have this effective size"
        title = "check: effective size of a sample of the truth"
        rows.append(Row(title, toy.sample, toy.sample_uncertainty, note=note))
    return rows


def size_row(
    name: str,
    quantity: Quantity,
    size: EffectiveSize | None,
    trained: int | None,
    note: str,
    published: bool = True,
    smallest: int = 0,
) -> Row:
    """Return a row of an effective size, or of the amplification factor where the training set is known.

    Arguments:
        size: The effective size; None where it is below ``smallest``.
        note: The method by which it was found.
        trained: Showers of the training set.
        published: Whether the paper's number stands beside it.
    """
    title = f"{f'amplification of {trained:,}' if trained else 'effective size'}: {quantity.text}, {note}"
    row = partial(
        Row, title, paper=f"amplification.factor_{quantity.name}" if trained and published else None
    )
    if size is None:
        return row(ours=None, note=f"below {smallest / (trained or 1):,.3g}", sample=name)
    shown, limit = size.over(trained or 1), ""
    if shown.value is None:
        limit = f"above {shown.low:,.3g}"
    unit = "" if trained else "showers"
    return row(ours=shown.value, uncertainty=shown.error, unit=unit, note=limit, sample=name)


def _quantile_table(
    truth: TruthCurves, samples: Mapping[str, Sequence[SampleCurves]], trained: Mapping[str, int | None]
) -> Table:
    """Return effective sizes (amplification factors) by formula at every number of quantiles."""
    rows = []
    for name, curves in samples.items():
        for curve in curves:
            sizes = [size.over(trained[name] or 1) for size in curve.formulas()]
            texts = [
                f"> {plain_number(s.low)}" if s.value is None else number_text(s.value, s.error)
                for s in sizes
            ]
            rows.append([name, curve.truth.quantity.text, *texts])
    columns = ["sample", "quantity", *(str(int(n_quant)) for n_quant in truth.quantiles)]
    caption = "Amplification factors by number of quantiles; effective sizes in showers where the training set is not known."
    return Table(columns, rows, caption, key="by-quantiles", texts=(0, 1))


def _data(
    truth: Sequence[TruthCurves],
    samples: Mapping[str, Sequence[SampleCurves]],
    toy: ToyResult | None,
    trained: Mapping[str, int | None],
    level: int,
) -> dict[str, Any]:
    """Return every curve, by quantity."""
    levels = range(len(truth[0].quantiles))
    content: dict[str, Any] = {
        "n_truth": truth[0].n_truth,
        "quantiles": truth[0].quantiles,
        "headline_quantiles": int(truth[0].quantiles[level]),
        "trained_on": dict(trained),
        "truth": {one.quantity.name: one.as_dict() for one in truth},
        "samples": {
            name: {
                curve.truth.quantity.name: curve.as_dict()
                | {
                    "effective_size": [vars(size) for size in curve.formulas()],
                    "effective_size_by_comparison": [
                        None if size is None else vars(size) for size in map(curve.comparison, levels)
                    ],
                }
                for curve in curves
            }
            for name, curves in samples.items()
        },
    }
    return content if toy is None else content | {"toy": vars(toy)}


def _texts(limit: str, quantiles: int, toy: ToyResult | None) -> list[str]:
    check = ""
    if toy is not None:
        at = int(np.searchsorted(toy.quantiles, quantiles).clip(max=len(toy.quantiles) - 1))
        found, error, known = (float(curve[at]) for curve in (toy.found, toy.uncertainty, toy.known))
        check = (
            f" As a check, the estimator gives {number_text(found, error)} for Gaussian fits "
            f"in {int(toy.quantiles[at])} quantiles, where the exact value is {plain_number(known)}; the truth has as many values."
        )
    return [
        limit + ".",
        f"The numbers below are for {quantiles} quantiles. By formula: "
        "1/n_eff = 8 D/(n_quant - 1) - 1/n_truth; by comparison: the size of the truth's own samples with the "
        "same divergence, at most the largest of these samples. The amplification factor is n_eff over the number of "
        f"training showers.{check}",
        "The truth must not contain the training showers of a model: a model that repeats them would get too large a factor.",
    ]
