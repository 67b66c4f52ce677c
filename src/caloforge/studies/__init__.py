"""The published analyses, repeated on any showers: one command and one registry entry each.

from caloforge.studies import run_study

result = run_study("amplification", "geant4.h5", "runs/vae-gan", output="amplification")
result.rows
"""

from caloforge.studies.base import STUDIES, Study, StudyResult
from caloforge.studies.run import run_study

__all__ = ["STUDIES", "Study", "StudyResult", "run_study"]
