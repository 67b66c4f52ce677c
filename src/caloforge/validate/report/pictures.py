"""Pictures for a page: a figure in few colours, a fraction of the bytes, and no difference to the eye.

A drawing of lines and letters has some hundred colours, nearly all of them shades at the edges of a few inks. The palette is
found by median cut and refined by k-means, without dither; the picture is then packed without further loss, as
WebP, which every browser reads, or, where Pillow was built without it, as PNG.
"""

from __future__ import annotations

from io import BytesIO

from caloforge.extras import require

__all__ = ["COLOURS", "MIME", "mime_of", "small_picture"]

COLOURS = 128
"""Colours of a picture on a page."""
MIME = {b"\x89PNG": "image/png", b"RIFF": "image/webp"}
"""First bytes of a picture to its type."""


def small_picture(png: bytes, colours: int = COLOURS) -> bytes:
    """Return a PNG in few colours as WebP or PNG; the given bytes where that would not be smaller.

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
        picture = picture.quantize(
            colours, method=image.Quantize.MEDIANCUT, kmeans=2, dither=image.Dither.NONE
        )
    out = BytesIO()
    if features.check("webp"):
        picture.convert("RGB").save(out, "WEBP", lossless=True, quality=100, method=6)
    else:
        picture.save(out, "PNG", optimize=True)
    packed = out.getvalue()
    return packed if len(packed) < len(png) else png


def mime_of(picture: bytes) -> str:
    """Return the type of a picture for a data URL."""
    return MIME.get(picture[:4], "image/png")
