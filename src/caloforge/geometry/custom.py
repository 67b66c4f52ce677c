"""A user's own flat-plate detector, from a TOML file.

Example::

    name = "my-ecal"
    nx = 20
    ny = 20
    pitch = 10.0                    # mm; or pitch_x and pitch_y
    padding = 2                     # cells by which plates reach beyond the scored ones

    [[layers]]
    repeat = 15
    absorber = "G4_W"
    absorber_mm = 3.5
    active = "G4_Si"
    active_mm = 0.5
    gap_mm = 2.0

    [beam]
    particle = "gamma"
    energy = "10-50GeV"
    theta = "90"
    entry = [10, 10]

Each field is checked; an error names the file and the field. ``sampling_fraction`` may be given once it has been
measured; without it an estimate from energy losses stands in.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from caloforge.errors import CaloforgeError, ConfigError, FileFormatError
from caloforge.geometry.detector import Detector
from caloforge.geometry.flatplate import FlatPlate, Plate
from caloforge.geometry.materials import get_material
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["detector_from_definition", "load_detector"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Layers(_Strict):
    """A run of equal layers."""

    repeat: Count = 1
    absorber: str
    absorber_mm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    active: str
    active_mm: Positive
    gap_mm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @field_validator("absorber", "active")
    @classmethod
    def _known(cls, name: str) -> str:
        return _checked(lambda: get_material(name).name)


class _Beam(_Strict):
    """The default beam."""

    particle: str = "gamma"
    energy: str = "10GeV"
    theta: str | float = "90"
    entry: tuple[int, int] | None = None

    @field_validator("energy")
    @classmethod
    def _energy(cls, text: str) -> str:
        return _checked(lambda: str(EnergySpec.parse(text)))

    @field_validator("theta")
    @classmethod
    def _theta(cls, text: str | float) -> str:
        return _checked(lambda: str(AngleSpec.parse(text)))


class _Definition(_Strict):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: str = "user's own flat-plate calorimeter"
    nx: Count
    ny: Count
    pitch: Positive | None = None
    pitch_x: Positive | None = None
    pitch_y: Positive | None = None
    padding: Annotated[int, Field(ge=0, le=200)] = 0
    medium: str = "G4_AIR"
    sampling_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    layers: Annotated[list[_Layers], Field(min_length=1)]
    beam: _Beam = _Beam()

    @field_validator("medium")
    @classmethod
    def _known(cls, name: str) -> str:
        return _checked(lambda: get_material(name).name)

    @model_validator(mode="after")
    def _consistent(self) -> _Definition:
        if self.pitch is None and (self.pitch_x is None or self.pitch_y is None):
            msg = "give 'pitch', or both 'pitch_x' and 'pitch_y', in mm"
            raise ValueError(msg)
        entry = self.beam.entry
        if entry is not None and not (0 <= entry[0] < self.nx and 0 <= entry[1] < self.ny):
            msg = f"'beam.entry' {list(entry)} is outside the {self.nx} x {self.ny} cells"
            raise ValueError(msg)
        return self


def _checked(parse: Any) -> str:
    """Turn the package's own errors into what pydantic collects."""
    try:
        return str(parse())
    except CaloforgeError as error:
        raise ValueError(str(error)) from error


def load_detector(path: str | Path) -> Detector:
    """Read a detector from a TOML file.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a field is missing, unknown or wrong; names the file and the field.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, "", f"is not TOML: {error}") from error
    return _build(content, str(path))


def detector_from_definition(text: str) -> Detector:
    """Rebuild a user's detector from the JSON text that its files carry."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"detector definition is not JSON: {error}"
        raise ConfigError(msg) from error
    return _build(content, "detector definition")


def _build(content: Any, where: str) -> Detector:
    try:
        spec = _Definition.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        known = (
            f" (known: {', '.join(_Definition.model_fields)})" if first["type"] == "extra_forbidden" else ""
        )
        given = f", got {first['input']!r}" if isinstance(first["input"], str | int | float) else ""
        msg = f"{where}: field '{field}': {first['msg']}{given}{known}"
        raise ConfigError(msg) from error
    plates = tuple(
        Plate(
            get_material(run.absorber), run.absorber_mm, get_material(run.active), run.active_mm, run.gap_mm
        )
        for run in spec.layers
        for _ in range(run.repeat)
    )
    theta = AngleSpec.parse(spec.beam.theta)
    conditions = ("incident_energy",) if theta.low == theta.high else ("incident_energy", "incident_theta")
    return FlatPlate(
        name=spec.name,
        description=spec.description,
        plates=plates,
        nx=spec.nx,
        ny=spec.ny,
        pitch_x=spec.pitch_x or spec.pitch or 0.0,
        pitch_y=spec.pitch_y or spec.pitch or 0.0,
        padding=spec.padding,
        entry=spec.beam.entry or (spec.nx // 2, spec.ny // 2),
        particle=spec.beam.particle,
        energy=EnergySpec.parse(spec.beam.energy),
        theta=theta,
        sampling_fraction=spec.sampling_fraction,
        medium=get_material(spec.medium),
        model_conditions=conditions,
        definition=spec.model_dump_json(exclude_none=True),
    ).build()
