"""Simulation: showers from Geant4, or from a parametrisation that needs nothing but NumPy."""

from __future__ import annotations

import sys

import caloforge
from caloforge.simulate.job import Engine, IsolatedEngine, Job
from caloforge.simulate.run import ENGINES, simulate

__all__ = ["ENGINES", "Engine", "IsolatedEngine", "Job", "simulate"]

sys.modules[__name__].__class__ = caloforge.VerbPackage
