"""Which study takes which models and which reference: every combination is asked, and says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from caloforge.errors import CaloforgeError, ConfigError
from caloforge.studies import STUDIES
from caloforge.studies.all_studies.groups import Group, chosen_models, truth_files
from caloforge.studies.base import Context, Study
from caloforge.studies.run import study_settings
from caloforge.studies.sources import Source, open_sources

__all__ = ["Job", "Plan", "make_plan", "plan_groups"]


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
