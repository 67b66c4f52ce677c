"""Registries resolve late, list what they know, and take entries of other packages."""

import sys

import pytest

from caloforge.errors import MissingExtraError, UnknownNameError, require
from caloforge.registry import Registry


def test_entries_resolve_when_used() -> None:
    registry: Registry[object] = Registry("thing", {"late": "fractions:Fraction", "here": 3})
    from fractions import Fraction

    assert registry["late"] is Fraction
    assert dict(registry.items()) == {"late": Fraction, "here": 3}
    assert "none" not in registry
    assert len(registry) == 2


def test_unknown_name_lists_known() -> None:
    with pytest.raises(UnknownNameError, match="unknown thing 'x'; known: a, b") as caught:
        Registry("thing", {"a": 1, "b": 2})["x"]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", [["a"], 2**63, None, {"a": 1}])
def test_what_is_no_name_is_unknown(name: object) -> None:
    with pytest.raises(UnknownNameError, match="unknown thing"):
        Registry("thing", {"a": 1})[name]  # type: ignore[index]


def test_entry_points_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    point = EntryPoint("theirs", "math:pi", "caloforge.things")
    monkeypatch.setattr("caloforge.registry.entry_points", lambda group: EntryPoints([point]))
    registry: Registry[object] = Registry("thing", {"ours": 1}, group="caloforge.things")
    assert registry.names() == ["ours", "theirs"]
    assert registry["theirs"] == pytest.approx(3.14159, abs=1e-4)


def test_missing_extra_names_the_command() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'caloforge\[eval\]'"):
        require("caloforge_missing_package.inner", "eval")
    assert require("json", "eval") is sys.modules["json"]
