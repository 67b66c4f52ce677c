"""Limits: what a file may say, how names find numbers, what fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from caloforge.errors import ConfigError, FileFormatError, GateError, InputError
from caloforge.validate.limits import (
    Limit,
    check_limits,
    check_names,
    metric_names,
    raise_if_failed,
    read_limits,
)

METRICS = {
    "n_reference": 100,
    "auc_high": {"value": 0.61, "uncertainty": 0.01, "floor": 0.5, "detail": {"seeds": 3}},
    "ks": {
        "visible_energy": {"value": 0.03, "uncertainty": 0.01, "detail": {"p": 0.2}},
        "hits": {"value": 0.3, "detail": {"p": 1e-9}},
    },
    "fpd": {"value": None, "detail": {"reason": "constant features"}},
    "skipped": {"kpd": "needs at least 1000 showers a side"},
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    return path


def outcome(tmp_path: Path, text: str) -> dict[str, bool]:
    rows = check_limits(read_limits(write(tmp_path, text)), {"vae": METRICS})
    return {row.name: row.passed for row in rows}


def test_a_value_a_detail_and_an_uncertainty_are_found(tmp_path: Path) -> None:
    text = """[limits]
auc_high = { max = 0.7, min = 0.5 }
"auc_high.uncertainty" = { max = 0.005 }
"ks.visible_energy.p" = { min = 0.01 }
n_reference = { min = 50 }
"""
    assert outcome(tmp_path, text) == {
        "auc_high": True,
        "auc_high.uncertainty": False,
        "ks.visible_energy.p": True,
        "n_reference": True,
    }


@pytest.mark.parametrize(
    "text",
    [
        '[limits]\n"ks.hits.p" = { min = 0.01 }',
        "[limits]\nks.hits.p = { min = 0.01 }",
        "[limits.ks.hits]\np = { min = 0.01 }",
        "[limits.ks.hits.p]\nmin = 0.01",
    ],
)
def test_every_way_to_write_a_dotted_name_means_the_same(tmp_path: Path, text: str) -> None:
    assert read_limits(write(tmp_path, text)) == [Limit("ks.hits.p", min=0.01)]
    assert outcome(tmp_path, text) == {"ks.hits.p": False}


def test_a_star_stands_for_every_name(tmp_path: Path) -> None:
    assert outcome(tmp_path, '[limits]\n"ks.*" = { max = 0.1 }') == {
        "ks.visible_energy": True,
        "ks.hits": False,
    }


@pytest.mark.parametrize("value", [0.1, 0.2])
def test_the_ends_belong_to_the_range(value: float) -> None:
    assert Limit("x", min=0.1, max=0.2).holds(value)
    assert not Limit("x", min=0.1, max=0.2).holds(value + (0.01 if value == 0.2 else -0.01))


@pytest.mark.parametrize("name", ["fpd", "kpd"])
def test_what_was_not_measured_fails(tmp_path: Path, name: str) -> None:
    (row,) = check_limits([Limit(name, max=1e9)], {"vae": METRICS})
    assert not row.passed
    assert row.value is None
    assert "not measured" in str(row)


def test_nan_is_in_no_range() -> None:
    assert not Limit("x").holds(float("nan"))


def test_the_gate_names_the_failing_rows_only() -> None:
    rows = check_limits([Limit("auc_high", max=0.6), Limit("n_reference", min=1)], {"vae": METRICS})
    with pytest.raises(
        GateError, match=r"1 of 2 limits failed: vae: auc_high = 0.61, expected <= 0.6$"
    ) as caught:
        raise_if_failed(rows)
    assert caught.value.exit_code == 1
    raise_if_failed(row for row in rows if row.passed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits = [", "is not TOML"),
        ("", r"expected a table \[limits\]"),
        ("[limits]", r"expected a table \[limits\]"),
        ("[limit]\nauc_high = { max = 1 }", r"unknown table \[limit\]"),
        ("[limits]\nauc_high = 0.7", "limits.auc_high: expected a table"),
        (
            "[limits]\nauc_high = { maximum = 0.7 }",
            "limits.auc_high: expected a table|limits.auc_high.maximum",
        ),
        ("[limits]\nauc_high = { max = 0.7, about = 1 }", "limits.auc_high.about: unknown field"),
        ('[limits]\nauc_high = { max = "low" }', "limits.auc_high.max: expected a number, got 'low'"),
        ("[limits]\nauc_high = { max = true }", "limits.auc_high.max: expected a number"),
        ("[limits]\nauc_high = { max = 0.1, min = 0.2 }", "limits.auc_high: min 0.2 is above max 0.1"),
    ],
)
def test_a_bad_file_is_refused_with_the_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((ConfigError, FileFormatError), match=message):
        read_limits(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_limits(tmp_path / "nowhere.toml")


def test_an_unknown_metric_is_refused_with_what_was_perhaps_meant() -> None:
    with pytest.raises(ConfigError, match=r"limits.auc_hihg: no such metric; did you mean auc_high"):
        check_names([Limit("auc_hihg", max=1)], ["auc_high", "auc_low", "fpd"])
    with pytest.raises(ConfigError, match=r"ks.hit: no such metric; did you mean ks.hits"):
        check_limits([Limit("ks.hit", max=1)], {"vae": METRICS})
    check_names([Limit("auc_high.uncertainty"), Limit("*")], ["auc_high"])


def test_every_listed_name_is_one_that_a_limit_finds() -> None:
    names = metric_names(METRICS)
    assert "ks.hits.p" in names
    assert "auc_high.floor" in names
    for name in names:
        (row,) = check_limits([Limit(name)], {"vae": METRICS})
        assert row.name == name


def test_the_new_keys_can_be_limited() -> None:
    from caloforge.validate import driver

    limits = read_limits(
        {
            "spectrum_ratio.*": {"min": 0.9, "max": 1.1},
            "spectrum_chi2.all": {"max": 2},
            "moments.ratio.response": {"min": 0.99},
            "moments.resolution": {"max": 1.05},
        }
    )
    check_names(limits, driver._known_keys())
    sample = {
        "spectrum_ratio": {"all": {"value": 1.0}, "layer[3-5]": {"value": 12.8}},
        "spectrum_chi2": {"all": {"value": 1.1}},
        "moments": {"ratio": {"response": {"value": 2.0}}, "resolution": {"value": 1.0}},
    }
    rows = {row.name: row.passed for row in check_limits(limits, {"a": sample})}
    assert rows == {
        "spectrum_ratio.all": True,
        "spectrum_ratio.layer[3-5]": False,
        "spectrum_chi2.all": True,
        "moments.ratio.response": True,
        "moments.resolution": True,
    }


def test_a_number_that_is_only_bounded_is_compared_by_its_bound() -> None:
    limits = read_limits({"detectability": {"min": 5000}})
    found = {"detectability": {"value": None, "detail": {"lower_limit": 8000.0, "reason": "more than 8,000"}}}
    (row,) = check_limits(limits, {"a": found})
    assert row.passed
    assert row.value == 8000.0
    (row,) = check_limits(limits, {"a": {"detectability": {"value": None, "detail": {"reason": "too few"}}}})
    assert not row.passed
