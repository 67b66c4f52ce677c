"""Which study takes which models and which reference: every combination is asked, and says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from caloforge.errors import CaloforgeError
from caloforge.studies import STUDIES
from caloforge.studies.base import Context
from caloforge.studies.run import study_settings
from caloforge.studies.sources import Source, open_sources

__all__ = ["Job", "Plan", "make_plan"]


@dataclass(frozen=True)
class Job:
    """One study of one reference, with all models that it takes.

    Attributes:
        study: Name of the study.
        detector: Name of the reference's detector.
        references: Files of trusted showers, of one detector.
        models: What is judged.
        settings: Settings of the study that differ from its own.
    """

    study: str
    detector: str
    references: tuple[Source, ...]
    models: tuple[Source, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

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
    """
    jobs, left_out = [], []
    for name in studies:
        study = STUDIES[name]()
        chosen = study_settings(study, settings.get(name))
        groups = _by_detector(references)
        shipped = study.default_reference()
        if shipped is not None:
            own = open_sources(stack, [shipped])
            groups.setdefault(own[0].detector.name, own)
        for detector, group in groups.items():
            fitting = []
            for model in models:
                try:
                    study.check(Context(group, (model,), chosen, seed, n))
                except CaloforgeError as error:
                    if model.detector.name == detector:
                        left_out.append((name, detector, model.label, str(error)))
                else:
                    fitting.append(model)
            if fitting:
                jobs.append(Job(name, detector, group, tuple(fitting), settings.get(name, {})))
    used = {model.label for job in jobs for model in job.models} | {model for _, _, model, _ in left_out}
    left_out += [
        ("all", model.detector.name, model.label, "no reference of its detector was given")
        for model in models
        if model.label not in used
    ]
    return Plan(tuple(jobs), tuple(left_out))


def _by_detector(references: Sequence[Source]) -> dict[str, tuple[Source, ...]]:
    """Return the references of each detector."""
    groups: dict[str, tuple[Source, ...]] = {}
    for source in references:
        groups[source.detector.name] = (*groups.get(source.detector.name, ()), source)
    return groups
