"""Showers of a generated source that can be read more than once.

A model would make its showers anew in every pass; so they are written once, under the cache of the study, and found
again after an interruption. A file is read where it lies.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from caloforge.errors import FileFormatError, IncompatibleError
from caloforge.progress import progress
from caloforge.showers import ShowerSource, ShowerWriter, open_showers
from caloforge.studies.cache import Cache
from caloforge.studies.sources import Source
from caloforge.validate.selection import Selection

__all__ = ["made"]


@contextmanager
def made(
    source: Source,
    n: int | None,
    like: ShowerSource,
    seed: int = 0,
    cache: Cache | None = None,
    key: str = "",
) -> Iterator[ShowerSource]:
    """Yield the first ``n`` showers of a source, of the detector of ``like``.

    Arguments:
        source: A file, showers, or a model.
        n: How many at most; None: all of a file, and of a model as many as ``like`` has.
        like: Whose conditions a model takes, over and over.
        seed: Seed of a model.
        cache: Where a model's showers are kept; only as long as the block lasts when it has no folder for them.
        key: What the showers depend on beside the model: the hash of ``like``.

    Raises:
        IncompatibleError: When the source is of another detector.
    """
    if source.detector != like.detector:
        msg = (
            f"'{source.label}' is of detector '{source.detector.name}', "
            f"but the reference of '{like.detector.name}'; expected the same detector"
        )
        raise IncompatibleError(msg)
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
        parts = f"{source.sha256}/{key}/{wanted}/{seed}"
        path = folder / f"showers-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.h5"
        if not _whole(path, wanted):
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, source, wanted, like, seed)
        yield stack.enter_context(open_showers(path, like.detector))


def _whole(path: Path, wanted: int) -> bool:
    """Return whether the file is there and holds what it should."""
    if not path.is_file():
        return False
    try:
        with open_showers(path) as file:
            return len(file) == wanted
    except FileFormatError:
        return False


def _write(path: Path, source: Source, wanted: int, like: ShowerSource, seed: int) -> None:
    writer = ShowerWriter(path, source.detector, like.particle, source.label, seed, {}, force=True)
    with writer, progress(wanted, f"generate {source.label}") as advance:
        for chunk in source.chunks(wanted, like, seed):
            writer.append(chunk)
            advance(len(chunk))
