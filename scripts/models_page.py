"""Write docs/models.md from the cards of the shipped models, so that every number on it is one that was measured.

python scripts/models_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caloforge.generate.zoo import Card, shipped_models

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_HEAD = """# Shipped models

`caloforge models` lists them, `caloforge models DATASET/MODEL` shows a card in full, and

```
caloforge generate clic-electron/conv3d-gan -n 1000 --energy 100GeV -o showers.h5
```

generates with one, no training needed. Each table below is one detector and beam. Value ± uncertainty; in brackets the floor, what two
samples of Geant4 of the same sizes give. "Held out" counts the Geant4 showers that the numbers were measured with, none of which was trained on. This
page is written by `python scripts/models_page.py` from the cards; `scripts/train_zoo.py` trains the models again, measures them and
writes the cards.
"""
_ROWS = (
    ("AUC, cells", "auc_low"),
    ("AUC, observables", "auc_high"),
    ("Frechet physics distance", "fpd"),
    ("shower-shape MSE", "shape_mse"),
    ("largest difference of a layer's share, points", "layer_fractions"),
    ("core cells, mean ratio", "cell_mean_ratio"),
    ("core cells, standard deviation ratio", "cell_std_ratio"),
    ("covariance distance", "covariance_distance"),
    ("coverage", "coverage"),
)
_MOMENTS = ("response", "peak_energy", "hits")


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


def _speed(card: dict[str, Any], where: str) -> str:
    entry = card.get("speed", {}).get(where)
    return f"{entry['ms']:.3g}" if entry else "–"


def _table(cards: list[Card]) -> list[str]:
    contents = [card.content for card in cards]
    rows = [
        ("held-out showers", [str(c["metrics"]["reference"]["n"]) for c in contents]),
        ("training showers", [f"{c['train_showers']:,}" for c in contents]),
        ("weights that generate", [f"{c['parameters']['shipped']:,}" for c in contents]),
        (
            "trained in, on",
            [f"{c['hardware']['wall_seconds']:.0f} s, {c['hardware']['name']}" for c in contents],
        ),
        *((label, [_figure(c["metrics"]["figures"].get(key)) for c in contents]) for label, key in _ROWS),
        *(
            (f"{name.replace('_', ' ')}: mean; width ratio", [_moment(c, name) for c in contents])
            for name in _MOMENTS
        ),
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
