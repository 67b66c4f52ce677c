"""Plain stacks of linear layers, fresh weights, and sizes of padded convolutions.

Padding that keeps the size of a convolution's output, and sizes of outputs.

"Same" padding of a kernel of k cells adds k - 1 zeros, (k - 1) // 2 of them before, so that even kernels, which the published
networks use, have one more zero behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Pad", "SamePad", "mlp", "reinitialise", "same_padding"]


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
        hidden: Widths between.
        outputs: Width of the output.
        activation: Makes an activation.
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


def same_padding(kernel: int) -> tuple[int, int]:
    """Return the zeros before and behind after which a kernel of that many cells keeps the size."""
    return (kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2


class Pad(nn.Module):
    """Add zeros on both sides.

    Arguments:
        amounts: Zeros on each side of each trailing axis, in the order of the axes.
    """

    def __init__(self, amounts: Sequence[int]) -> None:
        super().__init__()
        self.amounts = [n for amount in reversed(amounts) for n in (amount, amount)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the padded tensor."""
        return F.pad(x, self.amounts) if any(self.amounts) else x


class SamePad(Pad):
    """Add the zeros after which a convolution of that kernel keeps the size."""

    def __init__(self, kernel: Sequence[int]) -> None:
        super().__init__([0] * len(kernel))
        self.amounts = [n for k in reversed(kernel) for n in same_padding(k)]
