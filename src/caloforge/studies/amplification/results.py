"""What the amplification study reports: rows beside the paper's numbers, the table by quantiles, every curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caloforge.studies.amplification.curves import SampleCurves, TruthCurves
from caloforge.studies.amplification.estimators import EffectiveSize
from caloforge.studies.amplification.observables import Quantity
from caloforge.studies.amplification.toy import ToyResult
from caloforge.studies.base import Row
from caloforge.studies.page import number_text
from caloforge.validate.report.page import Table

__all__ = ["all_curves", "mean_rows", "quantile_table", "sample_rows", "size_row", "toy_row"]


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
