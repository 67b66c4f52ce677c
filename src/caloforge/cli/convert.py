"""``caloforge convert``: files of other programs to ours, and ours to theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caloforge.cli.output import (
    Force,
    Json,
    print_json,
    print_lines,
    print_table,
    print_warnings,
    print_written,
)

__all__ = ["convert"]


def convert(
    source: Annotated[
        Path | None, typer.Argument(metavar="IN", help="File to read; without it the formats are listed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="File to write: .h5, .root or .npz.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Format of the input; recognised by its content by default."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Format of the output; by default that of the file name's ending."),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout", help="Layout of caloforge's format: dense, or sparse (only cells with energy)."
        ),
    ] = "dense",
    detector: Annotated[
        str | None,
        typer.Option("--detector", help="Detector of the showers, a name or the TOML file of your own."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="ROLE=NAME",
            help="Name of data in the file; ROLE is cells, energy, theta, conditions/NAME, tree, hit_energy, hit_cell, hit_x, hit_y or "
            "hit_z; repeat it for more. cells=a,b,c: one array for each layer.",
        ),
    ] = None,
    axes: Annotated[
        str,
        typer.Option("--axes", help="Order of the cells' axes, the slowest first: zxy, or raz in a mesh."),
    ] = "",
    energy_unit: Annotated[
        str | None,
        typer.Option("--energy-unit", help="Unit of the incident energies: eV, keV, MeV, GeV, TeV."),
    ] = None,
    cell_unit: Annotated[
        str | None, typer.Option("--cell-unit", help="Unit of the cells: eV, keV, MeV, GeV, TeV.")
    ] = None,
    cell_scale: Annotated[
        float,
        typer.Option("--cell-scale", help="Factor that multiplies the cells, such as a sampling fraction."),
    ] = 1.0,
    angle_unit: Annotated[
        str | None, typer.Option("--angle-unit", help="Unit of the angles: deg or rad.")
    ] = None,
    angle_from: Annotated[
        str,
        typer.Option(
            "--angle-from",
            help="plane: 90 degrees is perpendicular; normal: 0 is; opposite: 180 minus the angle of plane.",
        ),
    ] = "plane",
    energy: Annotated[
        str | None, typer.Option("--energy", help="Incident energy of all showers, such as 50GeV.")
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option("--theta", help="Polar angle of all showers, degrees; 90 is perpendicular."),
    ] = None,
    particle: Annotated[str, typer.Option("--particle", help="Incident particle: gamma, e-, ...")] = "",
    made_by: Annotated[str, typer.Option("--source", help="What made the showers, such as geant4.")] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--origin",
            metavar="X,Y,Z",
            help="Point where the axis enters the front face, in the file's coordinates, mm.",
        ),
    ] = "0,0,0",
    drop_outside: Annotated[
        bool, typer.Option("--drop-outside", help="Leave out hits outside of the cells.")
    ] = False,
    clip_negative: Annotated[bool, typer.Option("--clip-negative", help="Set negative cells to 0.")] = False,
    allow_implausible: Annotated[
        bool, typer.Option("--allow-implausible", help="Accept units or axes that look wrong.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert showers between caloforge's format and CaloChallenge, CaloGAN, getting_high, 3DGAN, LEMURS, ShowerData, ROOT, EDM4hep, NumPy."""
    from caloforge.errors import InputError
    from caloforge.formats import convert as run

    if source is None:
        _list(as_json)
        return
    if output is None:
        raise InputError("name the file to write: caloforge convert IN OUT")
    done = run(
        source,
        output,
        form,
        to,
        layout,
        force,
        detector,
        keys=dict(_pair(text) for text in key or ()),
        axes=axes,
        energy_unit=energy_unit,
        cell_unit=cell_unit,
        cell_scale=cell_scale,
        angle_unit=angle_unit,
        angle_from=angle_from,
        energy=energy,
        theta=theta,
        particle=particle,
        made_by=made_by,
        origin=_vector(origin),
        drop_outside=drop_outside,
        clip_negative=clip_negative,
        allow_implausible=allow_implausible,
    )
    print_warnings(done.warnings)
    if as_json:
        print_json(done._asdict())
        return
    print_lines([f"read {source} as: {'; '.join(done.read_as)}"])
    print_written(done.output, f"{done.n} showers in {done.detector}, format {done.written_as}")


def _list(as_json: bool) -> None:
    from caloforge.formats import FORMATS

    rows: list[dict[str, Any]] = [
        {"name": name, "summary": form.summary, "writes": form.writes, "endings": list(form.endings)}
        for name, form in FORMATS.items()
    ]
    if as_json:
        print_json(rows)
        return
    written = (" ".join(row["endings"]) or ("--to" if row["writes"] else "-") for row in rows)
    print_table(
        ("name", "layout", "written"),
        ((row["name"], row["summary"], how) for row, how in zip(rows, written, strict=True)),
    )


def _pair(text: str) -> tuple[str, str]:
    from caloforge.errors import InputError

    role, equals, name = text.partition("=")
    if not equals or not role.strip() or not name.strip():
        raise InputError(f"--key '{text}': expected ROLE=NAME, such as cells=ECAL")
    return role.strip(), name.strip()


def _vector(text: str) -> tuple[float, float, float]:
    from caloforge.errors import InputError

    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--origin '{text}': expected X,Y,Z in mm, such as 0,0,1804.8") from error
    return x, y, z
