"""Options that several verbs share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllowSeen",
    "Detector",
    "Device",
    "Energy",
    "Force",
    "Json",
    "Number",
    "OutputFile",
    "OutputFolder",
    "Seed",
    "Settings",
    "Theta",
]


def _known_device(name: str) -> str:
    """Refuse what is not the name of a device."""
    if name not in ("auto", "cpu", "cuda"):
        msg = f"'{name}' is not a device; expected auto, cpu or cuda"
        raise typer.BadParameter(msg)
    return name


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists already.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed; the same seed gives the same showers.")]
Number = Annotated[int, typer.Option("-n", "--number", min=1, help="Number of showers.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.", callback=_known_device)]
OutputFile = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")]
AllowSeen = Annotated[
    bool,
    typer.Option(
        "--allow-seen",
        help="Go on with trusted showers that trained or selected a model; the result says so.",
    ),
]
Energy = Annotated[
    str | None,
    typer.Option("--energy", help="Incident energy with its unit: 50GeV, 10-100GeV, 1-262GeV:log2."),
]
Theta = Annotated[
    str | None, typer.Option("--theta", help="Polar angle in degrees: 90 (perpendicular) or 30-90.")
]
Detector = Annotated[
    str | None, typer.Option("--detector", help="Detector of files that do not name their own.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the training; repeat it for more."),
]
