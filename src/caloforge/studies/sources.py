"""The inputs of a study: files, showers in memory, or models that generate as many showers as needed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.data import SHIPPED, packed_projections
from caloforge.errors import FileFormatError, IncompatibleError, InputError, UnknownNameError, did_you_mean
from caloforge.files import sha256_file
from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import ShowerFile, Showers, ShowerSource, ShowerWriter, open_showers
from caloforge.showers.reading import open_with_default
from caloforge.showers.views import Selection, conditions_of
from caloforge.studies.cache import Cache, digest_of
from caloforge.units import AngleSpec, EnergySpec

if TYPE_CHECKING:
    from caloforge.generate import Generator

__all__ = ["SIMULATIONS", "Input", "Source", "cached_generation", "open_sources", "within"]

Input: TypeAlias = "str | Path | Showers | ShowerFile | Generator"

SIMULATIONS = {"geant4": "Geant4", "gflash": "GFlash"}
"""``source`` of showers to the name of the simulation for people."""
_BATCH = 1000
_ENDINGS = (".h5", ".hdf5", ".hdf")


@dataclass(frozen=True)
class Source:
    """Showers with a name, or a model that generates them."""

    label: str  # its name in tables and figures
    detector: Detector  # its detector
    sha256: str  # hash of the file, of the showers or of the weights
    showers: ShowerSource | None = None  # the showers, unless it is a model
    generator: Generator | None = None  # the model, unless there are showers
    argument: str = ""  # path or name that it was opened by; empty for showers and generators in memory
    trained_on: int | None = None  # training showers of the model; None where not known

    @property
    def _origin(self) -> ShowerSource | Generator:
        return cast("ShowerSource | Generator", self.generator if self.showers is None else self.showers)

    @property
    def seen(self) -> NDArray[np.uint64]:
        """Identities (M,) of the showers that trained or selected the model."""
        return self._origin.seen

    @property
    def attributes(self) -> dict[str, Any]:
        """Further facts of the showers or the model, such as the seeds of its training showers."""
        return self._origin.attributes

    @property
    def n(self) -> int | None:
        """Number of showers; None for a model, which has no end."""
        return None if self.showers is None else len(self.showers)

    def size(self, wanted: int) -> int:
        """Return how many of the wanted showers there are."""
        return wanted if self.n is None else min(self.n, wanted)

    def chunks(self, n: int, like: ShowerSource, seed: int = 0) -> Iterator[Showers]:
        """Iterate over the first ``n`` showers, or all when there are fewer.

        Arguments:
            n: How many.
            like: Showers whose conditions a model takes: spread over all of them when ``n`` is less, else repeated. Its
                cells may be of another detector.
            seed: Seed of a model.
        """
        if self.generator is not None:
            imitated = cast(ShowerSource, _Conditions(like, self.detector, n))
            yield from self.generator.stream(n, like=imitated, seed=seed, batch_size=_BATCH)
            return
        left = n
        for chunk in cast(ShowerSource, self.showers).chunks():
            yield chunk[:left] if len(chunk) > left else chunk
            left -= len(chunk)
            if left <= 0:
                return

    def take(self, n: int, like: ShowerSource, seed: int = 0) -> Showers:
        """Return the first ``n`` showers in memory; see :meth:`chunks`."""
        return Showers.concatenate(list(self.chunks(n, like, seed)))

    def provenance(self) -> dict[str, Any]:
        """Return where the showers come from, as ``study.json`` has it."""
        facts: dict[str, Any] = {
            "label": self.label,
            "detector": self.detector.name,
            "n_showers": self.n,
            "sha256": self.sha256,
        }
        if self.generator is not None:
            model = {"model": self.generator.name, "given": self.argument or None}
            return facts | model | {"trained_on": self.trained_on}
        showers = cast(ShowerSource, self.showers)
        path = getattr(showers, "path", None)
        return facts | {
            "file": None if path is None else path.name if self.argument == SHIPPED else str(path),
            "particle": showers.particle,
            "source": showers.source,
            "seed": showers.seed,
        }


class _Conditions:
    """The conditions of a source without its cells, as a generator needs them.

    Fewer than the source has are taken at even distances: a source may be files joined, one a test point.
    """

    def __init__(self, source: ShowerSource, detector: Detector, wanted: int) -> None:
        self.detector, self.particle = detector, source.particle
        self.has_theta, self._n = source.has_theta, min(len(source), wanted)
        self._source = source

    @cached_property
    def _columns(self) -> dict[str, Any]:
        return conditions_of(self._source)

    def __len__(self) -> int:
        return self._n

    def take(self, indices: ArrayLike) -> Showers:
        """Return empty showers under the conditions of these showers."""
        rows = np.asarray(indices) * len(self._source) // self._n
        chosen = {name: values[rows] for name, values in self._columns.items()}
        energy, theta = chosen.pop("incident_energy"), chosen.pop("incident_theta")
        cells = np.zeros((len(rows), self.detector.n_cells), np.float32)
        return Showers(self.detector, cells, energy, theta if self.has_theta else None, chosen, self.particle)


def within(source: ShowerSource, energy: str = "", theta: str = "") -> ShowerSource:
    """Return the showers of a source within windows such as ``97.5-102.5GeV`` and ``87.5-92.5``; empty: all.

    Raises:
        UnitError: When a window cannot be parsed.
    """
    keep: NDArray[np.bool_] = np.ones(len(source), dtype=bool)
    if energy:
        wanted = EnergySpec.parse(energy)
        keep &= (source.incident_energy >= wanted.low) & (source.incident_energy <= wanted.high)
    if theta:
        angles = AngleSpec.parse(theta)
        keep &= (source.incident_theta >= angles.low) & (source.incident_theta <= angles.high)
    return source if keep.all() else Selection(source, np.flatnonzero(keep))


def open_sources(
    stack: ExitStack,
    inputs: Sequence[Input],
    detector: str | Path | Detector | None = None,
    device: str = "auto",
    labels: Sequence[str] | None = None,
) -> tuple[Source, ...]:
    """Open files and load models; files are closed when the stack ends.

    Arguments:
        inputs: Paths of files, run folders, names of shipped models, showers, open files or generators.
        detector: Detector of files that do not name their own.
        labels: Names, one each; by default those of the files and models.

    Raises:
        InputError: When labels do not fit, or something is neither a file nor a model.
    """
    if labels is not None and (len(labels) != len(inputs) or len(set(labels)) != len(labels)):
        raise InputError(f"{len(labels)} labels for {len(inputs)} samples; expected one each, all different")
    sources: list[Source] = []
    for number, item in enumerate(inputs):
        taken = [source.label for source in sources]
        source = _open(stack, item, detector, device)
        label = labels[number] if labels is not None else _free(source.label, taken)
        argument = str(item) if isinstance(item, str | Path) else source.argument
        argument = SHIPPED if Path(argument) == packed_projections() else argument
        sources.append(replace(source, label=label, argument=argument))
    return tuple(sources)


def _open(stack: ExitStack, item: Input, detector: str | Path | Detector | None, device: str) -> Source:
    if isinstance(item, str | Path):
        path = Path(item)
        if path.is_file() or path.suffix.lower() in _ENDINGS:
            item = stack.enter_context(open_with_default(path, detector))
        else:
            model = _model(item, device)
            return Source(
                model.name, model.detector, _hash_model(model), generator=model, trained_on=_trained_on(item)
            )
    if isinstance(item, ShowerFile):
        return Source(item.path.stem, item.detector, sha256_file(item.path), item, argument=str(item.path))
    if isinstance(item, Showers):
        label = SIMULATIONS.get(item.source, item.source) or "showers"
        return Source(label, item.detector, _hash_showers(item), item)
    return Source(item.name, item.detector, _hash_model(item), generator=item)


def _model(name: str | Path, device: str) -> Generator:
    from caloforge.zoo.store import load

    try:
        model = load(name, device)
    except UnknownNameError as error:
        msg = (
            f"'{name}' is no file, no run folder and no shipped model; {did_you_mean(str(name), error.known)}"
        )
        raise InputError(msg) from error
    if Path(name).is_dir():
        model.name = Path(name).resolve().name
    return model


def _trained_on(name: str | Path) -> int | None:
    """Return the size of the training set from the run folder or the card."""
    from caloforge.train import RunFolder
    from caloforge.zoo.store import find_card

    content = RunFolder(Path(name)).read() if Path(name).is_dir() else find_card(str(name)).content
    size = content.get("train_showers")
    return None if size is None else int(size)


def _free(name: str, taken: Sequence[str]) -> str:
    """Return a name that is not taken."""
    candidates = [name, *(f"{name} ({count})" for count in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _hash_showers(showers: Showers) -> str:
    digest = hashlib.sha256(showers.detector.name.encode())
    for array in (showers.cells, *conditions_of(showers).values()):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _hash_model(generator: Generator) -> str:
    """Return the SHA-256 of the weights that every member samples with; shipped ones have no others."""
    digest = hashlib.sha256(generator.detector.name.encode())
    for member in generator.members:
        for name, value in sorted(member.state_dict().items()):
            if name.partition(".")[0] in member.training_only:
                continue
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def cached_generation(
    source: Source,
    n: int | None,
    like: ShowerSource,
    seed: int = 0,
    cache: Cache | None = None,
    key: str = "",
) -> Iterator[ShowerSource]:
    """Yield the first ``n`` showers of a source, of the detector of ``like``, which can be read more than once.

    A model would generate its showers anew in every pass; so they are written once, under the cache of the study, and
    found again after an interruption. A file is read where it lies.

    Arguments:
        n: How many at most; None: all of a file, and of a model as many as ``like`` has.
        like: Showers whose conditions a model takes.
        cache: Where a model's showers are kept; only as long as the block lasts when it has no folder for them.
        key: Hash of ``like``.

    Raises:
        IncompatibleError: When the source is of another detector.
    """
    if source.detector != like.detector:
        raise IncompatibleError(
            f"'{source.label}' is of detector '{source.detector.name}', "
            f"but the reference of '{like.detector.name}'; expected the same detector"
        )
    if source.showers is not None:
        few = source.size(len(source.showers) if n is None else n)
        yield source.showers if few == len(source.showers) else Selection(source.showers, np.arange(few))
        return
    with ExitStack() as stack:
        if cache is None or cache.showers is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="caloforge-")))
        else:
            folder = cache.showers
        wanted = len(like) if n is None else n
        path = folder / f"showers-{digest_of(source.sha256, key, wanted, seed)[:16]}.h5"
        if not _whole(path, wanted):
            folder.mkdir(parents=True, exist_ok=True)
            writer = ShowerWriter(path, source.detector, like.particle, source.label, seed, {}, force=True)
            with writer, progress(wanted, f"generate {source.label}") as advance:
                for chunk in source.chunks(wanted, like, seed):
                    writer.append(chunk)
                    advance(len(chunk))
        yield stack.enter_context(open_showers(path, like.detector))


def _whole(path: Path, wanted: int) -> bool:
    """Return whether the file is there with all its showers."""
    if not path.is_file():
        return False
    try:
        with open_showers(path) as file:
            return len(file) == wanted
    except FileFormatError:
        return False
