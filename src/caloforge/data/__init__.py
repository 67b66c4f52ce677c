"""Data that ships with the package: Geant4 showers of the ATLAS barrel, and images of 50 GeV photons.

``atlas-photon-sample.h5`` holds 4,800 photons in ``atlas-em-barrel`` (266 cells), nine energies of
1.024 GeV x 2**0 to 2**8 in equal parts, four phi and two eta alignments, made with Geant4 11.4.1
(G4EmStandardPhysics_option1 without fluorescence, production cuts of 0.7 mm).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED", "packed_projections", "sample_path"]

SHIPPED = "shipped"
"""The name of the packaged images of showers on the command line of studies."""


def sample_path() -> Path:
    """Return the path of the packaged Geant4 sample, a file as ``caloforge simulate`` writes it.

    >>> sample_path().name
    'atlas-photon-sample.h5'
    """
    return Path(__file__).parent / "atlas-photon-sample.h5"


def packed_projections() -> Path | None:
    """Return the path of the packaged 10 x 10 projections of Geant4 showers, or None when they are absent."""
    path = Path(__file__).parent / "ild-10x10-50gev.h5"
    return path if path.is_file() else None
