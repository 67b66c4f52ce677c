"""How many showers tell a generator from Geant4, and what gives it away."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from test_metrics_classifiers import QUICK, measured, middle_layer_dimmed, moved_to_the_threshold, showers

from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.detectability import Detectability
from caloforge.validate.sample import Sample


@cache
def attribution(wrong) -> list[dict]:
    """Return the features of showers that were made wrong, the most important first."""
    found = measured(wrong(showers(1), np.random.default_rng(1)), "attribution")
    return found["attribution"]["detail"]["features"]


def test_a_dimmed_layer_is_found_with_a_number_of_showers() -> None:
    entry = measured(middle_layer_dimmed(showers(1, 900), np.random.default_rng(1)), "detectability")
    found = entry["detectability"]
    detail = found["detail"]
    assert detail["classifier"].startswith("observables")
    needed = detail["showers_needed"]
    assert {name.partition(":")[0] for name in needed} == {"cells", "observables", "spectrum"}
    assert needed[detail["classifier"]] == found["value"] == min(n for n in needed.values() if n is not None)
    assert found["value"] == detail["n_5sigma"]["value"]
    assert 10 < detail["n_2sigma"]["value"] < detail["n_5sigma"]["value"] < 400
    assert detail["n_5sigma"]["low"] <= found["value"] <= detail["n_5sigma"]["high"]
    assert detail["sizes"] == sorted(detail["sizes"])
    assert detail["sizes"][-1] == pytest.approx(900, rel=0.05)
    assert detail["significance"][-1] > 10
    assert len(detail["extrapolation"]["sizes"]) == len(detail["extrapolation"]["high"])
    assert detail["lower_limit"] is None


def test_geant4_against_geant4_gives_a_lower_limit() -> None:
    found = measured(showers(2), "detectability")["detectability"]
    assert found["value"] is None
    assert found["detail"]["lower_limit"] == 400
    assert found["detail"]["reason"].startswith("more than 400")
    assert found["detail"]["n_5sigma"]["value"] is None


def test_quick_leaves_detectability_out_unless_it_is_named() -> None:
    assert not Detectability().wanted(QUICK)
    assert Detectability().wanted(Settings())


def test_what_was_made_wrong_is_named() -> None:
    """A dimmed layer shows in that layer's energy, a pile-up in the bin of that energy."""
    rows = attribution(middle_layer_dimmed)
    assert rows == sorted(rows, key=lambda row: -row["importance"])
    assert {row["kind"] for row in rows} == {"observable", "cell", "spectrum bin"}
    named = [row["feature"] for row in rows if row["kind"] == "observable" and row["importance"] > 0.02]
    assert any(
        name.startswith(("layer_energy", "layer_fraction", "shower_depth", "response")) for name in named[:4]
    )
    piled = attribution(moved_to_the_threshold)
    best = next(row for row in piled if row["kind"] == "spectrum bin")
    low, high = (float(x) for x in best["feature"].split(" MeV")[0].split(" to "))
    assert low < 0.15
    assert high > 0.05
    assert best["importance"] > 5 * best["uncertainty"]
    for kind in ("observable", "cell", "spectrum bin"):
        assert sum(row["kind"] == kind for row in rows) <= 15


def test_cells_are_named_by_their_place() -> None:
    cells = [row for row in attribution(moved_to_the_threshold) if row["kind"] == "cell"]
    detector = showers(1).detector
    assert cells
    for row in cells:
        assert row["layer"] == detector.cell_layer[row["cell"]]
        assert (row["x"], row["y"]) == pytest.approx(detector.cell_centres[row["cell"]][:2])
        assert row["feature"].startswith(f"cell in layer {row['layer']} at x = ")


def test_the_same_settings_give_the_same_numbers() -> None:
    a, b = Sample(showers(0, 160), "a"), Sample(showers(1, 160), "b")
    names = ["auc_spectrum", "attribution"]
    first, second = (compute_metrics(a, b, QUICK, names) for _ in range(2))
    assert first == second
