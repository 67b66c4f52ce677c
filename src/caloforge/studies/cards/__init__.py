"""What the card of a shipped model says of its quality and its speed."""

from caloforge.studies.cards.measure import Held, measure, open_held
from caloforge.studies.cards.renew import measure_card
from caloforge.studies.cards.speed import speed_of

__all__ = ["Held", "measure", "measure_card", "open_held", "speed_of"]
