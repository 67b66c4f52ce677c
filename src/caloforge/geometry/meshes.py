"""Voxel meshes of the CaloChallenge, for reading and validating its files.

Radial edges and angular bins are those published with the data sets (C. Krause et al., CaloChallenge 2022,
arXiv:2410.21611). Energies there are calibrated already, so that the sampling fraction is 1. Data sets 2 and 3
have 45 layers, 3.4 mm each; the depths of data set 1 are not published, and its z is the layer's number.

The challenge's evaluation sets voxels below a cut to 0 before anything else: 1 MeV in data set 1, 0.5 keV over the
sampling fraction 0.033 in data sets 2 and 3. The cut is the mesh's ``evaluation_cut``.
"""

from __future__ import annotations

from caloforge.geometry.beam import Beam
from caloforge.geometry.detector import Detector
from caloforge.geometry.readout import CylindricalLayer
from caloforge.units import AngleSpec, EnergySpec

__all__ = ["calochallenge_1_photons", "calochallenge_1_pions", "calochallenge_2", "calochallenge_3"]

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
_STEP = 3.4  # mm, layer thickness of data sets 2 and 3
_CUT_1 = 1.0  # MeV
_CUT_2_3 = 0.5e-3 / 0.033  # MeV


def _mesh(
    name: str, description: str, layers: tuple[CylindricalLayer, ...], particle: str, energy: str, cut: float
) -> Detector:
    return Detector(
        name=name,
        description=description,
        order="cylindrical",
        layers=layers,
        beam=Beam(particle, EnergySpec.parse(energy), AngleSpec.parse("90")),
        sampling_fraction=1.0,
        evaluation_cut=cut,
    )


def _rings(rings: _Rings) -> tuple[CylindricalLayer, ...]:
    return tuple(
        CylindricalLayer(f"layer {layer}", tuple(float(edge) for edge in edges), n_alpha, float(layer))
        for layer, (n_alpha, edges) in rings.items()
    )


def _regular(n_r: int, n_alpha: int, pitch: float) -> tuple[CylindricalLayer, ...]:
    edges = tuple(pitch * k for k in range(n_r + 1))
    return tuple(CylindricalLayer(f"layer {k}", edges, n_alpha, _STEP * (k + 0.5)) for k in range(45))


def calochallenge_1_photons() -> Detector:
    """CaloChallenge data set 1, photons: 368 voxels in 5 layers."""
    text = "CaloChallenge data set 1, photons in ATLAS, 368 voxels in 5 layers"
    return _mesh("calochallenge-1-photons", text, _rings(_PHOTONS), "gamma", "256-4194304MeV:log2", _CUT_1)


def calochallenge_1_pions() -> Detector:
    """CaloChallenge data set 1, pions: 533 voxels in 7 layers."""
    text = "CaloChallenge data set 1, pions in ATLAS, 533 voxels in 7 layers"
    return _mesh("calochallenge-1-pions", text, _rings(_PIONS), "pi+", "256-4194304MeV:log2", _CUT_1)


def calochallenge_2() -> Detector:
    """CaloChallenge data set 2: 45 layers of 16 angular by 9 radial voxels."""
    text = "CaloChallenge data set 2, electrons in Si-W, 45 x 16 x 9 voxels"
    return _mesh("calochallenge-2", text, _regular(9, 16, 4.65), "e-", "1-1000GeV", _CUT_2_3)


def calochallenge_3() -> Detector:
    """CaloChallenge data set 3: 45 layers of 50 angular by 18 radial voxels."""
    text = "CaloChallenge data set 3, electrons in Si-W, 45 x 50 x 18 voxels"
    return _mesh("calochallenge-3", text, _regular(18, 50, 2.325), "e-", "1-1000GeV", _CUT_2_3)
