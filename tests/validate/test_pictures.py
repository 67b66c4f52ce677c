"""Pictures for pages: exact where the colours are few, hardly different where they are many, and smaller."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from caloforge.validate.plots.panel import figure_style
from caloforge.validate.report.page import COLOURS, MIME, Images, Page, Section, small_picture


def _png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _pixels(picture: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(np.int64)


@cache
def _lines() -> bytes:
    """Return a figure of curves, points, bands and letters."""
    rng = np.random.default_rng(1)
    with figure_style() as pyplot:
        figure, place = pyplot.subplots()
        x = np.linspace(0, 10, 200)
        for colour in ("#5790fc", "#e42536", "#f89c20", "#964a8b"):
            y = np.sin(x + rng.normal())
            place.fill_between(x, y - 0.1, y + 0.1, color=colour, alpha=0.3)
            place.plot(x, y, color=colour, label=colour)
            place.plot(x[::9], y[::9] + 0.2, "o", color=colour, ms=3)
        place.legend()
        out = BytesIO()
        figure.savefig(out, format="png")
    return out.getvalue()


@cache
def _packed_lines() -> bytes:
    return small_picture(_lines())


@pytest.mark.parametrize("webp", [True, False])
def test_few_colours_are_kept_exactly(webp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not webp:
        monkeypatch.setattr(features, "check", lambda name: False)
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (COLOURS, 3), dtype=np.uint8)
    image = Image.fromarray(palette[rng.integers(0, COLOURS, (60, 80))])
    packed = small_picture(_png(image))
    assert MIME[packed[:4]] == ("image/webp" if webp and features.check("webp") else "image/png")
    assert np.array_equal(_pixels(packed), np.asarray(image).astype(np.int64))


def test_a_drawing_is_much_smaller_and_looks_the_same() -> None:
    png, packed = _lines(), _packed_lines()
    assert len(packed) < 0.4 * len(png)
    difference = np.abs(_pixels(packed) - _pixels(png)).max(axis=2)
    assert difference.mean() < 0.5
    drawn = (_pixels(png) != 255).any(axis=2)
    assert np.quantile(difference[drawn], 0.99) <= 24
    assert (_pixels(packed)[~drawn] == 255).mean() > 0.999


def test_clear_parts_become_white() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (10, 10, 20, 20))
    pixels = _pixels(small_picture(_png(image)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[15, 15].tolist() == [0, 0, 255]


def test_noise_is_never_made_larger() -> None:
    noise = np.random.default_rng(2).integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
    png = _png(Image.fromarray(noise))
    assert len(small_picture(png)) <= len(png)


def test_a_page_names_the_type_of_each_picture() -> None:
    png = _png(Image.new("RGB", (1, 1), "red"))
    packed = _packed_lines()
    text = Page("Two", [Section("Pictures", [Images({"first": png, "second": packed})])]).render()
    assert text.count("data:image/png;base64,") == 1
    assert text.count(f"data:{MIME[packed[:4]]};base64,") == 1
    assert "<h3>second</h3>" in text


def test_pillow_reads_what_a_browser_gets() -> None:
    kept: Any = Image.open(BytesIO(_packed_lines()))
    assert kept.size == Image.open(BytesIO(_lines())).size
