"""Accuracy against speed-up over Geant4, from published benchmarks (the content of ``benchmark.json``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caloforge.studies.base import Figure
from caloforge.studies.drawing import Margins, panel_row
from caloforge.studies.page import PaperTiming
from caloforge.validate.plots.panel import INK, colour

__all__ = ["beam_text", "gpu_of", "measured", "speedup_figure"]

_PARTICLES = {"gamma": "photons", "e-": "electrons", "pi+": "pions", "pi-": "pions"}
_BATCH = 100


def beam_text(beam: Mapping[str, Any]) -> str:
    """Return the showers of a beam in words: "electrons, 2–500 GeV, clic-ecal"."""
    particle = _PARTICLES.get(beam["particle"], beam["particle"])
    energy, _, _ = beam["energy"].partition(":")
    unit = energy.lstrip("0123456789.-+e")
    numbers = [f"{float(number):.4g}" for number in energy.removesuffix(unit).split("-")]
    angle = "" if beam["theta"] == "90" else f", {beam['theta'].replace('-', '–')}°"
    return f"{particle}, {'–'.join(numbers)} {unit}{angle}, {beam['detector']}"


def measured(content: Mapping[str, Any], name: str, what: str) -> float | None:
    """Return the time of a shower, ms, on a CPU with the batch nearest to 100, on a GPU with the one that is fastest; None where it was not measured.

    Arguments:
        content: That of ``benchmark.json``.
        name: Model, ``DATASET/MODEL``.
        what: ``cpu``: the model on one thread, processor time; ``cuda``: on a GPU, by the clock; ``geant4`` and ``gflash``: the simulation
            of the model's beam on one core, processor time.
    """
    model = next((one for one in content["models"] if one["name"] == name), None)
    if model is None:
        return None
    if what in ("geant4", "gflash"):
        entry = content.get("beams", {}).get(model.get("beam"), {}).get(what)
        return None if entry is None else float(entry.get("memory", entry)["cpu_ms"])
    known = [
        one for one in model["measurements"]
        if "memory" in one and one["device"] == what and (what == "cuda" or one["threads"] == 1)
    ]  # fmt: skip
    if not known:
        return None
    if what == "cuda":
        return min(float(one["memory"]["wall_ms"]) for one in known)
    return float(min(known, key=lambda one: abs(one["batch"] - _BATCH))["memory"]["cpu_ms"])


def gpu_of(benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the GPU of the first benchmark that has one; empty where none has."""
    return next((str(one["machine"]["gpu"]) for one in benchmarks if one["machine"].get("gpu")), "")


def speedup_figure(benchmarks: Sequence[Mapping[str, Any]], timings: Sequence[PaperTiming]) -> Figure:
    """Return the showers that it takes to distinguish each model from Geant4 against its speed-up, a panel a beam.

    Arguments:
        benchmarks: On one core first, with its beams; further ones on a GPU.
        timings: The papers' times; those of other models or showers are left out.
    """
    first, gpu = benchmarks[0], gpu_of(benchmarks)
    missing = [
        one["name"]
        for one in first["models"]
        if one["accuracy"].get("detectability", {}).get("value") is None
    ]
    caption = (
        "Vertical axis: showers a side that are needed to distinguish the model from Geant4 with 5 standard deviations. Horizontal axis: speed-up over Geant4 on one core, "
        f"which simulates the same showers on the same machine (line: as fast). Filled: the model on one core, batches of 100; open squares: on a GPU ({gpu or 'none'}), "
        "the fastest batch of up to 10,000. Triangles: the papers' speed-ups over their own Geant4; the papers do not give this accuracy."
    )
    caption += f" Not measured: {', '.join(missing)}." if missing else ""
    return Figure(
        "speedup", "Accuracy and speed-up", caption, lambda pyplot: _draw(benchmarks, timings, pyplot)
    )


def _draw(benchmarks: Sequence[Mapping[str, Any]], timings: Sequence[PaperTiming], pyplot: Any) -> Any:
    first, gpu = benchmarks[0], gpu_of(benchmarks)
    beams = first["beams"]
    margins = Margins(left=0.85, right=0.15, bottom=0.65, top=0.62, across=0.28, down=0.72)
    figure, places = panel_row(
        pyplot, len(beams), 3, width=3.5, height=2.5, margins=margins, sharex=True, sharey=True, small=False
    )
    kinds = list(dict.fromkeys(model["name"].rpartition("/")[2] for model in first["models"]))
    for number, (place, (name, beam)) in enumerate(zip(places, beams.items(), strict=True)):
        place.set(xscale="log", yscale="log")
        place.axvline(1.0, color=INK, lw=1.0)
        particle, energy, *_ = beam_text(beam).split(", ")
        place.set_title(f"{name}: {particle}, {energy}", fontsize=11, loc="left")
        place.tick_params(labelbottom=True, labelsize=10)
        if number % 3 == 0:
            place.set_ylabel("showers to 5 sigma", fontsize=12)
        place.set_xlabel("speed-up over Geant4", fontsize=12)
    _set_limits(places[0], benchmarks, timings)
    for place, name in zip(places, beams, strict=True):
        for model in (one for one in first["models"] if one["beam"] == name):
            _draw_model(
                place, benchmarks, model, colour(kinds.index(model["name"].rpartition("/")[2]) % 5 + 1)
            )
        _draw_papers(place, [one for one in timings if one.detector == name and one.model in kinds])
    dot = {"color": INK, "ls": "none"}
    handles = [
        pyplot.Line2D([], [], marker="o", **dot),
        pyplot.Line2D([], [], color=INK, marker="v", mfc="w", ls="none"),
    ]
    labels = ["one CPU core", "paper, its own Geant4"]
    if gpu:
        handles.insert(1, pyplot.Line2D([], [], color=INK, marker="s", mfc="w", ls="none"))
        labels.insert(1, gpu)
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), fontsize=11, borderaxespad=0.2)
    return figure


def _points(benchmarks: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the devices and speed-ups of a model."""
    geant4 = measured(benchmarks[0], model["name"], "geant4")
    if geant4 is None:
        return []
    found = {}
    for content in benchmarks:
        for device in ("cpu", "cuda"):
            time = measured(content, model["name"], device)
            if time and device not in found:
                found[device] = geant4 / time
    return list(found.items())


def _set_limits(place: Any, benchmarks: Sequence[Mapping[str, Any]], timings: Sequence[PaperTiming]) -> None:
    models = benchmarks[0]["models"]
    x = [speedup for model in models for _, speedup in _points(benchmarks, model)] + [
        one.speedup for one in timings
    ]
    y = [
        model["accuracy"]["detectability"]["value"]
        for model in models
        if model["accuracy"].get("detectability", {}).get("value")
    ]
    place.set_xlim(min([0.5, *x]) / 2.5, max([2.0, *x]) * 4.0)
    place.set_ylim(min([100.0, *y]) / 2.2, max([1000.0, *y]) * 1.6)


def _draw_model(
    place: Any, benchmarks: Sequence[Mapping[str, Any]], model: Mapping[str, Any], shade: str
) -> None:
    """Draw a model on each device, and its name beside them."""
    entry, points = model["accuracy"].get("detectability", {}), _points(benchmarks, model)
    if entry.get("value") is None or not points:
        return
    y, x = float(entry["value"]), [speedup for _, speedup in points]
    place.plot([min(x), max(x)], [y, y], color=shade, lw=1.0)
    for device, speedup in points:
        filled = device == "cpu"
        place.plot(
            speedup,
            y,
            "o" if filled else "s",
            color=shade,
            mfc=shade if filled else "w",
            ms=7 if filled else 6,
            zorder=3,
        )
        if filled:
            place.errorbar(speedup, y, entry.get("uncertainty") or 0.0, color=shade, lw=1.1)
    low, high = place.get_xlim()
    left = min(x) * max(x) > low * high
    at, shift, side = (min(x), -7, "right") if left else (max(x), 7, "left")
    style = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 9.5, "color": shade}
    ground = {"fc": "w", "ec": "none", "pad": 0.4, "alpha": 0.85}
    place.annotate(model["name"].rpartition("/")[2], (at, y), (shift, 0), bbox=ground, **style)


def _draw_papers(place: Any, timings: Sequence[PaperTiming]) -> None:
    """Mark the papers' speed-ups at the lower rim, each with its hardware."""
    bottom, top = place.get_ylim()
    for number, one in enumerate(timings):
        y = bottom * (top / bottom) ** (0.09 + 0.1 * number)
        place.plot(one.speedup, y, "v", color=INK, mfc="w", ms=6)
        left = one.speedup > 30.0
        text = {
            "textcoords": "offset points",
            "ha": "right" if left else "left",
            "va": "center",
            "fontsize": 8.5,
            "color": INK,
        }
        place.annotate(f"{one.model}, {one.hardware}", (one.speedup, y), (-7 if left else 7, 0), **text)
