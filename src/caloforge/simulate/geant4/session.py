"""Geant4's run manager, of which a process has one, for one set-up."""

from __future__ import annotations

import re
import time
from typing import Any

import geant4_pybind as g4
import numpy as np
from numpy.typing import NDArray

from caloforge.errors import SimulationError
from caloforge.geometry import Detector, Primaries
from caloforge.simulate.geant4.geometry import StackConstruction
from caloforge.simulate.geant4.physics import build_physics, find_particle, set_cut
from caloforge.simulate.geant4.primaries import PrimaryGenerator
from caloforge.simulate.geant4.scoring import HitCollector, fold_hits

__all__ = ["Session", "session"]

_active: Session | None = None


class _Actions(g4.G4VUserActionInitialization):  # type: ignore[misc]
    """Makes our two actions when Geant4 is ready for them."""

    generator: PrimaryGenerator
    collector: HitCollector

    def Build(self) -> None:
        """Make and register the actions; called by Geant4."""
        self.generator, self.collector = PrimaryGenerator(), HitCollector()
        self.SetUserAction(self.generator)
        self.SetUserAction(self.collector)


class Session:
    """An initialised Geant4.

    Arguments:
        detector: The detector.
        physics_list: Name of the physics list.
        cut: Production cut, mm.
    """

    def __init__(self, detector: Detector, physics_list: str, cut: float) -> None:
        self.detector, self.physics_list, self.cut = detector, physics_list, cut
        self._manager = g4.G4RunManager()
        self._actions = _Actions()
        physics = build_physics(physics_list)
        self._kept: list[Any] = [StackConstruction(detector), physics, self._actions]
        for part in self._kept:
            self._manager.SetUserInitialization(part)
        self._manager.Initialize()
        set_cut(physics, cut)
        self._manager.BeamOn(0)  # makes the physics tables, so that no shower's time counts them

    @property
    def version(self) -> str:
        """Geant4's version, such as 11.4.1."""
        text = str(self._manager.GetVersionString())
        found = re.search(r"geant4-(\d+)-(\d+)(?:-patch-(\d+))?", text)
        return ".".join(str(int(number or 0)) for number in found.groups()) if found else text.strip()

    def run(
        self, particle: str, primaries: Primaries, seed: int, start: int
    ) -> tuple[NDArray[np.float32], float]:
        """Simulate a chunk.

        Returns:
            Cells (N, n_cells) in MeV, and the seconds of processor time that the event loop took.

        Raises:
            SimulationError: When Geant4 ended the run before its end.
        """
        generator, collector = self._actions.generator, self._actions.collector
        generator.load(find_particle(particle, self.physics_list), primaries, seed, start)
        collector.events.clear()
        before = time.process_time()
        self._manager.BeamOn(len(primaries))
        seconds = time.process_time() - before
        if len(collector.events) != len(primaries):
            msg = f"Geant4 ended the run after {len(collector.events)} of {len(primaries)} showers"
            raise SimulationError(msg)
        return fold_hits(self.detector, collector.events, primaries.conditions), seconds


def session(detector: Detector, physics_list: str, cut: float) -> Session:
    """Return the process's session, started on first use.

    Raises:
        SimulationError: When the process has one for another set-up.
    """
    global _active
    if _active is None:
        _active = Session(detector, physics_list, cut)
    if (_active.detector, _active.physics_list, _active.cut) != (detector, physics_list, cut):
        msg = "a process can hold one Geant4 set-up only; use caloforge.simulate, which starts a process for each"
        raise SimulationError(msg)
    return _active
