"""``caloforge models``: the architectures and the shipped models, and one in full."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caloforge.cli.output import Json, print_citation, print_json, print_lines, print_table

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.models.base import ShowerModel

__all__ = ["models"]


def models(
    name: Annotated[str | None, typer.Argument(help="Name of a model; without it all are listed.")] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector", help="Detector to count parameters for; by default the smallest that fits."
        ),
    ] = None,
    cite: Annotated[
        bool,
        typer.Option("--cite", help="Print what to cite for the model, as BibTeX, instead of its card."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models, or show one: its settings and parameters, or the card of a shipped model."""
    from caloforge.errors import UnknownNameError
    from caloforge.models import MODELS
    from caloforge.zoo.store import find_card, shipped_models
    from caloforge.zoo.tables import card_blocks, list_columns, list_row

    if cite:
        _cite(name, as_json)
        return
    if name is None:
        shipped = {card.name: card.content for card in shipped_models().values()}
        known = [
            {"name": one, "description": _first_line(model), "presets": [*model.presets]}
            for one, model in MODELS.items()
        ]
        if as_json:
            print_json({"models": known, "shipped": shipped})
        else:
            rows = ((one["name"], ", ".join(one["presets"]), one["description"]) for one in known)
            print_table(("name", "presets", "description"), rows)
            rows_shipped = [list_row({"name": one, **card}) for one, card in shipped.items()]
            if rows_shipped:
                title = "\nshipped, ready to generate (* the best of its data set)"
                print_table(list_columns(), rows_shipped, title=title)
        return
    if name not in MODELS:
        try:
            found = find_card(name)
        except UnknownNameError as error:
            raise UnknownNameError("model", name, [*MODELS.names(), *shipped_models()]) from error
        content = {"name": found.name, **found.content}
        if as_json:
            print_json(content)
        else:
            for number, block in enumerate(card_blocks(content)):
                print_lines([""] if number else [])
                if isinstance(block, str):
                    print_lines([block])
                else:
                    print_table(block.columns, block.rows)
        return
    model = MODELS[name]
    card = _card(name, model, _fitting_detector(model, detector))
    if as_json:
        print_json(card)
    else:
        _print_card(card, model)


def _cite(name: str | None, as_json: bool) -> None:
    """Print the citation of the software and of the papers behind a model, or all models."""
    from caloforge.models import MODELS
    from caloforge.zoo.store import find_card

    kinds = [name if name in MODELS else find_card(name).content["model"]] if name else MODELS.names()
    print_citation([MODELS[kind].papers for kind in kinds], as_json)


def _first_line(model: type[ShowerModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0].replace("; see the module.", ".")


def _fitting_detector(model: type[ShowerModel], wanted: str | None) -> Detector:
    """Return the wanted detector, or the smallest simulable one that the model can describe."""
    from caloforge.errors import IncompatibleError
    from caloforge.geometry import DETECTORS, get_detector

    if wanted is not None:
        return get_detector(wanted)
    for detector in sorted(
        map(get_detector, DETECTORS.names()), key=lambda one: (not one.simulable, one.n_cells)
    ):
        try:
            model.check_detector(detector)
        except IncompatibleError:
            continue
        return detector
    raise IncompatibleError("no detector of this package fits the model; name one with --detector")


def _card(name: str, model: type[ShowerModel], detector: Detector) -> dict[str, Any]:
    """Return everything about a model as plain values."""
    settings = {preset: model.resolve({"preset": preset}).model_dump(mode="json") for preset in model.presets}
    built = {preset: model(detector, model.resolve({"preset": preset})) for preset in model.presets}
    first = next(iter(built.values()))
    return {
        "name": name,
        "description": _first_line(model),
        "detector": detector.name,
        "conditions": list(first.conditions),
        "noise_size": {preset: one.noise_size for preset, one in built.items()},
        "parameters": {preset: _count(one) for preset, one in built.items()},
        "settings": settings,
    }


def _count(model: ShowerModel) -> dict[str, int]:
    """Return the number of parameters of each part and of the whole."""
    parts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    return {part: count for part, count in parts.items() if count} | {
        "total": sum(p.numel() for p in model.parameters())
    }


def _print_card(card: dict[str, Any], model: type[ShowerModel]) -> None:
    module = inspect.getmodule(model)
    print_lines([f"{card['name']}: {card['description']}", ""])
    print_lines([inspect.getdoc(module) or "" if module else "", ""])
    print_lines([f"for {card['detector']}, conditioned on {', '.join(card['conditions'])}:"])
    presets = list(card["settings"])
    counts = card["parameters"]
    parts = list(dict.fromkeys(part for preset in presets for part in counts[preset]))
    rows = [(f"parameters, {part}", *(f"{counts[p].get(part, 0):,}" for p in presets)) for part in parts]
    rows.append(("noise", *(str(card["noise_size"][preset]) for preset in presets)))
    flat = {preset: dict(_flat(card["settings"][preset])) for preset in presets}
    rows += [
        (key, *(flat[preset].get(key, "") for preset in presets))
        for key in flat[presets[0]]
        if key != "preset"
    ]
    print_table(("setting (--set KEY=VALUE)", *(f">{preset}" for preset in presets)), rows)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted keys and values."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
