"""The trusted images that ship with the package: 10 x 10 projections of Geant4 showers of 50 GeV photons."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED", "packed_projections"]

SHIPPED = "shipped"
"""The word that stands for them."""
_NAME = "ild-10x10-50gev.h5"


def packed_projections() -> Path | None:
    """Return the path of the packed images in the package, or None when they are not there."""
    path = Path(__file__).parents[1] / "data" / _NAME
    return path if path.is_file() else None
