"""What people see of a card: every fact, and what is not known said so."""

from pathlib import Path
from typing import Any

import pytest

from caloforge.zoo.shipping import add_to_card, ship
from caloforge.zoo.store import Card
from caloforge.zoo.tables import card_blocks, list_columns, list_row, models_page

METRICS = {
    "reference": {"n": 50, "parts": [{"file": "held.h5", "showers": 30}, {"file": "more", "showers": 20}]},
    "generated": {"n": 50, "seed": 1},
    "figures": {"auc_strongest": {"value": 0.6125, "uncertainty": 0.012, "floor": 0.5011, "floor_uncertainty": 0.02}},
    "moments": {
        "peak_energy": {
            "unit": "MeV", "generated": 654.4, "reference": 652.1,
            "ratio": 1.0035, "ratio_uncertainty": 0.0009, "width": 0.754, "width_uncertainty": 0.012,
        }
    },
    "response": [
        {
            "energy": 1000.0 * energy, "n": 25, "response_ratio": 0.98, "response_uncertainty": 0.011,
            "resolution_ratio": None, "resolution_uncertainty": None,
        }
        for energy in (65.536, 131.072)
    ],
    "core": {"showers": "250 ± 2 GeV", "mean_ratio": {"value": 0.93}, "std_ratio": {"value": 0.86}},
    "ks_by_energy": {"profiles_above_80_percent": 0.75},
}  # fmt: skip


@pytest.fixture
def card(run: Path, tmp_path: Path) -> Card:
    return ship(run, "atlas-photon/vae", run.parent / "data.h5", tmp_path, best=True)


def _cells(content: dict[str, Any]) -> list[list[str]]:
    """Return the filled cells of every row of a card, and its lines."""
    rows: list[list[str]] = []
    for block in card_blocks(content):
        rows += (
            [[block]] if isinstance(block, str) else [[cell for cell in row if cell] for row in block.rows]
        )
    return rows


def test_a_card_that_was_not_measured_says_so(card: Card) -> None:
    text = "\n".join(" ".join(row) for row in _cells(card.content))
    for said in (
        "not measured on test showers",
        "data.h5, 600 showers, by geant4",
        "in half precision",
    ):
        assert said in text
    assert text.count("not measured") == 3
    assert card.content["data"]["files"][0]["sha256"] in text
    assert "caloforge train vae data.h5" in text
    row = dict(zip(list_columns(), list_row(card.content), strict=True))
    assert row["name"] == "atlas-photon/vae *"
    assert (row[">auc_strongest"], row[">ms CPU"]) == ("-", "-")


def test_a_card_that_was_measured_shows_numbers_with_errors_and_floors(card: Card) -> None:
    speed = {"cpu": {"ms": 1.25, "batch": 100, "threads": 1, "hardware": "a CPU"}}
    speed["gpu"] = {"ms": 0.0125, "batch": 100, "hardware": "a GPU"}
    content = add_to_card(card, {"metrics": METRICS, "speed": speed}).content
    cells = _cells(content)
    assert ["AUC, strongest classifier", "0.6125", "0.012", "0.5011", "0.02"] in cells
    assert ["peak energy", "654.4", "652.1", "MeV", "1.004", "0.0009", "0.754", "0.012"] in cells
    assert ["65.5 GeV", "25", "0.98", "0.011", "-", "-"] in cells
    assert ["core-cell deviations, 250 ± 2 GeV", "0.86", "-", "-", "-"] in cells
    assert ["GPU, batch 100", "0.0125", "a GPU"] in cells
    assert any("(30 of held.h5; 20 of more)" in " ".join(line) for line in cells)
    row = dict(zip(list_columns(), list_row(content), strict=True))
    assert (row[">auc_strongest"], row[">ms CPU"], row[">ms GPU"]) == ("0.6125", "1.25", "0.0125")


def test_the_page_says_which_figures_were_measured_with_fewer_showers(card: Card) -> None:
    figures = {**METRICS["figures"], "fpd": {"value": 0.5, "uncertainty": 0.1, "floor": 0.2, "n_used": 20}}
    n = METRICS["reference"]["n"]
    figures["auc_cells"] = {"value": 0.7, "uncertainty": 0.1, "floor": None, "n_used": n}
    page = models_page({card.name: add_to_card(card, {"metrics": {**METRICS, "figures": figures}})})
    assert "| Frechet physics distance | 0.5 ± 0.1 (0.2; 20 showers) |" in page
    assert "| AUC, cells | 0.7 ± 0.1 |" in page


def test_seeds_are_printed_as_ranges() -> None:
    from caloforge.zoo.tables import _ranges

    assert _ranges([2003, 2001, 2002, 7, 2006, 2005]) == "7, 2001-2003, 2005-2006"


def test_a_section_on_speed_takes_the_place_of_the_cards_times(card: Card) -> None:
    cards = {card.name: add_to_card(card, {"metrics": METRICS})}
    assert "ms a shower, one CPU thread" in models_page(cards)
    page = models_page(cards, "## Speed\n\nmeasured\n")
    assert "ms a shower, one CPU thread" not in page
    assert page.index("## Speed") < page.index("## atlas-photon")
