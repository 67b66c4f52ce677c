"""Check that every link inside a built site leads to a file of it, and to an anchor that is there.

    python scripts/check_site.py build/docs

Prints each broken link with its page, and exits with 1 when there is one. Links to other sites are not looked at (``make docs-links`` does).
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["broken_links"]


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what the element points to, and its names."""
        for name, value in attrs:
            if value is None:
                continue
            if name in ("href", "src") and not (tag == "link" and ("rel", "canonical") in attrs):
                self.links.add(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8", errors="replace"))
    return page


def broken_links(site: Path) -> list[str]:
    """Return ``page: link`` for each link inside the site that leads nowhere."""
    broken = []
    for path in sorted(site.rglob("*.html")):
        for link in sorted(_read(path).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            anchor = unquote(parts.fragment)
            there = target.is_file()
            if there and anchor and target.suffix == ".html":
                there = anchor in _read(target).anchors or anchor == "top"
            if not there:
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def main() -> int:
    """Check the site of the first argument."""
    site = Path(sys.argv[1]).resolve()
    if not (site / "index.html").is_file():
        print(f"check_site: {site} has no index.html", file=sys.stderr)
        return 2
    broken = broken_links(site)
    print("\n".join(broken), file=sys.stderr, end="\n" if broken else "")
    print(f"{len(list(site.rglob('*.html')))} pages, {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
