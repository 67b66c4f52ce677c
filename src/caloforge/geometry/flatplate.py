"""Flat-plate sampling calorimeters: layers of absorber, active material and gap on a regular grid.

A detector of this family is fully described by a :class:`FlatPlate`, which is what a user's TOML file
holds; see :mod:`caloforge.geometry.custom`. The ILD calorimeter follows the geometry of Buhmann et al.,
arXiv:2005.05334, the CLIC calorimeter that of Khattak et al., arXiv:2109.07388, as flat plates.
"""

from __future__ import annotations

from dataclasses import dataclass

from caloforge.geometry.beam import Beam
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import Material, get_material
from caloforge.geometry.readout import FineGrid, LayerReadout, Readout, ReadoutLayer
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["FlatPlate", "Plate", "clic_ecal", "clic_ecal_wide", "ild_ecal", "ild_ecal_angled"]


@dataclass(frozen=True)
class Plate:
    """One layer: an absorber, an active slab behind it, then a gap of the medium; thicknesses in mm."""

    absorber: Material
    absorber_mm: float
    active: Material
    active_mm: float
    gap_mm: float


@dataclass(frozen=True)
class FlatPlate:
    """A regular grid of cells behind plates.

    Arguments:
        name: Name of the detector.
        description: One line for people.
        plates: Layers, front to back.
        nx: Cells in x.
        ny: Cells in y.
        pitch_x: mm.
        pitch_y: mm.
        padding: Cells by which the plates reach beyond the scored ones, on each side.
        entry: Cell (ix, iy) at whose centre the beam enters.
        particle: Particle of the default beam.
        energy: Energies of the default beam.
        theta: Angles of the default beam, degrees.
        sampling_fraction: Mean visible over incident energy; None for the estimate of :meth:`estimate`.
        medium: Material around the plates.
        model_conditions: Conditions that models use.
        definition: JSON text of a user's own detector.
    """

    name: str
    description: str
    plates: tuple[Plate, ...]
    nx: int
    ny: int
    pitch_x: float
    pitch_y: float
    padding: int
    entry: tuple[int, int]
    particle: str
    energy: EnergySpec
    theta: AngleSpec
    sampling_fraction: float | None
    medium: Material
    model_conditions: tuple[str, ...] = ("incident_energy",)
    definition: str = ""

    def estimate(self) -> float:
        """Estimate the sampling fraction from energy losses, for a detector without a measured one.

        The share of a minimum-ionising particle, times e/mip = 1 / (1 + 0.007 (Z_passive - Z_active)) of
        Grindhammer and Peters (arXiv:hep-ex/0001020), each layer weighted by its depth in X0.
        """
        total = weight = 0.0
        for plate in self.plates:
            visible = plate.active.mip_energy(plate.active_mm)
            absorbed = plate.absorber.mip_energy(plate.absorber_mm)
            e_mip = 1.0 / (1.0 + 0.007 * max(plate.absorber.z - plate.active.z, 0.0))
            depth = plate.absorber_mm / plate.absorber.x0
            total += depth * e_mip * visible / (visible + absorbed)
            weight += depth
        return total / weight

    def build(self) -> Detector:
        """Return the detector."""
        full_x, full_y = self.nx + 2 * self.padding, self.ny + 2 * self.padding
        half_x, half_y = full_x * self.pitch_x / 2, full_y * self.pitch_y / 2
        slabs: list[Slab] = []
        layers: list[ReadoutLayer] = []
        z = depth = 0.0
        for number, plate in enumerate(self.plates):
            if plate.absorber_mm > 0:
                slabs.append(Slab(plate.absorber, plate.absorber_mm, z, half_x, half_y))
            z += plate.absorber_mm
            depth += plate.absorber_mm / plate.absorber.x0
            slabs.append(Slab(plate.active, plate.active_mm, z, half_x, half_y, number))
            layers.append(
                ReadoutLayer(
                    name=f"layer {number}",
                    nx=self.nx,
                    ny=self.ny,
                    pitch_x=self.pitch_x,
                    pitch_y=self.pitch_y,
                    z=z + plate.active_mm / 2,
                    depth_x0=depth + plate.active_mm / 2 / plate.active.x0,
                    mip=plate.active.mip_energy(plate.active_mm),
                )
            )
            z += plate.active_mm
            depth += plate.active_mm / plate.active.x0
            if plate.gap_mm > 0:
                slabs.append(Slab(self.medium, plate.gap_mm, z, half_x, half_y))
            z += plate.gap_mm
            depth += plate.gap_mm / self.medium.x0
        fine = FineGrid(full_x, full_y, self.pitch_x, self.pitch_y)
        fold = LayerReadout(fine, self.nx, self.ny, start_x=self.padding, start_y=self.padding)
        return Detector(
            name=self.name,
            description=self.description,
            order="xyl",
            layers=tuple(layers),
            beam=Beam(
                particle=self.particle,
                energy=self.energy,
                theta=self.theta,
                x=(self.entry[0] + 0.5 - self.nx / 2) * self.pitch_x,
                y=(self.entry[1] + 0.5 - self.ny / 2) * self.pitch_y,
            ),
            sampling_fraction=self.estimate() if self.sampling_fraction is None else self.sampling_fraction,
            stack=tuple(slabs),
            medium=self.medium,
            readout=Readout((fold,) * len(self.plates), interleaved=True),
            model_conditions=self.model_conditions,
            definition=self.definition,
        )


def _tungsten_silicon(
    thin: tuple[int, float], thick: tuple[int, float], silicon: float, gap: float
) -> tuple[Plate, ...]:
    """Return plates of tungsten in two thicknesses, (number, mm) each, before silicon and gap (mm)."""
    tungsten, active = get_material("G4_W"), get_material("G4_Si")
    return tuple(
        Plate(tungsten, absorber, active, silicon, gap)
        for number, absorber in (thin, thick)
        for _ in range(number)
    )


_ILD = _tungsten_silicon((20, 2.1), (10, 4.2), 0.525, 2.775)
_CLIC = _tungsten_silicon((17, 2.4), (8, 4.8), 0.5, 2.0)


def ild_ecal() -> Detector:
    """ILD electromagnetic calorimeter, 30 x 30 x 30 cells, for 50 GeV photons at right angles."""
    return FlatPlate(
        name="ild-ecal",
        description="ILD Si-W electromagnetic calorimeter, 30 layers of 30 x 30 cells",
        plates=_ILD,
        nx=30,
        ny=30,
        pitch_x=5.0,
        pitch_y=5.0,
        padding=4,
        entry=(15, 15),
        particle="gamma",
        energy=EnergySpec.parse("50GeV"),
        theta=AngleSpec.parse("90"),
        sampling_fraction=0.02150,
        medium=get_material("G4_AIR"),
    ).build()


def ild_ecal_angled() -> Detector:
    """ILD electromagnetic calorimeter, 30 x 60 x 30 cells, for photons of 10 to 100 GeV and 30 to 90 degrees."""
    return FlatPlate(
        name="ild-ecal-angled",
        description="ILD Si-W electromagnetic calorimeter, 30 layers of 30 x 60 cells, for inclined photons",
        plates=_ILD,
        nx=30,
        ny=60,
        pitch_x=5.0,
        pitch_y=5.0,
        padding=4,
        entry=(15, 10),
        particle="gamma",
        energy=EnergySpec.parse("10-100GeV"),
        theta=AngleSpec.parse("30-90"),
        sampling_fraction=0.02336,
        medium=get_material("G4_AIR"),
        model_conditions=("incident_energy", "incident_theta"),
    ).build()


def clic_ecal() -> Detector:
    """CLIC electromagnetic calorimeter, 25 x 25 x 25 cells, for electrons of 2 to 500 GeV."""
    return FlatPlate(
        name="clic-ecal",
        description="CLIC Si-W electromagnetic calorimeter, 25 layers of 25 x 25 cells",
        plates=_CLIC,
        nx=25,
        ny=25,
        pitch_x=5.1,
        pitch_y=5.1,
        padding=10,
        entry=(12, 12),
        particle="e-",
        energy=EnergySpec.parse("2-500GeV"),
        theta=AngleSpec.parse("90"),
        sampling_fraction=0.01653,
        medium=get_material("G4_AIR"),
    ).build()


def clic_ecal_wide() -> Detector:
    """CLIC electromagnetic calorimeter, 51 x 51 x 25 cells, for electrons of 2 to 500 GeV and 60 to 120 degrees."""
    return FlatPlate(
        name="clic-ecal-wide",
        description="CLIC Si-W electromagnetic calorimeter, 25 layers of 51 x 51 cells, for inclined electrons",
        plates=_CLIC,
        nx=51,
        ny=51,
        pitch_x=5.1,
        pitch_y=5.1,
        padding=0,
        entry=(25, 25),
        particle="e-",
        energy=EnergySpec.parse("2-500GeV"),
        theta=AngleSpec.parse("60-120"),
        sampling_fraction=0.01725,
        medium=get_material("G4_AIR"),
        model_conditions=("incident_energy", "incident_theta"),
    ).build()
