"""``run_study``: open the inputs, check that they fit, do the study, write its folder.

Layout of the output folder::

    study.json       our numbers beside the paper's, all curves, where everything comes from
    report.html      the page for people
    figures/         PNG and PDF
    cache/           what was computed, so that an interrupted study goes on
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from caloforge.cluster import connected
from caloforge.data import SHIPPED, packed_projections
from caloforge.files import ensure_output_dir, is_empty, lock_folder, write_json
from caloforge.geometry import Detector
from caloforge.random import check_seed
from caloforge.settings import assignments, validated
from caloforge.studies.base import STUDIES, Context, Study, StudyResult, StudySettings
from caloforge.studies.cache import Cache
from caloforge.studies.page import like_with_like, study_content, write_study
from caloforge.studies.sources import Input, open_sources
from caloforge.text_files import read_record

__all__ = ["absolute", "run_study", "study_command", "study_settings"]


def run_study(
    name: str,
    reference: Input | Sequence[Input] | None = None,
    *generated: Input,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | Sequence[str] | StudySettings | None = None,
    seed: int = 0,
    n: int | None = None,
    device: str = "auto",
    detector: str | Path | Detector | None = None,
    labels: Sequence[str] | None = None,
    force: bool = False,
    command: str | None = None,
    showers: str | Path | None = None,
    allow_seen: bool = False,
    scheduler: str | None = None,
) -> StudyResult:
    """Do a study.

    Arguments:
        name: Its name.
        reference: Reference showers, one file or several; ``"shipped"`` or None: those in the package.
        generated: Files, showers, run folders of ``caloforge train``, names of shipped models, or generators.
        output: Folder for ``study.json``, ``report.html`` and ``figures``; nothing is written without it.
        settings: The study's own, as a mapping or as texts ``key=value``.
        seed: Seed of all random choices.
        n: How many showers of each generated sample; by default the study's own choice.
        device: Device of models: ``auto``, ``cpu`` or ``cuda``.
        detector: Detector of files that do not name their own.
        labels: Names of the generated samples, one each.
        force: Write into a folder with something else in it.
        command: The command to note; by default the equivalent one of the command line.
        showers: Folder of generated showers, which several studies may share; by default the study's cache.
        allow_seen: Accept reference showers that were used to train or select a model; the result says how many.
        scheduler: Address of a Dask scheduler (:mod:`caloforge.cluster`) one of whose workers does the study, or some those of ``all``. They find the
            inputs, which are files, and the output under the same paths.

    Raises:
        UnknownNameError: For an unknown study.
        SeenShowersError: When a model was trained or selected on reference showers, unless ``allow_seen``.
        InputError: When the files are not what the study needs.
        OutputExistsError: When something else is in the folder and ``force`` is not set.
    """
    study, seed = STUDIES[name](), check_seed(seed)
    chosen = study_settings(study, settings)
    with ExitStack() as stack:
        cluster = stack.enter_context(connected(scheduler))
        if cluster is not None and not study.several:
            files = [absolute(item) for item in _references(study, reference)]
            inputs, place = [absolute(item) for item in generated], output and Path(output).absolute()
            common: dict[str, Any] = {
                "output": place, "settings": chosen, "seed": seed, "n": n, "device": device, "detector": detector, "labels": labels,
                "force": force, "command": command, "showers": showers, "allow_seen": allow_seen,
            }  # fmt: skip
            [(_, result)] = cluster.results(_run, [(name, files, inputs, common)])
            return result
        references = open_sources(stack, _references(study, reference), detector, device)
        if any(source.showers is None for source in references):
            study.refuse("the reference must be a file of showers")
        samples = open_sources(stack, generated, detector, device, labels)
        context = Context(references, samples, chosen, seed, n, allow_seen=allow_seen)
        study.check(context)
        seen = study.check_seen(context)
        common = {"study": name, "settings": chosen.model_dump(mode="json"), "seed": seed}
        folder = None if output is None else stack.enter_context(lock_folder(output))
        if folder is not None:
            _open_folder(folder, _key(context, common), force)
        cache = Cache(folder and folder / "cache", common, Path(showers) if showers else None)
        context = Context(references, samples, chosen, seed, n, cache, allow_seen, seen, cluster)
        result = study.run(context)
        like_with_like(result, study.space(references[0].detector).name)
        line = command or study_command(study, context, folder)
        result.content = study_content(study, context, result, line)
        if folder is not None:
            result.path = write_study(folder, study, result)
    return result


def _run(
    name: str, references: Sequence[Input], generated: Sequence[Input], common: dict[str, Any]
) -> StudyResult:
    """Do a study, on a worker."""
    return run_study(name, references, *generated, **common)


def absolute(item: Any) -> Any:
    """Return the absolute path of what is there; anything else as it is."""
    return str(Path(item).absolute()) if isinstance(item, str | Path) and Path(item).exists() else item


def study_settings(
    study: Study | type[Study], values: Mapping[str, Any] | Sequence[str] | StudySettings | None
) -> StudySettings:
    """Return the settings of a study, from a mapping or from texts ``key=value``.

    Raises:
        ConfigError: For an unknown key or a wrong value.
    """
    if isinstance(values, StudySettings):
        return values
    if isinstance(values, Mapping):
        return validated(study.Settings, values, f"settings of '{study.name}'")
    return validated(study.Settings, dict(assignments(values)), "--set")


def _references(study: Study, inputs: Input | Sequence[Input] | None) -> list[Input]:
    """Return the reference showers as a list, the shipped ones by their path."""
    listed: list[Input] = list(inputs) if isinstance(inputs, list | tuple) else [inputs or SHIPPED]  # type: ignore[list-item]
    shipped = study.default_reference() or (None if inputs is None else packed_projections())
    if SHIPPED in listed and shipped is None:
        study.refuse("the package ships no reference for it")
    return [cast(Path, shipped) if item == SHIPPED else item for item in listed]


def _key(context: Context, common: Mapping[str, Any]) -> str:
    """Return a short hash that tells this study of these inputs from others."""
    hashes = [[source.sha256 for source in role] for role in (context.references, context.generated)]
    labels = [source.label for source in context.generated]
    parts = json.dumps([common, hashes, labels, context.n], sort_keys=True, default=str)
    return hashlib.sha256(parts.encode()).hexdigest()[:20]


def _open_folder(folder: Path, key: str, force: bool) -> None:
    """Make the output folder, or continue in the one of the same study of the same inputs."""
    state = folder / "cache" / "inputs.json"
    same = (read_record(state) or {}).get("key") == key
    ensure_output_dir(folder, force=force or same or is_empty(folder, [state.name]))
    (folder / "cache").mkdir(exist_ok=True)
    write_json(state, {"key": key})


def study_command(study: Study, context: Context, folder: Path | None) -> str:
    """Return the command, or for what exists in memory alone the call, that does the same study."""
    defaults = study.Settings().model_dump(mode="json")
    chosen = context.settings.model_dump(mode="json")
    changed = {key: value for key, value in chosen.items() if value != defaults.get(key)}
    sources = (*context.references, *context.generated)
    if not all(source.argument for source in sources):
        names = ", ".join(source.label for source in sources)
        return f"run_study('{study.name}', {names}, settings={changed}, seed={context.seed}, n={context.n})"
    first, *more = [source.argument for source in context.references]
    words = ["caloforge", "study", study.name, first, *(source.argument for source in context.generated)]
    for file in more:
        words += ["--truth", file]
    for key, value in changed.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    words += [] if context.n is None else ["-n", str(context.n)]
    words += [] if context.seed == 0 else ["--seed", str(context.seed)]
    words += ["--allow-seen"] if context.allow_seen else []
    words += [] if folder is None else ["-o", str(folder)]
    return shlex.join(words)
