"""The detectors of published studies: ILD, CLIC, the ATLAS electromagnetic barrel, the CaloChallenge.

The ILD calorimeter follows the geometry of Buhmann et al., arXiv:2005.05334, the CLIC calorimeter that of Khattak et al.,
arXiv:2109.07388, as flat plates. The 10 x 10 images of the amplification study (S. Bieringer et al., arXiv:2202.07352) sum the
cells of ILD along the beam and pool 3 x 3 of them.

ATLAS has 266 cells in four layers around one middle-layer cell. Flat lead-iron plates in liquid argon replace the accordion;
150 mm of aluminium (1.7 X0) upstream replaces tracker, solenoid and cryostat. x is eta, y is phi. Cells follow
ATL-SOFT-PUB-2018-001: presampler 7 x 3, front 56 x 3, middle 7 x 7, back 4 x 7. Presampler and front cells span four middle
cells in phi, so there are four alignments of them around the impact cell; back cells span two in eta, so there are two.

CaloGAN's calorimeter (M. Paganini, L. de Oliveira, B. Nachman, arXiv:1712.10321) is for reading its files, whose energies are
calibrated: cells of 5 x 160, 40 x 40 and 80 x 40 mm in eta and phi, layers 90, 347 and 43 mm deep.

The meshes of the CaloChallenge have the radial edges and angular bins published with the data sets (C. Krause et al., CaloChallenge
2022, arXiv:2410.21611). Energies there are calibrated already. The challenge's evaluation sets voxels below a cut to 0 before anything else
(``evaluation_cut``): 1 MeV in data set 1, 0.5 keV over 0.033 in data sets 2 and 3. Data set 1 is for reading and validating
its files; the depths of its layers are not published, and its z is the layer's number.

Data sets 2 and 3 come from Geant4's extended example Par04: 90 concentric cylinders, each 1.4 mm of tungsten, then 0.3 mm of silicon, 800 mm inside and
2 m long, in air; electrons from the axis, perpendicular to the surface. Their mesh is centred on the line of the particle from where it enters,
with layers of 3.4 mm, two pairs each; its energies are those of the silicon alone over 0.033. Within the mesh a cylinder recedes from its tangent
plane by at most 1.1 mm, less than the tungsten before the first silicon of a layer: each silicon is in one layer of the mesh. x is along the
axis of the cylinders. The particle starts at the first cylinder: the example's mesh follows what the air before it scatters.

FTFP_BERT, with which the data sets were made, treats electrons and photons as G4EmStandardPhysics does, with a production cut of 0.7 mm. The coarser steps
of G4EmStandardPhysics_option1 would leave a quarter less in silicon this thin, so the detectors ask for the former, without Rayleigh scattering.
"""

from __future__ import annotations

import numpy as np

from caloforge.geometry.beam import Beam
from caloforge.geometry.definition import BeamDefinition, DetectorDefinition, Layers
from caloforge.geometry.detector import Detector, Slab
from caloforge.geometry.materials import get_material
from caloforge.geometry.readout import (
    Alignment,
    CylindricalLayer,
    FineGrid,
    LayerReadout,
    MeshReadout,
    Readout,
    ReadoutLayer,
)
from caloforge.units import AngleSpec, EnergySpec

__all__ = [
    "atlas_em_barrel",
    "calochallenge_1_photons",
    "calochallenge_1_pions",
    "calochallenge_2",
    "calochallenge_3",
    "calogan",
    "clic_ecal",
    "clic_ecal_wide",
    "ild_ecal",
    "ild_ecal_10x10",
    "ild_ecal_angled",
]

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


_Rings = dict[int, tuple[int, tuple[float, ...]]]  # layer id -> (angular bins, radial edges in mm)

_PHOTONS: _Rings = {
    0: (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
    1: (10, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)),
    2: (10, (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400)),
    3: (1, (0, 50, 100, 200, 400, 600)),
    12: (1, (0, 100, 200, 400, 1000, 2000)),
}
_PIONS: _Rings = {
    0: (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
    1: (10, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200)),
    2: (10, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400)),
    3: (1, (0, 50, 100, 200, 400, 600)),
    12: (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000)),
    13: (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000)),
    14: (1, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000)),
}
_CUT_1 = 1.0  # MeV


def _mesh(name: str, description: str, layers: tuple[CylindricalLayer, ...], particle: str) -> Detector:
    return Detector(
        name=name,
        description=description,
        order="cylindrical",
        layers=layers,
        beam=Beam(particle, EnergySpec.parse("256-4194304MeV:log2"), AngleSpec.parse("90")),
        sampling_fraction=1.0,
        sampling_source="calibrated",
        evaluation_cut=_CUT_1,
    )


def _rings(rings: _Rings) -> tuple[CylindricalLayer, ...]:
    return tuple(
        CylindricalLayer(f"layer {layer}", tuple(float(edge) for edge in edges), n_alpha, float(layer))
        for layer, (n_alpha, edges) in rings.items()
    )


def calogan() -> Detector:
    """CaloGAN's calorimeter, for its files: 504 cells in 3 layers, x is eta, y is phi."""
    cells = ((96, 3, 5.0, 160.0, 90.0), (12, 12, 40.0, 40.0, 347.0), (6, 12, 80.0, 40.0, 43.0))
    layers, z = [], 0.0
    for number, (nx, ny, pitch_x, pitch_y, depth) in enumerate(cells):
        layers.append(ReadoutLayer(f"layer {number}", nx, ny, pitch_x, pitch_y, z + depth / 2))
        z += depth
    return Detector(
        name="calogan",
        description="CaloGAN's Pb-LAr calorimeter, 504 cells in 3 layers",
        order="layered",
        layers=tuple(layers),
        beam=Beam("e+", EnergySpec.parse("1-100GeV"), AngleSpec.parse("90")),
        sampling_fraction=1.0,
        sampling_source="calibrated",
    )


def calochallenge_1_photons() -> Detector:
    """CaloChallenge data set 1, photons: 368 voxels in 5 layers."""
    text = "CaloChallenge data set 1, photons in ATLAS, 368 voxels in 5 layers"
    return _mesh("calochallenge-1-photons", text, _rings(_PHOTONS), "gamma")


def calochallenge_1_pions() -> Detector:
    """CaloChallenge data set 1, pions: 533 voxels in 7 layers."""
    text = "CaloChallenge data set 1, pions in ATLAS, 533 voxels in 7 layers"
    return _mesh("calochallenge-1-pions", text, _rings(_PIONS), "pi+")


_LAYERS_2_3, _PAIRS = 45, 2  # pairs of tungsten and silicon in a layer
_TUNGSTEN, _SILICON = 1.4, 0.3  # mm
_INNER, _HALF_LENGTH = 800.0, 1000.0  # mm, of the cylinders
_SILICON_SHARE = 0.033  # by which the data sets divide the energies of the silicon
_READ_FROM = 0.5e-3  # MeV in silicon, below which the example drops a voxel


def _par04(name: str, number: int, n_alpha: int, n_r: int, pitch: float, fraction: float) -> Detector:
    """Return the calorimeter of data set 2 or 3; ``fraction`` is the mean stored over the mean incident energy."""
    tungsten, silicon = get_material("G4_W"), get_material("G4_Si")
    slabs: list[Slab] = []
    for k in range(_LAYERS_2_3 * _PAIRS):
        for material, thickness, layer in ((tungsten, _TUNGSTEN, -1), (silicon, _SILICON, k // _PAIRS)):
            z = k * (_TUNGSTEN + _SILICON) + (_TUNGSTEN if layer >= 0 else 0.0)
            slabs.append(Slab(material, thickness, z, _HALF_LENGTH, _INNER + z + thickness, layer))
    step = _PAIRS * (_TUNGSTEN + _SILICON)
    depth = _PAIRS * (_TUNGSTEN / tungsten.x0 + _SILICON / silicon.x0)
    edges = tuple(pitch * k for k in range(n_r + 1))
    return Detector(
        name=name,
        description=f"CaloChallenge data set {number}, electrons in Si-W, 45 x {n_alpha} x {n_r} voxels",
        order="cylindrical",
        layers=tuple(
            CylindricalLayer(f"layer {k}", edges, n_alpha, step * (k + 0.5), depth * (k + 0.5))
            for k in range(_LAYERS_2_3)
        ),
        beam=Beam("e-", EnergySpec.parse("1-1000GeV:log"), AngleSpec.parse("90")),
        sampling_fraction=fraction,
        evaluation_cut=_READ_FROM / _SILICON_SHARE,
        stack=tuple(slabs),
        medium=get_material("G4_AIR"),
        readout=MeshReadout.regular(_LAYERS_2_3, n_alpha, n_r, pitch, step, 1.0 / _SILICON_SHARE),
        inner_radius=_INNER,
        simulation={
            "geant4": {"physics_list": "G4EmStandardPhysics_noRayleigh", "production_cut": 0.7},
        },
    )


def calochallenge_2() -> Detector:
    """CaloChallenge data set 2: 45 layers of 16 angular by 9 radial voxels."""
    return _par04("calochallenge-2", 2, 16, 9, 4.65, 0.972)


def calochallenge_3() -> Detector:
    """CaloChallenge data set 3: 45 layers of 50 angular by 18 radial voxels."""
    return _par04("calochallenge-3", 3, 50, 18, 2.325, 0.972)


def _tungsten_silicon(tungsten: dict[float, int], silicon: float, gap: float) -> list[Layers]:
    """Return numbers of layers by their tungsten (mm), each before silicon and gap (mm)."""
    return [
        Layers(repeat=n, absorber="G4_W", absorber_mm=mm, active="G4_Si", active_mm=silicon, gap_mm=gap)
        for mm, n in tungsten.items()
    ]


def _ild(name: str, note: str, ny: int, fraction: float, beam: BeamDefinition) -> Detector:
    return DetectorDefinition(
        name=name,
        description=f"ILD Si-W electromagnetic calorimeter, 30 layers of 30 x {ny} cells{note}",
        nx=30,
        ny=ny,
        pitch=5.0,
        padding=4,
        sampling_fraction=fraction,
        layers=_tungsten_silicon({2.1: 20, 4.2: 10}, silicon=0.525, gap=2.775),
        beam=beam,
    ).build()


def _clic(name: str, note: str, n: int, padding: int, fraction: float, theta: str) -> Detector:
    return DetectorDefinition(
        name=name,
        description=f"CLIC Si-W electromagnetic calorimeter, 25 layers of {n} x {n} cells{note}",
        nx=n,
        ny=n,
        pitch=5.1,
        padding=padding,
        sampling_fraction=fraction,
        layers=_tungsten_silicon({2.4: 17, 4.8: 8}, silicon=0.5, gap=2.0),
        beam=BeamDefinition(particle="e-", energy="2-500GeV", theta=theta),
    ).build()


def ild_ecal() -> Detector:
    """ILD electromagnetic calorimeter, 30 x 30 x 30 cells, for 50 GeV photons at right angles."""
    return _ild("ild-ecal", "", 30, 0.02150, BeamDefinition(energy="50GeV", entry=(15, 15)))


def ild_ecal_angled() -> Detector:
    """ILD electromagnetic calorimeter, 30 x 60 x 30 cells, for photons of 10 to 100 GeV and 30 to 90 degrees."""
    beam = BeamDefinition(energy="10-100GeV", theta="30-90", entry=(15, 10))
    return _ild("ild-ecal-angled", ", for inclined photons", 60, 0.02336, beam)


def clic_ecal() -> Detector:
    """CLIC electromagnetic calorimeter, 25 x 25 x 25 cells, for electrons of 2 to 500 GeV."""
    return _clic("clic-ecal", "", 25, 10, 0.01653, "90")


def clic_ecal_wide() -> Detector:
    """CLIC electromagnetic calorimeter, 51 x 51 x 25 cells, for electrons of 2 to 500 GeV and 60 to 120 degrees."""
    return _clic("clic-ecal-wide", ", for inclined electrons", 51, 0, 0.01725, "60-120")


def ild_ecal_10x10() -> Detector:
    """Return the ILD calorimeter summed over its layers and pooled 3 x 3: one layer of 10 x 10 cells of 15 mm."""
    source = ild_ecal()
    z = float(np.mean([layer.z for layer in source.layers]))
    return Detector(
        name="ild-ecal-10x10",
        description="ild-ecal summed over its layers and pooled 3 x 3",
        order="xyl",
        layers=(ReadoutLayer("image", 10, 10, 15.0, 15.0, z),),
        beam=source.beam,
        sampling_fraction=source.sampling_fraction,
    )
