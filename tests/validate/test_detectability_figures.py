"""The report's first figures: AUC against the number of showers, and what gives a sample away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caloforge.validate.plots.draw import draw_figures
from caloforge.validate.plots.panel import Bars, Growth
from caloforge.validate.report.build import (
    detectability_blocks,
    detectability_figures,
    growth_curves,
)
from caloforge.validate.report.page import Page, Section, Table

SIZES = [500, 1000, 2000]


def sample(a: float, five: float) -> dict[str, Any]:
    grid = np.geomspace(200, 20_000, 30)
    line = 0.5 + a * (1 - np.exp(-grid / 1500))
    return {
        "detectability": {
            "value": five,
            "detail": {
                "sizes": SIZES,
                "auc": [0.5 + a * (1 - float(np.exp(-n / 1500))) for n in SIZES],
                "auc_uncertainty": [0.02, 0.015, None],
                "extrapolation": {
                    "sizes": grid.tolist(),
                    "auc": line.tolist(),
                    "low": (line - 0.01).tolist(),
                    "high": (line + 0.01).tolist(),
                },
                "n_2sigma": {"value": five / 6, "low": five / 8, "high": five / 5},
                "n_5sigma": {"value": five, "low": 0.8 * five, "high": 1.3 * five},
                "extrapolated": True,
            },
        },
        "attribution": {
            "value": 15,
            "detail": {
                "features": [
                    {
                        "feature": f"<feature {k}>",
                        "kind": ("observable", "cell", "spectrum bin")[k % 3],
                        "importance": 0.2 / (k + 1),
                        "uncertainty": 0.01,
                    }
                    for k in range(25)
                ]
            },
        },
    }


METRICS: dict[str, Any] = {
    "reference": {"label": "Geant4 (reference)"},
    "samples": {"flow": sample(0.1, 3000.0), "vae": sample(0.4, 300.0), "none": {}},
}


def test_each_measured_sample_has_a_curve_with_its_marks() -> None:
    first, second = growth_curves(METRICS)
    assert (first.label, first.role, second.role) == ("flow", 1, 2)
    assert first.error[2] == 0.0  # not known
    inside, outside = first.parts()
    assert (inside | outside).all()
    assert (inside & outside).sum() == 1
    two, five = first.marks
    assert (two.name, five.name) == ("2 sigma", "5 sigma")
    assert (five.low, five.showers, five.high) == pytest.approx((2400.0, 3000.0, 3900.0))
    assert five.auc == pytest.approx(0.5 + 0.1 * (1 - np.exp(-2.0)), abs=1e-3)


def test_a_sample_that_is_not_told_apart_has_no_mark() -> None:
    metrics = {"reference": METRICS["reference"], "samples": {"a": sample(0.1, 3000.0)}}
    detail = metrics["samples"]["a"]["detectability"]["detail"]
    detail |= {"n_2sigma": None, "n_5sigma": None, "extrapolation": None}
    (curve,) = growth_curves(metrics)
    assert curve.marks == ()
    assert len(curve.line) == 0
    (growth, _) = detectability_figures(metrics)
    json.dumps(detectability_blocks(metrics)[0].figure, allow_nan=False)
    assert isinstance(growth, Growth)


def test_the_page_and_the_files_show_the_same_figures(tmp_path: Path) -> None:
    figures = detectability_figures(METRICS)
    assert [figure.name for figure in figures] == ["detectability", "attribution_1", "attribution_2"]
    bars = figures[1]
    assert isinstance(bars, Bars)
    assert list(bars.values) == sorted(bars.values, reverse=True)
    blocks = detectability_blocks(METRICS)
    table = blocks[-1]
    assert isinstance(table, Table)
    significant = sum(0.2 / (k + 1) >= 0.03 for k in range(25))
    assert len(table.rows) == 2 * significant < 2 * 20
    text = Page("x", [Section("Detectability", blocks)]).render()
    assert "&lt;feature 0&gt;" in text
    paths = draw_figures(figures[:2], tmp_path)
    assert [path.name for path in paths] == [
        "detectability.png",
        "detectability.pdf",
        "attribution_1.png",
        "attribution_1.pdf",
    ]
    assert all(path.stat().st_size > 5000 for path in paths)


def test_nothing_measured_gives_no_figures() -> None:
    assert detectability_blocks({"reference": {"label": "x"}, "samples": {"a": {}}}) == []
