"""Plain settings written as TOML; the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["to_toml", "toml_value"]


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested settings (texts, numbers, booleans, lists, tables) as TOML; None is left out."""
    plain = [
        f"{key} = {toml_value(value)}"
        for key, value in values.items()
        if not _nested(value) and value is not None
    ]
    text = "".join(f"{line}\n" for line in plain)
    for key, value in values.items():
        if _nested(value):
            name = f"{prefix}{key}"
            text += f"\n[{name}]\n{to_toml(value, f'{name}.')}"
    return text


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping)


def toml_value(value: Any) -> str:
    """Return a text, number, boolean or list as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
