"""How many threads torch computes with: one for small networks.

A step of a small network is done before several threads have shared it out, and where other programs use the same
cores each step waits for the slowest of them. Two busy cores trained the fast classifier ten times more slowly with two
threads than with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["threads_for"]

_WORTH_SHARING = 1e9  # operations of a step, about 20 ms of one core


@contextmanager
def threads_for(operations: float) -> Iterator[None]:
    """Compute with one thread inside the block when a step has few operations.

    Arguments:
        operations: Floating-point operations of a training step.
    """
    import torch

    before = torch.get_num_threads()
    if operations < _WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
