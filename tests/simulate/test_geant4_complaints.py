"""Geant4's printed errors, read back."""

from __future__ import annotations

import pytest

from caloforge.errors import Geant4DataError, SimulationError
from caloforge.simulate.geant4 import read_complaint

BLOCK = """
-------- EEEE ------- G4Exception-START -------- EEEE -------
*** G4Exception : {code}
      issued by : {origin}
{text}
*** {severity} ***
 **** Track information is not available at this moment
-------- EEEE -------- G4Exception-END --------- EEEE -------
"""
WARNING = BLOCK.format(
    code="W1", origin="someone", text="stuck track", severity="This is just a warning message."
)


@pytest.mark.parametrize(
    "severity", ["Fatal Exception *** core dump", "Fatal Error in Argument *** core dump"]
)
def test_a_fatal_one_is_said_in_one_line(severity: str) -> None:
    block = BLOCK.format(code="Run0254", origin="G4Some::Thing()", text="No\nregion  here", severity=severity)
    error = read_complaint("chatter\n" + WARNING + block + "tail")
    assert isinstance(error, SimulationError)
    assert str(error) == "Geant4 stopped: No region here (Run0254, issued by G4Some::Thing())"


@pytest.mark.parametrize(
    "text",
    [
        "G4ENSDFSTATEDATA environment variable must be set",
        "Data file <x> is not opened!",
        "ENSDFSTATE.dat is not found.",
    ],
)
def test_missing_data_are_told_apart(text: str) -> None:
    block = BLOCK.format(code="em0003", origin="x", text=text, severity="Fatal Exception *** core dump")
    assert isinstance(read_complaint(block), Geant4DataError)


@pytest.mark.parametrize("log", ["", "all is well", WARNING])
def test_nothing_fatal_is_nothing(log: str) -> None:
    assert read_complaint(log) is None
