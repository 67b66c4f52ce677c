"""Registries: one line an entry, resolved when first used.

An entry is an object or a string ``"module:attribute"`` which is imported on first use, so that listing
the names of a registry imports nothing heavy. Other packages add entries through entry points.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from caloforge.errors import UnknownNameError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and their entries.

    Arguments:
        kind: What the entries are, in the singular, for messages ("model", "detector").
        entries: Name to object, or name to ``"module:attribute"``.
        group: Entry-point group from which installed packages add entries.
    """

    def __init__(self, kind: str, entries: dict[str, T | str], group: str | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = dict(entries)
        self._group = group
        self._scanned = group is None

    def _scan(self) -> None:
        if not self._scanned and self._group is not None:
            self._scanned = True
            for point in entry_points(group=self._group):
                self._entries.setdefault(point.name, point.value)

    def names(self) -> list[str]:
        """Return every known name, in order of registration."""
        self._scan()
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __getitem__(self, name: str) -> T:
        self._scan()
        if not isinstance(name, str) or name not in self._entries:
            raise UnknownNameError(self.kind, str(name), self.names())
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(T, getattr(import_module(module), attribute))
            self._entries[name] = entry
        return entry

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, entry), resolving each entry."""
        for name in self.names():
            yield name, self[name]

    def register(self, name: str, entry: T | str) -> None:
        """Add an entry, or replace the one of that name."""
        self._entries[name] = entry
