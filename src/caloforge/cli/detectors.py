"""``caloforge detectors``: all detectors, and one in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caloforge.cli.output import Force, Json, print_json, print_lines, print_table, print_written

if TYPE_CHECKING:
    from caloforge.geometry import Detector, Material
    from caloforge.geometry.detector import SamplingSource

__all__ = ["detectors"]

_HEADINGS = {
    "z_mm": "z (mm)",
    "depth_x0": "X0",
    "n_r": "r",
    "n_alpha": "alpha",
    "r_max_mm": "r to (mm)",
    "pitch_x_mm": "pitch x (mm)",
    "pitch_y_mm": "pitch y (mm)",
}

_FRACTIONS: dict[SamplingSource, str] = {
    "measured": "measured: mean visible over incident energy in the default beam, leakage included",
    "estimated": "estimated from energy losses: visible over deposited energy, without leakage",
    "calibrated": "by definition: energies are calibrated",
}


def detectors(
    name: Annotated[
        str | None,
        typer.Argument(help="Name of a detector, or the TOML file of your own; without it all are listed."),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw the side view into this file (.png, .pdf, .svg).")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the detectors, or describe one: layers, cells, depth, materials, beam of the published study."""
    from caloforge.errors import InputError
    from caloforge.geometry import DETECTORS, get_detector

    if name is None:
        if draw is not None:
            raise InputError("--draw needs the name of a detector")
        summaries = [_summary(get_detector(known)) for known in DETECTORS.names()]
        if as_json:
            print_json(summaries)
        else:
            _print_list(summaries)
        return
    detector = get_detector(name)
    if draw is not None:
        from caloforge.geometry.draw import draw_detector

        draw_detector(detector, draw, force)
    if as_json:
        drawn = {} if draw is None else {"drawing": str(draw)}
        print_json(_summary(detector) | _leakage(detector) | {"layer_table": _layers(detector)} | drawn)
        return
    _print_one(detector)
    if draw is not None:
        print_written(draw, f"side view of {detector.name}")


def _summary(detector: Detector) -> dict[str, Any]:
    beam = detector.beam
    return {
        "name": detector.name,
        "description": detector.description,
        "layers": detector.n_layers,
        "cells": detector.n_cells,
        "shape": list(detector.shape),
        "order": detector.order,
        "depth_x0": round(detector.depth_x0, 3),
        "length_mm": round(detector.length, 3),
        "sampling_fraction": detector.sampling_fraction,
        "sampling_fraction_source": detector.sampling_source,
        "simulable": detector.simulable,
        "conditions": dict(detector.condition_sizes),
        "beam": {
            "particle": beam.particle,
            "energy": str(beam.energy),
            "theta_deg": str(beam.theta),
            "x_mm": beam.x,
            "y_mm": beam.y,
            "spread_x_mm": beam.spread_x,
            "spread_y_mm": beam.spread_y,
        },
    }


def _leakage(detector: Detector) -> dict[str, Any]:
    """Return what leaks in the default beam and the mean response, after gflash; None each where it makes no such showers."""
    from caloforge.simulate.gflash import START_DEPTH, containment, expected_response

    if not detector.simulable or detector.beam.particle not in START_DEPTH:
        return {"leakage": None, "expected_response": None}
    share = containment(detector)
    leakage = {"longitudinal": round(share.longitudinal, 5), "lateral": round(share.lateral, 5)}
    return {"leakage": leakage, "expected_response": expected_response(detector)}


def _layers(detector: Detector) -> list[dict[str, Any]]:
    from caloforge.geometry import CylindricalLayer

    rows: list[dict[str, Any]] = []
    for number, layer in enumerate(detector.layers):
        row: dict[str, Any] = {"layer": number, "name": layer.name, "z_mm": round(layer.z, 3)}
        row |= {"depth_x0": round(layer.depth_x0, 3), "cells": layer.n_cells}
        if isinstance(layer, CylindricalLayer):
            row |= {"n_r": layer.n_r, "n_alpha": layer.n_alpha, "r_max_mm": layer.r_edges[-1]}
        else:
            row |= {"nx": layer.nx, "ny": layer.ny}
            row |= {"pitch_x_mm": round(layer.pitch_x, 4), "pitch_y_mm": round(layer.pitch_y, 4)}
        rows.append(row)
    return rows


def _print_list(summaries: list[dict[str, Any]]) -> None:
    print_table(
        ("name", ">layers", ">cells", ">X0", "simulate", "particle", "energy", ">theta"),
        (
            (
                one["name"],
                one["layers"],
                one["cells"],
                f"{one['depth_x0']:.1f}" if one["depth_x0"] else "-",
                "yes" if one["simulable"] else "files only",
                one["beam"]["particle"],
                one["beam"]["energy"],
                one["beam"]["theta_deg"],
            )
            for one in summaries
        ),
    )


def _materials(detector: Detector) -> list[str]:
    """Return a line for each material along the beam: length, number of slabs, depth; of the user's what they are."""
    total: dict[tuple[Material, bool], tuple[float, float, int]] = {}
    for slab in detector.stack:
        key = (slab.material, slab.active)
        length, depth, count = total.get(key, (0.0, 0.0, 0))
        total[key] = (length + slab.thickness, depth + slab.thickness / slab.material.x0, count + 1)
    return [
        f"  {material.name}{' (active)' if active else ''}: {length:.1f} mm in {count} slabs, {depth:.2f} X0"
        + _composition(material)
        for (material, active), (length, depth, count) in total.items()
    ]


def _composition(material: Material) -> str:
    """Return what a material of the user's is made of; empty for Geant4's."""
    from caloforge.units import plain_number

    if not material.elements:
        return ""
    parts = ", ".join(f"{symbol} {100 * fraction:.3g} %" for symbol, fraction in material.elements)
    return f" ({parts}; {material.density:g} g/cm3, X0 {plain_number(material.x0, 4)} mm)"


def _response_facts(detector: Detector) -> list[str]:
    """Return lines on leakage and response."""
    found = _leakage(detector)
    leakage, response = found["leakage"], found["expected_response"]
    if leakage is None:
        return (
            []
            if not detector.simulable
            else [f"leakage            unknown: gflash cannot simulate {detector.beam.particle}"]
        )
    behind, beside = (100 * leakage[key] for key in ("longitudinal", "lateral"))
    facts = [
        f"leakage            {behind:.1f} % of the energy behind the stack, {beside:.1f} % beside the cells "
        "(default beam, gflash)"
    ]
    if detector.sampling_source == "estimated":
        facts.append(
            f"response           {response:.4g}, mean visible over incident energy (default beam, gflash)"
        )
    return facts


def _size(detector: Detector) -> str:
    """Return how large the plates are."""
    x = 2 * max(slab.half_x for slab in detector.stack)
    if detector.inner_radius:
        return f"cylinders of {detector.inner_radius:g} mm inner radius, {x:g} mm long"
    return f"{x:g} x {2 * max(slab.half_y for slab in detector.stack):g} mm"


def _print_one(detector: Detector) -> None:
    beam = detector.beam
    spread = (
        f", spread over {beam.spread_x:g} x {beam.spread_y:g} mm" if beam.spread_x or beam.spread_y else ""
    )
    print_lines([f"{detector.name}: {detector.description}"])
    facts = [f"cells              {detector.n_cells} in {detector.n_layers} layers, order {detector.order}"]
    if detector.stack:
        facts.append(f"depth              {detector.depth_x0:.2f} X0 over {detector.length:.1f} mm")
        facts.append(f"plates             {_size(detector)}")
    facts += [
        f"beam               {beam.particle} {beam.energy}, {beam.theta} deg, "
        f"at x = {beam.x:g}, y = {beam.y:g} mm{spread}",
        f"sampling fraction  {detector.sampling_fraction:.4g}, {_FRACTIONS[detector.sampling_source]}",
        *_response_facts(detector),
    ]
    if detector.condition_sizes:
        named = ", ".join(f"{key} ({size})" for key, size in detector.condition_sizes.items())
        facts.append(f"conditions         {named}")
    if not detector.simulable:
        facts.append("simulation         not possible: this mesh is only for reading and validating files")
    print_lines(facts)
    if detector.stack:
        print_lines(["materials along the beam:", *_materials(detector)])
    rows = _layers(detector)
    headings = [_HEADINGS.get(key, key) for key in rows[0]]
    columns = ["name" if heading == "name" else f">{heading}" for heading in headings]
    print_table(columns, (tuple(row.values()) for row in rows))
