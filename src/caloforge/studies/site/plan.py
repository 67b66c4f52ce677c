"""Plan of the site: the models and the reference of each study, all that fit or group by group from a TOML file.

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

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from caloforge.data import SHIPPED, packed_projections
from caloforge.errors import CaloforgeError, ConfigError, InputError, did_you_mean
from caloforge.settings import Settings, torch_device, validated
from caloforge.studies.base import STUDIES, Context, Study
from caloforge.studies.run import study_settings
from caloforge.studies.sources import Source, open_sources
from caloforge.text_files import read_toml
from caloforge.zoo.store import ZOO, Card, shipped_models

__all__ = [
    "Group",
    "Job",
    "Plan",
    "cards_in",
    "make_plan",
    "plan_groups",
    "read_groups",
    "shipped_sources",
    "truth_files",
]


class Group(Settings):
    """What is studied together.

    Arguments:
        truth: Files of reference showers, names or patterns; ``shipped``: the images in the package. None: those of the
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
        FileFormatError: When it cannot be read, or is no TOML.
        ConfigError: When it is empty, or has a wrong key or value.
    """
    content = read_toml(path)
    if not content or not all(isinstance(table, dict) for table in content.values()):
        msg = f"pages '{path}': expected one table a group, with truth, models, studies, n or settings"
        raise ConfigError(msg)
    return {name: validated(Group, table, f"'{name}' of {path}") for name, table in content.items()}


def truth_files(group: Group, name: str) -> list[Path]:
    """Return the group's files of reference showers, each pattern's in order of their names.

    Raises:
        InputError: When a pattern finds none, or the package ships none.
    """
    found: list[Path] = []
    for pattern in group.truth:
        shipped = packed_projections() if pattern == SHIPPED else None
        files = [shipped] if shipped is not None else [Path(file) for file in sorted(glob(pattern))]
        if not files:
            raise InputError(f"group '{name}': no file of reference showers is called '{pattern}'")
        found += [file for file in files if file not in found]
    return found


def _chosen(known: Sequence[str], wanted: Sequence[str], where: str, none: str = "") -> list[str]:
    """Return the names ``DATASET/MODEL`` that are wanted by name or by data set, all when none is."""
    for one in wanted:
        if not any(_matches(name, one) for name in known):
            raise InputError(f"{where} is called '{one}'; {did_you_mean(one, known or [none])}")
    return [name for name in known if not wanted or any(_matches(name, one) for one in wanted)]


def _matches(name: str, wanted: str) -> bool:
    return wanted in (name, name.partition("/")[0])


def cards_in(zoo: str) -> dict[str, Card]:
    """Return the cards of a folder by name; those of the package when it is empty.

    Raises:
        InputError: When there is no such folder.
    """
    if zoo and not Path(zoo).is_dir():
        raise InputError(f"zoo '{zoo}' is no folder; expected one with DATASET/MODEL.json inside")
    return shipped_models(Path(zoo) if zoo else ZOO)


def shipped_sources(stack: ExitStack, zoo: str, wanted: tuple[str, ...], device: str) -> list[Source]:
    """Return the shipped models of a folder (empty: the package's), ready to generate showers, all when none is named.

    Raises:
        InputError: When a wanted name ``DATASET/MODEL`` or ``DATASET`` is not there.
    """
    cards = cards_in(zoo)
    chosen = _chosen(list(cards), wanted, "no shipped model", "none is shipped yet")
    if not zoo:
        return list(open_sources(stack, chosen, device=device))
    sources = []
    for card in (cards[name] for name in chosen):
        source = open_sources(stack, [card.generator(torch_device(device))])[0]
        size = card.content.get("train_showers")
        sources.append(replace(source, trained_on=None if size is None else int(size)))
    return sources


@dataclass(frozen=True)
class Job:
    """One study of one reference, with all models that it takes."""

    study: str
    detector: str  # name of the detector in which showers are compared
    references: tuple[Source, ...]
    models: tuple[Source, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # other than its own
    n: int | None = None  # how many showers of each model; None: the study's own choice

    @property
    def folder(self) -> str:
        """Name of its folder in the site."""
        return f"{self.study}-{self.detector}"


@dataclass(frozen=True)
class Plan:
    """The studies to be done, and what does not fit: study, detector, model, and why not."""

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
    reference of the same detector was given or ``own`` is not set. The stack closes references that are opened here.
    """
    jobs, left_out = [], []
    for name in studies:
        study = STUDIES[name]()
        chosen = study_settings(study, settings.get(name))
        groups = _by_detector(study, references)
        shipped = study.default_reference() if own else None
        if shipped is not None:
            packed = open_sources(stack, [shipped])
            groups.setdefault(study.space(packed[0].detector).name, packed)
        for detector, group in groups.items():
            fitting = []
            for model in models:
                try:
                    study.check(Context(group, (model,), chosen, seed, n))
                except CaloforgeError as error:
                    if study.space(model.detector).name == detector:
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

    ``references`` and ``n`` are for groups that name none. The stack closes references that are opened here.

    Raises:
        ConfigError: When two groups ask for one page.
    """
    jobs: list[Job] = []
    left_out: list[tuple[str, str, str, str]] = []
    for name, group in groups.items():
        truth = open_sources(stack, truth_files(group, name)) if group.truth else references
        named = _chosen([model.label for model in models], group.models, f"group '{name}': no model")
        chosen = [model for model in models if model.label in named]
        studies = group.studies or tuple(
            one for one, study in STUDIES.items() if one != "all" and study.judges
        )
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
        space = study.space(source.detector).name
        groups[space] = (*groups.get(space, ()), source)
    return groups
