"""What the interactive figures share: layout, axes, colours, and arrays packed as plotly.js reads them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from caloforge.validate.plots.style import SEQUENTIAL

__all__ = ["AXIS", "LAYOUT", "SCALE", "packed"]

_TYPES = {"float64": "f8", "float32": "f4", "int32": "i4", "uint16": "u2", "uint8": "u1"}

LAYOUT: dict[str, Any] = {
    "font": {
        "family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
        "size": 13,
        "color": "#1b1f24",
    },
    "paper_bgcolor": "#ffffff",
    "plot_bgcolor": "#ffffff",
    "hovermode": "x unified",
    "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#9aa2ab", "font": {"size": 12}},
}

AXIS: dict[str, Any] = {
    "showline": True,
    "linecolor": "#1b1f24",
    "linewidth": 1.2,
    "mirror": "ticks",
    "ticks": "inside",
    "ticklen": 6,
    "tickcolor": "#1b1f24",
    "minor": {"ticks": "inside", "ticklen": 3},
    "showgrid": False,
    "zeroline": False,
    "exponentformat": "power",
    "automargin": True,
}


SCALE = [[number / (len(SEQUENTIAL) - 1), shade] for number, shade in enumerate(SEQUENTIAL)]


def packed(values: ArrayLike) -> Any:
    """Return an array as plotly.js's typed-array specification.

    Arguments:
        values: Numbers of one or two dimensions. Floats are stored in single precision; values that are not
            finite leave gaps in a figure.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            return (
                [[_plain(x) for x in row] for row in array] if array.ndim == 2 else [_plain(x) for x in array]
            )
    elif array.dtype.kind in "iu":
        small = array.size == 0 or (array.min() >= 0 and array.max() < 2**16)
        array = array.astype(np.uint16 if small else np.int32)
    else:
        return array.tolist()
    name = _TYPES[array.dtype.name]
    specification = {
        "dtype": name,
        "bdata": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii"),
    }
    if array.ndim > 1:
        specification["shape"] = ", ".join(map(str, array.shape))
    return specification


def _plain(number: np.float32) -> float | None:
    """Return a number with six digits, or None when it is not finite."""
    return float(f"{number:.6g}") if np.isfinite(number) else None
