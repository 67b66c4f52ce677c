"""Numbers as text, to the digits that their uncertainty leaves."""

from __future__ import annotations

import math

__all__ = ["format_count", "format_percent", "format_value"]


def format_value(value: float | None, uncertainty: float | None = None) -> str:
    """Return a number with its uncertainty, to two digits of it when it begins with 1 or 2, else to one."""
    if value is None:
        return "–"
    if uncertainty is None or not 0.0 < uncertainty < math.inf:
        return f"{value:.3g}"
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
    text = f"{deviation:.2g}" if uncertainty is None else format_value(deviation, 100.0 * uncertainty)
    if abs(deviation) >= 100.0 and uncertainty is None:
        text = f"{deviation:.0f}"
    return f"{'+' if deviation >= 0 else ''}{text} %".replace("-", "−")


def format_count(number: float) -> str:
    """Return a number of showers to two digits, with separators: 12,000."""
    if number < 100:
        return f"{number:.0f}"
    power = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / power) * power:,.0f}"
