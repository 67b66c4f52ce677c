"""Which showers a training has seen: their identities, kept beside the weights and inherited through them.

A run folder has ``identities.npz`` with three sorted sets of identities (uint64): ``training``, ``selection`` (held-out
showers, by which epochs are chosen) and ``inherited`` (what the weights of ``train.initial`` had seen before). A shipped
model has ``MODEL.identities.npy`` with all of them. Models are calibrated on training showers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError
from caloforge.files import atomic_path, read_json
from caloforge.showers.hdf5 import SEEN_INCOMPLETE, SEEN_SEEDS
from caloforge.showers.identity import NO_IDENTITIES, seen_union

__all__ = ["SeenByTraining", "inherited_from", "read_identities", "shipped_identities", "write_identities"]

_NAMES = ("training", "selection", "inherited")
_MEMBER = re.compile(r"-\d+$")
RUN_FILE = "identities.npz"


def _nothing() -> NDArray[np.uint64]:
    return NO_IDENTITIES


@dataclass(frozen=True)
class SeenByTraining:
    """What a training has seen.

    Attributes:
        training: Identities of the training showers, sorted; the model is calibrated on them too.
        selection: Identities of the held-out showers, by which epochs are chosen.
        inherited: Identities that the weights had seen from which the training began.
        seeds: Simulation seeds that those weights had seen, whose files are lost.
        missing: Why more may have been seen than is known; empty: all is known.
    """

    training: NDArray[np.uint64] = field(default_factory=_nothing)
    selection: NDArray[np.uint64] = field(default_factory=_nothing)
    inherited: NDArray[np.uint64] = field(default_factory=_nothing)
    seeds: tuple[int, ...] = ()
    missing: str = ""

    @property
    def all(self) -> NDArray[np.uint64]:
        """Every identity that was seen, sorted."""
        return seen_union([self.training, self.selection, self.inherited])

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it."""
        counts = {name: len(getattr(self, name)) for name in _NAMES}
        return {**counts, "seeds": list(self.seeds), "complete": not self.missing} | (
            {"missing": self.missing} if self.missing else {}
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that generated showers get beside the identities."""
        return ({SEEN_SEEDS: list(self.seeds)} if self.seeds else {}) | (
            {SEEN_INCOMPLETE: self.missing} if self.missing else {}
        )

    def write(self, folder: Path) -> None:
        """Write the identities into a run folder."""
        with atomic_path(folder / RUN_FILE, force=True) as part, part.open("wb") as handle:
            np.savez_compressed(handle, **{name: getattr(self, name) for name in _NAMES})

    @classmethod
    def read(cls, folder: Path, facts: dict[str, Any] | None = None) -> SeenByTraining:
        """Read a run folder.

        Arguments:
            folder: The run folder.
            facts: What its ``run.json`` says under ``seen``.

        Raises:
            FileFormatError: When the file of identities is broken.
        """
        facts = facts or {}
        path = folder / RUN_FILE
        seeds = tuple(int(seed) for seed in facts.get("seeds", ()))
        if not path.is_file():
            missing = (
                f"{path.name} is missing in the run folder '{folder.name}', which an older version wrote"
            )
            return cls(seeds=seeds, missing=missing)
        try:
            with np.load(path, allow_pickle=False) as stored:
                sets = {name: seen_union([stored[name]]) for name in _NAMES}
        except (OSError, KeyError, ValueError, BadZipFile, EOFError) as error:
            raise FileFormatError(path, "", f"does not hold identities of showers: {error}") from error
        return cls(**sets, seeds=seeds, missing=str(facts.get("missing", "")))


def inherited_from(weights: Path) -> SeenByTraining:
    """Return what the weights of a file have seen, as ``inherited``: a run's weights or a shipped model's."""
    if (weights.parent / RUN_FILE).is_file():
        before = SeenByTraining.read(weights.parent, _seen_facts(weights.parent / "run.json"))
        return SeenByTraining(inherited=before.all, seeds=before.seeds, missing=before.missing)
    shipped = shipped_identities(weights)
    if shipped.is_file():
        seeds = _seen_facts(shipped.with_name(f"{shipped.name.removesuffix('.identities.npy')}.json"))
        return SeenByTraining(
            inherited=read_identities(shipped), seeds=tuple(int(seed) for seed in seeds.get("seeds", ()))
        )
    return SeenByTraining(missing=f"no identities lie beside the weights of train.initial, {weights.name}")


def shipped_identities(weights: Path) -> Path:
    """Return where the identities lie that belong to a shipped model's weights or card."""
    return weights.with_name(f"{_MEMBER.sub('', weights.stem)}.identities.npy")


def read_identities(path: Path) -> NDArray[np.uint64]:
    """Read a set of identities.

    Raises:
        FileFormatError: When the file is missing or broken.
    """
    try:
        return seen_union([np.load(path, allow_pickle=False)])
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(path, "", f"does not hold identities of showers: {error}") from error


def write_identities(path: Path, sets: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Write the union of sets of identities, and return it."""
    union = seen_union(sets)
    with atomic_path(path, force=True) as part, part.open("wb") as handle:
        np.save(handle, union, allow_pickle=False)
    path.chmod(0o644)
    return union


def _seen_facts(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    facts: dict[str, Any] = content.get("seen") or {}
    return facts
