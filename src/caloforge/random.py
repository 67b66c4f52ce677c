"""Random numbers counted per shower.

The numbers of shower ``i`` depend on (seed, stream, i) alone and not on the number of showers of a
call, on who calls, or on restarts. The counter-based generator Philox-4x64 makes this exact: each
(seed, stream) is a key, and each shower owns a fixed stretch of the counter.

References:
    J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC11 (2011).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import InputError

__all__ = ["WORDS", "check_seed", "child_seed", "generator", "key_words", "normals", "uniforms"]

WORDS = 4
"""64-bit words that one step of the Philox counter yields."""


def _key(seed: int, stream: str) -> int:
    """Return the 128-bit Philox key of a named stream."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def key_words(seed: int, stream: str) -> tuple[int, int]:
    """Return the two 64-bit words of a stream's Philox key, the lower one first."""
    key = _key(seed, stream)
    return key % 2**64, key >> 64


def child_seed(seed: int, stream: str, index: int = 0, bits: int = 31) -> int:
    """Return an integer seed in [1, 2**bits) for another generator, from (seed, stream, index)."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    span: int = 2**bits - 1
    return 1 + int.from_bytes(digest, "little") % span


def check_seed(seed: int) -> int:
    """Return a seed, which files can hold.

    Raises:
        InputError: When it is negative, too large or no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to {2**63 - 1}")
    return int(seed)


def generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """Return NumPy's generator for one shower or one block of showers."""
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=[0, 0, 0, index]))


def uniforms(seed: int, stream: str, start: int, n: int, draws: int) -> NDArray[np.float64]:
    """Return uniform numbers (n, draws) in [0, 1) for the showers ``start`` to ``start + n``; streams are independent."""
    steps = -(-draws // WORDS)
    bits = np.random.Philox(key=_key(seed, stream))
    bits.advance(start * steps)
    return np.random.Generator(bits).random((n, steps * WORDS))[:, :draws]


def normals(seed: int, stream: str, start: int, n: int, draws: int) -> NDArray[np.float64]:
    """Return standard normal numbers (n, draws), counted like :func:`uniforms` (Box-Muller transform)."""
    half = -(-draws // 2)
    u = uniforms(seed, stream, start, n, 2 * half)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, :half]))
    angle = 2.0 * np.pi * u[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :draws]
