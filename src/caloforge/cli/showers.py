"""The commands that make, reduce and draw showers: ``caloforge simulate``, ``generate``, ``export``, ``project`` and ``view``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caloforge.cli.output import (
    Detector,
    Device,
    Energy,
    Force,
    Json,
    Number,
    OutputFile,
    Scheduler,
    Seed,
    Theta,
    print_note,
    print_result,
    print_warnings,
)

if TYPE_CHECKING:
    from caloforge.geometry import Detector as Place

Layout = Annotated[
    str,
    typer.Option(
        "--layout", help="Layout of the file: dense, or sparse (only cells with energy, as in ShowerData)."
    ),
]

First = Annotated[
    int,
    typer.Option(
        "--first",
        min=0,
        help="Number of the first shower: the command makes showers I to I + N - 1 of the seed.",
        metavar="I",
    ),
]

__all__ = ["export", "generate", "project", "simulate", "view"]


def simulate(
    detector: Annotated[str, typer.Argument(help="Name of a detector, or the TOML file of your own.")],
    number: Number,
    output: OutputFile,
    energy: Energy = None,
    theta: Theta = None,
    particle: Annotated[str | None, typer.Option("--particle", help="gamma, e-, ...")] = None,
    engine: Annotated[str, typer.Option("--engine", help="geant4 or gflash.")] = "geant4",
    seed: Seed = 0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Number of processes; the result does not depend on it.")
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
    layout: Layout = "dense",
    first: First = 0,
    scheduler: Scheduler = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate showers; energy, angle and particle are by default those of the detector's published study.

    Repeat the command to continue an interrupted run where it stopped.
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
        layout=layout,
        first=first,
        scheduler=scheduler,
        say=print_note,
    )
    what = f"{number} showers of {engine} in {detector}, {_which(seed, first, number)}"
    print_result(as_json, output, what, n=number, engine=engine, seed=seed, first=first)


def generate(
    source: Annotated[str, typer.Argument(help="A run folder, or a shipped model (caloforge models).")],
    output: OutputFile,
    number: Annotated[
        int | None,
        typer.Option(
            "-n", "--number", min=1, help="Number of showers; with --like by default that of the file."
        ),
    ] = None,
    energy: Energy = None,
    theta: Theta = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="Take energies, angles and other conditions from this file.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the model lets choose, such as its steps."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="For a model of several detectors: the detector of the showers, a name or a TOML file; by default that of --like.",
        ),
    ] = None,
    allow_extrapolation: Annotated[
        bool, typer.Option("--allow-extrapolation", help="Accept conditions outside the training's range.")
    ] = False,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="float32, tf32 or bf16, for the networks that tolerate it; showers are first compared with float32.",
        ),
    ] = "float32",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the networks (only on a GPU): faster, but the first time takes some minutes.",
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Number of showers in a batch.")
    ] = 1000,
    layout: Layout = "dense",
    seed: Seed = 0,
    first: First = 0,
    scheduler: Scheduler = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate showers with a model: at given energies and angles (--energy, --theta), or with the conditions of a reference file (--like)."""
    from caloforge.cluster import connected
    from caloforge.errors import InputError
    from caloforge.files import check_output
    from caloforge.settings import assignment
    from caloforge.showers import open_showers
    from caloforge.showers.hdf5 import check_ending
    from caloforge.showers.seen import warnings_of
    from caloforge.showers.writing import check_layout
    from caloforge.zoo.store import generate_on_cluster, load

    if like is not None and (energy is not None or theta is not None):
        raise InputError("--like takes energies and angles from a file; leave out --energy and --theta")
    if like is None and (number is None or energy is None):
        msg = "give the number of showers and their energy (-n 1000 --energy 50GeV), or --like REFERENCE.h5"
        raise InputError(msg)
    check_layout(layout)
    check_output(check_ending(output), force)
    options = dict(map(assignment, settings or ()))
    place = detector if like is None else _other_detector(source, like, detector)
    if scheduler is not None and not isinstance(place, str | Path | None):
        msg = "a model of several detectors takes the detector of --like only on one machine; expected no --scheduler"
        raise InputError(msg)
    loading = {
        "device": device,
        "options": options,
        "precision": precision,
        "compiled": compiled,
        "detector": place,
    }
    wanted: dict[str, Any] = {
        "n": number, "energy": energy, "theta": theta, "seed": seed, "first": first, "batch_size": batch_size,
        "allow_extrapolation": allow_extrapolation,
    }  # fmt: skip
    model = load(
        source, **(loading if scheduler is None else {"device": "cpu", "options": options, "detector": place})
    )
    print_warnings(warnings_of(model.name, model.attributes))
    if model.mode.compiled:
        typer.echo(f"caloforge: {model.mode.describe()}", err=True)
    with nullcontext() if like is None else open_showers(like, detector) as reference:
        with connected(scheduler) as cluster:
            if cluster is None:
                model.write(output, like=reference, force=force, layout=layout, **wanted)
            else:
                generate_on_cluster(
                    cluster, model, source, output, loading, wanted, like, detector, force, layout
                )
        print_warnings(model.notes(theta, reference, allow_extrapolation))
    with open_showers(output) as file:
        made = len(file)
    place = model.detector.name
    what = f"{made} showers of {model.name} in {place}, {_which(seed, first, made)}"
    print_result(as_json, output, what, n=made, source=model.name, detector=place, seed=seed, first=first)


def _which(seed: int, first: int, n: int) -> str:
    """Say which showers of a seed were made, so that nobody makes the same twice without knowing."""
    return f"seed {seed}, showers {first} to {first + n - 1}"


def _other_detector(source: str, like: Path, default: str | None) -> Place | None:
    """Return the detector of a file of showers, for a run on several detectors; None for other models."""
    from caloforge.showers import open_showers
    from caloforge.train import RunFolder

    if not Path(source).is_dir() or "detectors" not in RunFolder(Path(source)).read():
        return None
    with open_showers(like, default) as file:
        return file.detector


def export(
    source: Annotated[str, typer.Argument(help="A run folder, or a shipped model (caloforge models).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .onnx, or .pt2 for a compiled package.")
    ],
    form: Annotated[
        str, typer.Option("--form", help="cells, or par04: the single input of Geant4's example Par04.")
    ] = "cells",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What the model lets choose, such as its steps."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model as one file that runs without caloforge, with ONNX Runtime or libtorch, and compare it with torch."""
    from caloforge.files import check_output
    from caloforge.generate.export import RELATIVE
    from caloforge.generate.export import export as write
    from caloforge.settings import assignment
    from caloforge.showers.seen import warnings_of
    from caloforge.zoo.store import load

    check_output(output, force)
    model = load(source, device="cpu", options=dict(map(assignment, settings or ())))
    print_warnings(warnings_of(model.name, model.attributes))
    found = write(model, output, form=form, force=force)
    same = found.deviation
    beyond = f"{same.beyond} of {same.cells} filled cells differ from torch's by more than {RELATIVE:g}"
    what = f"{model.name}, {found.bytes / 1e6:.1f} MB; in {found.showers} showers {beyond}"
    facts = {"bytes": found.bytes, "showers": found.showers, **same._asdict()}
    print_result(as_json, output, what, source=model.name, form=form, **facts)


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


def view(
    source: Annotated[Path, typer.Argument(help="File of showers.")],
    output: OutputFile,
    event: Annotated[int, typer.Option("--event", min=0, help="Number of the shower, from 0.")] = 0,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0.0, help="Draw cells above this energy, MeV.")
    ] = 0.1,
    detector: Detector = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw one shower in 3-D: .html to rotate and zoom in a browser; .png, .pdf or .svg for documents."""
    from caloforge.validate.report.event import view as draw

    path = draw(source, output, event=event, threshold=threshold, detector=detector, force=force)
    print_result(as_json, path, f"shower {event} of {source}", event=event)
