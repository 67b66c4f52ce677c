"""Write docs/models.md from the cards of the shipped models, so that every number on it is one that was measured.

python scripts/models_page.py
"""

from __future__ import annotations

from pathlib import Path

from caloforge.zoo.store import shipped_models
from caloforge.zoo.tables import models_page

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


if __name__ == "__main__":
    PAGE.write_text(models_page(shipped_models()))
