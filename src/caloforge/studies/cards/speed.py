"""How long a shower takes, as a card says it: one thread of a CPU, or a GPU, with its name."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from caloforge.generate import Generator
from caloforge.showers import ShowerSource
from caloforge.studies.shapes.speed import time_generator

__all__ = ["hardware_name", "speed_of"]

_CPU = Path("/proc/cpuinfo")


def hardware_name(device: str) -> str:
    """Return the name of the GPU or of the CPU that works here."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    if _CPU.is_file():
        for line in _CPU.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def speed_of(
    generator: Generator, like: ShowerSource, batch: int = 100, seconds: float = 5.0
) -> dict[str, Any]:
    """Time a generator where it is: on a CPU with one thread, in processor time; on a GPU by the clock.

    Arguments:
        generator: The model.
        like: Whose conditions it takes.
        batch: Showers at once.
        seconds: How long to go on.

    Returns:
        ``ms`` a shower, ``uncertainty``, ``batch``, ``threads`` and ``hardware``.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = time_generator(generator, like, batch, seconds)
    finally:
        torch.set_num_threads(threads)
    return {
        "ms": float(f"{found.cost_ms:.4g}"),
        "uncertainty": float(f"{found.wall_error:.2g}"),
        "batch": batch,
        "threads": 1,
        "hardware": hardware_name(found.device),
    }
