"""Energies and angles as people write them."""

import numpy as np
import pytest

from caloforge.errors import UnitError
from caloforge.units import AngleSpec, EnergySpec, plain_number, say_seconds


@pytest.mark.parametrize(
    ("text", "low", "high", "kind"),
    [
        ("50GeV", 50e3, 50e3, "fixed"),
        ("500MeV", 500, 500, "fixed"),
        ("10-100GeV", 10e3, 100e3, "uniform"),
        ("500MeV-2GeV", 500, 2000, "uniform"),
        ("1-262GeV:log2", 1e3, 262e3, "log2"),
        ("1-1000GeV:log", 1e3, 1e6, "log"),
        ("1e2 GeV", 1e5, 1e5, "fixed"),
    ],
)
def test_energies(text: str, low: float, high: float, kind: str) -> None:
    spec = EnergySpec.parse(text)
    assert (spec.low, spec.high, spec.kind) == (low, high, kind)
    assert EnergySpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("50", "no unit"),
        ("50parsec", "unknown unit 'parsec'"),
        ("100-10GeV", "out of range"),
        ("0GeV", "out of range"),
        ("-5GeV", "not understood"),
        ("1-2GeV:log3", "unknown rule ':log3'"),
        ("1GeV:log2", "without a range"),
        ("1e9TeV", "out of range"),
    ],
)
def test_bad_energies(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        EnergySpec.parse(text)


def test_powers_of_two_come_in_equal_parts() -> None:
    spec = EnergySpec.parse("1.024-262.144GeV:log2")
    values = spec.values((np.arange(900) + 0.5) / 900)
    levels, counts = np.unique(values, return_counts=True)
    np.testing.assert_allclose(levels, 1024 * 2.0 ** np.arange(9))
    np.testing.assert_array_equal(counts, 100)


def test_uniform_range() -> None:
    values = EnergySpec.parse("10-20GeV").values(np.array([0.0, 0.5]))
    np.testing.assert_allclose(values, [10e3, 15e3])


def test_a_logarithmic_range_is_uniform_in_the_logarithm() -> None:
    spec = EnergySpec.parse("1-1000GeV:log")
    u = (np.arange(300000) + 0.5) / 300000
    values = spec.values(u)
    np.testing.assert_allclose(np.log(values / 1e3), u * np.log(1e3), atol=1e-9)
    assert spec.levels == 1


@pytest.mark.parametrize("text", ["7GeV", "5-6GeV", "1-1000GeV:log", "3-3GeV:log", "1-262GeV:log2"])
def test_the_mean_is_that_of_many_energies(text: str) -> None:
    spec = EnergySpec.parse(text)
    assert spec.mean == pytest.approx(spec.values((np.arange(100000) + 0.5) / 100000).mean(), rel=1e-4)


def test_angles() -> None:
    assert AngleSpec.parse("30-90") == AngleSpec(30, 90)
    assert AngleSpec.parse(85.0) == AngleSpec(85, 85)
    assert str(AngleSpec(30, 90)) == "30-90"
    for text in ("0", "180", "90-30", "steep"):
        with pytest.raises(UnitError):
            AngleSpec.parse(text)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_numbers_of_an_ordinary_range_are_said_without_an_exponent(digits: int) -> None:
    values = np.geomspace(1.0, 9.4e4, 400)
    for value in [*values, *-values]:
        text = plain_number(value, digits)
        assert "e" not in text
        assert float(text) == float(f"{value:.{digits}g}")
    assert [plain_number(x, 1) for x in (19.8, 0.04, 100.0)] == ["20", "0.04", "100"]
    assert [plain_number(x) for x in (1234.0, 0.5, 2e7, 1e-6)] == ["1230", "0.5", "2e+07", "1e-06"]
    assert plain_number(151.2, 2, "+") == "+150"
    assert say_seconds(0.0998) == "100 ms"
