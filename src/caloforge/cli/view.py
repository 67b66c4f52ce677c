"""``caloforge view``: one shower in 3-D."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.output import Detector, Force, Json, OutputFile, print_result

__all__ = ["view"]


def view(
    source: Annotated[Path, typer.Argument(help="File of showers.")],
    output: OutputFile,
    event: Annotated[int, typer.Option("--event", min=0, help="Which shower, from 0.")] = 0,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, help="Draw cells above this energy, MeV.")
    ] = 0.1,
    detector: Detector = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw one shower in 3-D: .html to turn and zoom, .png, .pdf or .svg for paper."""
    from caloforge.validate.report.event import view as draw

    path = draw(source, output, event=event, threshold=threshold, detector=detector, force=force)
    print_result(as_json, path, f"shower {event} of {source}", event=event)
