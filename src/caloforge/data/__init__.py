"""Data that ships with the package: a sample of Geant4 showers.

``atlas-photon-sample.h5`` holds 4,800 photons in ``atlas-em-barrel`` (266 cells), nine energies of
1.024 GeV x 2**0 to 2**8 in equal parts, four phi and two eta alignments, made with Geant4 11.4.1
(G4EmStandardPhysics_option1 without fluorescence, production cuts of 0.7 mm).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["sample_path"]


def sample_path() -> Path:
    """Return the path of the packaged Geant4 sample, a file as ``caloforge simulate`` writes it.

    >>> sample_path().name
    'atlas-photon-sample.h5'
    """
    return Path(__file__).parent / "atlas-photon-sample.h5"
