"""Start a network again with fresh weights, for example a critic that is new every epoch."""

from __future__ import annotations

from torch import nn

__all__ = ["reinitialise"]


def reinitialise(module: nn.Module) -> None:
    """Call ``reset_parameters`` of every submodule that has it; draws from torch's global generator."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
