"""The numbers of the papers, each with its source; they live in ``papers.toml``, not in code.

A number may be a range (``low`` and ``high``), one of them alone ("above 50"), or a value. Its ``document`` is one
of the file's ``[documents]``, and ``where`` names the figure, table or section.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from caloforge.errors import UnknownNameError

__all__ = ["Document", "PaperValue", "document", "paper", "paper_values"]


@dataclass(frozen=True)
class Document:
    """A paper, note or set of slides.

    Arguments:
        title: Its title.
        authors: Its authors.
        reference: Journal, arXiv number or report number.
    """

    title: str
    authors: str
    reference: str


@dataclass(frozen=True)
class PaperValue:
    """A published number.

    Arguments:
        key: ``study.name`` in ``papers.toml``.
        document: Key of the document.
        where: Figure, table or section.
        value: The number; None when only bounds are given.
        low: It is at least this.
        high: It is at most this.
        unit: Unit; empty for a pure number.
        note: For which sample, under which conditions.
    """

    key: str
    document: str
    where: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def source(self) -> str:
        """Document and place, for a table."""
        return f"{document(self.document).reference}, {self.where}"

    @property
    def text(self) -> str:
        """The number as a reader expects it: ``50``, ``10 to 20``, ``above 50``, ``up to 50``."""
        unit = f" {self.unit}" if self.unit else ""
        if self.value is not None:
            return f"{self.value:g}{unit}"
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}{unit}"
        return f"above {self.low:g}{unit}" if self.low is not None else f"up to {self.high:g}{unit}"

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as ``study.json`` has it."""
        return asdict(self) | {"source": self.source}


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads((files("caloforge.studies") / "papers.toml").read_text(encoding="utf-8"))


def document(key: str) -> Document:
    """Return a document by its key."""
    known = _content()["documents"]
    if key not in known:
        raise UnknownNameError("document", key, list(known))
    return Document(**known[key])


def paper_values(study: str) -> dict[str, PaperValue]:
    """Return every number of a study's section, by its name in the section."""
    section = _content().get(study, {})
    return {name: PaperValue(key=f"{study}.{name}", **entry) for name, entry in section.items()}


def paper(key: str) -> PaperValue:
    """Return the number ``study.name``.

    Raises:
        UnknownNameError: When ``papers.toml`` has no such number.
    """
    study, _, name = key.partition(".")
    values = paper_values(study)
    if name not in values:
        raise UnknownNameError("published number", key, [f"{study}.{known}" for known in values])
    return values[name]
