"""The command line: one file a verb, which parses, calls and prints."""

from __future__ import annotations

__all__: list[str] = []
