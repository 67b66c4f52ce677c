"""Distributions of every observable that has one number a shower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from caloforge.validate.observables.registry import OBSERVABLES
from caloforge.validate.plots.histogram import histogram_panel
from caloforge.validate.plots.panel import Panel

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["spectra", "with_unit"]


def with_unit(label: str, unit: str) -> str:
    """Return an axis title."""
    return f"{label} [{unit}]" if unit else label


def spectra(samples: Sequence[Sample]) -> list[Panel]:
    """Return one histogram an observable."""
    tables = [sample.observables for sample in samples]
    panels = []
    for name in tables[0].names:
        observable = OBSERVABLES[name]
        if not observable.is_scalar or not all(name in table.names for table in tables):
            continue
        values = [np.asarray(table[name], np.float64) for table in tables]
        title = observable.label[:1].upper() + observable.label[1:]
        panel = histogram_panel(
            name, title, with_unit(observable.label, observable.unit), values, [s.label for s in samples]
        )
        if panel is not None:
            panels.append(panel)
    return panels
