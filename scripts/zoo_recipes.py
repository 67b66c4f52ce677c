"""How the shipped models are trained: the recipes of ``zoo.toml``, their files, and their commands."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from caloforge.errors import ConfigError, FileFormatError, InputError
from caloforge.files import sha256_file
from caloforge.settings import Settings, validated
from caloforge.showers import open_showers, write_showers
from caloforge.showers.identity import seeds_of
from caloforge.showers.projection import projected_chunks
from caloforge.train.settings import resolve
from caloforge.zoo.shipping import images_name

__all__ = [
    "Recipe",
    "chosen",
    "found",
    "prepared",
    "read_recipes",
    "read_sealed",
    "read_tables",
    "require_unsealed",
    "train_words",
]

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

    def overrides(self) -> list[str]:
        """Return all settings, as ``--set`` takes them."""
        several = [f"train.trainings={self.trainings}", f'train.combine="{self.combine}"']
        return [*self.set, *(several if self.trainings > 1 else [])]

    def first_recipe(self) -> Recipe:
        """Return the training that comes first, with settings of its own."""
        return self.model_copy(update={"set": self.first, "first": ()})

    def begun(self, run: Path) -> Recipe:
        """Return the recipe that begins from the weights of a run."""
        return self.model_copy(update={"set": (*self.set, f'train.initial="{run}/weights.safetensors"')})


def read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Read the tables of a TOML file.

    Raises:
        FileFormatError: When the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(path, "", f"cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(path, "", f"is not TOML: {error}") from error


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Read recipes by name, and check every setting of every one before any work.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a key or a setting is wrong.
    """
    content = read_tables(path)
    recipes = {}
    for name, values in content.items():
        if name == SEALED:
            continue
        recipe = validated(Recipe, values, f"{path}: [{name}]")
        try:
            resolve(recipe.model, overrides=recipe.overrides(), preset=recipe.preset)
            resolve(recipe.model, overrides=recipe.first, preset=recipe.preset)
        except InputError as error:
            msg = f"{path}: [{name}]: {error}"
            raise ConfigError(msg) from error
        recipes[name] = recipe
    return recipes


def read_sealed(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the sealed simulation seeds of each data set, such as ``atlas-photon = "9300-9399"``.

    Raises:
        FileFormatError: When the file is missing or not TOML.
        ConfigError: When a value is not a range of seeds.
    """
    sealed = {}
    for name, text in read_tables(path).get(SEALED, {}).items():
        seeds: list[int] = []
        for part in str(text).split(","):
            found = _SEEDS.fullmatch(part.strip())
            if found is None:
                msg = (
                    f"{path}: [{SEALED}] {name}: '{text}' names no seeds; expected a text such as '9300-9399'"
                )
                raise ConfigError(msg)
            seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
        sealed[name] = tuple(seeds)
    return sealed


def require_unsealed(name: str, files: Sequence[Path], sealed: Mapping[str, Collection[int]]) -> None:
    """Refuse to train a model on sealed showers of its data set.

    Arguments:
        name: ``DATASET/MODEL``.
        files: Files that it is to be trained on.
        sealed: Sealed seeds of each data set.

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


def chosen(recipes: dict[str, Recipe], only: Sequence[str]) -> dict[str, Recipe]:
    """Return the recipes of these names, ``DATASET/MODEL``, ``DATASET`` or ``MODEL``; all when there are none.

    Raises:
        InputError: When a name is nobody's.
    """
    for name in only:
        if not any(name in (one, *one.split("/")) for one in recipes):
            msg = f"no recipe is called '{name}'; known: {', '.join(recipes)}"
            raise InputError(msg)
    return {
        one: recipe
        for one, recipe in recipes.items()
        if not only or any(name in (one, *one.split("/")) for name in only)
    }


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
                write_showers(image, projected_chunks(showers, recipe.images), force=True)
            note.write_text(digest)
        images.append(image)
    return images


def train_words(recipe: Recipe, data: Sequence[Path], run: Path, device: str, fresh: bool) -> list[str]:
    """Return the command that trains a recipe, or goes on with it when its run folder was begun."""
    words = [sys.executable, "-c", "from caloforge.cli.app import main; main()"]
    words += ["train", recipe.model, *map(str, data), "-o", str(run)]
    words += [] if recipe.preset is None else ["--preset", recipe.preset]
    for text in recipe.overrides():
        words += ["--set", text]
    words += ["--device", device, "--seed", str(recipe.seed)]
    if fresh:
        return [*words, "--force"]
    return [*words, "--resume"] if (run / "run.json").exists() else words
