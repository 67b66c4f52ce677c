"""Geant4's own errors: found in what it printed before it ended the process, said in one line."""

from __future__ import annotations

import re

from caloforge.errors import CaloforgeError, Geant4DataError, SimulationError

__all__ = ["read_complaint"]

_EXCEPTION = re.compile(
    r"\*\*\* G4Exception : (?P<code>\S+)\s*\n\s*issued by : (?P<origin>[^\n]*)\n(?P<text>.*?)\n\*\*\* (?P<severity>[^\n*]+?) \*\*\*",
    re.DOTALL,
)
_FATAL = ("Fatal Exception", "Fatal Error in Argument")
_DATA = re.compile(r"G4[A-Z]+DATA|GEANT4_DATA_DIR|\.dat\b|data ?(?:file|set|base|directory)", re.IGNORECASE)


def read_complaint(log: str) -> CaloforgeError | None:
    """Return the last fatal exception that Geant4 printed; None when there is none."""
    fatal = [found for found in _EXCEPTION.finditer(log) if found["severity"].startswith(_FATAL)]
    if not fatal:
        return None
    last = fatal[-1]
    text = " ".join(last["text"].split())
    message = f"Geant4 stopped: {text} ({last['code']}, issued by {last['origin'].strip()})"
    return Geant4DataError(message) if _DATA.search(text) else SimulationError(message)
