"""Description of showers: detector, beam, ranges of conditions, empty showers, layout, and origin.

:func:`describe` reads every cell once; :func:`known` says what is known without that, as notebooks show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.progress import progress
from caloforge.showers.hdf5 import SEEN_SEEDS
from caloforge.units import plain_number, say_seconds

__all__ = ["describe", "html_table", "known", "lines"]


UNITS: Mapping[str, str] = {"incident_energy": "MeV", "incident_theta": "degrees"}
"""Units of conditions; others have none that is known."""
_MOST_VALUES = 32  # different values of a condition that are counted as levels
_PROVENANCE = (
    "first", "n", "beam_energy", "beam_theta", "physics_list", "production_cut_mm", "geant4_version", "cpu_seconds_per_shower",
    "precision", "model_status",
)  # fmt: skip
"""Attributes that are shown by name; others are listed after them."""


def describe(source: Any) -> dict[str, Any]:
    """Return what is known of showers, a :class:`~caloforge.showers.ShowerSource`, and what their cells say.

    Returns:
        :func:`known`, with ``empty`` (showers without energy), ``visible_energy`` (lowest, mean, highest; MeV), ``response`` (mean of visible over
        incident energy) and ``filled_cells`` (mean number of cells with energy).
    """
    energies: list[NDArray[np.float64]] = []
    filled = 0
    with progress(len(source), "reading") as advance:
        for chunk in source.chunks():
            energies.append(chunk.visible_energy)
            filled += int(np.count_nonzero(chunk.cells))
            advance(len(chunk))
    n = len(source)
    if not n:
        return known(source) | {"empty": 0}
    visible = np.concatenate(energies)
    return known(source) | {
        "empty": int((visible == 0).sum()),
        "visible_energy": {
            "low": float(visible.min()),
            "mean": float(visible.mean()),
            "high": float(visible.max()),
            "unit": "MeV",
        },
        "response": float((visible / source.incident_energy).mean()),
        "filled_cells": filled / n,
    }


def known(source: Any) -> dict[str, Any]:
    """Return what is known of showers without their cells.

    Returns:
        ``showers`` (their number), ``detector``, ``cells``, ``layers``, ``particle``, ``source``, ``seed``, ``conditions`` (of each ``low``, ``high``,
        the number of different ``values`` up to 32, ``unit``), ``seen`` (number of showers that the model behind them has seen), ``attributes``;
        of a file ``file``, ``bytes``, ``layout`` and ``caloforge_version``.
    """
    names = ("incident_energy", *(("incident_theta",) if source.has_theta else ()), *source.condition_names)
    facts: Mapping[str, Any] = getattr(source, "file_facts", {})
    return {**facts} | {
        "showers": len(source),
        "detector": source.detector.name,
        "cells": source.detector.n_cells,
        "layers": source.detector.n_layers,
        "particle": source.particle,
        "source": source.source,
        "seed": source.seed,
        "conditions": {name: _range(source.condition(name), UNITS.get(name, "")) for name in names},
        "seen": len(source.seen),
        "attributes": dict(source.attributes),
    }


def _range(values: NDArray[Any], unit: str) -> dict[str, Any]:
    """Return the range of a condition (N, k) and, where they are few, how many values it has."""
    if not values.size:
        return {"low": None, "high": None, "values": 0, "unit": unit}
    different = len(np.unique(values, axis=0))
    ends = values.min(0), values.max(0)
    low, high = (end.item() if end.size == 1 else end.tolist() for end in ends)
    return {
        "low": low,
        "high": high,
        "values": different if different <= min(_MOST_VALUES, len(values) - 1) else None,
        "unit": unit,
    }


def lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what :func:`describe` or :func:`known` found as names and texts, for people."""
    rows = [("detector", f"{facts['detector']}, {facts['cells']:,} cells in {facts['layers']} layers")]
    empty = f", {facts['empty']:,} of them empty" if "empty" in facts else ""
    rows.append(("showers", f"{facts['showers']:,}{empty}"))
    rows.append(("particle", facts["particle"] or "not known"))
    ranges = {name: _range_text(one) for name, one in facts["conditions"].items()}
    ranges = {
        "incident_energy": ranges.pop("incident_energy"),
        "incident_theta": "90 degrees (not stored)",
        **ranges,
    }
    rows += [(name.replace("incident_", "").replace("_", " "), text) for name, text in ranges.items()]
    if "visible_energy" in facts:
        visible = facts["visible_energy"]
        text = f"{visible['mean']:.5g} MeV on average ({plain_number(visible['low'], 4)} to {plain_number(visible['high'], 4)}), {facts['response']:.4g} of the incident energy"
        rows += [("visible energy", text), ("filled cells", f"{facts['filled_cells']:.1f} on average")]
    if "layout" in facts:
        size = facts["bytes"]
        each = f"{size / max(1, facts['showers']):,.0f} bytes a shower"
        rows.append(
            (
                "file",
                f"{facts['layout']}, {size / 1e6:,.2f} MB, {each}, caloforge {facts['caloforge_version'] or 'did not write it'}",
            )
        )
    rows.append(("made by", facts["source"] or "not known"))
    attributes = dict(facts["attributes"])
    first, n = attributes.pop("first", None), attributes.pop("n", None)
    which = "" if first is None or n is None else f", showers {first:,} to {first + n - 1:,}"
    rows.append(("seed", ("not known" if facts["seed"] is None else str(facts["seed"])) + which))
    cost = attributes.pop("cpu_seconds_per_shower", None)
    if cost is not None:
        rows.append(
            ("processor time", f"{cost:.4g} s a shower, {say_seconds(cost * facts['showers'])} in all")
        )
    ordered = [
        *(name for name in _PROVENANCE if name in attributes),
        *(name for name in attributes if name not in _PROVENANCE),
    ]
    rows += [(name.replace("_", " "), _short(attributes[name])) for name in ordered]
    if facts["seen"] or SEEN_SEEDS in attributes:
        rows.append(
            (
                "seen showers",
                f"the model behind these has seen {facts['seen']:,} showers, which may not judge it",
            )
        )
    return rows


def _range_text(one: Mapping[str, Any]) -> str:
    low, high, unit = one["low"], one["high"], f" {one['unit']}" if one["unit"] else ""
    if low is None:
        return "none"
    if isinstance(low, list):
        text = " x ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
    else:
        text = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    several = f", {one['values']} values" if one["values"] is not None and one["values"] > 1 else ""
    return f"{text}{unit}{several}"


def _short(value: Any, most: int = 120) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]} ..."


def html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a small table for notebooks; all texts are escaped."""
    body = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(text))}</td></tr>'
        for name, text in rows
    )
    return f'<table><caption style="text-align:left;font-weight:bold">{escape(title)}</caption><tbody>{body}</tbody></table>'
