"""How the shipped models are trained: the recipes of ``zoo.toml``, their files, and trainings side by side."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field

from caloforge.errors import CaloforgeError, ConfigError, InputError, did_you_mean
from caloforge.files import sha256_file
from caloforge.settings import Settings, validated
from caloforge.showers import open_showers, write_showers
from caloforge.showers.seen import seeds_of
from caloforge.showers.views import ProjectedShowers
from caloforge.text_files import read_toml
from caloforge.train import RunFolder
from caloforge.train.settings import Resolved, resolve
from caloforge.zoo.shipping import images_name

__all__ = [
    "Jobs", "Recipe", "chosen", "finished", "found", "named", "prepared", "read_recipes", "read_sealed",
    "require_unsealed", "train_side_by_side", "train_words",
]  # fmt: skip


SEALED = "sealed"
"""The table of sealed simulation seeds."""
_SEEDS = re.compile(r"(\d+)(?:-(\d+))?")


class Recipe(Settings):
    """One shipped model; see the head of ``zoo.toml``."""

    model: str
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    held: tuple[str, ...] = ()
    images: str = ""
    preset: str | None = None
    set: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    trainings: Annotated[int, Field(ge=1)] = 1
    combine: str = "best"
    device: str = "cuda"
    best: bool = False
    eight_bits: bool = False

    def overrides(self) -> list[str]:
        """Return all settings, as ``--set`` takes them."""
        several = [f"train.trainings={self.trainings}", f'train.combine="{self.combine}"']
        return [*self.set, *(several if self.trainings > 1 else [])]

    def resolved(self) -> Resolved:
        """Return all its settings."""
        return resolve(self.model, overrides=self.overrides(), preset=self.preset)

    def checked(self, where: str) -> Self:
        """Return the recipe; raise ConfigError when a setting of one of its trainings is wrong."""
        try:
            self.resolved()
            resolve(self.model, overrides=self.first, preset=self.preset)
        except InputError as error:
            msg = f"{where}: {error}"
            raise ConfigError(msg) from error
        return self

    def first_recipe(self) -> Recipe:
        """Return the recipe of the first training, with its settings."""
        return self.model_copy(update={"set": self.first, "first": ()})

    def begun(self, run: Path) -> Recipe:
        """Return the recipe that begins from the weights of a run."""
        return self.model_copy(update={"set": (*self.set, f'train.initial="{run}/weights.safetensors"')})


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Read recipes by name, and check every setting of every one before any work.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a key or a setting is wrong.
    """
    content = read_toml(path)
    recipes = {}
    for name, values in content.items():
        if name == SEALED:
            continue
        recipe = validated(Recipe, values, f"{path}: [{name}]")
        recipes[name] = recipe.checked(f"{path}: [{name}]")
    return recipes


def read_sealed(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the sealed simulation seeds of each data set, such as ``atlas-photon = "9300-9399"``.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a value is not a range of seeds.
    """
    sealed = {}
    for name, text in read_toml(path).get(SEALED, {}).items():
        seeds: list[int] = []
        for part in str(text).split(","):
            found = _SEEDS.fullmatch(part.strip())
            if found is None:
                where = f"{path}: [{SEALED}] {name}"
                msg = f"{where}: '{text}' names no seeds; expected a text such as '9300-9399'"
                raise ConfigError(msg)
            seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
        sealed[name] = tuple(seeds)
    return sealed


def require_unsealed(name: str, files: Sequence[Path], sealed: Mapping[str, Collection[int]]) -> None:
    """Refuse to train a model, ``DATASET/MODEL``, on files with sealed showers of its data set.

    Raises:
        InputError: When a file has such a seed.
    """
    data_set = name.partition("/")[0]
    for path in files:
        with open_showers(path) as file:
            wrong = sorted(set(seeds_of(file)) & set(sealed.get(data_set, ())))
        if wrong:
            msg = f"{path}: has the sealed seed {wrong[0]} of {data_set}; '{name}' must not be trained on it"
            raise InputError(msg)


R = TypeVar("R", bound=Recipe)


def chosen(recipes: Mapping[str, R], only: Sequence[str]) -> dict[str, R]:
    """Return the recipes of these names, ``DATASET/MODEL``, ``DATASET`` or ``MODEL``; all when there are none.

    Raises:
        InputError: When a name is nobody's.
    """
    return named(recipes, {one: (one, *one.split("/")) for one in recipes}, only, "recipe", recipes)


def named(
    recipes: Mapping[str, R],
    names: Mapping[str, Collection[str]],
    only: Sequence[str],
    kind: str,
    known: Collection[str],
) -> dict[str, R]:
    """Return the recipes one of whose ``names`` is wanted; ``kind`` and the ``known`` names are for the message."""
    for wanted in only:
        if not any(wanted in own for own in names.values()):
            msg = f"no {kind} is called '{wanted}'; {did_you_mean(wanted, list(known))}"
            raise InputError(msg)
    return {one: recipe for one, recipe in recipes.items() if not only or set(only) & set(names[one])}


def found(patterns: Sequence[str], folders: Sequence[Path], needed: bool = True) -> list[Path]:
    """Return the files of names or patterns, pattern by pattern, sorted within each.

    Raises:
        InputError: When a pattern finds nothing and ``needed`` is set.
    """
    files: list[Path] = []
    for pattern in patterns:
        matches = sorted({path.resolve() for folder in folders for path in folder.glob(pattern)})
        if not matches and needed:
            msg = f"'{pattern}' is not in {', '.join(map(str, folders))}; expected a file of showers there"
            raise InputError(msg)
        files += [path for path in matches if path not in files]
    return files


def prepared(recipe: Recipe, files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the files that the training reads: images are made once, and again when the showers have changed."""
    if not recipe.images:
        return list(files)
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for path in files:
        image = folder / images_name(path.name, recipe.images)
        note = image.with_suffix(".sha256")
        digest = sha256_file(path)
        if not (image.exists() and note.exists() and note.read_text() == digest):
            with open_showers(path) as showers:
                write_showers(image, ProjectedShowers(showers, recipe.images), force=True)
            note.write_text(digest)
        images.append(image)
    return images


def train_words(recipe: Recipe, data: Sequence[Path], run: Path, device: str, fresh: bool) -> list[str]:
    """Return the command that trains a recipe, or continues when its run folder exists."""
    words = [sys.executable, "-c", "from caloforge.cli.app import main; main()"]
    words += ["train", recipe.model, *map(str, data), "-o", str(run)]
    words += [] if recipe.preset is None else ["--preset", recipe.preset]
    for text in recipe.overrides():
        words += ["--set", text]
    words += ["--device", device, "--seed", str(recipe.seed)]
    if fresh:
        return [*words, "--force"]
    return [*words, "--resume"] if (run / "run.json").exists() else words


@dataclass(frozen=True)
class Jobs:
    """Where trainings run side by side."""

    runs: Path  # folder of the run folders and their logs
    number: int | None = None  # trainings at a time; None for one on each GPU, or one without GPUs
    gpus: tuple[str, ...] | None = None  # numbers of the GPUs; None for all of this machine
    device: str | None = None  # ``cpu`` or ``cuda`` instead of the recipes' devices
    threads: int = 1  # CPU threads of a training
    fresh: bool = False  # train again from nothing

    def gpu_numbers(self) -> tuple[str, ...]:
        """Return the GPUs to use, none where everything runs on the CPU."""
        if self.device == "cpu":
            return ()
        if self.gpus is not None:
            return self.gpus
        import torch

        return tuple(map(str, range(torch.cuda.device_count())))


def finished(run: Path) -> bool:
    """Return whether a folder is that of a finished training."""
    return RunFolder(run).info.exists() and RunFolder(run).read().get("status") == "finished"


def train_side_by_side(
    recipes: Mapping[str, Recipe], files: Mapping[str, Sequence[Path]], jobs: Jobs
) -> list[str]:
    """Train recipes, each in a process with a log beside its run folder, several at a time over the GPUs.

    A stopped run continues; an interrupt stops all of them.

    Arguments:
        recipes: Recipes by name, which is that of the run folder.
        files: Files of showers by the same names.

    Returns:
        The names of those that failed.
    """
    gpus = jobs.gpu_numbers()
    workers = jobs.number or max(1, len(gpus))
    free: queue.Queue[str] = queue.Queue()
    for number in range(workers):
        free.put(gpus[number % len(gpus)] if gpus else "")
    running: list[subprocess.Popen[bytes]] = []

    def train(name: str, recipe: Recipe) -> bool:
        gpu = free.get()
        try:
            if recipe.first:
                before = f"{name}-first"
                first = before, recipe.first_recipe(), files[name], gpu, jobs, running
                if not finished(jobs.runs / before) and not _train(*first):
                    return False
                recipe = recipe.begun(jobs.runs / before)
            return _train(name, recipe, files[name], gpu, jobs, running)
        except CaloforgeError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return False
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(workers) as pool:
        futures = {name: pool.submit(train, name, recipe) for name, recipe in recipes.items()}
        try:
            return [name for name, future in futures.items() if not future.result()]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _train(
    name: str, recipe: Recipe, files: Sequence[Path], gpu: str, jobs: Jobs,
    running: list[subprocess.Popen[bytes]],
) -> bool:  # fmt: skip
    """Train one recipe in a process, its output in a log; return whether it ended well."""
    run = jobs.runs / name
    run.parent.mkdir(parents=True, exist_ok=True)
    data = prepared(recipe, files, jobs.runs / "images")
    fresh = jobs.fresh or (run.is_dir() and not (run / "run.json").exists())
    device = jobs.device or recipe.device
    words = train_words(recipe, data, run, device, fresh)
    environment = {**os.environ, "OMP_NUM_THREADS": str(jobs.threads)}
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    log = run.with_suffix(".log")
    where = f"GPU {gpu}" if gpu else device
    print(f"{name}: {'continued' if '--resume' in words else 'started'} on {where}", flush=True)
    began = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        running.append(process)
        failed = process.wait() != 0
    seconds = time.monotonic() - began
    if failed:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        print(f"{name}: failed after {seconds:.0f} s: {last[0]} (see {log})", file=sys.stderr, flush=True)
    else:
        print(f"{name}: trained in {seconds:.0f} s", flush=True)
    return not failed
