"""The house's rule on imports: they point one way, and heavy libraries stay out of start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import caloforge

ROOT = Path(caloforge.__file__).parent
FREE = {
    "cluster",
    "errors",
    "registry",
    "units",
    "random",
    "files",
    "text_files",
    "progress",
    "citation",
    "settings",
}
"""Top-level modules that every part may use."""

ALLOWED: dict[str, set[str]] = {
    "geometry": set(),
    "data": set(),
    "statistics": set(),
    "showers": {"geometry"},
    "formats": {"showers", "geometry"},
    "simulate": {"showers", "geometry"},
    "models": {"statistics", "showers", "geometry"},
    "validate": {"statistics", "showers", "geometry"},
    "train": {"models", "simulate", "statistics", "showers", "geometry"},
    "generate": {"train", "models", "simulate", "statistics", "showers", "geometry"},
    "zoo": {"generate", "train", "models", "validate", "simulate", "statistics", "showers", "geometry", "data"},
    "studies": {
        "zoo", "generate", "train", "models", "validate", "simulate", "statistics", "showers", "geometry", "data"
    },
    "tune": {
        "studies", "zoo", "generate", "train", "models", "validate", "statistics", "showers", "geometry"
    },
    "benchmark": {
        "studies", "zoo", "generate", "train", "models", "validate", "simulate", "statistics", "showers", "geometry", "data"
    },
}  # fmt: skip
"""Part to the parts that it may import, beside itself and the free modules; cli may use all."""


def _parts() -> list[str]:
    names = {path.stem if path.is_file() else path.name for path in ROOT.iterdir()}
    return sorted(
        name
        for name in names
        if (ROOT / name / "__init__.py").exists() or ((ROOT / f"{name}.py").exists() and name != "__init__")
    )


def _files(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py")) if (ROOT / part).is_dir() else [ROOT / f"{part}.py"]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, part of caloforge) for each import of the file, wherever it stands, and lazy strings."""
    package = ("caloforge", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            targets = (
                [f"{module}.{alias.name}" for alias in node.names] if module == "caloforge" else [module]
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module, colon, _ = node.value.partition(":")
            if colon and module.startswith("caloforge.") and module.replace(".", "").isidentifier():
                targets = [module]  # an entry of a registry
        for target in targets:
            names = target.split(".")
            if names[0] == "caloforge" and len(names) > 1:
                yield node.lineno, names[1]


@pytest.mark.parametrize("part", [part for part in _parts() if part != "cli"])
def test_imports_point_one_way(part: str) -> None:
    allowed = (ALLOWED[part] if part not in FREE else set()) | FREE | {part}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports caloforge.{target}"
        for path in _files(part)
        for line, target in _imports(path)
        if target not in allowed and target != "__version__"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walker_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "import caloforge.cli\nfrom caloforge import train\nfrom caloforge.models.base import x\n"
        "from . import y\nfrom ..showers import z\nE = {'a': 'caloforge.validate.thing:Thing'}\n"
    )
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file.py").write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    seen = {target for _, target in _imports(tmp_path / "part" / "file.py")}
    assert seen == {"cli", "train", "models", "part", "showers", "validate"}


def _graph() -> dict[str, set[str]]:
    """Return each module's imports from the package, those of functions and of type checkers too."""
    files = {
        ".".join(("caloforge", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                found |= {full[one] if full[one] in files else node.module for one in full}
        graph[name] = {one for one in found if one in files and one != name}
    return graph


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if circle := walk(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := walk(name, []))), [])


def test_no_module_imports_itself_through_others() -> None:
    circle = _circle(_graph())
    assert not circle, " -> ".join(circle)


def test_a_circle_is_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert not _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_start_up_imports_nothing_heavy() -> None:
    heavy = {
        "torch",
        "numpy",
        "scipy",
        "h5py",
        "sklearn",
        "matplotlib",
        "pydantic",
        "plotly",
        "zuko",
    }
    assert not heavy & _loaded_by("import caloforge.cli.app")


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not {"torch", "numpy", "h5py", "typer"} & _loaded_by("import caloforge")
