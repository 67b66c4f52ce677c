"""Samples made wrong on purpose: each is found, named by its physical cause, and ranked behind a mild one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.data import sample_path
from caloforge.showers import Showers, open_showers
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.report.page import format_count, format_percent, format_value
from caloforge.validate.report.statements import spectrum
from caloforge.validate.report.summary import judge, judge_all, summary_rows, verdicts
from caloforge.validate.report.tolerances import TOLERANCES, flag_of, severity_of, worst_flag
from caloforge.validate.sample import Sample

NAMES = ("moments", "spectrum", "prdc")
SETTINGS = Settings(device="cpu", n_bootstrap=20, n_halves=3)


@pytest.fixture(scope="module")
def showers() -> tuple[Showers, Showers]:
    """The reference, and other showers of Geant4."""
    with open_showers(sample_path()) as source:
        order = np.random.default_rng(0).permutation(len(source))
        return source.take(np.sort(order[:1600])), source.take(np.sort(order[1600:2800]))


@pytest.fixture(scope="module")
def reference(showers: tuple[Showers, Showers]) -> Sample:
    return Sample(showers[0], "Geant4")


@pytest.fixture(scope="module")
def mild(showers: tuple[Showers, Showers], reference: Sample) -> dict[str, Any]:
    return compute_metrics(reference, Sample(showers[1], "mild"), SETTINGS, NAMES)


def double(showers: Showers, rng: np.random.Generator) -> Showers:
    return showers.replace(cells=2 * showers.cells)


def without_front(showers: Showers, rng: np.random.Generator) -> Showers:
    cells = showers.cells.copy()
    cells[:, showers.detector.layer_cells[1]] = 0.0
    return showers.replace(cells=cells)


def spike(showers: Showers, rng: np.random.Generator) -> Showers:
    cells = showers.cells.copy()
    cells[(cells > 0.09) & (cells < 0.1)] = 0.1001
    return showers.replace(cells=cells)


def collapse(showers: Showers, rng: np.random.Generator) -> Showers:
    few = np.sort(rng.choice(len(showers), 100, replace=False))
    return showers.take(rng.choice(few, len(showers)))


def one_bin_up(showers: Showers, rng: np.random.Generator) -> Showers:
    return showers.replace(cells=(showers.cells * 10 ** (1 / 20)).astype(np.float32))


def smear(showers: Showers, rng: np.random.Generator) -> Showers:
    factors = np.maximum(1.0 + 0.05 * rng.standard_normal(showers.cells.shape), 0.0)
    return showers.replace(cells=(showers.cells * factors).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        (double, "response", "response 2 times too high"),
        (without_front, "layers", "missing layer 1 (without energy)"),
        (spike, "spectrum", "between 0.100 and 0.102 MeV, directly above the hit threshold"),
        (collapse, "prdc", "mode collapse: recall 0."),
        (one_bin_up, "response", "response 12 % too high"),
        (smear, "resolution", "energy resolution"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_wrong_is_found_named_and_ranked_last(
    showers: tuple[Showers, Showers],
    reference: Sample,
    mild: dict[str, Any],
    change: Callable[[Showers, np.random.Generator], Showers],
    cause: str,
    words: str,
) -> None:
    wrong = change(showers[1], np.random.default_rng(1))
    metrics = {"samples": {"wrong": compute_metrics(reference, Sample(wrong, "wrong"), SETTINGS, NAMES)}}
    metrics["samples"]["mild"] = mild
    best, worst = judge_all(metrics)
    assert (best.label, worst.label) == ("mild", "wrong")
    assert worst.score > best.score + 0.3
    assert worst.causes[0].name == cause
    assert worst.causes[0].flag == "bad"
    first, second = verdicts(metrics)
    assert first.startswith("mild, nearest to the reference: no relevant deviation was found")
    assert words in second.split(";")[0]
    columns, rows = summary_rows(metrics)
    assert columns[1:] == ["mild", "wrong"]
    assert rows[-1][1].text == "nothing"
    assert rows[-1][2].text != "nothing"


def test_other_showers_of_the_reference_have_nothing_bad(mild: dict[str, Any]) -> None:
    statements = judge(mild)
    assert {s.flag for s in statements.values()} <= {"good", "unknown"}
    assert statements["response"].flag == "good"


def test_few_showers_cannot_tell(showers: tuple[Showers, Showers]) -> None:
    few = [Sample(part[:60], "few") for part in showers]
    statements = judge(compute_metrics(*few, SETTINGS, ["moments", "spectrum"]))
    assert statements["resolution"].flag == "unknown"
    (sentence,) = verdicts({"samples": {"few": compute_metrics(*few, SETTINGS, ["moments"])}})
    assert "undecided: " in sentence


# -- rules


@pytest.mark.parametrize(
    ("deviation", "uncertainty", "flag"),
    [
        (0.0, 0.01, "good"),
        (0.02, 0.001, "good"),  # significant, but small
        (0.05, 0.01, "warn"),
        (0.2, 0.05, "warn"),  # large, four deviations
        (0.2, 0.01, "bad"),
        (0.0, 0.2, "unknown"),  # no power
        (0.15, 0.09, "unknown"),  # as large as what is bad, but not significant
        (1.0, 0.19, "bad"),
        (0.2, None, ""),
    ],
)
def test_flags_need_size_and_significance(deviation: float, uncertainty: float | None, flag: str) -> None:
    assert flag_of(deviation, uncertainty, 0.1) == flag


def test_the_severity_grows_with_the_logarithm_and_is_capped() -> None:
    assert severity_of(0.0, 0.1, 0.1) == 0.0
    assert severity_of(0.2, 0.05, 0.1) == pytest.approx(1.0)
    assert severity_of(0.2, 0.1, 0.1) == 0.0  # may be chance
    assert severity_of(1e9, 0.0, 0.1) == 8.0
    response = TOLERANCES["response"].weight * severity_of(1.0, 0.01, TOLERANCES["response"].bad)
    assert all(response > t.weight * 8 for name, t in TOLERANCES.items() if t.weight <= 3)


def test_several_entries_have_the_flag_of_the_worst() -> None:
    assert worst_flag(["good", "unknown", "good"]) == "good"
    assert worst_flag(["unknown", "unknown", "good"]) == "unknown"
    assert worst_flag(["unknown", "warn", "bad"]) == "bad"
    assert worst_flag([""]) == ""


def value(
    number: float | None, floor: float | None = None, uncertainty: float = 0.01, **detail: Any
) -> dict[str, Any]:
    return {
        "value": number,
        "uncertainty": uncertainty,
        "floor": floor,
        "floor_uncertainty": 0.01,
        "detail": detail,
    }


def test_coverage_is_never_shown_alone() -> None:
    four = {
        "precision": value(0.9, 0.9),
        "recall": value(0.01, 0.4),
        "density": value(17.0, 1.0),
        "coverage": value(0.999, 0.98),
    }
    for missing in four:
        assert "prdc" not in judge({key: entry for key, entry in four.items() if key != missing})
    statement = judge(four)["prdc"]
    assert statement.flag == "bad"
    assert statement.finding.startswith("mode collapse: recall 0.01, floor 0.4")
    assert statement.text == "0.90 · 0.01 · 17.00 · 1.00"


def test_the_strongest_classifier_is_named() -> None:
    sample = {
        "auc_low": value(0.52, 0.5),
        "auc_strongest": value(0.98, 0.5, classifier="boosting on the spectrum"),
    }
    statement = judge(sample)["auc_strongest"]
    assert statement.finding == "a classifier reaches AUC 0.98 (boosting on the spectrum)"
    assert statement.flag == "bad"
    features = [{"feature": "layer_energy[2]", "kind": "observable", "importance": 0.2, "uncertainty": 0.01}]
    named = judge(sample | {"attribution": {"value": 0.2, "detail": {"features": features}}})
    assert named["auc_strongest"].finding.endswith(", mostly by layer energy[2] (observable)")
    assert "cells" in judge({"auc_low": value(0.7, 0.5)})["auc_strongest"].finding


def test_physics_stands_before_classifiers_in_the_verdict() -> None:
    sample = {
        "auc_strongest": value(0.98, 0.5),
        "moments": {"ratio": {"response": value(1.006, 1.0, 0.001)}},
    }
    (sentence,) = verdicts({"samples": {"a": sample}})
    assert sentence == "a: response 0.6 % too high; a classifier reaches AUC 0.98."


@pytest.mark.parametrize(
    ("number", "detail", "text", "flag"),
    [
        (420.0, {"n_5sigma": {"low": 350.0, "high": 510.0}}, "420", "bad"),
        (3000.0, {"n_5sigma": {"low": 2000.0, "high": 5000.0}, "extrapolated": True}, "3,000", "warn"),
        (40_000.0, {"n_5sigma": {"low": 20e3, "high": 90e3}}, "40,000", "good"),
        (None, {"lower_limit": 2400.0}, "more than 2,400", "unknown"),
        (None, {"lower_limit": 24_000.0}, "more than 24,000", "good"),
    ],
)
def test_detectability_in_showers(number: float | None, detail: dict[str, Any], text: str, flag: str) -> None:
    statement = judge({"detectability": {"value": number, "detail": detail}})["detectability"]
    assert statement.text == text
    assert statement.flag == flag
    if number == 420.0:
        assert "420 showers a side distinguish it from the reference at 5 sigma" in statement.finding


def test_an_unfinished_model_is_ranked_last_and_said() -> None:
    good = {"auc_strongest": value(0.5, 0.5)}
    bad = {"auc_strongest": value(0.99, 0.5)}
    unfinished = good | {
        "provenance": {"attributes": {"model_status": "unfinished: stage cells not trained"}}
    }
    metrics = {"samples": {"half": unfinished, "poor": bad}}
    assert [j.label for j in judge_all(metrics)] == ["poor", "half"]
    sentence = verdicts(metrics)[1]
    assert sentence.startswith("half (warning: its training is unfinished: stage cells not trained)")
    row = next(row for row in summary_rows(metrics)[1] if row[0].text == "Training")
    assert [cell.flag for cell in row[1:]] == ["", "bad"]


def test_showers_seen_in_training_are_said() -> None:
    metrics = {"samples": {"a": {"auc_strongest": value(0.5, 0.5), "seen": {"n": 351, "of": 828}}}}
    (sentence,) = verdicts(metrics)
    assert "351 of the 828 reference showers trained or selected the model" in sentence
    row = next(row for row in summary_rows(metrics)[1] if row[0].text == "Showers seen in training")
    assert row[1].text == "351 of 828"
    assert row[1].flag == "bad"


def test_every_tolerance_has_a_rule_and_a_place_in_the_documentation() -> None:
    assert judge({}) == {}
    text = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    assert [t.label for t in TOLERANCES.values() if t.label not in text] == []
    assert all(t.bad > 0 and t.weight >= 0 and t.says for t in TOLERANCES.values())


@pytest.mark.parametrize(
    ("ratio", "uncertainty", "text"),
    [(1.0042, 0.0016, "+0.42 ± 0.16 %"), (0.9, None, "−10 %"), (2.0, None, "+100 %")],
)
def test_ratios_as_per_cent(ratio: float, uncertainty: float | None, text: str) -> None:
    assert format_percent(ratio, uncertainty) == text


def test_counts_have_two_digits() -> None:
    assert [format_count(n) for n in (42.3, 1234.0, 98_765.0)] == ["42", "1,200", "99,000"]


def test_numbers_in_sentences_have_no_exponent() -> None:
    quiet = {"significant": False, "typical_uncertainty": 0.2}
    found = spectrum({"spectrum_ratio": {"all": {"value": 1.0, "detail": quiet}}})
    assert found is not None
    assert found.text == "no bin deviates (bins to ±20 %)"
    loud = {
        "significant": True, "deviance": 9.0, "ratio": 1234.0, "significance": 9.0, "energy_low": 1500.0, "energy_high": 2500.0,
        "finding": "1230 times too many cells",
    }  # fmt: skip
    found = spectrum({"spectrum_ratio": {"all": {"value": 1234.0, "detail": loud}}})
    assert found is not None
    assert found.text == "× 1230 at 1500 to 2500 MeV"
    assert format_value(1234.0) == "1230"
