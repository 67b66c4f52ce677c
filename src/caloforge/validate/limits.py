"""Limits on metrics, for automated production.

    [limits]
    auc_high = { max = 0.7 }
    "ks.visible_energy.p" = { min = 0.001 }
    "separation_power.*" = { max = 0.05 }
    "wasserstein.hits.uncertainty" = { max = 2.0 }

A name is a path into a sample's part of ``metrics.json``; a value with its uncertainty is meant when the
path ends at one, and a detail of it (such as ``p``) is found without saying ``detail``. ``*`` stands for every
name at its place. The limits hold for every generated sample. A metric that could not be measured fails its
limit: a gate must not open because a number is missing. Where a value is only known to exceed a number
(``lower_limit`` in its detail, such as the showers of ``detectability``), that number is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caloforge.errors import ConfigError, GateError, did_you_mean
from caloforge.text_files import read_toml
from caloforge.units import plain_number

__all__ = ["Limit", "Row", "check_limits", "check_names", "metric_names", "raise_if_failed", "read_limits"]

_BOUNDS = ("min", "max")


@dataclass(frozen=True)
class Limit:
    """A metric's path and the range that it must lie in, ends included."""

    name: str
    min: float | None = None
    max: float | None = None

    def holds(self, value: float | None) -> bool:
        """Return whether a value lies in the range; a missing one does not."""
        if value is None or value != value:
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        bounds = {">=": self.min, "<=": self.max}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Row:
    """The outcome of one limit for one sample and one metric."""

    sample: str  # label of the generated sample
    name: str  # full path of the metric
    value: float | None  # what was measured; None when it was not
    limit: Limit  # the range
    passed: bool  # whether it holds
    reason: str = ""  # why there is no value

    def __str__(self) -> str:
        value = "not measured" if self.value is None else plain_number(self.value, 4)
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.sample}: {self.name} = {value}{reason}, expected {self.limit}"


def read_limits(source: str | Path | Mapping[str, Any]) -> list[Limit]:
    """Read limits from a TOML file, or from a mapping of names to ``{"min": ..., "max": ...}``.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a field is not a limit; names the field.
    """
    if isinstance(source, Mapping):
        return _parse(source, "limits")
    content = read_toml(source)
    unknown = sorted(set(content) - {"limits"})
    if unknown:
        msg = f"{source}: unknown table [{unknown[0]}]; expected [limits] with lines such as auc_high = {{ max = 0.7 }}"
        raise ConfigError(msg)
    table = content.get("limits")
    if not isinstance(table, Mapping) or not table:
        msg = f"{source}: expected a table [limits] with at least one limit"
        raise ConfigError(msg)
    return _parse(table, str(source))


def _parse(table: Mapping[str, Any], where: str, prefix: str = "") -> list[Limit]:
    """Turn a nested table into limits; a table of ``min`` and ``max`` numbers is one."""
    limits: list[Limit] = []
    for key, entry in table.items():
        name = f"{prefix}{key}"
        if not isinstance(entry, Mapping) or not entry:
            msg = f"{where}: limits.{name}: expected a table such as {{ max = 0.7 }}, got {entry!r:.80}"
            raise ConfigError(msg)
        if not set(entry) & set(_BOUNDS) and all(isinstance(v, Mapping) for v in entry.values()):
            limits += _parse(entry, where, f"{name}.")
            continue
        for bound, number in entry.items():
            if bound not in _BOUNDS:
                msg = f"{where}: limits.{name}.{bound}: unknown field; expected min or max"
                raise ConfigError(msg)
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                msg = f"{where}: limits.{name}.{bound}: expected a number, got {number!r:.80}"
                raise ConfigError(msg)
        if entry.get("min", float("-inf")) > entry.get("max", float("inf")):
            msg = f"{where}: limits.{name}: min {entry['min']:g} is above max {entry['max']:g}"
            raise ConfigError(msg)
        limits.append(Limit(name, entry.get("min"), entry.get("max")))
    return limits


def metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """Return the path of every number in one sample's metrics."""
    return [".".join(path) for path, _ in _numbers(metrics)]


def check_names(limits: Iterable[Limit], known: Iterable[str]) -> None:
    """Check the first part of each name, before anything is computed.

    Raises:
        ConfigError: When no metric writes such a key.
    """
    known = list(known)
    for limit in limits:
        first = limit.name.split(".", 1)[0]
        if first != "*" and first not in known:
            raise ConfigError(_unknown(limit.name, first, known))


def check_limits(limits: Iterable[Limit], samples: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Compare every sample's metrics with the limits.

    Arguments:
        samples: Label to that sample's metrics, as under ``samples`` in ``metrics.json``.

    Returns:
        One row for each sample, limit and metric that it names.

    Raises:
        ConfigError: When a limit names nothing that exists in a sample.
    """
    rows: list[Row] = []
    limits = list(limits)
    for label, metrics in samples.items():
        skipped = metrics.get("skipped", {})
        for limit in limits:
            first = limit.name.split(".", 1)[0]
            found = list(_find(metrics, limit.name.split(".")))
            if not found and first in skipped:
                rows.append(Row(label, limit.name, None, limit, False, str(skipped[first])))
                continue
            if not found:
                raise ConfigError(_unknown(limit.name, limit.name, metric_names(metrics)))
            for path, value in found:
                rows.append(Row(label, ".".join(path), value, limit, limit.holds(value)))
    return rows


def raise_if_failed(rows: Iterable[Row]) -> None:
    """Stop with the failing rows.

    Raises:
        GateError: When a limit was passed.
    """
    rows = list(rows)
    failed = [row for row in rows if not row.passed]
    if failed:
        msg = f"{len(failed)} of {len(rows)} limits failed: " + "; ".join(map(str, failed))
        raise GateError(msg)


def _is_number(entry: Any) -> bool:
    return entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool))


def _find(
    tree: Any, path: list[str], done: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Yield (path, number) for each entry that a path with ``*`` reaches; a lower limit where only that is known."""
    detail = tree.get("detail") if isinstance(tree, Mapping) else None
    if not path:
        leaf = tree.get("value", tree) if isinstance(tree, Mapping) else tree
        if leaf is None and isinstance(detail, Mapping):
            leaf = detail.get("lower_limit")
        if _is_number(leaf):
            yield done, leaf
    elif isinstance(tree, Mapping):
        if path[0] == "*":
            for key in tree:
                yield from _find(tree[key], path[1:], (*done, str(key)))
            return
        for width in range(1, len(path) + 1):  # a key may itself contain dots
            key = ".".join(path[:width])
            if key in tree:
                yield from _find(tree[key], path[width:], (*done, key))
                return
        if isinstance(detail, Mapping):
            yield from _find(detail, path, done)


def _numbers(tree: Any, done: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, number) for each value, those inside a value's detail without the word."""
    if isinstance(tree, Mapping):
        if "value" in tree and _is_number(tree["value"]):
            yield done, tree["value"]
        for key, entry in tree.items():
            if key not in ("value", "skipped"):
                yield from _numbers(entry, done if key == "detail" else (*done, str(key)))
    elif _is_number(tree):
        yield done, tree


def _unknown(name: str, part: str, known: list[str]) -> str:
    """Return a message that offers what was perhaps meant."""
    return f"limits.{name}: no such metric; {did_you_mean(part, known)}"
