"""Multilayer perceptrons, and fresh weights for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

__all__ = ["mlp", "reinitialise"]


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module] = nn.SiLU,
    norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return linear layers with an activation after each but the last.

    Arguments:
        inputs: Width of the input.
        hidden: Widths of the hidden layers.
        outputs: Width of the output.
        activation: Constructor of the activations.
        norm: Put a layer norm before each activation.
        dropout: Probability of dropout after each activation.
    """
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if norm:
            layers.append(nn.LayerNorm(size))
        layers.append(activation())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = size
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def reinitialise(module: nn.Module) -> None:
    """Call ``reset_parameters`` of every submodule that has it; draws from torch's global generator."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
