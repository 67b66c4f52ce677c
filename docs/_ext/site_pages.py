r"""What the site needs beside the Markdown of ``docs``: navigation, pages from elsewhere, notebooks, API pages, links that leave the folder.

Links are written as GitHub needs them, relative to the file. Here

- a link to a page of Markdown outside of ``docs`` goes to its page of the site (``site_project_pages``);
- a link to a module of ``src/caloforge`` goes to its documentation;
- a link to a finished page of HTML, such as the results, goes to its copy in the site (``site_copied``);
- a link to a notebook goes to its page; to another file, to a copy that can be downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["api_pages", "escaped", "notebook_markdown", "rewrite_links", "setup"]

_FENCE = re.compile(r"^\s*(```|~~~)")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def _prose(text: str) -> Iterator[tuple[bool, str]]:
    """Yield each line with its end, and whether it is outside of code blocks."""
    inside = False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            inside = not inside
            yield False, line
        else:
            yield not inside, line


def rewrite_links(text: str, source: Path, page: Path, docs: Path, pages: dict[Path, str]) -> str:
    """Return Markdown whose links are those of the site.

    Arguments:
        text: Markdown with links relative to its file.
        source: The file.
        page: The file that stands for it among the site's sources; the same, or a copy.
        docs: The folder of the site's sources.
        pages: File outside of it to the name of its page.
    """
    package = docs.parent / "src"

    def changed(match: re.Match[str]) -> str:
        label, name, anchor = match[1], match[2], match[3] or ""
        target = Path(os.path.normpath(source.parent / name))
        if target.suffix == ".py" and target.is_relative_to(package):
            module = ".".join(target.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
            return f"{{py:mod}}`{label} <{module}>`"
        if target in pages:
            target = docs / f"{pages[target]}.md"
        elif target.suffix == ".ipynb":
            target = target.with_suffix(".md")
        path = Path(os.path.relpath(target, page.parent)).as_posix()
        scheme = "page:" if target.suffix == ".html" else ""
        return f"[{label}]({scheme}{path}{anchor})"

    return "".join(_LINK.sub(changed, line) if outside else line for outside, line in _prose(text))


def notebook_markdown(path: Path) -> str:
    """Return the cells of a notebook as Markdown, code without its outputs."""
    cells = json.loads(path.read_text())["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"]).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + f"\n\n[Download the notebook](path:{path.name}).\n"


def api_pages(package: Path, without: set[str]) -> dict[str, str]:
    """Return name to text of the pages of the API: one for each package, with its modules; private ones and those in ``without`` have none."""

    def section(name: str, line: str, *options: str) -> str:
        body = [
            f".. automodule:: {name}",
            *(f"   :{one}" for one in ("members:", "show-inheritance:", *options)),
        ]
        return "\n".join([name, line * len(name), "", *body, ""])

    pages = {}
    for init in sorted(package.rglob("__init__.py")):
        folder = init.parent
        parts = folder.relative_to(package).parts
        if without & set(parts):
            continue
        name = ".".join((package.name, *parts))
        below = sorted(
            f"{name}.{path.parent.name}"
            for path in folder.glob("*/__init__.py")
            if path.parent.name not in without
        )
        modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
        inner = ", ".join(
            one.rpartition(".")[2] for one in below
        )  # packages that can be called are no functions of this one
        text = section(
            name, "=", "ignore-module-all:", f"exclude-members: {inner}"
        )  # what a package only passes on is where it is defined
        if below:
            text += "\n.. toctree::\n   :maxdepth: 1\n\n" + "".join(f"   {one}\n" for one in below)
        pages[name] = "\n".join([text, *(section(f"{name}.{one}", "-") for one in modules)])
    return pages


def _toctree(navigation: dict[str, dict[str, str]]) -> str:
    """Return the navigation as hidden tables of contents."""
    blocks = []
    for caption, entries in navigation.items():
        lines = [f"{title} <{page}>" for title, page in entries.items()]
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"]))
    return "\n\n".join(blocks) + "\n"


_LITERAL = re.compile(r"(``.*?``|:math:`[^`]*`)")


def escaped(lines: list[str]) -> list[str]:
    """Return a docstring whose ``|x|`` and ``(N, *shape)`` outside of formulas and literals are text, not markup."""
    found, formula = [], -1
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if formula >= 0 and line.strip() and depth <= formula:
            formula = -1
        if formula < 0 and line.lstrip().startswith(".. math::"):
            formula = depth
        if formula < 0:
            parts = _LITERAL.split(line)
            parts[::2] = [re.sub(r"(?<!\\)\||(?<=, )\*(?=[\w.]+\))", r"\\\g<0>", part) for part in parts[::2]]
            line = "".join(parts)
        found.append(line)
    return found


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = escaped(lines)


def _write_pages(app: Any) -> None:
    """Write the pages that are made from other files, where they changed."""
    docs = Path(app.srcdir)
    made = {
        docs / f"{name}.md": (docs.parent / file).read_text()
        for name, file in app.config.site_project_pages.items()
    }
    notebooks = sorted(docs.glob("notebooks/*.ipynb"))
    made |= {path.with_suffix(".md"): notebook_markdown(path) for path in notebooks}
    package = docs.parent / "src" / app.config.site_package
    made |= {
        docs / "api" / f"{name}.rst": text
        for name, text in api_pages(package, set(app.config.site_without)).items()
    }
    listed = {page for entries in app.config.site_navigation.values() for page in entries.values()}
    for path, text in made.items():
        if path.suffix == ".md" and path.relative_to(docs).with_suffix("").as_posix() not in listed:
            made[path] = f"---\norphan: true\n---\n\n{text}"
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _read(app: Any, docname: str, content: list[str]) -> None:
    """Change the links of a page of Markdown; add the navigation to the first one."""
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    docs = Path(app.srcdir)
    files = {name: docs.parent / file for name, file in app.config.site_project_pages.items()}
    pages = {file: name for name, file in files.items()}
    content[0] = rewrite_links(content[0], files.get(docname, page), page, docs, pages)
    if docname == app.config.root_doc:
        content[0] += "\n" + _toctree(app.config.site_navigation)


def _copy(app: Any, error: Exception | None) -> None:
    """Copy finished pages of HTML beside those of the site."""
    if error is None and app.builder.format == "html":
        for name in app.config.site_copied:
            shutil.copytree(Path(app.srcdir) / name, Path(app.outdir) / name, dirs_exist_ok=True)


def setup(app: Any) -> dict[str, bool]:
    """Register the settings and events."""
    app.add_config_value("site_navigation", {}, "env")
    app.add_config_value("site_project_pages", {}, "env")
    app.add_config_value("site_copied", [], "html")
    app.add_config_value("site_package", "", "env")
    app.add_config_value("site_without", set(), "env")
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
