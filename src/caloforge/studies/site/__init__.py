"""Every study for every model that it fits: the project's results as one site of pages.

    SITE/index.html                    the entrance
    SITE/STUDY-DETECTOR/report.html    one page a study and reference, all models side by side

What it shows is every study that fits with every reference, or what a file of groups says
(:mod:`~caloforge.studies.site.plan`). Studies of one reference and as many showers share the models' showers.

A study that is finished is not done again when the same command is repeated; one that was interrupted goes on. A study
that fails is noted, and the others go on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from caloforge.data import SHIPPED, packed_projections
from caloforge.errors import CaloforgeError
from caloforge.files import atomic_path, write_json
from caloforge.showers import ShowerFile
from caloforge.showers.seen import SeenCount
from caloforge.studies.base import STUDIES, Context, Row, Study, StudyResult, StudySettings
from caloforge.studies.cache import digest_of
from caloforge.studies.run import absolute, run_study, study_command
from caloforge.studies.site.index import STORED, Done, Site, write_index
from caloforge.studies.site.plan import (
    Job,
    Plan,
    cards_in,
    make_plan,
    plan_groups,
    read_groups,
    shipped_sources,
)
from caloforge.studies.sources import Source
from caloforge.text_files import read_json, read_record

__all__ = ["AllSettings", "AllStudies", "Done", "Site", "write_index"]


_STATE = "finished.json"
_SHOWERS = "showers"


class AllSettings(StudySettings):
    """Settings of the study.

    Arguments:
        studies: Names of the studies; empty for all.
        models: Names of shipped models, ``DATASET/MODEL`` or ``DATASET``; empty for all.
        shipped: Whether the shipped models are taken.
        zoo: Folder of shipped models; empty for the package's.
        settings: Settings of the studies, by study: ``settings={shapes={geant4_showers=0}}``.
        device: Device of shipped models.
        tidy: Remove what was computed and the models' showers once all is finished.
        pages: TOML file with groups of studies, models and reference showers, and how many showers; empty: every study
            with all that it fits.
        publish: Folder that gets the pages and what the entrance was made of, without figures and numbers beside them; empty for none.
        benchmarks: Files ``benchmark.json`` whose times the entrance shows, those of one core first; none: no part on accuracy and speed.
    """

    studies: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    shipped: bool = True
    zoo: str = ""
    settings: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tidy: bool = False
    pages: str = ""
    publish: str = ""
    benchmarks: tuple[str, ...] = ()


class AllStudies(Study):
    """All studies, all models, one site."""

    name = "all"
    several = True
    title = "All studies of all models"
    source = "caloforge"
    needs = (
        "reference files of the detectors of the shipped models (further ones with --truth), and shipped models, run folders "
        "or files of generated showers"
    )
    Settings = AllSettings
    least_generated = 0

    @classmethod
    def default_reference(cls) -> Path | None:
        """Return the packed images that ship with the package, when they are there."""
        return packed_projections()

    def check(self, context: Context) -> None:
        """Check that there are models, and that studies and settings have known names."""
        chosen = context.chosen(AllSettings)
        groups = read_groups(chosen.pages).values() if chosen.pages else ()
        named = [name for group in groups for name in (*group.studies, *group.settings)]
        for name in (*chosen.studies, *chosen.settings, *named):
            STUDIES[name]  # an unknown name raises
        if not context.generated and not (chosen.shipped and cards_in(chosen.zoo)):
            self.refuse("there is no shipped model and none was given")

    def check_seen(self, context: Context) -> dict[str, SeenCount]:
        """Leave the check to each study, with its own reference and models."""
        return {}

    def run(self, context: Context) -> StudyResult:
        """Plan, do study after study, and keep the index up to date."""
        chosen = context.chosen(AllSettings)
        site = None if context.cache.folder is None else context.cache.folder.parent
        with ExitStack() as stack:
            models = list(context.generated)
            if chosen.shipped:
                models = [*shipped_sources(stack, chosen.zoo, chosen.models, chosen.device), *models]
            plan = self._plan(stack, context, models)
            if not plan.jobs:
                reasons = sorted({reason for *_, reason in plan.left_out})
                self.refuse(f"no study fits: {'; '.join(reasons[:3])}")
            done: list[Done] = []
            labels = [model.label for model in models]
            command = study_command(self, context, site)
            asked = Path(chosen.pages).read_text(encoding="utf-8") if chosen.pages else ""
            cards = {name: card.content for name, card in cards_in(chosen.zoo).items()}
            benchmarks = [read_json(path) for path in chosen.benchmarks]
            for done in _do_all(plan.jobs, context, site):
                if site is not None:
                    entrance = Site(done, labels, command, len(plan.jobs), plan.left_out, asked)
                    write_index(site, entrance, cards, benchmarks)
        if site is not None and chosen.publish:
            _publish(site, Path(chosen.publish), done)
        if site is not None and chosen.tidy:
            _tidy(site, done)
        texts = _texts(done, plan, labels, site)
        return StudyResult(_rows(done), texts=texts, data=_data(done, plan, labels))

    def _plan(self, stack: ExitStack, context: Context, models: Sequence[Source]) -> Plan:
        """Return what is to be done, by groups or with all that fits."""
        chosen = context.chosen(AllSettings)
        if chosen.pages:
            groups = read_groups(chosen.pages)
            return plan_groups(stack, groups, context.references, models, context.seed, context.n)
        names = chosen.studies or tuple(
            name for name, study in STUDIES.items() if name != self.name and study.judges
        )
        return make_plan(stack, context.references, models, names, chosen.settings, context.seed, context.n)


def _do_all(jobs: Sequence[Job], context: Context, site: Path | None) -> Iterator[list[Done]]:
    """Do studies, here or on a cluster, and yield those that are done, in the order of the plan, after each."""
    if context.cluster is not None and site is not None:
        site = site.absolute()
    found: dict[int, Done] = {}
    missing: list[int] = []
    for number, job in enumerate(jobs):
        content = None if site is None else _finished(site / job.folder, _key(job, context))
        if content is None:
            missing.append(number)
        else:
            found[number] = _done(job, content)
    if found:
        yield [found[number] for number in sorted(found)]
    tasks = [_task(jobs[number], context, site) for number in missing]
    here = ((place, _do(*task)) for place, task in enumerate(tasks))
    for place, (content, error) in here if context.cluster is None else context.cluster.results(_do, tasks):
        number = missing[place]
        found[number] = _done(jobs[number], content, error)
        if site is not None and not error:
            write_json(site / jobs[number].folder / _STATE, {"key": _key(jobs[number], context)})
        yield [found[number] for number in sorted(found)]


def _done(job: Job, content: dict[str, Any], error: str = "") -> Done:
    return Done(job.study, job.detector, [model.label for model in job.models], job.folder, content, error)


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the content of a study whose folder is there, of the same inputs; None where it is to be done."""
    content = read_record(folder / "study.json")
    return content if (read_record(folder / _STATE) or {}).get("key") == key else None


def _task(job: Job, context: Context, site: Path | None) -> tuple[Any, ...]:
    """Return the arguments of :func:`_do`."""
    common = {
        "output": None if site is None else site / job.folder, "settings": job.settings, "seed": context.seed, "n": job.n,
        "labels": [model.label for model in job.models], "force": True, "showers": None if site is None else site / _SHOWERS,
        "allow_seen": context.allow_seen,
    }  # fmt: skip
    inputs = [[_item(source) for source in sources] for sources in (job.references, job.models)]
    if context.cluster is not None:
        inputs = [[absolute(item) for item in items] for items in inputs]
    return job.study, *inputs, common


def _do(
    study: str, references: Sequence[Any], models: Sequence[Any], common: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Do one study; return its content, or why it failed."""
    try:
        return run_study(study, references, *models, **common).content, ""
    except CaloforgeError as error:
        return {}, str(error)


def _publish(site: Path, target: Path, done: Sequence[Done]) -> None:
    """Copy the index, what it was made of, and the pages, which hold their figures, into a folder."""
    pages = ["index.html", STORED, *(f"{one.folder}/report.html" for one in done if not one.error)]
    for page in pages:
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target / page, force=True) as part:
            shutil.copyfile(site / page, part)


def _tidy(site: Path, done: Sequence[Done]) -> None:
    """Remove what only an interrupted site needs."""
    for folder in (site / _SHOWERS, *(site / one.folder / "cache" for one in done if not one.error)):
        shutil.rmtree(folder, ignore_errors=True)


def _item(source: Source) -> Any:
    """Return a source in the form in which it was opened, so that commands can be repeated."""
    if source.argument == SHIPPED and isinstance(source.showers, ShowerFile):
        return source.showers.path
    return source.argument or source.generator or source.showers


def _key(job: Job, context: Context) -> str:
    """Return a hash of everything that the study's result depends on."""
    return digest_of(
        job.study,
        job.settings,
        [source.sha256 for source in job.references],
        [(model.label, model.sha256) for model in job.models],
        context.seed,
        job.n,
        context.allow_seen,
    )[:20]


def _rows(done: Sequence[Done]) -> list[Row]:
    """Return the numbers beside which a paper has one."""
    return [
        Row(**dict(row) | {"quantity": f"{one.study}: {row['quantity']}", "paper": row["paper"]["key"]})
        for one in done
        for row in one.published
    ]


def _texts(done: Sequence[Done], plan: Plan, labels: Sequence[str], site: Path | None) -> list[str]:
    texts = [
        f"{sum(not one.error for one in done)} studies of {len(labels)} models: {', '.join(labels)}.",
        f"{len(plan.left_out)} combinations of study, reference and model were left out because they do not fit; index.html says why.",
    ]
    texts += [f"{one.study} on {one.detector} failed: {one.error}" for one in done if one.error]
    if site is not None:
        texts.append("The site begins at index.html, beside this page.")
    return texts


def _data(done: Sequence[Done], plan: Plan, labels: Sequence[str]) -> Mapping[str, Any]:
    return {
        "models": list(labels),
        "pages": [{name: value for name, value in vars(one).items() if name != "content"} for one in done],
        "left_out": [
            dict(zip(("study", "reference", "model", "why"), line, strict=True)) for line in plan.left_out
        ],
    }
