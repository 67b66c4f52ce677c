"""``caloforge project``: showers to images of fewer cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caloforge.cli.output import Detector, Force, Json, OutputFile, print_result

__all__ = ["project"]


def project(
    source: Annotated[Path, typer.Argument(help="File of showers.")],
    output: OutputFile,
    image: Annotated[
        str, typer.Option("--to", help="Image detector: the layers are summed, the cells pooled.")
    ] = "ild-ecal-10x10",
    detector: Detector = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Sum showers over their layers and pool their cells, for models of images such as vae-gan."""
    from caloforge.showers import open_showers, write_showers
    from caloforge.showers.views import ProjectedShowers

    with open_showers(source, detector=detector) as showers:
        written = write_showers(output, ProjectedShowers(showers, image), force=force)
        count = len(showers)
    print_result(as_json, written, f"{count} images of {image}", n=count)
