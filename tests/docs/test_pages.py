"""The pages as GitHub shows them, their place in the site, the picture of the imports, and the checker of the built site."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
OUTSIDE = [
    REPOSITORY / name
    for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "examples/geant4_application/README.md")
]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "conf.py"))


def _pages() -> list[Path]:
    """Return the Markdown that is written by hand: no pages that the build makes."""
    made = {path.with_suffix(".md") for path in DOCS.glob("notebooks/*.ipynb")}
    return [path for path in sorted(DOCS.rglob("*.md")) if path not in made and path.parent.name != "project"]


def _prose(path: Path) -> str:
    return re.sub(r"^( *)```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def _slugs(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    seen: dict[str, int] = {}
    found = set()
    for title in re.findall(r"^#+ (.*?)\s*$", _prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


@pytest.mark.parametrize("page", [*_pages(), *OUTSIDE], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(((?!\w+:)[^)\s]*)\)", _prose(page))
    wrong = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _slugs(target)):
            wrong.append(link)
    assert not wrong


def test_every_page_is_in_the_navigation_once(settings: dict[str, Any]) -> None:
    listed = [page for entries in settings["NAVIGATION"].values() for page in entries.values()]
    assert len(listed) == len(set(listed))
    written = {str(path.relative_to(DOCS).with_suffix("")) for path in _pages()} - {"index"}
    made = {page for page in listed if page.startswith(("api/", "project/"))}
    assert written == set(listed) - made
    for page in settings["PROJECT_PAGES"].values():
        assert (REPOSITORY / page).is_file()


def test_the_index_names_every_page_of_the_navigation(settings: dict[str, Any]) -> None:
    """On GitHub the index is the navigation."""
    links = set(re.findall(r"\]\(([^)#\s]*)", (DOCS / "index.md").read_text()))
    listed = {page for entries in settings["NAVIGATION"].values() for page in entries.values()}
    made = {f"{page}.md" for page in listed if not page.startswith(("api/", "project/"))}
    assert made <= links


def test_the_picture_of_the_imports_is_up_to_date() -> None:
    script = _module(REPOSITORY / "scripts" / "import_picture.py")
    graph = script.imports()
    assert {"cli", "models", "validate", "geometry"} <= set(graph)
    assert "models" in graph["train"]
    assert not graph["geometry"]
    assert (DOCS / "architecture.svg").read_text() == script.draw(graph), (
        "python scripts/import_picture.py draws it again"
    )


def test_arrows_that_follow_from_others_are_left_out() -> None:
    script = _module(REPOSITORY / "scripts" / "import_picture.py")
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert script.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert script.levels(graph) == {"a": 2, "b": 1, "c": 0}
    with pytest.raises(ValueError, match="circle of imports: a -> b -> a"):
        script.levels({"a": {"b"}, "b": {"a"}})


def test_links_become_those_of_the_site(tmp_path: Path) -> None:
    site = _module(DOCS / "_ext" / "site_pages.py")
    docs = tmp_path / "docs"
    pages = {tmp_path / "README.md": "project/readme"}
    text = (
        "[a](../README.md#use) [b](../src/caloforge/models/base.py) [c](results/site/index.html)\n"
        "[d](other.md#x) [e](https://x.org/y.py) [f](#here) [g](notebooks/n.ipynb)\n"
        "```\n[a](../README.md)\n```\n"
    )
    assert site.rewrite_links(text, docs / "p.md", docs / "p.md", docs, pages) == (
        "[a](project/readme.md#use) {py:mod}`b <caloforge.models.base>` [c](page:results/site/index.html)\n"
        "[d](other.md#x) [e](https://x.org/y.py) [f](#here) [g](notebooks/n.md)\n"
        "```\n[a](../README.md)\n```\n"
    )
    moved = site.rewrite_links(
        "[p](docs/p.md)", tmp_path / "README.md", docs / "project/readme.md", docs, pages
    )
    assert moved == "[p](../p.md)"


def test_broken_links_of_a_built_site_are_found(tmp_path: Path) -> None:
    script = _module(REPOSITORY / "scripts" / "check_site.py")
    (tmp_path / "index.html").write_text(
        '<h1 id="here">x</h1><a href="#here">a</a><a href="#gone">b</a><a href="two.html#there">c</a>'
        '<a href="two.html#not">d</a><img src="no.png"><a href="https://example.org/x">e</a>'
    )
    (tmp_path / "two.html").write_text('<p id="there"><a href="./">f</a></p>')
    assert script.broken_links(tmp_path) == [
        "index.html: #gone",
        "index.html: no.png",
        "index.html: two.html#not",
    ]


def test_pages_of_the_api_have_every_public_module(tmp_path: Path) -> None:
    site = _module(DOCS / "_ext" / "site_pages.py")
    for name in (
        "__init__.py",
        "one.py",
        "_private.py",
        "room/__init__.py",
        "room/two.py",
        "cli/__init__.py",
    ):
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).touch()
    pages = site.api_pages(tmp_path / "package", {"cli"})
    assert list(pages) == ["package", "package.room"]
    named = [re.findall(r"automodule:: (\S+)", text) for text in pages.values()]
    assert named == [["package", "package.one"], ["package.room", "package.room.two"]]
    assert "   package.room\n" in pages["package"]


def test_bars_and_stars_of_docstrings_are_no_markup() -> None:
    site = _module(DOCS / "_ext" / "site_pages.py")
    lines = [
        "the mean |a - b|, :math:`|x|`, ``|y|``, (N, *shape) and *this*",
        ".. math:: |z|",
        "",
        "   |w|",
        "|v|",
    ]
    assert site.escaped(lines) == [
        "the mean \\|a - b\\|, :math:`|x|`, ``|y|``, (N, \\*shape) and *this*",
        ".. math:: |z|",
        "",
        "   |w|",
        "\\|v\\|",
    ]


def test_names_of_references_must_exist() -> None:
    pytest.importorskip("sphinx", reason="needs the extra 'docs'")
    references = _module(DOCS / "_ext" / "own_references.py")
    assert references.exists("caloforge.showers.Showers")
    assert references.exists("caloforge.geometry.readout.ReadoutLayer.mip")
    assert not references.exists("caloforge.showers.Shower")
    assert not references.exists("caloforge.nothing.here")


def _formulas(path: Path) -> list[tuple[str, bool]]:
    """Return the formulas of a page or of a module's docstrings, and which of them stand alone."""
    if path.suffix == ".md":
        text = _prose(path)
        blocks = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
        inline = re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
    else:
        text = path.read_text()
        blocks = [
            part.replace("\\\\", "\\") if "\\\\frac" in part else part
            for part in re.findall(r"\.\. math::((?:.*\n)(?:(?: {8,}\S.*)\n)*)", text)
        ]
        inline = re.findall(r":math:`([^`]*)`", text)
    return [(one, True) for one in blocks] + [(one, False) for one in inline]


def test_every_formula_can_be_drawn() -> None:
    pytest.importorskip("sphinx", reason="needs the extra 'docs'")
    mathml = _module(DOCS / "_ext" / "mathml.py")
    files = [*_pages(), *(REPOSITORY / "src").rglob("*.py")]
    found = [(path, *one) for path in files for one in _formulas(path)]
    assert len(found) > 300
    for path, formula, block in found:
        if formula.strip():
            assert "<math" in mathml.as_mathml(formula, block), path
    with pytest.raises(Exception, match="unknown"):
        mathml.as_mathml(r"\unknown{x}", False)
