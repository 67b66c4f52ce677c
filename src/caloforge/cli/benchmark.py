"""``caloforge benchmark``: the time of a shower of models, of Geant4 and of gflash, with the accuracy beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from caloforge.cli import output as cli

__all__ = ["benchmark"]


def benchmark(
    output: cli.OutputFolder,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...", help="Shipped models and run folders; without any, all shipped models."
        ),
    ] = None,
    energy: cli.Energy = None,
    theta: cli.Theta = None,
    batch: Annotated[str, typer.Option("--batch", help="Batch sizes, such as 1,100,10000.")] = "1,100,10000",
    threads: Annotated[
        str, typer.Option("--threads", help="Numbers of CPU threads, such as 1,all.")
    ] = "1,all",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="cpu, cuda, or auto: the CPU, and the GPU where there is one.",
            callback=cli.known_device,
        ),
    ] = "auto",
    geant4: Annotated[
        int,
        typer.Option(
            "--geant4",
            min=0,
            metavar="N",
            help="Number of Geant4 showers of each detector; with 0 Geant4's time is taken from the card.",
        ),
    ] = 20,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", help="Seconds for one measurement; one batch of up to 100 is always measured."
        ),
    ] = 10.0,
    seed: cli.Seed = 0,
    force: cli.Force = False,
    as_json: cli.Json = False,
) -> None:
    """Measure the time of a shower of models, Geant4 and gflash at the same energies; write benchmark.json, report.html, figures/.

    Energies and angles are by default those of the models' training. Repeat the command to continue an interrupted run.
    """
    from caloforge.benchmark import benchmark as run
    from caloforge.benchmark.page import speed_rows
    from caloforge.errors import InputError

    sizes = []
    for word in batch.split(","):
        if not word.strip().isdecimal():
            raise InputError(
                f"batch '{batch}' is not understood; expected numbers of showers such as 1,100,10000"
            )
        sizes.append(int(word))
    names = [word.strip() for word in threads.split(",")]
    result = run(sources or (), output, energy, theta, sizes, names, device, geant4, seconds, seed, force)
    cli.print_warnings(result.content["notes"])
    if as_json:
        cli.print_json({"output": str(output), "report": str(result.path), **result.content})
        return
    columns, *rows = speed_rows(result.content)
    cli.print_table([columns[0], *(f">{name}" for name in columns[1:])], rows)
    cli.print_written(output / "benchmark.json", "every measurement")
    cli.print_written(output / "report.html", "open it in a browser; figures are in figures/")
