"""The trainings of the flagship's study, from ``flagship.toml``, and the generators that are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from caloforge.errors import ConfigError, InputError
from caloforge.files import sha256_file
from caloforge.generate import Generator
from caloforge.models import MODELS
from caloforge.models.base import ShowerModel
from caloforge.models.flow.calibrated import FITTED
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.models.flow.model import FlowMatching
from caloforge.models.flow.settings import FlowSampling
from caloforge.settings import validated
from caloforge.text_files import read_toml
from caloforge.train import RunFolder
from caloforge.zoo.recipes import Recipe, finished, named
from caloforge.zoo.shipping import train_command
from caloforge.zoo.store import find_card, load

__all__ = [
    "BASELINE", "GROUPS", "STEPS", "Entry", "Group", "Source", "Task", "entries_of", "facts_of_model",
    "read_plan", "tasks_of", "teacher_of",
]  # fmt: skip


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


def read_plan(path: Path) -> dict[str, Entry]:
    """Read the trainings by name; check every setting of every one, and that the baseline is among them.

    ``set`` holds the common settings, then the entry's, which alone are ``own``.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a key or a setting is wrong.
    """
    content = read_toml(path)
    common = content.pop("common", {})
    plan = {}
    for name, values in content.items():
        own = values.get("set", [])
        merged = {**common, **values, "set": [*common.get("set", []), *own], "own": own}
        plan[name] = validated(Entry, merged, f"{path}: [{name}]").checked(f"{path}: [{name}]")
    if BASELINE not in plan:
        msg = f"{path}: [{BASELINE}] is missing; the others are compared with it"
        raise ConfigError(msg)
    return plan


def entries_of(plan: Mapping[str, Entry], only: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of these names, groups, data sets or models; all when there are none.

    Raises:
        InputError: When a name is nobody's.
    """
    names = {name: (name, *entry.figure, entry.dataset, entry.model) for name, entry in plan.items()}
    return named(plan, names, only, "training", [*GROUPS, *plan])


STEPS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Source:
    """A run folder or a shipped model, with its description."""

    path: str  # the folder, or ``DATASET/MODEL``
    model: str  # registered name of the model
    weights: tuple[str, ...]  # hashes of its weights
    data: tuple[str, ...]  # hashes of the files that it was trained on
    facts: Mapping[str, Any]  # what the results say of the training

    @classmethod
    def of(cls, path: str | Path) -> Source:
        """Read a run folder or the card of a shipped model."""
        return cls._of_run(Path(path)) if Path(path).is_dir() else cls._of_card(str(path))

    @classmethod
    def _of_run(cls, path: Path) -> Source:
        folder, info = RunFolder(path), RunFolder(path).read()
        files = info["data"].get("files", [info["data"]])
        weights = [sha256_file(folder.weights(member)) for member in range(info["members"])]
        command = train_command(folder, [entry["file"] for entry in files], f"runs/{path.name}")
        trained = info["train_showers"], command, info["wall_seconds"], info["hardware"]
        return cls._described(str(path), info["model"], weights, files, *trained)

    @classmethod
    def _of_card(cls, name: str) -> Source:
        card = find_card(name).content
        weights, hardware = [entry["sha256"] for entry in card["weights"]], card["hardware"]
        trained = card["train_showers"], card["command"], hardware["wall_seconds"], hardware["name"]
        return cls._described(name, card["model"], weights, card["data"]["files"], *trained)

    @classmethod
    def _described(
        cls, path: str, model: str, weights: Sequence[str], files: Sequence[Mapping[str, Any]],
        showers: int, command: str, seconds: float, hardware: str,
    ) -> Source:  # fmt: skip
        trained = {"seconds": round(seconds), "hardware": hardware}
        facts = {"train_showers": showers, "command": command, "trained": trained}
        return cls(path, model, tuple(weights), tuple(entry["sha256"] for entry in files), facts)

    @property
    def is_student(self) -> bool:
        """Whether it generates in a few learnt jumps."""
        return issubclass(MODELS[self.model], FlowMatchingFast)


@dataclass(frozen=True)
class Task:
    """One generator to measure."""

    name: str  # key in the results: the run's name, with ``@STEPS`` where they are chosen
    source: Source  # where its weights are
    facts: Mapping[str, Any]  # title, figures and series
    options: Mapping[str, Any] = field(default_factory=dict)  # what is chosen at generation
    teacher: bool = False  # take the teacher out of the run of a student

    def generator(self, device: str) -> Generator:
        """Load it."""
        if self.teacher:
            return teacher_of(load(self.source.path, device), self.options)
        return load(self.source.path, device, dict(self.options))


def tasks_of(
    plan: Mapping[str, Entry], runs: Path, students: Sequence[str] = (), steps: Sequence[int] = STEPS
) -> Iterator[Task]:
    """Yield the generators to measure: finished runs of the plan, then further students with their teachers.

    Arguments:
        runs: Folder of the run folders.
        students: Run folders or shipped models.
        steps: Steps of the group ``steps``.

    Raises:
        InputError: When one of the students is no flow.
    """
    for name, entry in plan.items():
        if not finished(runs / name):
            print(f"{name}: is not trained; left out", flush=True)
            continue
        facts = {"title": entry.title, "figure": list(entry.figure), "series": name, "set": list(entry.own)}
        yield from _with_steps(Task(name, Source.of(runs / name), facts), steps)
    for given in students:
        source = Source.of(given)
        if not issubclass(MODELS[source.model], FlowMatching):
            msg = f"{given} is a {source.model}; expected a flow-matching or flow-matching-fast"
            raise InputError(msg)
        name = Path(given).name if Path(given).is_dir() else find_card(given).name
        yield from _with_steps(
            Task(name, source, {"title": name, "figure": ["steps"], "series": name, "set": []}), steps
        )


def _with_steps(task: Task, steps: Sequence[int]) -> Iterator[Task]:
    """Yield a task, and when it is of the group ``steps``, the same with other numbers of them."""
    yield task
    student = task.source.is_student
    if "steps" not in task.facts["figure"] or (student and not Path(task.source.path).is_dir()):
        return
    for number in steps:
        if student or number != FlowSampling().steps:
            who = f"{task.facts['title']}'s teacher" if student else task.facts["title"]
            facts = {**task.facts, "title": f"{who}, {number} steps", "figure": ["steps"]}
            options = {"steps": number, "summary_steps": number}
            yield Task(f"{task.name}@{number}", task.source, facts, options, teacher=student)


def teacher_of(student: Generator, options: Mapping[str, Any]) -> Generator:
    """Return the teacher inside the run of a student, with sampling options.

    The calibration, which was fitted to the student, is left out.
    """
    members = []
    for member in student.members:
        known = FlowMatching.Config.model_fields
        config = {key: value for key, value in member.config.model_dump().items() if key in known}
        teacher = FlowMatching(member.detector, FlowMatching.resolve(config))
        fresh = teacher.state_dict()
        state = {
            name: value
            for name, value in member.state_dict().items()
            if name in fresh and not name.startswith(FITTED)
        }
        state |= {name: value for name, value in fresh.items() if name.startswith(("rings.", "values.cal"))}
        teacher.load_weights(state)
        members.append(teacher.eval().choose({**options, "calibrated": False}).to(student.device))
    return Generator(members, f"{student.name} teacher", student.particle, student.device)


def facts_of_model(model: ShowerModel) -> dict[str, Any]:
    """Return how a flow generates its cells: ``kind``, ``steps``, and ``evaluations`` of the network a shower.

    A step takes two; without inner steps of the cells the last one of a shower takes one.
    """
    if isinstance(model, FlowMatchingFast):
        return {"kind": "student", "steps": model.config.jumps, "evaluations": model.config.jumps}
    steps = getattr(model.sampling, "steps", 0)
    saved = 0 if getattr(model.sampling, "substeps", 0) else 1
    return {"kind": "teacher", "steps": steps, "evaluations": max(0, 2 * steps - saved)}
