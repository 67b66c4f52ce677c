"""What tables and figures call the samples of a study."""

from __future__ import annotations

from caloforge.studies.base import Context

__all__ = ["REFERENCE", "sample_labels"]

REFERENCE = "reference"


def sample_labels(context: Context) -> list[str]:
    """Return the reference's name, then those of the generated samples, all different."""
    labels = [source.label for source in context.generated]
    return ["trusted showers" if REFERENCE in labels else REFERENCE, *labels]
