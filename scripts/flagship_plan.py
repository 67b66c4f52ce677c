"""What the study of the flagship trains: the entries of ``flagship.toml``, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field
from zoo_recipes import Recipe, read_tables

from caloforge.errors import ConfigError, InputError
from caloforge.settings import validated
from caloforge.train.settings import Resolved, resolve

__all__ = ["BASELINE", "GROUPS", "Entry", "Group", "entries_of", "read_plan"]

Group = Literal["ablations", "size", "data", "steps"]
GROUPS: tuple[Group, ...] = get_args(Group)
BASELINE = "baseline"
"""The training that the others are compared with."""


class Entry(Recipe):
    """One training of the study; see the head of ``flagship.toml``."""

    dataset: str
    title: str
    figure: Annotated[tuple[Group, ...], Field(min_length=1)]
    own: tuple[str, ...] = ()
    note: str = ""

    def resolved(self) -> Resolved:
        """Return all its settings."""
        return resolve(self.model, overrides=self.overrides(), preset=self.preset)


def read_plan(path: Path) -> dict[str, Entry]:
    """Read the trainings by name; check every setting of every one, and that the baseline is among them.

    ``set`` holds the common settings, then the entry's, which alone are ``own``.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a key or a setting is wrong.
    """
    content = read_tables(path)
    common = content.pop("common", {})
    plan = {}
    for name, values in content.items():
        own = values.get("set", [])
        merged = {**common, **values, "set": [*common.get("set", []), *own], "own": own}
        entry = validated(Entry, merged, f"{path}: [{name}]")
        try:
            entry.resolved()
        except InputError as error:
            msg = f"{path}: [{name}]: {error}"
            raise ConfigError(msg) from error
        plan[name] = entry
    if BASELINE not in plan:
        msg = f"{path}: [{BASELINE}] is missing; the others are compared with it"
        raise ConfigError(msg)
    return plan


def entries_of(plan: Mapping[str, Entry], only: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of these names, groups, data sets or models; all when there are none.

    Raises:
        InputError: When a name is nobody's.
    """
    known = {name: (name, *entry.figure, entry.dataset, entry.model) for name, entry in plan.items()}
    for wanted in only:
        if not any(wanted in names for names in known.values()):
            msg = f"no training is called '{wanted}'; known: {', '.join([*GROUPS, *plan])}"
            raise InputError(msg)
    return {
        name: entry
        for name, entry in plan.items()
        if not only or any(wanted in known[name] for wanted in only)
    }
