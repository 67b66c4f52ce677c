"""How to cite the software, and the papers behind its models: from ``CITATION.cff``, which lies in the package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from caloforge.errors import FileFormatError, UnknownNameError

__all__ = ["bibtex", "citation", "references"]

_NAME = "CITATION.cff"
_PLACES = (Path(__file__).with_name(_NAME), Path(__file__).parents[2] / _NAME)  # of the wheel, of a checkout
_KINDS = {"article": "article", "report": "techreport", "software": "software"}


@cache
def citation() -> dict[str, Any]:
    """Return the content of ``CITATION.cff`` (https://citation-file-format.github.io).

    Raises:
        FileFormatError: When it is missing.
    """
    import yaml

    path = next((one for one in _PLACES if one.is_file()), None)
    if path is None:
        raise FileFormatError(_PLACES[0], "", "is missing; the installation is damaged")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def references(keys: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return the papers of some keys (``abbreviation``), or all.

    Raises:
        UnknownNameError: When there is no such paper.
    """
    known: dict[str, dict[str, Any]] = {one["abbreviation"]: one for one in citation()["references"]}
    chosen = list(known if keys is None else keys)
    for key in chosen:
        if key not in known:
            raise UnknownNameError("paper", key, list(known))
    return [known[key] for key in chosen]


def bibtex(keys: Iterable[str] | None = None) -> list[str]:
    """Return lines of BibTeX: the software, then the papers of some keys, or all; before each paper what it is behind, as a comment."""
    own = citation()
    lines = [
        f"% {own['message']}",
        *_entry("caloforge", own, version=own["version"], note=f"License: {own['license']}"),
    ]
    for one in references(keys):
        found = re.fullmatch(r"https://arxiv\.org/abs/(.+)", one["url"])
        where = {"eprint": found[1], "archiveprefix": "arXiv"} if found else {"url": one["url"]}
        lines += ["", f"% {one['notes']}", *_entry(one["abbreviation"], one, year=one["year"], **where)]
    return lines


def _entry(key: str, content: dict[str, Any], **more: object) -> list[str]:
    names = " and ".join(author["name"] for author in content["authors"])
    author = names if " and others" in names or len(content["authors"]) > 1 else f"{{{names}}}"
    fields = {"author": author, "title": f"{{{content['title']}}}", **more}
    body = [f"  {name:<13} = {{{value}}}," for name, value in fields.items()]
    return [f"@{_KINDS[content['type']]}{{{key},", *body, "}"]
