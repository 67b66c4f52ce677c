"""One shower in 3-D: an HTML page to turn and zoom, or a PNG or PDF for a talk."""

from __future__ import annotations

from pathlib import Path

from caloforge.errors import InputError
from caloforge.files import atomic_path, check_output
from caloforge.showers import ShowerFile, Showers, open_showers
from caloforge.validate.boxes import hit_boxes
from caloforge.validate.plots.event import describe_shower, draw_event, format_energy
from caloforge.validate.report.event import event_figure
from caloforge.validate.report.page import Page, Plot, Section, Table
from caloforge.verbs import make_callable

__all__ = ["view"]

_FORMATS = (".html", ".png", ".pdf", ".svg")


def view(
    source: str | Path | Showers | ShowerFile,
    output: str | Path,
    event: int = 0,
    threshold: float = 0.1,
    detector: str | None = None,
    force: bool = False,
) -> Path:
    """Draw one shower.

    Arguments:
        source: A file of showers, or showers.
        output: ``.html`` for an interactive page that works offline; ``.png``, ``.pdf`` or ``.svg`` for paper.
        event: Which shower, from 0.
        threshold: A cell with more energy than this is drawn, MeV.
        detector: The detector of a file that does not name its own.
        force: Replace the output.

    Returns:
        The path written.

    Raises:
        InputError: When there is no such shower, or the ending is not known.
    """
    output = Path(output)
    if output.suffix.lower() not in _FORMATS:
        msg = f"{output}: an event display ends with one of {', '.join(_FORMATS)}"
        raise InputError(msg)
    check_output(output, force)
    if isinstance(source, str | Path):
        with open_showers(source, detector) as opened:
            shower = _pick(opened, event, str(source))
    else:
        shower = _pick(source, event, "these showers")
    if output.suffix.lower() == ".html":
        return _page(shower, event, threshold).write(output, force)
    with atomic_path(output, force) as part:
        draw_event(shower, {output.suffix.lower()[1:]: part}, threshold=threshold)
    return output


def _pick(source: Showers | ShowerFile, event: int, name: str) -> Showers:
    """Return one shower as a sample of one."""
    if not 0 <= event < len(source):
        msg = f"{name}: there is no shower {event}; expected 0 to {len(source) - 1}"
        raise InputError(msg)
    return source[event : event + 1]


def _page(shower: Showers, event: int, threshold: float) -> Page:
    """Return the interactive page: the display and the shower's layers."""
    boxes = hit_boxes(shower, threshold)
    cells = shower.cells[0].astype(float)
    rows: list[list[str | float]] = []
    for number, members in enumerate(shower.detector.layer_cells):
        energy = cells[members]
        rows.append(
            [
                number,
                shower.detector.layers[number].name,
                float(energy.sum()),
                int((energy > threshold).sum()),
            ]
        )
    facts = {
        "Detector": shower.detector.name,
        "Particle": shower.particle,
        "Incident energy": format_energy(float(shower.incident_energy[0])),
        "Visible energy": format_energy(float(cells.sum())),
        "Hits": f"{len(boxes.hits) + boxes.hidden} above {threshold:g} MeV",
        "Source": str(shower.source),
    }
    if shower.has_theta:
        facts["Angle"] = f"{float(shower.incident_theta[0]):.1f}°"
    return Page(
        f"Shower {event}",
        [
            Section(
                "Event display",
                [Plot(event_figure(shower, threshold=threshold, height=600), wide=True, key="event")],
            ),
            Section("Layers", [Table(["Layer", "Name", "Energy [MeV]", "Hits"], rows)], folded=len(rows) > 8),
        ],
        subtitle=describe_shower(shower, boxes),
        facts=facts,
    )


make_callable(__name__)  # the package has a function of this module's name
