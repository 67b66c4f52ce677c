"""Latent codes drawn from N(0, 1), what the encoder is drawn towards in training."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LatentNormal"]


class LatentNormal(nn.Module):
    """The noise itself.

    Attributes:
        whole: False: energies that are part of a code are not drawn with it.
    """

    whole = False

    def draw(self, noise: Tensor, choice: Tensor, context: Tensor) -> Tensor:
        """Return the normal numbers (B, size) as they are."""
        return noise
