"""Showers in memory and on disk."""

from __future__ import annotations

from caloforge.showers.container import Showers, ShowerSource
from caloforge.showers.reading import ShowerFile, open_showers, read_showers
from caloforge.showers.writing import ShowerWriter, write_showers

__all__ = [
    "ShowerFile",
    "ShowerSource",
    "ShowerWriter",
    "Showers",
    "open_showers",
    "read_showers",
    "write_showers",
]
