"""Which showers are compared: windows of energy and angle, the name of the trusted ones, where to compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.showers import ShowerSource
from caloforge.studies.base import Context
from caloforge.units import AngleSpec, EnergySpec
from caloforge.validate.selection import Selection

__all__ = ["reference_name", "torch_device", "within"]

_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


def within(source: ShowerSource, energy: str = "", theta: str = "") -> ShowerSource:
    """Return the showers of a source within windows of energy and angle, read when they are needed.

    Arguments:
        source: The showers.
        energy: Such as ``97.5-102.5GeV``; empty: all.
        theta: Such as ``87.5-92.5``; empty: all.

    Raises:
        UnitError: When a window is not understood.
    """
    keep: NDArray[np.bool_] = np.ones(len(source), dtype=bool)
    if energy:
        wanted = EnergySpec.parse(energy)
        keep &= (source.incident_energy >= wanted.low) & (source.incident_energy <= wanted.high)
    if theta:
        angles = AngleSpec.parse(theta)
        keep &= (source.incident_theta >= angles.low) & (source.incident_theta <= angles.high)
    return source if keep.all() else Selection(source, np.flatnonzero(keep))


def reference_name(context: Context) -> str:
    """Return what tables and figures call the trusted showers."""
    return _NAMES.get(context.reference.source, context.references[0].label)


def torch_device(name: str) -> str:
    """Return the name of a torch device; ``auto`` takes a GPU when there is one."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
