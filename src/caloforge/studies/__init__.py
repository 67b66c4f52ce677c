"""The published analyses, repeated on any showers: one command and one registry entry each.

from caloforge.studies import run_study

result = run_study("amplification", "geant4.h5", "runs/vae-gan", output="amplification")
result.rows
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caloforge.registry import Registry

if TYPE_CHECKING:
    from caloforge.studies.base import Study, StudyResult
    from caloforge.studies.run import run_study

__all__ = ["STUDIES", "Study", "StudyResult", "run_study"]

STUDIES: Registry[type[Study]] = Registry(
    "study",
    {
        "amplification": "caloforge.studies.amplification.study:AmplificationStudy",
        "density": "caloforge.studies.density.study:DensityStudy",
        "conditioning": "caloforge.studies.conditioning.study:ConditioningStudy",
        "layers": "caloforge.studies.layers.study:LayersStudy",
        "shapes": "caloforge.studies.shapes.study:ShapesStudy",
        "diversity": "caloforge.studies.diversity.study:DiversityStudy",
        "support-size": "caloforge.studies.support_size.study:SupportSizeStudy",
        "all": "caloforge.studies.site.study:AllStudies",
    },
    group="caloforge.studies",
)

_LAZY = {
    "Study": "caloforge.studies.base",
    "StudyResult": "caloforge.studies.base",
    "run_study": "caloforge.studies.run",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module 'caloforge.studies' has no attribute '{name}'"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
