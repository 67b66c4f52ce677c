"""The ATLAS electromagnetic barrel around one middle-layer cell: 266 cells in four layers.

Flat lead-iron plates in liquid argon replace the accordion; 150 mm of aluminium (1.7 X0) upstream replaces
tracker, solenoid and cryostat. x is eta, y is phi. Cells follow ATL-SOFT-PUB-2018-001: presampler 7 x 3,
front 56 x 3, middle 7 x 7, back 4 x 7. Presampler and front cells span four middle cells in phi, so there are
four alignments of them around the impact cell; back cells span two in eta, so there are two.
"""

from __future__ import annotations

from caloforge.geometry.beam import Beam
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import get_material
from caloforge.geometry.readout import Alignment, FineGrid, LayerReadout, Readout, ReadoutLayer
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["atlas_em_barrel"]

ETA_PITCH = 37.5  # mm, 0.025 in eta at a radius of 1.5 m
PHI_PITCH = 36.8  # mm, 0.0245 in phi
_PLATE = 350.0  # half width of the passive plates, mm
_UPSTREAM = 150.0  # aluminium, mm
_PRESAMPLER = 11.0  # liquid argon, mm
_LEAD, _IRON, _ARGON, _GAP = 1.53, 0.4, 4.2, 0.27  # mm, one sampling unit
_PHI = Alignment("alignment_phi", -1, 1.5)
_ETA = Alignment("alignment_eta", +1, 0.5)

_READOUT = (
    LayerReadout(FineGrid(7, 15, ETA_PITCH, PHI_PITCH), 7, 3, group_y=4, start_y=3, align_y=_PHI),
    LayerReadout(FineGrid(56, 15, ETA_PITCH / 8, PHI_PITCH), 56, 3, group_y=4, start_y=3, align_y=_PHI),
    LayerReadout(FineGrid(7, 7, ETA_PITCH, PHI_PITCH), 7, 7),
    LayerReadout(FineGrid(9, 7, ETA_PITCH, PHI_PITCH), 4, 7, group_x=2, align_x=_ETA),
)
_LAYERS = (("presampler", 0), ("front", 13), ("middle", 49), ("back", 6))


def atlas_em_barrel() -> Detector:
    """ATLAS electromagnetic barrel, 266 cells, for photons of 1.024 GeV x 2^0..8."""
    aluminium, lead, iron, argon = (get_material(name) for name in ("G4_Al", "G4_Pb", "G4_Fe", "G4_lAr"))
    slabs = [Slab(aluminium, _UPSTREAM, 0.0, _PLATE, _PLATE)]
    layers: list[ReadoutLayer] = []
    z, depth = _UPSTREAM, _UPSTREAM / aluminium.x0
    for number, ((name, units), fold) in enumerate(zip(_LAYERS, _READOUT, strict=True)):
        half_x, half_y = fold.fine.nx * fold.fine.pitch_x / 2, fold.fine.ny * fold.fine.pitch_y / 2
        first_z, first_depth, active = z, depth, 0.0
        if units == 0:
            slabs.append(Slab(argon, _PRESAMPLER, z, half_x, half_y, number))
            z, depth, active = z + _PRESAMPLER, depth + _PRESAMPLER / argon.x0, _PRESAMPLER
        for _ in range(units):
            for material, thickness in ((lead, _LEAD), (iron, _IRON)):
                slabs.append(Slab(material, thickness, z, _PLATE, _PLATE))
                z, depth = z + thickness, depth + thickness / material.x0
            slabs.append(Slab(argon, _ARGON, z, half_x, half_y, number))
            z, depth, active = z + _ARGON + _GAP, depth + (_ARGON + _GAP) / argon.x0, active + _ARGON
        layers.append(
            ReadoutLayer(
                name=name,
                nx=fold.nx,
                ny=fold.ny,
                pitch_x=fold.fine.pitch_x * fold.group_x,
                pitch_y=fold.fine.pitch_y * fold.group_y,
                z=(first_z + z) / 2,
                depth_x0=(first_depth + depth) / 2,
                mip=argon.mip_energy(active),
            )
        )
    return Detector(
        name="atlas-em-barrel",
        description="ATLAS Pb-LAr electromagnetic barrel around one middle cell, 266 cells in four layers",
        order="layered",
        layers=tuple(layers),
        beam=Beam(
            particle="gamma",
            energy=EnergySpec.parse("1.024-262.144GeV:log2"),
            theta=AngleSpec.parse("90"),
            spread_x=ETA_PITCH,
            spread_y=PHI_PITCH,
            alignments=(("alignment_phi", 4), ("alignment_eta", 2)),
            impact="impact",
        ),
        sampling_fraction=0.1765,
        stack=tuple(slabs),
        medium=argon,
        readout=Readout(_READOUT, interleaved=False),
        model_conditions=("incident_energy", "alignment_phi", "alignment_eta"),
    )
