"""The Triton kernel of counted noise; :mod:`~caloforge.models.noise` says what it computes, and decides where it is used.

One program makes ``BLOCK`` pairs of normal numbers of one shower. Pair j has the radius of word j and the angle of word half + j of
the shower's uniform numbers, so that it needs two counters, and of each one word of four; the integer arithmetic of the other three is
cheaper than to exchange words between threads. The logarithm of 1 - u is that of ``log1p(-u)``: u has 53 bits, so that 1 - u is exact.

With ``TRITON_INTERPRET=1`` in the environment before the import the kernel runs on a CPU, slowly.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from caloforge.random import WORDS

__all__ = ["fill", "integers"]

_BLOCK = 256
_M0 = tl.constexpr(0xD2E7470EE14C6C93)
_M1 = tl.constexpr(0xCA5A826395121157)
_STEP0 = tl.constexpr(0x9E3779B97F4A7C15)
_STEP1 = tl.constexpr(0xBB67AE8584CAA73B)
_TWO_PI = tl.constexpr(2.0 * math.pi)
_UNIT = tl.constexpr(2.0**-53)


@triton.jit
def _word(counter, lane, key0, key1):  # type: ignore[no-untyped-def]
    """Return the word of number ``lane`` that Philox makes of a counter, both (BLOCK,)."""
    m0 = tl.full(counter.shape, _M0, tl.uint64)
    m1 = tl.full(counter.shape, _M1, tl.uint64)
    step0 = tl.full(counter.shape, _STEP0, tl.uint64)
    step1 = tl.full(counter.shape, _STEP1, tl.uint64)
    k0 = tl.zeros(counter.shape, tl.uint64) + key0
    k1 = tl.zeros(counter.shape, tl.uint64) + key1
    c0 = counter
    c1 = tl.zeros(counter.shape, tl.uint64)
    c2 = tl.zeros(counter.shape, tl.uint64)
    c3 = tl.zeros(counter.shape, tl.uint64)
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, m0)
        high1 = tl.umulhi(c2, m1)
        low0 = c0 * m0
        low1 = c2 * m1
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + step0
        k1 = k1 + step1
    return tl.where(lane < 2, tl.where(lane == 0, c0, c1), tl.where(lane == 2, c2, c3))


@triton.jit
def _counted(shower, word, steps, key0, key1):  # type: ignore[no-untyped-def]
    """Return a word (BLOCK,) of a shower by its number."""
    counter = shower * steps + 1 + word // 4
    return _word(counter.to(tl.uint64), word % 4, key0.to(tl.uint64), key1.to(tl.uint64))


@triton.jit(do_not_specialize=["start", "size", "half", "steps"])  # type: ignore[untyped-decorator]
def _normal_kernel(out, keys, start, size, half, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    shower = row + start
    key0 = tl.load(keys)
    key1 = tl.load(keys + 1)
    first = _counted(shower, pair, steps, key0, key1) >> 11
    second = _counted(shower, pair + half, steps, key0, key1) >> 11
    rest = (9007199254740992 - first.to(tl.int64)).to(tl.float64) * _UNIT
    angle = second.to(tl.int64).to(tl.float64) * _UNIT * tl.full((BLOCK,), _TWO_PI, tl.float64)
    radius = tl.sqrt(-2.0 * tl.log(rest))
    place = out + row * size + pair
    tl.store(place, (radius * tl.cos(angle)).to(tl.float32), mask=pair < half)
    tl.store(place + half, (radius * tl.sin(angle)).to(tl.float32), mask=pair + half < size)


@triton.jit(do_not_specialize=["start", "size", "steps"])  # type: ignore[untyped-decorator]
def _integer_kernel(out, keys, start, size, steps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    word = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    found = _counted(row + start, word, steps, tl.load(keys), tl.load(keys + 1))
    tl.store(out + row * size + word, found.to(tl.int64, bitcast=True), mask=word < size)


def fill(noise: Tensor, key: tuple[int, int], start: int) -> None:
    """Fill noise (n, size), float32 and contiguous, with the normal numbers of showers from ``start`` on.

    The key is two signed words; the last counter must be below 2**63.
    """
    n, size = noise.shape
    half = -(-size // 2)
    if n and size:
        with _on(noise.device):
            grid = (n, triton.cdiv(half, _BLOCK))
            _normal_kernel[grid](
                noise, _keys(key, noise.device), start, size, half, -(-2 * half // WORDS), BLOCK=_BLOCK
            )


def integers(out: Tensor, key: tuple[int, int], start: int) -> None:
    """Fill ``out`` (n, draws), int64, with the integers from which the numbers of showers from ``start`` on are made."""
    n, draws = out.shape
    with _on(out.device):
        grid = (n, triton.cdiv(draws, _BLOCK))
        _integer_kernel[grid](out, _keys(key, out.device), start, draws, -(-draws // WORDS), BLOCK=_BLOCK)


def _keys(key: tuple[int, int], device: torch.device) -> Tensor:
    """Return the key on the device, without waiting for it."""
    keys = torch.empty(2, dtype=torch.int64, device=device)
    for number, word in enumerate(key):
        keys[number].fill_(word)
    return keys


def _on(device: torch.device) -> torch.cuda.device | nullcontext[None]:
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)
