"""Checks in fresh environments: nox lists them, nox -s lowest runs one.

lint, types, docs and tests do what make lint, make types, make docs and make test do, each in an environment made for it. tests runs with the
versions of constraints.txt, lowest with the lowest versions that pyproject.toml allows, newest with the newest ones there are.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

EXTRAS = re.search(r"^TEST_EXTRAS := (.+)$", Path("Makefile").read_text(), re.MULTILINE)[
    1
]  # those of make test
PYTHONS = ["3.11", "3.12", "3.13"]
PYTEST = ("python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = True


def lowest_versions() -> list[str]:
    """Return ``name==version`` for each requirement of pyproject.toml that names its lowest version."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(one for some in project["optional-dependencies"].values() for one in some),
    ]
    found: dict[str, tuple[int, ...]] = {}
    for text in requirements:
        match = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", text)
        if match is None:
            msg = f"pyproject.toml: requirement '{text}'; expected NAME>=VERSION"
            raise ValueError(msg)
        version = tuple(int(part) for part in match[2].split("."))
        found[match[1]] = max(found.get(match[1], version), version)
    return [f"{name}=={'.'.join(map(str, version))}.*" for name, version in found.items()]


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format by ruff."""
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types by mypy, strict."""
    session.install("-c", "constraints.txt", "-e", f".[{EXTRAS}]")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", "-e", f".[{EXTRAS}]")
    session.run(*PYTEST, *session.posargs, env=ONE_THREAD)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """All tests, with the lowest versions that pyproject.toml allows."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions()) + "\n")
    session.install("-c", str(constraints.resolve()), "-e", f".[{EXTRAS}]")
    session.run(*PYTEST, *session.posargs, env=ONE_THREAD)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """All tests, with the newest versions that there are."""
    session.install("--upgrade", "-e", f".[{EXTRAS}]")
    session.run(*PYTEST, *session.posargs, env=ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors."""
    session.install("-c", "constraints.txt", "-e", ".[docs,eval,report]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/docs")
