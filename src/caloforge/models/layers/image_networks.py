"""Networks of the VAE-GAN for small images: encoder, generator and discriminator after LAGAN.

LAGAN's are for 25 x 25; here they are scaled to 10 x 10, and the widths are our choice where the text says so.

References:
    L. de Oliveira, M. Paganini, B. Nachman, Learning particle physics by example (LAGAN), arXiv:1701.05927.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caloforge.models.layers.locally_connected import LocallyConnected2d
from caloforge.models.layers.minibatch import MinibatchDiscrimination
from caloforge.models.layers.mlp import mlp
from caloforge.models.layers.spectral import spectral_norm

__all__ = ["ImageDiscriminator", "ImageEncoder", "ImageGenerator"]

_SLOPE = 0.2
_LOG_VARIANCE = 10.0


class ImageEncoder(nn.Module):
    """Three convolutions (LeakyReLU, LeakyReLU, ReLU), then two linear heads; widths and strides are ours.

    conv32 3x3 s1 p1, conv64 3x3 s2 p1, conv128 3x3 s2 p1: 10 x 10 becomes 3 x 3 x 128.

    Arguments:
        size: Height and width of the images.
        maps: Channels of the images.
        extras: Further numbers a shower, which go to the heads.
        latent: Latent numbers.
    """

    def __init__(self, size: tuple[int, int], maps: int, extras: int, latent: int) -> None:
        super().__init__()
        self.size, self.maps, self.extras = size, maps, extras
        self.body = nn.Sequential(
            nn.Conv2d(maps, 32, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        height, width = ((side + 3) // 4 for side in size)
        self.mean = nn.Linear(128 * height * width + extras, latent)
        self.log_variance = nn.Linear(128 * height * width + extras, latent)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, each (B, latent), of a view (B, extras + maps x cells)."""
        images = view[:, self.extras :].view(len(view), self.maps, *self.size)
        features = torch.cat([self.body(images), view[:, : self.extras]], dim=1)
        return self.mean(features), self.log_variance(features).clamp(-_LOG_VARIANCE, _LOG_VARIANCE)


class ImageGenerator(nn.Module):
    """LAGAN's generator, scaled: numbers a shower from latent numbers.

    dense 3x3x128 -> conv64 5x5, LeakyReLU, BN, up x2 -> LC6 5x5 p2, LeakyReLU, BN, up x2 -> LC6 2x2, LeakyReLU ->
    LC1 2x2 without bias: 12 x 12, then 11 x 11, then 10 x 10. LAGAN has 3x3 in the last but one; 2x2 lets 10 x 10
    come out. What follows (ReLU) is the caller's. ``extras`` further numbers come from a small network beside it.

    Arguments:
        size: Height and width of the images; 2 more must be a multiple of 4.
        latent: Latent numbers.
        channels: Of the dense layer, the convolution and the two locally connected layers.
        extras: Numbers a shower before the pixels.
    """

    def __init__(self, size: tuple[int, int], latent: int, channels: Sequence[int], extras: int) -> None:
        super().__init__()
        first, second, third, fourth = channels
        start = ((size[0] + 2) // 4, (size[1] + 2) // 4)
        twice, large = (2 * start[0], 2 * start[1]), (size[0] + 2, size[1] + 2)
        self.body = nn.Sequential(
            nn.Linear(latent, first * start[0] * start[1]),
            nn.Unflatten(1, (first, *start)),
            nn.Conv2d(first, second, 5, padding=2),
            nn.LeakyReLU(_SLOPE),
            nn.BatchNorm2d(second),
            nn.Upsample(scale_factor=2),
            LocallyConnected2d(twice, second, third, 5, padding=2),
            nn.LeakyReLU(_SLOPE),
            nn.BatchNorm2d(third),
            nn.Upsample(scale_factor=2),
            LocallyConnected2d(large, third, fourth, 2),
            nn.LeakyReLU(_SLOPE),
            LocallyConnected2d((size[0] + 1, size[1] + 1), fourth, 1, 2, bias=False),
            nn.Flatten(),
        )
        self.side = mlp(latent, (64, 64), extras) if extras else None

    def forward(self, z: Tensor) -> Tensor:
        """Return (B, extras + cells), of any sign, for latent numbers (B, latent)."""
        image: Tensor = self.body(z)
        return image if self.side is None else torch.cat([self.side(z), image], dim=1)


class ImageDiscriminator(nn.Module):
    """LAGAN's discriminator, scaled, with spectral norm in place of batch norm, seeing the reconstruction difference.

    conv32 5x5, LeakyReLU, dropout -> three [LC8, LeakyReLU, dropout] 5x5 s2, 5x5 s1, 3x3 s1 -> average pool 2 ->
    flatten, with minibatch discrimination, extras and the difference, to one dense layer. LAGAN halves twice; from
    10 x 10 once is enough.

    Arguments:
        size: Height and width of the images.
        maps: Channels of the images.
        extras: Further numbers a shower, which go to the last layer.
        channels: Of the convolution and of the locally connected layers.
        dropout: Probability of dropout.
    """

    def __init__(
        self, size: tuple[int, int], maps: int, extras: int, channels: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.size, self.maps, self.extras = size, maps, extras
        first, second = channels
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        layers: list[nn.Module] = []
        for layer in (
            nn.Conv2d(maps, first, 5, padding=2),
            LocallyConnected2d(size, first, second, 5, stride=2, padding=2),
            LocallyConnected2d(half, second, second, 5, padding=2),
            LocallyConnected2d(half, second, second, 3, padding=1),
        ):
            layers += [spectral_norm(layer), nn.LeakyReLU(_SLOPE), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        features = second * (half[0] // 2) * (half[1] // 2)
        self.minibatch = MinibatchDiscrimination(features)
        difference = extras + maps * size[0] * size[1]
        self.last = spectral_norm(nn.Linear(features + self.minibatch.features + extras + difference, 1))

    def forward(self, view: Tensor, difference: Tensor) -> Tensor:
        """Return logits (B, 1), large for real showers.

        Arguments:
            view: (B, extras + maps x cells).
            difference: (B, extras + maps x cells), the view less that of the input it reconstructs, else zero.
        """
        images = view[:, self.extras :].view(len(view), self.maps, *self.size)
        features = self.body(images)
        together = [features, self.minibatch(features), view[:, : self.extras], difference]
        logits: Tensor = self.last(torch.cat(together, dim=1))
        return logits
