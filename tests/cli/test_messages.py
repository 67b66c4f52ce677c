"""Every option that a message names exists, and every one of the library stands for an argument in Python."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import typer

import caloforge
from caloforge.cli.app import app
from caloforge.errors import ARGUMENTS

ROOT = Path(caloforge.__file__).parent
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]+)")
OF_OTHERS = {
    "files.py": {"always", "abbrev", "exclude", "dirty"},  # of git
    "cli/app.py": {"help"},
    "cli/doctor.py": {"force-reinstall", "upgrade"},  # of pip
    "zoo/tables.py": {"data", "held", "remeasure"},  # of scripts/train_zoo.py
    "studies/flagship/page.py": {"data", "runs", "only"},  # of scripts/flagship_study.py
}
"""Options of other programs, by the module that names them."""


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that are no docstrings, an f-string as a whole."""
    tree = ast.parse(path.read_text())
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in bare or id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )


@cache
def _named() -> tuple[tuple[str, int, str], ...]:
    """Return (module, line, option) for each option that a text names."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).as_posix()
        for line, text in _texts(path):
            for option in OPTION.findall(text):
                if option not in OF_OTHERS.get(module, ()):
                    found.append((module, line, option))
    return tuple(found)


def _options() -> dict[str, set[str]]:
    """Return the options of each verb."""
    group: Any = typer.main.get_command(app)
    found = {
        verb: {
            name.removeprefix("--")
            for parameter in command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for verb, command in group.commands.items()
    }
    return found | {"": {name.removeprefix("--") for parameter in group.params for name in parameter.opts}}


def test_every_option_that_a_message_names_exists() -> None:
    known = set().union(*_options().values())
    wrong = [f"{module}:{line} names --{option}" for module, line, option in _named() if option not in known]
    assert not wrong, "\n".join(wrong)


def test_the_walker_sees_messages_and_not_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('"""--doc"""\nx = f"use --one {1} --two"\ny = ("a "\n"--three")\n')
    assert [OPTION.findall(text) for _, text in _texts(path)] == [["one", "two"], ["three"]]


def _parameters() -> set[str]:
    """Return the arguments of every public function, and of the options that formats take."""
    from caloforge.formats import ReadOptions
    from caloforge.generate import Generator
    from caloforge.simulate.geant4 import Geant4Engine
    from caloforge.validate import Settings

    functions = [getattr(caloforge, name) for name in caloforge.__all__ if callable(getattr(caloforge, name))]
    functions += [Generator.stream, Generator.write]
    names = {name for one in functions for name in inspect.signature(one).parameters}
    names |= {one.name for kind in (ReadOptions, Geant4Engine) for one in fields(kind)}
    return names | Settings.model_fields.keys()


def test_every_option_of_a_message_stands_for_an_argument() -> None:
    missing = {option for module, _, option in _named() if not module.startswith("cli/")} - ARGUMENTS.keys()
    commands = {  # of commands that are printed or run, not of messages
        "allow-seen", "batch", "cnn", "config", "device", "fail-on", "geant4", "label", "no-reconstruction", "output", "preset", "quick",
        "seconds", "seed", "set", "threads", "to", "truth",
    }  # fmt: skip
    assert missing <= commands, missing - commands
    known = _parameters() | {"settings"}
    for option, argument in ARGUMENTS.items():
        assert argument.removesuffix("=True") in known, f"--{option} stands for {argument}"


def test_no_alias_is_left_behind() -> None:
    known = set().union(*_options().values())
    assert ARGUMENTS.keys() <= known
