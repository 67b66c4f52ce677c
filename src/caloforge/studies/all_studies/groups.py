"""What a site shows, group by group, from a TOML file: which showers are trusted, which studies, how many showers.

One table a group, of any name::

    [atlas]
    truth = ["atlas-300*.h5"]
    models = ["atlas-photon"]
    studies = ["layers", "shapes"]
    n = 5000

    [atlas.settings.layers]
    energy = 65

Files are named relative to the folder where the command runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from caloforge.errors import ConfigError, InputError
from caloforge.models.config import Settings, validated
from caloforge.studies.shipped import SHIPPED, packed_projections
from caloforge.studies.sources import Source

__all__ = ["Group", "chosen_models", "read_groups", "truth_files"]


class Group(Settings):
    """What is studied together.

    Arguments:
        truth: Files of trusted showers, names or patterns; ``shipped``: the images in the package. None: those of the
            command line.
        models: ``DATASET/MODEL``, ``DATASET`` or labels of the samples on the command line; empty for all.
        studies: Names of the studies; empty for all.
        n: Showers of each model; None: as the command line says.
        settings: Settings of the studies, by study.
    """

    truth: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    n: Annotated[int, Field(ge=1)] | None = None
    settings: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]


def read_groups(path: str | Path) -> dict[str, Group]:
    """Return the groups of a file by name.

    Raises:
        InputError: When it cannot be read.
        ConfigError: When it is no TOML, is empty, or has a wrong key or value.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"pages '{path}' cannot be read: {error.strerror or error}"
        raise InputError(msg) from error
    except tomllib.TOMLDecodeError as error:
        msg = f"pages '{path}': {error}"
        raise ConfigError(msg) from error
    if not content or not all(isinstance(table, dict) for table in content.values()):
        msg = f"pages '{path}': expected one table a group, with truth, models, studies, n or settings"
        raise ConfigError(msg)
    return {name: validated(Group, table, f"'{name}' of {path}") for name, table in content.items()}


def truth_files(group: Group, name: str) -> list[Path]:
    """Return the group's files of trusted showers, each pattern's in order of their names.

    Raises:
        InputError: When a pattern finds none, or the package ships none.
    """
    found: list[Path] = []
    for pattern in group.truth:
        shipped = packed_projections() if pattern == SHIPPED else None
        files = [shipped] if shipped is not None else [Path(file) for file in sorted(glob(pattern))]
        if not files:
            msg = f"group '{name}': no file of trusted showers is called '{pattern}'"
            raise InputError(msg)
        found += [file for file in files if file not in found]
    return found


def chosen_models(group: Group, name: str, models: Sequence[Source]) -> list[Source]:
    """Return those of the models that the group names, all when it names none.

    Raises:
        InputError: When a name is not there.
    """
    for wanted in group.models:
        if not any(_is(model.label, wanted) for model in models):
            known = ", ".join(model.label for model in models)
            msg = f"group '{name}': no model is called '{wanted}'; known: {known}"
            raise InputError(msg)
    return [m for m in models if not group.models or any(_is(m.label, wanted) for wanted in group.models)]


def _is(label: str, wanted: str) -> bool:
    """Return whether a label is the wanted one, or of the wanted data set."""
    return wanted in (label, label.partition("/")[0])
