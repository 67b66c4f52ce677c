"""Generation: a trained model as a source of showers, made in a stream."""

from caloforge.generate.generator import Generator

__all__ = ["Generator"]
