"""Detectors: stacks of slabs, readout cells, and the beams of the published studies."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from caloforge.errors import UnknownNameError
from caloforge.geometry.beam import Beam, Primaries
from caloforge.geometry.definition import detector_from_definition, load_detector
from caloforge.geometry.detector import Detector, Slab, project
from caloforge.geometry.materials import (
    MATERIALS,
    Material,
    active_over_passive,
    e_over_mip,
    get_material,
    make_material,
    nist_names,
)
from caloforge.geometry.readout import (
    CylindricalLayer,
    FineGrid,
    LayerReadout,
    MeshReadout,
    Readout,
    ReadoutLayer,
)
from caloforge.registry import Registry

__all__ = [
    "DETECTORS",
    "MATERIALS",
    "Beam",
    "CylindricalLayer",
    "Detector",
    "FineGrid",
    "LayerReadout",
    "Material",
    "MeshReadout",
    "Primaries",
    "Readout",
    "ReadoutLayer",
    "Slab",
    "active_over_passive",
    "detector_from_definition",
    "e_over_mip",
    "get_detector",
    "get_material",
    "load_detector",
    "make_material",
    "nist_names",
    "project",
]

DETECTORS: Registry[Callable[[], Detector]] = Registry(
    "detector",
    {
        "ild-ecal": "caloforge.geometry.published:ild_ecal",
        "ild-ecal-angled": "caloforge.geometry.published:ild_ecal_angled",
        "clic-ecal": "caloforge.geometry.published:clic_ecal",
        "clic-ecal-wide": "caloforge.geometry.published:clic_ecal_wide",
        "atlas-em-barrel": "caloforge.geometry.published:atlas_em_barrel",
        "ild-ecal-10x10": "caloforge.geometry.published:ild_ecal_10x10",
        "calogan": "caloforge.geometry.published:calogan",
        "calochallenge-1-photons": "caloforge.geometry.published:calochallenge_1_photons",
        "calochallenge-1-pions": "caloforge.geometry.published:calochallenge_1_pions",
        "calochallenge-2": "caloforge.geometry.published:calochallenge_2",
        "calochallenge-3": "caloforge.geometry.published:calochallenge_3",
    },
    group="caloforge.detectors",
)


@cache
def _built(name: str) -> Detector:
    return DETECTORS[name]()


def get_detector(source: str | Path | Detector) -> Detector:
    """Return a detector by name, from a TOML file, or as it is.

    Raises:
        UnknownNameError: When no detector has that name and it is not a ``.toml`` file.
        ConfigError: When the file does not describe a detector.
    """
    if isinstance(source, Detector):
        return source
    if str(source).endswith(".toml"):
        return load_detector(source)
    if source not in DETECTORS:
        raise UnknownNameError("detector", str(source), [*DETECTORS.names(), "or a .toml file"])
    return _built(str(source))
