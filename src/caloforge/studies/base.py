"""What a study is: a context (reference, generated samples, settings) gives a result.

What a study has computed already: arrays under OUTPUT/cache, found again after an interruption.

An entry is a file ``NAME.npz`` with its arrays and the hash of everything that it depends on. Where the hash differs,
the entry is computed again and replaced.

What a study is: it takes a context (reference, generated samples, settings) and gives a result.

A study of one's own is a class and one registry entry::

    class CountSettings(StudySettings):
        threshold: float = 0.1

    class Count(Study):
        name, title = "count", "Cells hit"
        source = "calomplification"
        needs = "a file of Geant4 showers and generated files of the same detector"
        Settings = CountSettings

        def run(self, context):
            rows = []
            for source in context.generated:
                showers = source.take(1000, context.reference, context.seed)
                hits = (showers.cells > context.settings.threshold).sum(axis=1)
                rows.append(Row("hits", float(hits.mean()), sample=source.label))
            return StudyResult(rows)

    STUDIES.register("count", Count)
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge._version import __version__
from caloforge.errors import InputError
from caloforge.files import atomic_path
from caloforge.settings import Settings as StudySettings
from caloforge.showers.identity import SeenCheck, SeenCount
from caloforge.showers.views import JoinedShowers

if TYPE_CHECKING:
    from caloforge.geometry import Detector
    from caloforge.showers import ShowerSource
    from caloforge.studies.sources import Source
    from caloforge.validate.report.page import Block

__all__ = [
    "REFERENCE",
    "Cache",
    "Context",
    "Figure",
    "Row",
    "Study",
    "StudyResult",
    "StudySettings",
    "sample_labels",
]


_HASH = "__hash__"


class Cache:
    """Arrays by name.

    Arguments:
        folder: Where the files are; None keeps nothing.
        common: What every entry depends on: the settings of the study, its seed.
        showers: Where the showers of models are kept, which several studies may share; by default the same folder.
    """

    def __init__(self, folder: Path | None, common: Any = None, showers: Path | None = None) -> None:
        self.folder, self.common = folder, common
        self.showers = showers or folder

    def get(
        self, name: str, compute: Callable[[], Mapping[str, ArrayLike]], *inputs: Any
    ) -> dict[str, NDArray[Any]]:
        """Return the arrays of an entry, computed when it is not there.

        Arguments:
            name: Name of the entry, a file name.
            compute: Returns the arrays by name.
            inputs: What the entry depends on beside the common things, such as a file's SHA-256; plain values.
        """
        if self.folder is None:
            return {key: np.asarray(value) for key, value in compute().items()}
        path = self.folder / f"{name}.npz"
        wanted = self._hash(name, inputs)
        found = _read(path, wanted)
        if found is not None:
            return found
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, force=True) as part, part.open("wb") as handle:
            np.savez(handle, **arrays, **{_HASH: np.array(wanted)})  # type: ignore[arg-type]
        return arrays

    def _hash(self, name: str, inputs: tuple[Any, ...]) -> str:
        parts = [__version__, name, self.common, list(inputs)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path, wanted: str) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file, or None when it is not there, broken, or of other inputs."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored[_HASH]) != wanted:
                return None
            return {key: stored[key] for key in stored.files if key != _HASH}
    except (OSError, KeyError, ValueError, BadZipFile, EOFError):
        return None


S = TypeVar("S", bound=StudySettings)


@dataclass(frozen=True)
class Row:
    """One number of ours beside the paper's.

    Arguments:
        quantity: What it is.
        ours: Our number; None where it could not be found, and ``note`` says why.
        uncertainty: Of our number, one standard deviation.
        paper: Key of the paper's number in ``papers.toml``; None where the paper has none.
        unit: Unit; empty for a pure number.
        note: What limits it, how it was found.
        sample: Label of the generated sample; empty when it is about the reference.
    """

    quantity: str
    ours: float | None
    uncertainty: float | None = None
    paper: str | None = None
    unit: str = ""
    note: str = ""
    sample: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure, drawn when it is written.

    Arguments:
        name: File name without ending.
        title: A heading over it on the page.
        caption: What it shows.
        draw: Takes ``matplotlib.pyplot`` under the project's style and returns a matplotlib figure.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], Any]


@dataclass
class StudyResult:
    """What a study found.

    Arguments:
        rows: Our numbers beside the paper's.
        figures: Figures in the order of the page.
        texts: Paragraphs that stand first on the page: what was found, what limits it.
        blocks: Further tables or other blocks of the page, by the title of their section.
        data: Everything that the figures show, and more; goes into ``study.json`` as it is.
        showers: How many showers of each sample were used, by label.
        path: The page, once it is written.
        content: The content of ``study.json``.
    """

    rows: Sequence[Row]
    figures: Sequence[Figure] = ()
    texts: Sequence[str] = ()
    blocks: Mapping[str, Sequence[Block]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    showers: Mapping[str, int] = field(default_factory=dict)
    path: Path | None = None
    content: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a study works on.

    Arguments:
        references: Files of trusted showers, at least one.
        generated: Samples and models to judge, as many as were given.
        settings: The study's own settings.
        seed: One seed for all random choices, of models too.
        n: How many showers of each generated sample are wanted; None: the study's own choice.
        cache: What was computed already.
        allow_seen: Whether trusted showers may be ones that a model has seen.
        seen: How many trusted showers each model has seen, by label, where that is known.
    """

    references: tuple[Source, ...]
    generated: tuple[Source, ...]
    settings: Any
    seed: int = 0
    n: int | None = None
    cache: Cache = field(default_factory=lambda: Cache(None))
    allow_seen: bool = False
    seen: Mapping[str, SeenCount] = field(default_factory=dict)

    @cached_property
    def reference(self) -> ShowerSource:
        """All trusted showers as one source.

        Raises:
            IncompatibleError: When the files are not of one detector.
        """
        return self.trusted[0] if len(self.trusted) == 1 else JoinedShowers(self.trusted)

    @property
    def trusted(self) -> list[ShowerSource]:
        """The trusted showers, file by file; unlike :attr:`reference` they may be of several detectors."""
        return [source.showers for source in self.references if source.showers is not None]

    @property
    def reference_hashes(self) -> list[str]:
        """SHA-256 of every reference file, for the cache."""
        return [source.sha256 for source in self.references]

    def size(self, default: int) -> int:
        """Return how many generated showers are wanted."""
        return default if self.n is None else self.n

    def chosen(self, kind: type[S]) -> S:
        """Return the settings, typed."""
        if not isinstance(self.settings, kind):
            msg = f"settings are {type(self.settings).__name__}; expected {kind.__name__}"
            raise InputError(msg)
        return self.settings


class Study(ABC):
    """One published analysis.

    Attributes:
        name: Its name in the registry.
        title: A line for headings and lists.
        source: Key of its document in ``papers.toml``.
        needs: What files it takes, in one line.
        Settings: Class of its settings.
        least_generated: Fewest generated samples.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[str]
    Settings: ClassVar[type[StudySettings]] = StudySettings
    least_generated: ClassVar[int] = 1

    @classmethod
    def default_reference(cls) -> Path | None:
        """Return the reference that ships with the package, or None."""
        return None

    def space(self, detector: Detector) -> str:
        """Return the name of the detector in which showers of a detector are compared: by default its own."""
        return detector.name

    def check(self, context: Context) -> None:
        """Check before any work that the files fit.

        Raises:
            InputError: Says what the study needs.
        """
        if len(context.generated) < self.least_generated:
            self.refuse(f"{len(context.generated)} generated samples were given")

    def check_seen(self, context: Context) -> dict[str, SeenCount]:
        """Check that no model is judged by showers that trained or selected it; return how many are.

        Raises:
            SeenShowersError: When some are and the context does not allow it.
        """
        check = SeenCheck(context.trusted)
        return check.require_unseen(
            ((source.label, source) for source in context.generated), context.allow_seen
        )

    def require_detector(self, source: Source, detector: Detector) -> None:
        """Refuse a generated sample of another detector than the reference's.

        Raises:
            InputError: When it is of another one.
        """
        if source.detector != detector:
            self.refuse(
                f"'{source.label}' is of '{source.detector.name}', the reference of '{detector.name}'"
            )

    def refuse(self, why: str) -> NoReturn:
        """Raise what a user who gave the wrong files must know.

        Raises:
            InputError: Always.
        """
        msg = f"study '{self.name}': {why}; it needs {self.needs}"
        raise InputError(msg)

    @abstractmethod
    def run(self, context: Context) -> StudyResult:
        """Do the analysis."""


REFERENCE = "reference"


def sample_labels(context: Context) -> list[str]:
    """Return the reference's name, then those of the generated samples, all different."""
    labels = [source.label for source in context.generated]
    return ["trusted showers" if REFERENCE in labels else REFERENCE, *labels]
