"""Measure a shipped model again on sealed showers, without its run folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

from caloforge.generate.shipping import add_to_card
from caloforge.generate.zoo import Card
from caloforge.studies.cards.measure import measure, open_held
from caloforge.validate.metrics.settings import Settings

__all__ = ["measure_card"]


def measure_card(
    card: Card,
    files: Sequence[str | Path],
    sealed: Collection[int] = (),
    n: int | None = None,
    settings: Settings | None = None,
    names: Sequence[str] | None = None,
) -> Card:
    """Measure a shipped model on showers that it has not seen, write its card, and return it.

    The card's ``metrics`` are replaced; the weights and everything else of the card stay.

    Arguments:
        card: The shipped model.
        files: Files of sealed showers.
        sealed: Sealed simulation seeds of the data set; where there are any, all files must have such seeds.
        n: Showers at most, drawn at random.
        settings: Options of the metrics.
        names: Metrics to compute; by default all that run unless switched off.

    Raises:
        InputError: When there are no showers, or a file has a seed that is not sealed.
        SeenShowersError: When the model was trained or selected on some of the showers.
    """
    generator = card.generator()
    with ExitStack() as stack:
        held = open_held(stack, generator.detector.name, files, generator, sealed)
        metrics = measure(generator, held, settings, n=n, names=names)
    return add_to_card(card, {"metrics": metrics})
