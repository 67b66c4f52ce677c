"""Write docs/models.md from the cards of the shipped models, so that every number on it is one that was measured.

python scripts/models_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caloforge.zoo.store import Card, shipped_models

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_HEAD = """# Shipped models

`caloforge models` lists them, `caloforge models DATASET/MODEL` shows a card in full, and

```
caloforge generate clic-electron/conv3d-gan -n 1000 --energy 100GeV -o showers.h5
```

generates with one, no training needed. Each table below is one detector and beam. Every number was measured on sealed Geant4 showers: no model was
trained, calibrated or selected on them, and no choice of design was made by looking at them ([validation](validation.md#showers-a-model-has-seen)).
Value ± uncertainty; in brackets the floor, what two samples of Geant4 give.

- **AUC** is that of the strongest of several classifiers ([the yardstick](validation.md)), on cells, on observables, on each shower's histogram of cell energies, and on
  all three; 0.5 means that they cannot tell. From how many showers it was learnt matters: the first row.
- **Showers to 5 sigma**: how many showers a side a two-sample test needs to tell the model from Geant4.
- **Largest deviation of the cell spectrum**: generated over Geant4 in the bin of cell energies that deviates most, if significantly.
- Precision and recall, density and coverage belong together: a generator that has collapsed can have a coverage near 1.

This page is written by `python scripts/models_page.py` from the cards. `python scripts/train_zoo.py --data SHOWERS --held SEALED --remeasure` measures the
shipped weights and writes the cards; `data/` holds the sealed showers, which `python scripts/pack_showers.py unpack` unpacks.
"""
_ROWS = (
    ("AUC, strongest classifier", "auc_strongest"),
    ("AUC, cells", "auc_cells"),
    ("AUC, observables", "auc_observables"),
    ("AUC, cell spectrum", "auc_spectrum"),
    ("CaloChallenge's classifier, cells", "auc_low"),
    ("CaloChallenge's classifier, observables", "auc_high"),
    ("Frechet physics distance", "fpd"),
    ("shower-shape MSE", "shape_mse"),
    ("largest difference of a layer's share, points", "layer_fractions"),
    ("core cells, mean ratio", "cell_mean_ratio"),
    ("core cells, standard deviation ratio", "cell_std_ratio"),
    ("covariance distance", "covariance_distance"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("density", "density"),
    ("coverage", "coverage"),
)
_MOMENTS = ("response", "hits", "peak_energy", "radius_90")


def _number(value: float) -> str:
    return f"{value:.3g}"


def _figure(entry: Any) -> str:
    if not isinstance(entry, dict) or entry.get("value") is None:
        return "–"
    text = _number(entry["value"])
    if entry.get("uncertainty") is not None:
        text += f" ± {entry['uncertainty']:.1g}"
    return text + (f" ({_number(entry['floor'])})" if entry.get("floor") is not None else "")


def _moment(card: dict[str, Any], name: str) -> str:
    entry = card["metrics"]["moments"].get(name)
    if not entry:
        return "–"
    mean = f"{100 * (entry['ratio'] - 1):+.1f} ± {100 * entry['ratio_uncertainty']:.1f} %"
    return f"{mean}; {entry['width']:.2f} ± {entry['width_uncertainty']:.2f}"


def _showers_to_tell(card: dict[str, Any]) -> str:
    """Return how many showers a side a test at five standard deviations takes."""
    entry = card["metrics"]["figures"].get("detectability")
    if not isinstance(entry, dict):
        return "–"
    if entry.get("value") is None:
        limit = entry.get("lower_limit")
        return "–" if limit is None else f"above {limit:,.0f}"
    text = f"{entry['value']:,.0f}"
    return text + (" (extrapolated)" if entry.get("extrapolated") else "")


def _largest_ratio(card: dict[str, Any]) -> str:
    """Return the largest significant deviation of the spectrum of all cells, and where it is."""
    entry = card["metrics"]["figures"].get("spectrum_ratio", {}).get("all")
    if not entry or entry.get("value") is None:
        return "–"
    if not entry.get("significant", entry["value"] != 1.0):
        return "none"
    text = f"{entry['value']:.3g}"
    if entry.get("uncertainty") is not None:
        text += f" ± {entry['uncertainty']:.1g}"
    return text + f" at {entry['energy_low']:.3g} to {entry['energy_high']:.3g} MeV"


def _speed(card: dict[str, Any], where: str) -> str:
    entry = card.get("speed", {}).get(where)
    return f"{entry['ms']:.3g}" if entry else "–"


def _table(cards: list[Card]) -> list[str]:
    contents = [card.content for card in cards]
    rows = [
        ("sealed showers", [f"{c['metrics']['reference']['n']:,}" for c in contents]),
        ("training showers", [f"{c['train_showers']:,}" for c in contents]),
        ("weights that generate", [f"{c['parameters']['shipped']:,}" for c in contents]),
        (
            "trained in, on",
            [f"{c['hardware']['wall_seconds']:.0f} s, {c['hardware']['name']}" for c in contents],
        ),
        *(
            (f"{name.replace('_', ' ')}: mean; width ratio", [_moment(c, name) for c in contents])
            for name in _MOMENTS
        ),
        ("largest deviation of the cell spectrum", [_largest_ratio(c) for c in contents]),
        ("showers to 5 sigma", [_showers_to_tell(c) for c in contents]),
        *((label, [_figure(c["metrics"]["figures"].get(key)) for c in contents]) for label, key in _ROWS),
        ("ms a shower, one CPU thread", [_speed(c, "cpu") for c in contents]),
    ]
    names = [card.name.partition("/")[2] for card in cards]
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "| --- |" + " --- |" * len(names)]
    return [*lines, *(f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows)]


def main() -> None:
    """Write the page."""
    groups: dict[str, list[Card]] = {}
    for card in shipped_models().values():
        if "metrics" in card.content:
            groups.setdefault(card.path.parent.name, []).append(card)
    lines = [_HEAD]
    for dataset, cards in sorted(groups.items()):
        first = cards[0].content
        lines += [f"## {dataset}", f"{first['particle']} in `{first['detector']}`.", "", *_table(cards), ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
