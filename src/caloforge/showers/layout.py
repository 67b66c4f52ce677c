"""The file layout: names of datasets and attributes, sizes of chunks.

It is the CaloChallenge's (https://calochallenge.github.io) with names added: ``showers`` (N, cells) float32 MeV and
``incident_energies`` (N, 1) MeV; where they apply ``incident_theta`` (N, 1) degrees and ``conditions/NAME`` (N, k).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CELLS",
    "CHUNK_BYTES",
    "COMPRESSION_LEVEL",
    "CONDITIONS",
    "DEFINITION",
    "ENERGIES",
    "MODEL_STATUS",
    "PERPENDICULAR",
    "RESERVED",
    "SEEN",
    "SEEN_INCOMPLETE",
    "SEEN_SEEDS",
    "STREAM_BYTES",
    "THETA",
    "rows_per_chunk",
    "rows_per_stream",
]

CELLS: Final = "showers"
ENERGIES: Final = "incident_energies"
THETA: Final = "incident_theta"
CONDITIONS: Final = "conditions"

SEEN: Final = "seen_identities"
"""Dataset (M,) uint64, sorted: identities of the showers that trained or selected the model that made a file."""
SEEN_SEEDS: Final = "seen_seeds"
"""Attribute: simulation seeds whose showers trained or selected the model, where the files themselves are lost."""
SEEN_INCOMPLETE: Final = "seen_incomplete"
"""Attribute: why the identities do not name all showers that trained or selected the model."""
MODEL_STATUS: Final = "model_status"
"""Attribute: what is wrong with the model, such as "unfinished: stage cells not trained"."""

DEFINITION: Final = "detector_definition"
RESERVED: Final = frozenset({"detector", DEFINITION, "particle", "source", "seed", "caloforge_version"})
"""Attributes that are written from the showers' own fields."""

PERPENDICULAR: Final = 90.0
"""Angle in degrees of showers whose file holds none."""

CHUNK_BYTES: Final = 2 * 2**20
"""Size of a chunk of cells in the file: a unit of compression, and of what a sliced read must unpack."""

STREAM_BYTES: Final = 16 * 2**20
"""Size of the cells that ``chunks()`` hands out at a time unless told otherwise."""

COMPRESSION_LEVEL: Final = 1
"""gzip level: after the byte shuffle, level 4 is 15 to 20 % smaller on Geant4 showers but takes twice the time
to write and to read; level 9 takes 20 times as long for another 10 %. ``benchmarks/bench_io.py`` measures it."""


def rows_per_chunk(row_bytes: int, target: int = CHUNK_BYTES) -> int:
    """Return how many rows make a chunk of about ``target`` bytes, at least one."""
    return max(1, target // max(1, row_bytes))


def rows_per_stream(row_bytes: int, chunk_rows: int) -> int:
    """Return a number of rows of about ``STREAM_BYTES``, a multiple of the file's chunks where they are small."""
    rows = rows_per_chunk(row_bytes, STREAM_BYTES)
    return max(1, rows // chunk_rows) * chunk_rows if chunk_rows <= rows else rows
