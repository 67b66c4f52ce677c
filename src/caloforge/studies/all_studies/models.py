"""The models that the site is about: the shipped ones, of the package or of another folder of cards."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from caloforge.errors import InputError
from caloforge.generate.zoo import ZOO, Card, shipped_models
from caloforge.studies.sources import Source, open_sources

__all__ = ["cards_in", "shipped_sources"]


def cards_in(zoo: str) -> dict[str, Card]:
    """Return the cards of a folder by name; those of the package when it is empty.

    Raises:
        InputError: When there is no such folder.
    """
    if zoo and not Path(zoo).is_dir():
        msg = f"zoo '{zoo}' is no folder; expected one with DATASET/MODEL.json inside"
        raise InputError(msg)
    return shipped_models(Path(zoo) if zoo else ZOO)


def shipped_sources(stack: ExitStack, zoo: str, wanted: tuple[str, ...], device: str) -> list[Source]:
    """Return the shipped models, ready to make showers.

    Arguments:
        stack: Closes what was opened.
        zoo: Folder of cards; empty for the package's.
        wanted: Names ``DATASET/MODEL`` or ``DATASET``; empty for all.
        device: Where models work.

    Raises:
        InputError: When a wanted name is not there.
    """
    cards = cards_in(zoo)
    for name in wanted:
        if not any(_is(card, name) for card in cards):
            msg = f"no shipped model is called '{name}'; known: {', '.join(cards) or 'none is shipped yet'}"
            raise InputError(msg)
    chosen = {
        name: card for name, card in cards.items() if not wanted or any(_is(name, one) for one in wanted)
    }
    if not zoo:
        return list(open_sources(stack, list(chosen), device=device))
    return [_open(stack, card, device) for card in chosen.values()]


def _is(name: str, wanted: str) -> bool:
    """Return whether a card's name is the wanted one, or of the wanted data set."""
    return wanted in (name, name.partition("/")[0])


def _open(stack: ExitStack, card: Card, device: str) -> Source:
    import torch

    where = device
    if device == "auto":
        where = "cuda" if torch.cuda.is_available() else "cpu"
    source = open_sources(stack, [card.generator(where)])[0]
    size = card.content.get("train_showers")
    return replace(source, trained_on=None if size is None else int(size))
