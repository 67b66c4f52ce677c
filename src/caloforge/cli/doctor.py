"""``caloforge doctor``: whether everything that caloforge needs is here, and how to mend what is not."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from caloforge import __version__
from caloforge.cli.output import Json, print_json, print_lines

__all__ = ["CHECKS", "Finding", "doctor"]

GOOD, OPTIONAL, BAD = "ok", "missing", "broken"
"""States of a finding: as it should be; something that some verbs need is not there; caloforge does not work."""
_SIGNS = {GOOD: "+", OPTIONAL: "-", BAD: "!"}
_LEAST_MEMORY = 2 * 2**30
_LEAST_DISK = 2**30
_REQUIREMENT = re.compile(
    r"([\w.-]+)(?:\[[^]]*\])?\s*(?:>=([\w.]+))?[^;]*(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?"
)
_DEVELOPMENT = ("test", "dev", "docs")


class Finding(NamedTuple):
    """What was found of one thing."""

    name: str
    state: str  # GOOD, OPTIONAL or BAD
    text: str
    remedy: str = ""  # what to do


def doctor(
    as_json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 also when something optional is missing.")
    ] = False,
) -> None:
    """Check Python, packages, torch, GPU, Geant4's tables, memory, disk and the shipped models, and say how to fix problems.

    Exit code 1: something that every verb needs is broken. What only some verbs need may be missing.
    """
    found = [finding for check in CHECKS for finding in _tried(check)]
    broken = [one for one in found if one.state == BAD or (strict and one.state == OPTIONAL)]
    if as_json:
        print_json({"healthy": not broken, "findings": [one._asdict() for one in found]})
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            print_lines([f"{_SIGNS[one.state]} {one.name:<{width}}  {one.text}"])
            print_lines([f"  {'':<{width}}  -> {one.remedy}"] if one.remedy else [])
        missing = sum(one.state == OPTIONAL for one in found)
        summary = f"{len(broken)} broken" if broken else "caloforge works here"
        print_lines([f"{summary}{f'; {missing} optional things are missing (-)' if missing else ''}"])
    if broken:
        raise typer.Exit(1)


def _tried(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; one that fails is a finding, too."""
    name = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check()
    except Exception as error:
        yield Finding(
            name,
            BAD,
            f"{type(error).__name__}: {error}",
            "install caloforge again: pip install --force-reinstall caloforge",
        )


def _python() -> Iterator[Finding]:
    import platform

    good = sys.version_info >= (3, 11)
    text = f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}; caloforge {__version__}"
    yield Finding("python", GOOD if good else BAD, text, "" if good else "use Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    """Look at the packages that caloforge and its extras need."""
    from importlib.metadata import requires

    groups: dict[str, list[str]] = {}
    for line in requires("caloforge") or ():
        found = _REQUIREMENT.match(line)
        if found is not None and found[3] not in _DEVELOPMENT:
            fault = _wrong(found[1], found[2] or "0")
            groups.setdefault(found[3] or "", []).extend([fault] if fault else [])
    for extra, wrong in groups.items():
        name = f"extra {extra}" if extra else "packages"
        if not wrong:
            yield Finding(name, GOOD, "installed")
        elif extra:
            yield Finding(name, OPTIONAL, ", ".join(wrong), f"pip install 'caloforge[{extra}]'")
        else:
            yield Finding(name, BAD, ", ".join(wrong), "pip install --upgrade caloforge")


def _wrong(package: str, least: str) -> str:
    """Say what is wrong with an installed package; empty when nothing is."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        there = version(package)
    except PackageNotFoundError:
        return f"{package} is not installed"
    return "" if _numbers(there) >= _numbers(least) else f"{package} is {there}, older than {least}"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _torch() -> Iterator[Finding]:
    import torch

    total = float((torch.ones(8, 8) @ torch.ones(8, 8)).sum())
    threads = torch.get_num_threads()
    text = f"torch {torch.__version__}, {threads} threads of {os.cpu_count()} processors"
    yield Finding("torch", GOOD if total == 512.0 else BAD, text)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            yield Finding("gpu", GOOD, f"cuda:{number}, {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda is None:
        yield Finding(
            "gpu",
            OPTIONAL,
            "this torch is built for CPUs",
            "with an NVIDIA GPU: install torch for CUDA, https://pytorch.org/get-started",
        )
    else:
        text = f"torch is built for CUDA {torch.version.cuda} and finds no GPU"
        yield Finding(
            "gpu",
            OPTIONAL,
            text,
            "with an NVIDIA GPU: check that nvidia-smi lists it and that its driver is recent",
        )


def _geant4() -> Iterator[Finding]:
    from caloforge.errors import CaloforgeError
    from caloforge.simulate.geant4 import ELECTROMAGNETIC, HADRONIC, find_data

    installed = _wrong("geant4-pybind", "0")
    if installed:
        yield Finding("geant4", OPTIONAL, installed, "pip install 'caloforge[geant4]' (gflash needs none)")
    else:
        yield Finding("geant4", GOOD, "geant4-pybind is installed")
    for name, needed in (("geant4 tables", ELECTROMAGNETIC), ("hadronic tables", HADRONIC)):
        try:
            found = find_data(needed, tables=needed is HADRONIC)
        except CaloforgeError as error:
            what, _, remedy = str(error).partition(": ")
            yield Finding(name, OPTIONAL, what, remedy)
        else:
            yield Finding(
                name, GOOD, f"{', '.join(found[one].name for one in needed)} in {found[needed[0]].parent}"
            )


def _memory() -> Iterator[Finding]:
    import shutil
    import tempfile

    from caloforge.train.settings import free_memory

    free = free_memory()
    low = free < _LEAST_MEMORY
    remedy = "stop other programs, or train with --set data.memory=500MB and small batches" if low else ""
    yield Finding("memory", OPTIONAL if low else GOOD, f"{free / 2**30:.1f} GiB free", remedy)
    for name, folder in (("this folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        room = shutil.disk_usage(folder).free
        if not os.access(folder, os.W_OK):
            yield Finding(
                name,
                OPTIONAL,
                f"{folder} is not writable",
                "write outputs to another folder" if name == "this folder" else "set TMPDIR",
            )
        else:
            state = OPTIONAL if room < _LEAST_DISK else GOOD
            yield Finding(
                name,
                state,
                f"{room / 2**30:.1f} GiB free in {folder}",
                "free disk space" if state == OPTIONAL else "",
            )


def _shipped_models() -> Iterator[Finding]:
    from caloforge.errors import CaloforgeError
    from caloforge.train.stored import check_digest
    from caloforge.zoo.store import shipped_models

    cards, wrong = shipped_models(), []
    for card in cards.values():
        with suppress(FileNotFoundError):
            try:
                check_digest(card.path.with_suffix(".safetensors"))
            except CaloforgeError as error:
                wrong.append(str(error))
    text = f"{len(cards)} with correct checksums" if not wrong else "; ".join(wrong)
    yield Finding(
        "shipped models",
        BAD if wrong else GOOD,
        text,
        "pip install --force-reinstall caloforge" if wrong else "",
    )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _torch,
    _geant4,
    _memory,
    _shipped_models,
)
"""What is looked at, in order."""
