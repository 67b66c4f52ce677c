"""Generation: load a trained or shipped model, make showers in a stream."""

from caloforge.generate.generator import Generator
from caloforge.generate.load import load
from caloforge.generate.zoo import Card, shipped_models

__all__ = ["Card", "Generator", "load", "shipped_models"]
