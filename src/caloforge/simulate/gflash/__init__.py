"""Parametrised electromagnetic showers after Grindhammer and Peters.

The path of a shower: :mod:`.column` (the stack), :mod:`.response` (its profile, :mod:`.longitudinal`),
:mod:`.deposit` (spots at the radii of :mod:`.radial` with the energies of :mod:`.spots`), :mod:`.engine`.
"""

from __future__ import annotations

from caloforge.simulate.gflash.engine import GFlashEngine

__all__ = ["GFlashEngine"]
