"""A study takes a context (reference, generated samples, settings) and gives a result.

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

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from numpy.typing import ArrayLike, NDArray

from caloforge.cluster import Cluster
from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.registry import Registry
from caloforge.settings import Settings as StudySettings
from caloforge.showers import ShowerSource
from caloforge.showers.description import html_table
from caloforge.showers.seen import SeenCheck, SeenCount
from caloforge.showers.views import JoinedShowers
from caloforge.studies.cache import Cache
from caloforge.studies.sources import SIMULATIONS, Source, cached_generation, within
from caloforge.validate.report.page import Block

__all__ = ["STUDIES", "Context", "Figure", "Row", "Study", "StudyResult", "StudySettings", "WindowSettings"]

S = TypeVar("S", bound=StudySettings)


class WindowSettings(StudySettings):
    """Settings of a study of showers of some energies and angles, in memory."""

    energy: str = ""  # only showers of these incident energies, such as ``97.5-102.5GeV``; empty: all
    theta: str = ""  # only showers of these angles, such as ``87.5-92.5``; empty: all
    device: str = "auto"  # device of torch: ``auto`` takes a GPU when there is one

    def of(self, source: ShowerSource) -> ShowerSource:
        """Return the showers of a source within the windows."""
        return within(source, self.energy, self.theta)


@dataclass(frozen=True)
class Row:
    """One measured number beside that of the paper."""

    quantity: str  # what it is
    ours: float | None  # None or not finite where it could not be found, and ``note`` says why
    uncertainty: float | None = None  # of our number, one standard deviation
    paper: str | None = None  # key of the paper's number in ``papers.toml``; None where the paper has none
    unit: str = ""  # unit; empty for a pure number
    note: str = ""  # what limits it, how it was found
    sample: str = ""  # label of the generated sample; empty when it is about the reference

    def __post_init__(self) -> None:
        for name in ("ours", "uncertainty"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, float(value) if math.isfinite(value) else None)


@dataclass(frozen=True)
class Figure:
    """A figure, drawn when it is written."""

    name: str  # file name without ending
    title: str  # a heading over it on the page
    caption: str  # what it shows
    draw: Callable[[Any], Any]  # takes ``pyplot`` under the project's style and returns a figure


@dataclass
class StudyResult:
    """The result of a study."""

    rows: Sequence[Row]  # our numbers beside the paper's
    figures: Sequence[Figure] = ()  # figures in the order of the page
    texts: Sequence[str] = ()  # paragraphs that stand first on the page
    blocks: Mapping[str, Sequence[Block]] = field(default_factory=dict)  # further ones, by section
    data: Mapping[str, Any] = field(default_factory=dict)  # everything for ``study.json``
    showers: Mapping[str, int] = field(default_factory=dict)  # how many were used, by label
    path: Path | None = None  # the page, once it is written
    content: dict[str, Any] = field(default_factory=dict)  # the content of ``study.json``

    def __repr__(self) -> str:
        return f"StudyResult({len(self.rows)} numbers{'' if self.path is None else f', {self.path}'})"

    def _repr_html_(self) -> str:
        """Return our numbers as a table for notebooks."""
        rows = [
            (
                f"{row.sample} {row.quantity}".strip(),
                f"{row.ours} {row.unit}" if row.ours is not None else "-",
            )
            for row in self.rows
        ]
        return html_table("Study", rows)


@dataclass(frozen=True)
class Context:
    """The inputs of a study."""

    references: tuple[Source, ...]  # files of reference showers, at least one
    generated: tuple[Source, ...]  # samples and models to judge
    settings: Any  # the study's own settings
    seed: int = 0  # one seed for all random choices, of models too
    n: int | None = None  # how many showers of each generated sample; None: the study's own choice
    cache: Cache = field(default_factory=lambda: Cache(None))  # what was computed before
    allow_seen: bool = False  # whether the reference may have showers of training or selection
    seen: Mapping[str, SeenCount] = field(default_factory=dict)  # reference showers seen, by model
    cluster: Cluster | None = None  # whose workers do the studies of a study of several

    @cached_property
    def reference(self) -> ShowerSource:
        """All reference showers as one source.

        Raises:
            IncompatibleError: When the files are not of one detector.
        """
        parts = self.reference_parts
        return parts[0] if len(parts) == 1 else JoinedShowers(parts)

    @property
    def reference_parts(self) -> list[ShowerSource]:
        """The reference showers, file by file; unlike :attr:`reference` they may be of several detectors."""
        return [source.showers for source in self.references if source.showers is not None]

    @property
    def n_reference(self) -> int:
        """Number of reference showers in all files."""
        return sum(len(part) for part in self.reference_parts)

    @property
    def reference_hashes(self) -> list[str]:
        """SHA-256 of every reference file, for the cache."""
        return [source.sha256 for source in self.references]

    @property
    def reference_name(self) -> str:
        """The simulation that made the reference, such as "Geant4", else the name of its file."""
        return SIMULATIONS.get(self.reference.source, self.references[0].label)

    @property
    def labels(self) -> list[str]:
        """Names of all samples, all different: "reference" first."""
        labels = [source.label for source in self.generated]
        return ["reference showers" if "reference" in labels else "reference", *labels]

    @property
    def shown(self) -> list[str]:
        """Names of all samples in figures: that of the reference first, "Geant4" where that simulation made it."""
        first, *labels = self.labels
        name = SIMULATIONS.get(self.reference.source, first)
        return [first if name in labels else name, *labels]

    def size(self, default: int) -> int:
        """Return how many generated showers are wanted."""
        return default if self.n is None else self.n

    def chosen(self, kind: type[S]) -> S:
        """Return the settings, typed."""
        if not isinstance(self.settings, kind):
            raise InputError(f"settings are {type(self.settings).__name__}; expected {kind.__name__}")
        return self.settings

    def measured(
        self,
        measure: Callable[[ShowerSource, str], Mapping[str, ArrayLike]],
        *inputs: Any,
        n: int | None = None,
        like: ShowerSource | None = None,
        window: Sequence[str] = (),
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Measure the reference, then each generated sample, from the cache where that was done before.

        Arguments:
            measure: Takes showers and a line for the progress bar; returns arrays by name.
            inputs: What the arrays depend on beside the showers and the settings.
            n: Showers of a model; by default those of the context, else as many as ``like`` has.
            like: Reference showers; by default all.
            window: What selected ``like`` among the reference.

        Yields:
            The arrays of each sample; ``measure`` is called for the next one when it is needed.
        """
        like, hashes = self.reference if like is None else like, self.reference_hashes
        yield self.cache.get("reference", lambda: measure(like, "measure the reference"), hashes, *inputs)
        key = "/".join([*hashes, *filter(None, window)])
        for source in self.generated:

            def compute(source: Source = source) -> Mapping[str, ArrayLike]:
                wanted = self.n if n is None else n if source.generator is not None else None
                with cached_generation(source, wanted, like, self.seed, self.cache, key) as showers:
                    return measure(showers, f"measure {source.label}")

            own = (source.sha256, self.n)
            yield self.cache.get(f"sample-{source.sha256[:16]}", compute, hashes, *inputs, *own)


class Study(ABC):
    """One published analysis."""

    name: ClassVar[str]  # its name in the registry
    title: ClassVar[str]  # a line for headings and lists
    source: ClassVar[str]  # key of its document in ``papers.toml``
    papers: ClassVar[tuple[str, ...]] = ()  # what to cite for it: keys (``abbreviation``) in ``CITATION.cff``
    needs: ClassVar[str]  # what files it takes, in one line
    question: ClassVar[str] = ""  # what it answers, in one line
    Settings: ClassVar[type[StudySettings]] = StudySettings
    least_generated: ClassVar[int] = 1  # fewest generated samples
    judges: ClassVar[bool] = True  # whether it judges samples that exist; the study ``all`` leaves others out
    several: ClassVar[bool] = False  # whether it does other studies, which a cluster's workers then do

    @classmethod
    def default_reference(cls) -> Path | None:
        """Return the reference that ships with the package, or None."""
        return None

    def space(self, detector: Detector) -> Detector:
        """Return the detector in which showers of a detector are compared: by default its own."""
        return detector

    def check(self, context: Context) -> None:
        """Check before any work that the files fit.

        Raises:
            InputError: Says what the study needs.
        """
        if len(context.generated) < self.least_generated:
            self.refuse(f"{len(context.generated)} generated samples were given")
        detector = context.references[0].detector
        for source in (*context.references[1:], *context.generated):
            if self.space(source.detector) != self.space(detector):
                self.refuse(
                    f"'{source.label}' is of '{source.detector.name}', the reference of '{detector.name}'"
                )

    def check_seen(self, context: Context) -> dict[str, SeenCount]:
        """Check that no model was trained or selected on reference showers; return how many, by label.

        Raises:
            SeenShowersError: When some were and the context does not allow it.
        """
        check = SeenCheck(context.reference_parts)
        return check.require_unseen(
            ((source.label, source) for source in context.generated), context.allow_seen
        )

    def refuse(self, why: str) -> NoReturn:
        """Refuse files that do not fit.

        Raises:
            InputError: Always; says why, and what the study needs.
        """
        raise InputError(f"study '{self.name}': {why}; it needs {self.needs}")

    @abstractmethod
    def run(self, context: Context) -> StudyResult:
        """Do the analysis."""


STUDIES: Registry[type[Study]] = Registry(
    "study",
    {
        "amplification": "caloforge.studies.amplification:AmplificationStudy",
        "density": "caloforge.studies.amplification.density:DensityStudy",
        "conditioning": "caloforge.studies.conditioning:ConditioningStudy",
        "layers": "caloforge.studies.layers:LayersStudy",
        "shapes": "caloforge.studies.shapes:ShapesStudy",
        "diversity": "caloforge.studies.diversity:DiversityStudy",
        "support-size": "caloforge.studies.support_size:SupportSizeStudy",
        "data-efficiency": "caloforge.studies.efficiency:EfficiencyStudy",
        "all": "caloforge.studies.site:AllStudies",
    },
    group="caloforge.studies",
)
