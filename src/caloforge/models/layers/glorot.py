"""The initial weights of the library that the published networks on grids were written in.

Weights are uniform within sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010) and biases 0. The zeros matter where
the latent vector is multiplied by the incident energy: with random biases an untrained generator makes the same
shower, often an empty one, at all low energies.
"""

from __future__ import annotations

from torch import nn

__all__ = ["glorot"]


def glorot(module: nn.Module) -> None:
    """Draw the weights of all linear and convolutional parts anew, and set their biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
