"""Geant4, through geant4-pybind.

The path of a chunk: :mod:`.engine` (what users choose), :mod:`.datasets` (Geant4's tables), :mod:`.session` (one run
manager a process) with :mod:`.geometry` (slabs, cells, scorers), :mod:`.physics`, :mod:`.primaries` and
:mod:`.scoring`. Geant4 itself is imported by the session alone, in worker processes.
"""

from __future__ import annotations

from caloforge.simulate.geant4.engine import Geant4Engine

__all__ = ["Geant4Engine"]
