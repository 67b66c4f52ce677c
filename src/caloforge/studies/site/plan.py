"""Which study takes which models and which reference, group by group, from a TOML file.

What a site shows, group by group, from a TOML file: which showers are trusted, which studies, how many showers.

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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from caloforge.data import SHIPPED, packed_projections
from caloforge.errors import CaloforgeError, ConfigError, InputError
from caloforge.settings import Settings, validated
from caloforge.studies import STUDIES
from caloforge.studies.base import Context, Study
from caloforge.studies.run import study_settings
from caloforge.studies.sources import Source, open_sources
from caloforge.zoo.store import ZOO, Card, shipped_models

__all__ = [
    "Group",
    "Job",
    "Plan",
    "cards_in",
    "chosen_models",
    "make_plan",
    "plan_groups",
    "read_groups",
    "shipped_sources",
    "truth_files",
]


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


def cards_in(zoo: str) -> dict[str, Card]:
    """Return the cards of a folder by name; those of the package when it is empty.

    Raises:
        InputError: When there is no such folder.
    """
    if zoo and not Path(zoo).is_dir():
        msg = f"zoo '{zoo}' is no folder; expected one with DATASET/MODEL.json inside"
        raise InputError(msg)
    return shipped_models(Path(zoo) if zoo else ZOO)


def shipped_sources(stack: ExitStack, zoo: str, wanted: tuple[str, ...], device: str) -> list[Source]:
    """Return the shipped models, ready to make showers.

    Arguments:
        stack: Closes what was opened.
        zoo: Folder of cards; empty for the package's.
        wanted: Names ``DATASET/MODEL`` or ``DATASET``; empty for all.
        device: Where models work.

    Raises:
        InputError: When a wanted name is not there.
    """
    cards = cards_in(zoo)
    for name in wanted:
        if not any(_is_models(card, name) for card in cards):
            msg = f"no shipped model is called '{name}'; known: {', '.join(cards) or 'none is shipped yet'}"
            raise InputError(msg)
    chosen = {
        name: card
        for name, card in cards.items()
        if not wanted or any(_is_models(name, one) for one in wanted)
    }
    if not zoo:
        return list(open_sources(stack, list(chosen), device=device))
    return [_open(stack, card, device) for card in chosen.values()]


def _is_models(name: str, wanted: str) -> bool:
    """Return whether a card's name is the wanted one, or of the wanted data set."""
    return wanted in (name, name.partition("/")[0])


def _open(stack: ExitStack, card: Card, device: str) -> Source:
    import torch

    where = device
    if device == "auto":
        where = "cuda" if torch.cuda.is_available() else "cpu"
    source = open_sources(stack, [card.generator(where)])[0]
    size = card.content.get("train_showers")
    return replace(source, trained_on=None if size is None else int(size))


@dataclass(frozen=True)
class Job:
    """One study of one reference, with all models that it takes.

    Attributes:
        study: Name of the study.
        detector: Name of the detector in which showers are compared.
        references: Files of trusted showers, of one detector.
        models: What is judged.
        settings: Settings of the study that differ from its own.
        n: How many showers of each model; None: the study's own choice.
    """

    study: str
    detector: str
    references: tuple[Source, ...]
    models: tuple[Source, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    n: int | None = None

    @property
    def folder(self) -> str:
        """Name of its folder in the site."""
        return f"{self.study}-{self.detector}"


@dataclass(frozen=True)
class Plan:
    """What will be done, and what not.

    Attributes:
        jobs: In the order of the registry.
        left_out: Study, detector, model, and why not; a reference of another detector needs no word.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[tuple[str, str, str, str], ...]


def make_plan(
    stack: ExitStack,
    references: Sequence[Source],
    models: Sequence[Source],
    studies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int = 0,
    n: int | None = None,
    own: bool = True,
) -> Plan:
    """Ask every study which models it takes with which reference.

    References of one detector go together. A study that ships its own reference also gets that one, unless a
    reference of the same detector was given.

    Arguments:
        stack: Closes references that are opened here.
        references: Files of trusted showers of any detectors.
        models: Models, files of showers.
        studies: Names of the studies.
        settings: Settings by study.
        seed: See :class:`~caloforge.studies.base.Context`.
        n: Likewise.
        own: Whether studies get the references that they ship.
    """
    jobs, left_out = [], []
    for name in studies:
        study = STUDIES[name]()
        chosen = study_settings(study, settings.get(name))
        groups = _by_detector(study, references)
        shipped = study.default_reference() if own else None
        if shipped is not None:
            packed = open_sources(stack, [shipped])
            groups.setdefault(study.space(packed[0].detector), packed)
        for detector, group in groups.items():
            fitting = []
            for model in models:
                try:
                    study.check(Context(group, (model,), chosen, seed, n))
                except CaloforgeError as error:
                    if study.space(model.detector) == detector:
                        left_out.append((name, detector, model.label, str(error)))
                else:
                    fitting.append(model)
            if fitting:
                jobs.append(Job(name, detector, group, tuple(fitting), settings.get(name, {}), n))
    return Plan(
        tuple(jobs), (*left_out, *_unused(jobs, left_out, models, "no reference of its detector was given"))
    )


def plan_groups(
    stack: ExitStack,
    groups: Mapping[str, Group],
    references: Sequence[Source],
    models: Sequence[Source],
    seed: int = 0,
    n: int | None = None,
) -> Plan:
    """Plan what a file of groups asks for, group after group.

    Arguments:
        stack: Closes references that are opened here.
        groups: The groups by name.
        references: Trusted showers of groups that name none.
        models: All models.
        seed: See :class:`~caloforge.studies.base.Context`.
        n: Showers of each model, for groups that do not say it.

    Raises:
        ConfigError: When two groups ask for one page.
    """
    jobs: list[Job] = []
    left_out: list[tuple[str, str, str, str]] = []
    for name, group in groups.items():
        truth = open_sources(stack, truth_files(group, name)) if group.truth else references
        chosen = chosen_models(group, name, models)
        studies = group.studies or tuple(one for one in STUDIES.names() if one != "all")
        plan = make_plan(stack, truth, chosen, studies, group.settings, seed, group.n or n, own=False)
        for job in plan.jobs:
            if job.folder in [other.folder for other in jobs]:
                msg = f"group '{name}': there is a page '{job.folder}' already; expected one group for each"
                raise ConfigError(msg)
            jobs.append(job)
        left_out += plan.left_out
    return Plan(tuple(jobs), (*left_out, *_unused(jobs, left_out, models, "no group names it")))


def _unused(
    jobs: Sequence[Job], left_out: Sequence[tuple[str, str, str, str]], models: Sequence[Source], why: str
) -> list[tuple[str, str, str, str]]:
    """Return the models that no study was asked about."""
    used = {model.label for job in jobs for model in job.models} | {model for _, _, model, _ in left_out}
    return [("all", one.detector.name, one.label, why) for one in models if one.label not in used]


def _by_detector(study: Study, references: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """Return the references that a study compares in one detector, by its name."""
    groups: dict[str, tuple[Source, ...]] = {}
    for source in references:
        space = study.space(source.detector)
        groups[space] = (*groups.get(space, ()), source)
    return groups
