"""Tables of a detector's TOML file: materials, layers and beam, and the numbers that may differ between layers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from caloforge.errors import InputError
from caloforge.geometry.beam import Beam
from caloforge.geometry.materials import Material, elements, make_material
from caloforge.settings import Settings
from caloforge.units import AngleSpec, EnergySpec

__all__ = [
    "BeamDefinition",
    "Counts",
    "Edges",
    "Layers",
    "Lengths",
    "MaterialDefinition",
    "Positive",
    "Thickness",
]

_MOST = 1000  # cells in a row, angles, layers
_LEAST_LENGTH, _MOST_LENGTH = 1e-6, 1e6  # mm, and the same range of densities


def _not_tiny(value: float) -> float:
    if value < _LEAST_LENGTH:
        raise ValueError(f"expected at least {_LEAST_LENGTH:g}")
    return value


Positive = Annotated[float, Field(gt=0, le=_MOST_LENGTH), AfterValidator(_not_tiny)]
Thickness = Annotated[float, Field(ge=0, le=_MOST_LENGTH)]  # mm
_Count = Annotated[int, Field(ge=1, le=_MOST)]


def _counts(value: Any) -> Any:
    """Check a number of cells, or a list of them."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if one is not None and (not isinstance(one, int) or isinstance(one, bool) or not 1 <= one <= _MOST):
            raise ValueError(
                f"expected a whole number of 1 to {_MOST}, or a list with one for each layer, got {one!r:.80}"
            )
    return tuple(value) if isinstance(value, list) else value


def _lengths(value: Any) -> Any:
    """Check a length, or a list of them."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if one is not None and not (_is_number(one) and one > 0):
            raise ValueError(
                f"expected a length in mm above 0, or a list with one for each layer, got {one!r:.80}"
            )
        if one is not None and not _LEAST_LENGTH <= one <= _MOST_LENGTH:
            raise ValueError(f"expected a length of {_LEAST_LENGTH:g} to {_MOST_LENGTH:g} mm, got {one:g}")
    return tuple(value) if isinstance(value, list) else value


def _rings(value: Any) -> Any:
    """Check the edges of rings, or a list with those of each layer."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of radii in mm, or a list of such lists, one for each layer")
    if isinstance(value[0], list | tuple):
        return tuple(_rings(one) for one in value)
    if not 2 <= len(value) <= _MOST + 1 or not all(map(_is_number, value)):
        raise ValueError(f"expected 2 to {_MOST + 1} radii in mm, got {list(value)!s:.80}")
    if value[0] < 0 or any(low >= high for low, high in pairwise(value)) or value[-1] > _MOST_LENGTH:
        raise ValueError(f"radii {list(value)!s:.80} do not rise from 0 or more: rings would overlap")
    return tuple(map(float, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# a value for all layers, or a tuple with one for each
Counts = Annotated[int | tuple[int, ...] | None, BeforeValidator(_counts)]
Lengths = Annotated[float | tuple[float, ...] | None, BeforeValidator(_lengths)]
Edges = Annotated[tuple[float, ...] | tuple[tuple[float, ...], ...] | None, BeforeValidator(_rings)]
_OwnEdges = Annotated[tuple[float, ...] | None, BeforeValidator(_rings)]


class MaterialDefinition(Settings):
    """A material of elements: their mass fractions, or how many atoms of each a molecule has; density in g/cm3."""

    density: Positive
    elements: dict[str, float] | None = None
    atoms: dict[str, Positive] | None = None

    def material(self, name: str) -> Material:
        """Return the material.

        Raises:
            InputError: When an element is not known, or fractions do not add up to one.
        """
        if (self.elements is None) == (self.atoms is None):
            raise InputError("give either 'elements', mass fractions, or 'atoms', numbers of atoms")
        if name.startswith("G4_"):
            raise InputError("names that begin with G4_ are Geant4's: choose another")
        if self.atoms is None:
            return make_material(name, self.density, self.elements or {})
        mass = {s: n * elements()[s].a if s in elements() else 1.0 for s, n in self.atoms.items()}
        return make_material(name, self.density, {s: m / sum(mass.values()) for s, m in mass.items()})


class Layers(Settings):
    """A run of equal layers: in each, units of absorber, active slab behind it, and gap of the medium; thicknesses in mm.

    A segmentation given here takes the place of that of the whole detector. Where materials are not known there is ``depth_mm`` alone.
    """

    repeat: _Count = 1
    units: _Count = 1  # sampling units whose active slabs add up to one layer
    absorber: str | None = None
    absorber_mm: Thickness = 0.0
    active: str | None = None
    active_mm: Positive | None = None
    gap_mm: Thickness = 0.0
    depth_mm: Positive | None = None
    nx: _Count | None = None
    ny: _Count | None = None
    pitch: Positive | None = None
    pitch_x: Positive | None = None
    pitch_y: Positive | None = None
    r_edges: _OwnEdges = None
    n_r: _Count | None = None
    pitch_r: Positive | None = None
    n_alpha: _Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Layers:
        if self.depth_mm is not None:
            if (
                self.absorber
                or self.active
                or self.absorber_mm
                or self.active_mm
                or self.gap_mm
                or self.units > 1
            ):
                raise ValueError("'depth_mm' is for layers without materials; leave it out, or the materials")
            return self
        if self.active is None or self.active_mm is None:
            raise ValueError(
                "give 'active' and 'active_mm', or only 'depth_mm' where materials are not known"
            )
        if self.absorber is None and self.absorber_mm > 0:
            raise ValueError("'absorber_mm' needs an 'absorber'")
        if self.absorber is not None and "absorber_mm" not in self.model_fields_set:
            raise ValueError("'absorber' needs its thickness 'absorber_mm'")
        return self


class BeamDefinition(Settings):
    """The default beam, which enters at the centre of the cell ``entry`` (ix, iy) of the first layer, by default the middle one."""

    particle: str = "gamma"
    energy: str = "10GeV"
    theta: str | float = "90"
    entry: tuple[int, int] | None = None
    entry_mm: tuple[float, float] | None = None  # x and y from the centre, in place of ``entry``

    @field_validator("energy")
    @classmethod
    def _energy(cls, text: str) -> str:
        return str(EnergySpec.parse(text))

    @field_validator("theta")
    @classmethod
    def _theta(cls, text: str | float) -> str:
        return str(AngleSpec.parse(text))

    def beam(self, x: float, y: float) -> Beam:
        """Return the beam that enters at a place, mm."""
        return Beam(self.particle, EnergySpec.parse(self.energy), AngleSpec.parse(self.theta), x, y)
