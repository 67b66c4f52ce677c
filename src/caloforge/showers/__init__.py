"""Showers in memory and on disk."""

from __future__ import annotations

from caloforge.showers.container import Showers, ShowerSource
from caloforge.showers.reading import ShowerFile, open_showers, read_showers
from caloforge.showers.sparse import Hits
from caloforge.showers.sparse_showers import SparseShowers
from caloforge.showers.writing import ShowerWriter, write_showers

__all__ = [
    "Hits",
    "ShowerFile",
    "ShowerSource",
    "ShowerWriter",
    "Showers",
    "SparseShowers",
    "open_showers",
    "read_showers",
    "write_showers",
]
