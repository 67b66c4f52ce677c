r"""Counted noise on any device: normal numbers of (seed, stream, shower), see :mod:`caloforge.random`.

On a CPU NumPy makes them. A GPU makes the same 64-bit integers where they are used, by Philox-4x64-10: ten times, with the key k raised
by a constant after each round, the counter c of four words becomes

.. math:: c \leftarrow (\mathrm{hi}(M_1 c_2) \oplus c_1 \oplus k_0,\; \mathrm{lo}(M_1 c_2),\;
          \mathrm{hi}(M_0 c_0) \oplus c_3 \oplus k_1,\; \mathrm{lo}(M_0 c_0)).

Four words a counter; NumPy counts before it makes them, so that the first counter of shower i, with s counters a shower, is i s + 1. The
upper 53 bits of a word are a uniform number, and two of those two normal ones (Box-Muller), in float64. Only the last bits of logarithm,
sine and cosine may differ between devices, which is less than float32 resolves but for a rounding now and then.

There are two forms: plain torch in int64 arithmetic, which every device runs, and a Triton kernel
(:mod:`~caloforge.models.noise_kernel`), which needs no memory beside its result. The kernel is compared with torch once a
process before it is used; where it cannot be used, torch is.

References:
    J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC11 (2011).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from caloforge.random import WORDS, key_words, uniforms

__all__ = ["counted_integers", "counted_noise", "device_normals"]

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
"""M_0 and M_1."""
STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
"""By how much the words of the key rise after a round."""
ROUNDS = 10
_ROWS = 8  # showers whose noise is made at a time on a CPU, so that it stays in the cache
_LOW = 0xFFFFFFFF
_AT_ONCE = 2**23  # words that plain torch makes at a time
_TOLERANCE = 1e-6  # between the kernel and torch

Fill = Callable[[Tensor, tuple[int, int], int], None]
"""Fills noise (n, size) of a key, two signed words, for the showers from a number on."""


def counted_noise(
    seed: int, start: int, n: int, size: int, device: torch.device | str = "cpu", stream: str = "noise"
) -> Tensor:
    """Return the noise (n, size), float32, of showers ``start`` to ``start + n``, counted per shower, on a device.

    These are the numbers of :func:`~caloforge.random.normals`: on a CPU with torch's sine and cosine, 2.5 times as fast for 27,000
    numbers a shower on one core, on a GPU made there.
    """
    where = torch.device(device)
    steps = _steps(size)
    if where.type == "cuda" and (start + n) * steps < 2**63 - 1:
        noise = torch.empty(n, size, device=where)
        (_kernel(where) or _fill)(noise, _key(seed, stream), start)
        return noise
    half = -(-size // 2)
    noise = torch.empty(n, size)
    for first in range(0, n, _ROWS):
        rows = noise[first : first + _ROWS]
        u = uniforms(seed, stream, start + first, len(rows), 2 * half)
        radius = torch.from_numpy(np.sqrt(-2.0 * np.log1p(-u[:, :half])))
        angle = torch.from_numpy(2.0 * np.pi * u[:, half:])
        rows[:, :half] = angle.cos().mul_(radius)
        rows[:, half:] = angle.sin_().mul_(radius)[:, : size - half]
    return noise.to(where)


def device_normals(
    seed: int, stream: str, start: int, n: int, size: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return what :func:`counted_noise` does, by plain torch on any device."""
    noise = torch.empty(n, size, device=device)
    _fill(noise, _key(seed, stream), start)
    return noise


def counted_integers(
    seed: int, stream: str, start: int, n: int, draws: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the integers (n, draws) that NumPy's Philox makes for showers ``start`` to ``start + n``: 64 bits each, as int64."""
    return _integers(_key(seed, stream), start, n, draws, torch.device(device))


def _key(seed: int, stream: str) -> tuple[int, int]:
    """Return the words of a stream's key as signed numbers."""
    low, high = map(_signed, key_words(seed, stream))
    return low, high


def _signed(word: int) -> int:
    """Return the number whose two's complement is a 64-bit word."""
    return word - 2**64 if word >= 2**63 else word


def _steps(size: int) -> int:
    """Return the counters of a shower with ``size`` normal numbers."""
    return -(-2 * -(-size // 2) // WORDS)


def _high(a: Tensor, b: int) -> Tensor:
    """Return the upper 64 bits of the product of unsigned words, by halves of 32 bits."""
    low, high = a & _LOW, _upper(a)
    other_low, other_high = b & _LOW, b >> 32
    middle = high * other_low + _upper(low * other_low)
    other = (middle & _LOW) + low * other_high
    return high * other_high + _upper(middle) + _upper(other)


def _upper(a: Tensor) -> Tensor:
    """Return the upper 32 bits of unsigned words."""
    return (a >> 32) & _LOW


def _integers(key: tuple[int, int], start: int, n: int, draws: int, device: torch.device) -> Tensor:
    steps = -(-draws // WORDS)
    first = torch.arange(start * steps + 1, (start + n) * steps + 1, device=device)
    zero = torch.zeros_like(first)
    c = [first, zero, zero, zero]
    k = list(key)
    for _ in range(ROUNDS):
        low = [c[0] * _signed(MULTIPLIERS[0]), c[2] * _signed(MULTIPLIERS[1])]
        high = [_high(c[0], MULTIPLIERS[0]), _high(c[2], MULTIPLIERS[1])]
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [_signed((word + step) % 2**64) for word, step in zip(k, STEPS, strict=True)]
    return torch.stack(c, 1).view(n, steps * WORDS)[:, :draws]


def _fill(noise: Tensor, key: tuple[int, int], start: int) -> None:
    """Fill noise (n, size) of the showers from ``start`` on, some at a time."""
    n, size = noise.shape
    half = -(-size // 2)
    rows = max(1, _AT_ONCE // max(1, 2 * half))
    for first in range(0, n, rows):
        part = noise[first : first + rows]
        words = _integers(key, start + first, len(part), 2 * half, noise.device)
        u = ((words >> 11) & (2**53 - 1)).double() * 2.0**-53
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :half]))
        angle = 2.0 * np.pi * u[:, half:]
        part[:, :half] = angle.cos() * radius
        part[:, half:] = (angle.sin() * radius)[:, : size - half]


@cache
def _kernel(device: torch.device) -> Fill | None:
    """Return the Triton kernel if it works here, that is, makes the numbers of plain torch."""
    try:
        from caloforge.models.noise_kernel import fill
    except ImportError:
        return None
    try:
        made, expected = (torch.empty(3, 1029, device=device) for _ in range(2))
        for make, noise in ((fill, made), (_fill, expected)):
            make(noise, _key(0, "noise"), 12345)
        off = float((made - expected).abs().max())
    except Exception as error:  # of a compiler that is not there, or of a driver: torch does without
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"noise is made without Triton, more slowly: {reason}", stacklevel=3)
        return None
    if off > _TOLERANCE:
        warnings.warn(f"noise is made without Triton, whose numbers are off by {off:.2g}", stacklevel=3)
        return None
    return fill
