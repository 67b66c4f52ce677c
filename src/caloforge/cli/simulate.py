"""``caloforge simulate``: showers from Geant4 or from the parametrisation."""

from __future__ import annotations

from typing import Annotated

import typer

from caloforge.cli.output import Energy, Force, Json, Number, OutputFile, Seed, Theta, print_result

__all__ = ["simulate"]


def simulate(
    detector: Annotated[str, typer.Argument(help="A detector, or the TOML file of your own.")],
    number: Number,
    output: OutputFile,
    energy: Energy = None,
    theta: Theta = None,
    particle: Annotated[str | None, typer.Option("--particle", help="gamma, e-, ...")] = None,
    engine: Annotated[str, typer.Option("--engine", help="geant4 or gflash.")] = "geant4",
    seed: Seed = 0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes; the result does not depend on it.")
    ] = 1,
    physics_list: Annotated[
        str | None, typer.Option("--physics-list", help="Geant4 electromagnetic physics list.")
    ] = None,
    production_cut: Annotated[
        float | None, typer.Option("--production-cut", min=0.0, help="Geant4 production cut, mm.")
    ] = None,
    download_data: Annotated[
        bool, typer.Option("--download-data", help="Let geant4-pybind download Geant4's physics tables.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate showers; without --energy, --theta or --particle the beam of the published study.

    An interrupted run goes on where it stopped when the same command is repeated.
    """
    from caloforge.simulate import simulate as run

    run(
        detector,
        number,
        energy=energy,
        theta=theta,
        particle=particle,
        engine=engine,
        seed=seed,
        workers=workers,
        output=output,
        force=force,
        physics_list=physics_list,
        production_cut=production_cut,
        download_data=download_data or None,
    )
    what = f"{number} showers of {engine} in {detector}"
    print_result(as_json, output, what, n=number, engine=engine, seed=seed)
