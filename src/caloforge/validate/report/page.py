"""A self-contained HTML page made of sections: text, tables, figures and images.

Everything is inside the one file: the style sheet, the script, the figures' data and, when there is a figure,
plotly.js once. Nothing is fetched, so the page opens offline and years later. plotly.js is kept compressed and is
unpacked after the page is shown; figures are drawn when they come into view, and the others while the browser is
idle. So text and tables of a page with fifty figures are there at once.

    page = Page("Amplification", [Section("Results", [Text("..."), Table(...), Plot(figure, "caption")])])
    page.write("report.html")

Pictures have few colours: a drawing of lines and letters has some hundred, nearly all of them shades at the edges of a few
inks. The palette is found by median cut and refined by k-means, without dither; the picture is then packed without further
loss, as WebP, which every browser reads, or, where Pillow was built without it, as PNG.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from caloforge import __version__
from caloforge.errors import require
from caloforge.files import atomic_path
from caloforge.units import plain_number

__all__ = [
    "COLOURS", "MIME", "Block", "Cell", "Code", "Facts", "Images", "Page", "Plot", "Section", "Table", "Text",
    "format_count", "format_percent", "format_value", "small_picture",
]  # fmt: skip


def format_value(value: float | None, uncertainty: float | None = None) -> str:
    """Return a number with its uncertainty, to two digits of it when it begins with 1 or 2, else to one."""
    if value is None:
        return "–"
    if uncertainty is None or not 0.0 < uncertainty < math.inf:
        return plain_number(value)
    power = math.floor(math.log10(uncertainty))
    digits = (1 if uncertainty / 10.0**power < 2.95 else 0) - power
    if abs(value) >= 1e5 or (abs(value) < 1e-3 and uncertainty < 1e-3):
        power = math.floor(math.log10(max(abs(value), uncertainty)))
        places = max(0, digits + power)
        scale = 10.0**power
        return f"({value / scale:.{places}f} ± {uncertainty / scale:.{places}f})e{power}"
    places = min(max(0, digits), 6)
    return f"{value:.{places}f} ± {uncertainty:.{places}f}"


def format_percent(ratio: float, uncertainty: float | None = None) -> str:
    """Return a ratio as a signed deviation from 1 in per cent, such as "+0.42 ± 0.16 %"."""
    deviation = 100.0 * (ratio - 1.0)
    text = plain_number(deviation, 2) if uncertainty is None else format_value(deviation, 100.0 * uncertainty)
    if abs(deviation) >= 100.0 and uncertainty is None:
        text = f"{deviation:.0f}"
    return f"{'+' if deviation >= 0 else ''}{text} %".replace("-", "−")


def format_count(number: float) -> str:
    """Return a number of showers to two digits, with separators: 12,000."""
    if number < 100:
        return f"{number:.0f}"
    power = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / power) * power:,.0f}"


COLOURS = 128
"""Colours of a picture on a page."""
MIME = {b"\x89PNG": "image/png", b"RIFF": "image/webp"}
"""First bytes of a picture to its type."""


def small_picture(png: bytes, colours: int = COLOURS) -> bytes:
    """Return a PNG in few colours as WebP or PNG; the PNG itself where that would not be smaller.

    Arguments:
        png: The picture; parts that let the background through are laid on white.
        colours: Most colours; a picture of fewer is not changed.

    Raises:
        MissingExtraError: When Pillow is not installed.
    """
    image = require("PIL.Image", extra="report")
    features = require("PIL.features", extra="report")
    picture = image.open(BytesIO(png))
    if picture.mode in ("RGBA", "LA", "P"):
        whole = picture.convert("RGBA")
        picture = image.alpha_composite(image.new("RGBA", whole.size, "white"), whole)
    picture = picture.convert("RGB")
    if picture.getcolors(colours) is None:
        options = {"method": image.Quantize.MEDIANCUT, "kmeans": 2, "dither": image.Dither.NONE}
        picture = picture.quantize(colours, **options)
    out = BytesIO()
    if features.check("webp"):
        picture.convert("RGB").save(out, "WEBP", lossless=True, quality=100, method=4)
    else:
        picture.save(out, "PNG", optimize=True)
    packed = out.getvalue()
    return packed if len(packed) < len(png) else png


class Block:
    """One thing on a page; ``kind`` names the macro of ``page.html`` that writes it."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Text(Block):
    """A paragraph of plain text; it is escaped."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Code(Block):
    """A command or a file's content, in fixed-width letters."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, as a two-column list."""

    items: Mapping[str, str]
    title: str = ""
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str  # what is shown
    sort: float | None = None  # number that it is sorted by; by the text when None, cells without text last
    flag: str = ""  # ``good``, ``warn``, ``bad``, ``unknown`` or nothing: its colour and its sign
    title: str = ""  # explanation shown when the pointer rests on it
    small: str = ""  # a second line in smaller letters
    href: str = ""  # page that the text leads to, or an anchor of this one


@dataclass(frozen=True)
class Table(Block):
    """A table, which is sorted by a click on a header."""

    columns: Sequence[str]  # headers
    rows: Sequence[Sequence[Cell | str | float]]  # cells, or plain texts and numbers
    caption: str = ""  # a line under the table
    titles: Sequence[str] = ()  # explanations of the headers
    key: str = ""  # its id in the page
    texts: Sequence[int] = (0,)  # columns of text, which are aligned to the left
    sortable: bool = True  # whether the order of the rows can be changed
    kind: ClassVar[str] = "table"

    @property
    def cells(self) -> list[list[Cell]]:
        """Every row as cells, (rows, columns)."""
        return [[_cell(value) for value in row] for row in self.rows]


@dataclass(frozen=True)
class Plot(Block):
    """An interactive figure."""

    figure: Any  # a plotly figure, or its dictionary with ``data`` and ``layout``
    caption: str = ""  # what it shows, under it
    title: str = ""  # a heading over it
    wide: bool = False  # take the whole width of the page instead of half
    still: bytes | None = None  # a PNG for print and for browsers without WebGL (3-D figures)
    key: str = ""  # its id in the page
    least_width: int = 0  # pixels below which it is scrolled sideways
    kind: ClassVar[str] = "plot"

    @property
    def alt(self) -> str:
        """What it shows, for those who cannot see it."""
        return ": ".join(filter(None, (self.title, self.caption))) or "interactive figure"

    @property
    def specification(self) -> str:
        """The figure as JSON that may stand inside a script element."""
        figure = self.figure
        text = str(figure.to_json()) if hasattr(figure, "to_json") else json.dumps(figure, allow_nan=False)
        return text.replace("</", "<\\/").replace("<!--", "<\\u0021--")

    @property
    def height(self) -> int:
        """Height that the page keeps free for it, pixels."""
        layout = self.figure["layout"]
        return int(layout["height"] or 420) if "height" in layout else 420

    @property
    def still_url(self) -> str:
        """The PNG as a data URL, or an empty string."""
        return "" if self.still is None else _data_url(self.still)


@dataclass(frozen=True)
class Images(Block):
    """Images side by side."""

    images: Mapping[str, bytes]  # caption to the bytes of a PNG or WebP
    caption: str = ""  # a line under all of them
    wide: bool = True  # take the whole width of the page instead of half
    kind: ClassVar[str] = "images"

    def alt(self, name: str) -> str:
        """Return what an image shows, for those who cannot see it."""
        return ": ".join(filter(None, (name, self.caption))) or "figure"

    @property
    def urls(self) -> dict[str, str]:
        """Caption to data URL."""
        return {name: _data_url(content) for name, content in self.images.items()}


@dataclass(frozen=True)
class Section:
    """A titled part of a page."""

    title: str  # its heading, also in the table of contents
    blocks: Sequence[Block]  # its content, in order
    intro: str = ""  # a sentence under the heading
    folded: bool = False  # closed until the reader opens it

    @property
    def key(self) -> str:
        """The heading as an anchor."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass
class Page:
    """A page of sections."""

    title: str  # heading of the page
    sections: Sequence[Section]  # its parts
    subtitle: str = ""  # a line under the heading
    facts: Mapping[str, str] = field(default_factory=dict)  # short facts beside the heading (name: value)
    footer: str = f"Made with caloforge {__version__}."  # last line; the version of caloforge by default

    def render(self) -> str:
        """Return the page as HTML.

        Raises:
            MissingExtraError: When jinja2, or plotly for a page with figures, is not installed.
        """
        jinja2 = require("jinja2", extra="report")
        folder = files("caloforge.validate.report") / "templates"

        def content(name: str) -> str:
            return (folder / name).read_text(encoding="utf-8")

        options = {
            "autoescape": True,
            "trim_blocks": True,
            "lstrip_blocks": True,
            "undefined": jinja2.StrictUndefined,
        }
        environment = jinja2.Environment(loader=jinja2.FunctionLoader(content), **options)
        markup = jinja2.utils.markupsafe.Markup
        plots = any(isinstance(block, Plot) for section in self.sections for block in section.blocks)
        parts = {
            "style": content("page.css"),
            "script": content("page.js"),
            "plotly": _packed_plotly() if plots else "",
        }
        safe = {name: markup(text) for name, text in parts.items()}
        return str(environment.get_template("page.html").render(page=self, safe=markup, **safe))

    def write(self, path: str | Path, force: bool = False) -> Path:
        """Write the page in one piece and return its path."""
        text = self.render()
        with atomic_path(path, force) as part:
            part.write_text(text, encoding="utf-8")
        return Path(path)


def _cell(value: Cell | str | float) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value)
    return Cell(plain_number(value, 4) if isinstance(value, float) else str(value), sort=float(value))


def _data_url(picture: bytes) -> str:
    return f"data:{MIME.get(picture[:4], 'image/png')};base64," + base64.b64encode(picture).decode("ascii")


@cache
def _packed_plotly() -> str:
    """Return the installed plotly.js as base64 of gzip: half the size, and not parsed at once."""
    text = str(require("plotly.offline", extra="report").get_plotlyjs())
    return base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")
