"""Simulation: showers from Geant4, or from a parametrisation that needs nothing but NumPy."""

from __future__ import annotations

from caloforge.simulate.job import Engine, IsolatedEngine, Job
from caloforge.simulate.run import ENGINES, simulate
from caloforge.verbs import make_callable

__all__ = ["ENGINES", "Engine", "IsolatedEngine", "Job", "simulate"]

make_callable(__name__)
