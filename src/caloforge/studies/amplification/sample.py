"""The trusted showers of a study, observed, and what made them."""

from __future__ import annotations

from caloforge.studies.amplification.observables import Observed, collect, common_detector
from caloforge.studies.base import Context
from caloforge.studies.papers import paper

__all__ = ["collect_truth", "counted", "made_by"]

_NAMES = {"geant4": "Geant4", "gflash": "GFlash"}


def collect_truth(context: Context) -> Observed:
    """Return the observables of all trusted showers, file after file."""
    detector = common_detector([source.detector for source in (*context.references, *context.generated)])
    parts = [
        collect(source, source.n or 0, showers, detector, context.seed, context.cache)
        for source, showers in zip(context.references, context.trusted, strict=True)
    ]
    return Observed.join(parts)


def made_by(context: Context) -> str:
    """Return what made the trusted showers, for figures; "truth" where no file says or they disagree."""
    made = {showers.source for showers in context.trusted if showers.source}
    return _NAMES.get(made.pop(), "truth") if len(made) == 1 else "truth"


def counted(context: Context) -> str:
    """Return how many trusted showers there are, beside the paper's number."""
    total = sum(source.n or 0 for source in context.references)
    return f"{total:,} {made_by(context)} showers (paper: {paper('amplification.truth').value:,.0f})"
