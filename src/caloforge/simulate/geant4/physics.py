"""Geant4's physics: an electromagnetic constructor on its own, or a reference list.

The production cut is set once the run manager is initialised: earlier it is silently lost, and overriding
``SetCuts`` does not survive the bindings. Fluorescence is off: it costs time and moves energies below any threshold.
"""

from __future__ import annotations

from typing import Any

import geant4_pybind as g4

from caloforge.errors import IncompatibleError, UnknownNameError

__all__ = ["CONSTRUCTORS", "build_physics", "find_particle", "set_cut"]

CONSTRUCTORS = (
    "G4EmStandardPhysics",
    "G4EmStandardPhysics_option1",
    "G4EmStandardPhysics_option2",
    "G4EmStandardPhysics_option3",
    "G4EmStandardPhysics_option4",
    "G4EmStandardPhysicsGS",
    "G4EmStandardPhysicsSS",
    "G4EmStandardPhysicsWVI",
    "G4EmLivermorePhysics",
    "G4EmLivermorePolarizedPhysics",
    "G4EmPenelopePhysics",
    "G4EmLowEPPhysics",
)
"""Electromagnetic constructors that are a physics list on their own."""

_COVERED = ("gamma", "e-", "e+", "mu-", "mu+")


class _OneConstructor(g4.G4VModularPhysicsList):  # type: ignore[misc]
    """A physics list of one constructor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.SetVerboseLevel(0)
        self._constructor = getattr(g4, name)()
        self.RegisterPhysics(self._constructor)


def build_physics(name: str) -> Any:
    """Return a physics list.

    Arguments:
        name: Name of a constructor or of a reference list.

    Raises:
        UnknownNameError: When Geant4 has neither of that name.
    """
    if name in CONSTRUCTORS:
        physics = _OneConstructor(name)
    else:
        factory = g4.G4PhysListFactory()
        factory.SetVerbose(0)
        if not factory.IsReferencePhysList(name):
            reference = [str(entry) for entry in factory.AvailablePhysLists()]
            raise UnknownNameError("physics list", name, [*CONSTRUCTORS, *reference])
        physics = factory.GetReferencePhysList(name)
        physics.SetVerboseLevel(0)
    parameters = g4.G4EmParameters.Instance()
    parameters.SetFluo(False)
    parameters.SetVerbose(0)
    return physics


def set_cut(physics: Any, cut: float) -> None:
    """Set the production cut, mm, of an initialised physics list."""
    physics.SetDefaultCutValue(cut)


def find_particle(name: str, physics_list: str) -> Any:
    """Return Geant4's definition of a particle.

    Raises:
        UnknownNameError: When there is none.
        IncompatibleError: When an electromagnetic list would let it pass without its hadronic interactions.
    """
    definition = g4.G4ParticleTable.GetParticleTable().FindParticle(name)
    if definition is None:
        raise UnknownNameError("particle", name, [*_COVERED, "or another of Geant4's"])
    if physics_list in CONSTRUCTORS and name not in _COVERED:
        msg = f"physics list '{physics_list}' has no hadronic interactions of '{name}'; choose one such as FTFP_BERT"
        raise IncompatibleError(msg)
    return definition
