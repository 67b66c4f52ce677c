"""Shipped models: weights and cards, and the code that ships, measures and prints them."""

from caloforge.zoo.store import Card, load, shipped_models

__all__ = ["Card", "load", "shipped_models"]
