"""Flat-plate sampling calorimeters: layers of absorber, active material and gap on a regular grid.

A detector of this family is fully described by a :class:`FlatPlate`. The built-in ones are made from it, and a user's own from the
same fields in a TOML file::

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

Each field is checked; an error names the file and the field. ``sampling_fraction`` may be set once it has been measured: the mean
visible over the mean incident energy in the detector's default beam, with what leaks there. Without it an estimate from energy losses is
used, for showers that do not leak.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from caloforge.errors import ConfigError
from caloforge.files import read_toml
from caloforge.geometry.beam import Beam
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import active_over_passive, get_material
from caloforge.geometry.readout import FineGrid, LayerReadout, Readout, ReadoutLayer
from caloforge.settings import Settings, validated
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["BeamDefinition", "FlatPlate", "Layers", "detector_from_definition", "load_detector"]

_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1, le=1000)]


class Layers(Settings):
    """A run of equal layers: an absorber, an active slab behind it, then a gap of the medium; thicknesses in mm."""

    repeat: _Count = 1
    absorber: str
    absorber_mm: Annotated[float, Field(ge=0)]
    active: str
    active_mm: _Positive
    gap_mm: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("absorber", "active")
    @classmethod
    def _known(cls, name: str) -> str:
        return get_material(name).name


class BeamDefinition(Settings):
    """The default beam, which enters at the centre of the cell ``entry`` (ix, iy), by default the middle one."""

    particle: str = "gamma"
    energy: str = "10GeV"
    theta: str | float = "90"
    entry: tuple[int, int] | None = None

    @field_validator("energy")
    @classmethod
    def _energy(cls, text: str) -> str:
        return str(EnergySpec.parse(text))

    @field_validator("theta")
    @classmethod
    def _theta(cls, text: str | float) -> str:
        return str(AngleSpec.parse(text))


class FlatPlate(Settings):
    """A regular grid of cells behind plates."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: str = "user's own flat-plate calorimeter"
    nx: _Count
    ny: _Count
    pitch: _Positive | None = None  # mm; or ``pitch_x`` and ``pitch_y``
    pitch_x: _Positive | None = None
    pitch_y: _Positive | None = None
    # cells by which the plates reach beyond the scored ones, on each side
    padding: Annotated[int, Field(ge=0, le=200)] = 0
    medium: str = "G4_AIR"
    # measured mean visible over incident energy in the default beam, leakage included; None for the estimate of :meth:`estimate`
    sampling_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    layers: Annotated[list[Layers], Field(min_length=1)]  # front to back
    beam: BeamDefinition = BeamDefinition()

    @field_validator("medium")
    @classmethod
    def _known(cls, name: str) -> str:
        return get_material(name).name

    @model_validator(mode="after")
    def _consistent(self) -> FlatPlate:
        if self.pitch is None and (self.pitch_x is None or self.pitch_y is None):
            raise ValueError("give 'pitch', or both 'pitch_x' and 'pitch_y', in mm")
        entry = self.beam.entry
        if entry is not None and not (0 <= entry[0] < self.nx and 0 <= entry[1] < self.ny):
            raise ValueError(f"'beam.entry' {list(entry)} is outside the {self.nx} x {self.ny} cells")
        return self

    def _each(self) -> list[Layers]:
        """Return the entry of each layer, front to back."""
        return [run for run in self.layers for _ in range(run.repeat)]

    def estimate(self) -> float:
        """Estimate the sampling fraction: visible over deposited energy, for showers that do not leak.

        The share of each layer, from energy losses and :func:`~caloforge.geometry.materials.active_over_passive`, averaged over the
        mean shower of the default beam as the Particle Data Group parametrises it: a gamma distribution with b = 0.5 and the maximum
        at ln(E/Ec) + 0.5 radiation lengths for photons, - 0.5 for electrons.
        """
        medium = get_material(self.medium)
        share, length, critical = [], [], []
        for run in self._each():
            absorber, active = get_material(run.absorber), get_material(run.active)
            parts = [(absorber, run.absorber_mm), (medium, run.gap_mm)]
            visible = active.mip_energy(run.active_mm) * active_over_passive(parts, active, run.active_mm)
            share.append(visible / (visible + sum(material.mip_energy(mm) for material, mm in parts)))
            parts.append((active, run.active_mm))
            depths = [mm / material.x0 for material, mm in parts]
            length.append(sum(depths))
            critical.append(
                sum(
                    depth * material.critical_energy
                    for depth, (material, _) in zip(depths, parts, strict=True)
                )
            )
        energy = float(EnergySpec.parse(self.beam.energy).values(np.array([0.5]))[0])
        t_max = np.log(energy / (sum(critical) / sum(length))) + (
            0.5 if self.beam.particle == "gamma" else -0.5
        )
        middle = np.cumsum(length) - np.array(length) / 2
        power = 0.5 * max(t_max, 0.5)  # a - 1
        log_density = power * np.log(middle) - 0.5 * middle
        weight = np.array(length) * np.exp(log_density - log_density.max())
        return float(weight @ share / weight.sum())

    def build(self, definition: str = "") -> Detector:
        """Return the detector; its models are conditioned on the angle too where the beam's angle varies.

        ``definition`` is the JSON text of a user's own detector.
        """
        pitch_x, pitch_y = self.pitch_x or self.pitch or 0.0, self.pitch_y or self.pitch or 0.0
        full_x, full_y = self.nx + 2 * self.padding, self.ny + 2 * self.padding
        half_x, half_y = full_x * pitch_x / 2, full_y * pitch_y / 2
        medium = get_material(self.medium)
        slabs: list[Slab] = []
        layers: list[ReadoutLayer] = []
        z = depth = 0.0
        for number, run in enumerate(self._each()):
            absorber, active = get_material(run.absorber), get_material(run.active)
            if run.absorber_mm > 0:
                slabs.append(Slab(absorber, run.absorber_mm, z, half_x, half_y))
            z += run.absorber_mm
            depth += run.absorber_mm / absorber.x0
            slabs.append(Slab(active, run.active_mm, z, half_x, half_y, number))
            layers.append(
                ReadoutLayer(
                    name=f"layer {number}",
                    nx=self.nx,
                    ny=self.ny,
                    pitch_x=pitch_x,
                    pitch_y=pitch_y,
                    z=z + run.active_mm / 2,
                    depth_x0=depth + run.active_mm / 2 / active.x0,
                    mip=active.mip_energy(run.active_mm),
                )
            )
            z += run.active_mm
            depth += run.active_mm / active.x0
            if run.gap_mm > 0:
                slabs.append(Slab(medium, run.gap_mm, z, half_x, half_y))
            z += run.gap_mm
            depth += run.gap_mm / medium.x0
        fine = FineGrid(full_x, full_y, pitch_x, pitch_y)
        fold = LayerReadout(fine, self.nx, self.ny, start_x=self.padding, start_y=self.padding)
        entry = self.beam.entry or (self.nx // 2, self.ny // 2)
        theta = AngleSpec.parse(self.beam.theta)
        angled = () if theta.low == theta.high else ("incident_theta",)
        return Detector(
            name=self.name,
            description=self.description,
            order="xyl",
            layers=tuple(layers),
            beam=Beam(
                particle=self.beam.particle,
                energy=EnergySpec.parse(self.beam.energy),
                theta=theta,
                x=(entry[0] + 0.5 - self.nx / 2) * pitch_x,
                y=(entry[1] + 0.5 - self.ny / 2) * pitch_y,
            ),
            sampling_fraction=self.estimate() if self.sampling_fraction is None else self.sampling_fraction,
            sampling_source="estimated" if self.sampling_fraction is None else "measured",
            stack=tuple(slabs),
            medium=medium,
            readout=Readout((fold,) * len(layers), interleaved=True),
            model_conditions=("incident_energy", *angled),
            definition=definition,
        )


def load_detector(path: str | Path) -> Detector:
    """Read a detector from a TOML file.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a field is missing, unknown or wrong; names the file and the field.
    """
    return _build(read_toml(path), str(path))


def detector_from_definition(text: str) -> Detector:
    """Rebuild a user's detector from the JSON text in its files.

    Raises:
        ConfigError: When the text does not describe a detector.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"detector definition is not JSON: {error}") from error
    return _build(content, "detector definition")


def _build(content: Any, where: str) -> Detector:
    spec = validated(FlatPlate, content, where)
    return spec.build(spec.model_dump_json(exclude_none=True))
