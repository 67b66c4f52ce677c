"""Draw which part of caloforge imports which, from the code.

    python scripts/import_picture.py            # writes docs/architecture.svg

A part is a package, or a module, directly below ``caloforge``. Modules that import no package (errors, units, ...) are free for every part and
stand in one box. An arrow goes from a part to what it imports; arrows that follow from others (a imports b, b imports c, a imports c) are
left out. ``tests/docs`` compares the picture with the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["draw", "imports", "levels", "reduced"]

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "caloforge"
OUTPUT = ROOT / "docs" / "architecture.svg"

SAYS = {
    "geometry": "detectors, beams, materials",
    "statistics": "functions of arrays",
    "data": "packaged showers",
    "showers": "showers and their files",
    "formats": "other layouts",
    "simulate": "Geant4, gflash",
    "models": "shower generators",
    "validate": "observables, metrics, report",
    "train": "training loop, run folder",
    "generate": "generation, export",
    "zoo": "shipped models, cards",
    "studies": "published analyses",
    "tune": "search of settings",
    "benchmark": "time against accuracy",
    "cli": "one verb each",
}
"""What a part is for."""


def _targets(path: Path, package: Path) -> Iterator[str]:
    """Yield the names below the package that a file imports, wherever the import stands, and those in registries."""
    here = (package.name, *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found = [f"{module}.{alias.name}" for alias in node.names] if module == package.name else [module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, colon, _ = node.value.partition(":")
            if colon and module.startswith(f"{package.name}."):
                found = [module]  # an entry of a registry
        for name in found:
            first, _, rest = name.partition(".")
            if first == package.name and rest:
                yield rest.partition(".")[0]


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return part to the parts that it imports, without the modules that every part may use."""
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return {
        part: {
            name
            for path in (package / part).rglob("*.py")
            for name in _targets(path, package)
            if name in folders and name != part
        }
        for part in sorted(folders)
    }


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the length of the longest chain of imports below each part; a circle is an error."""
    found: dict[str, int] = {}

    def level(part: str, above: tuple[str, ...] = ()) -> int:
        if part in above:
            msg = " -> ".join((*above, part))
            raise ValueError(f"circle of imports: {msg}")
        if part not in found:
            found[part] = 1 + max((level(other, (*above, part)) for other in graph[part]), default=-1)
        return found[part]

    for part in graph:
        level(part)
    return found


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports that do not follow from others."""

    def reach(part: str) -> set[str]:
        return graph[part].union(*(reach(other) for other in graph[part])) if graph[part] else set()

    return {
        part: {one for one in others if not any(one in reach(other) for other in others if other != one)}
        for part, others in graph.items()
    }


WIDTH, BOX, HEIGHT, STEP = 960, 204, 46, 88


def draw(graph: Mapping[str, set[str]]) -> str:
    """Return the picture as SVG, in colours that are legible on light and on dark pages."""
    level = levels(graph)
    rows = [sorted(part for part in graph if level[part] == row) for row in range(max(level.values()) + 1)]
    total = STEP * len(rows) + 30
    place: dict[str, tuple[float, float]] = {}
    for row, parts in enumerate(rows):
        gap = WIDTH / len(parts)
        for column, part in enumerate(parts):
            place[part] = gap * (column + 0.5), total - 24 - STEP * row - HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" role="img" font-family="sans-serif">',
        "<title>Imports between the parts of caloforge</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#7a8599"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{total}" rx="8" fill="#f6f8fb"/>',
    ]
    for part, others in sorted(reduced(graph).items()):
        for other in sorted(others):
            (x, y), (u, v) = place[part], place[other]
            y, v = y + HEIGHT, v - 2
            bend = (v - y) / 2
            lines.append(
                f'<path d="M{x:.0f} {y:.0f} C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}" '
                'fill="none" stroke="#7a8599" stroke-width="1.4" marker-end="url(#tip)"/>'
            )
    for part, (x, y) in sorted(place.items()):
        lines += [
            f'<rect x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="6" fill="#ffffff" stroke="#2f6f9f" stroke-width="1.4"/>',
            f'<text x="{x:.0f}" y="{y + 20:.0f}" text-anchor="middle" font-size="16" font-weight="bold" fill="#1d3f5c">{part}</text>',
            f'<text x="{x:.0f}" y="{y + 37:.0f}" text-anchor="middle" font-size="12.5" fill="#33475b">{SAYS.get(part, "")}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> int:
    """Write the picture."""
    OUTPUT.write_text(draw(imports()))
    print(f"wrote {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
