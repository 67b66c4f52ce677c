"""The networks of the two-sample classifiers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ChallengeResNet", "OccupancyMLP", "ResidualCNN", "StandardisedMLP"]

_SLOPE = 0.01


def _mlp(size: int, width: int, dropout: float) -> list[nn.Module]:
    """Return three hidden layers of one width with LeakyReLU, and one logit."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(size, width), nn.LeakyReLU(_SLOPE), nn.Dropout(dropout)]
        size = width
    return [*layers, nn.Linear(size, 1)]


class _Standardise(nn.Module):
    """Shift and scale each input by its mean and standard deviation over the training inputs (N, d); constants become 0."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        deviation = inputs.std(dim=0)
        self.register_buffer("mean", inputs.mean(dim=0))
        self.register_buffer("scale", torch.where(deviation > 0, 1.0 / deviation, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised inputs (B, d)."""
        return torch.sub(x, self.get_buffer("mean")).mul_(self.get_buffer("scale"))


class StandardisedMLP(nn.Module):
    """Three hidden layers of one width with LeakyReLU, one logit.

    Inputs are standardised with the training inputs (N, d), unless switched off as in the CaloChallenge's classifier.
    """

    def __init__(self, inputs: Tensor, width: int, dropout: float = 0.0, standardise: bool = True) -> None:
        super().__init__()
        first: list[nn.Module] = [_Standardise(inputs)] if standardise else []
        self.layers = nn.Sequential(*first, *_mlp(inputs.shape[1], width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,) of inputs (B, d)."""
        out: Tensor = self.layers(x).squeeze(1)
        return out


class OccupancyMLP(nn.Module):
    """An MLP on inputs (N, d) with missing values: NaN, for example the logarithm of an empty cell.

    Each input is standardised with its known values and is 0 where it is missing; a further input of 0 or 1 says whether
    it is known, for those that are missing somewhere in the training part.
    """

    def __init__(self, inputs: Tensor, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        known = ~inputs.isnan()
        number = known.sum(dim=0).clamp(min=1)
        mean = inputs.nan_to_num(0.0).sum(dim=0) / number
        variance = torch.where(known, (inputs - mean) ** 2, 0.0).sum(dim=0) / number
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(variance > 0, variance.clamp(min=1e-30).rsqrt(), 0.0))
        self.register_buffer("sometimes", torch.nonzero(~known.all(dim=0)).squeeze(1))
        size = inputs.shape[1] + len(self.get_buffer("sometimes"))
        self.layers = nn.Sequential(*_mlp(size, width, dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,) of inputs (B, d)."""
        standard = ((x - self.get_buffer("mean")) * self.get_buffer("scale")).clamp(-10.0, 10.0)
        missing = x.isnan()
        bits = 0.5 - missing[:, self.get_buffer("sometimes")].to(x.dtype)
        out: Tensor = self.layers(torch.cat([standard.masked_fill(missing, 0.0), bits], dim=1)).squeeze(1)
        return out


class _Block(nn.Module):
    """Two 3x3x3 convolutions around a shortcut; the first may halve the image.

    The shortcut is a convolution where the shape changes, ``normed`` over batches or not.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, normed: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm3d(channels),
        )
        same = stride == 1 and channels_in == channels
        shortcut = nn.Identity() if same else nn.Conv3d(channels_in, channels, 1, stride, bias=False)
        self.shortcut = nn.Sequential(shortcut, nn.BatchNorm3d(channels)) if normed and not same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return features of an image (B, channels_in, X, Y, Z)."""
        out: Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return out


class ResidualCNN(nn.Module):
    """A small three-dimensional residual network on log10 cell energies.

    Normalised over batches and not within a shower, which would hide the shower's energy.

    Arguments:
        inputs: Training inputs (N, 1 + cells): log10 of the incident energy, then the image.
        shape: Shape (X, Y, Z) of the image.
        channels: Channels of the first stage; doubled in each of the two further ones.
        occupancy: Whether a second image says which cells are not 0.
    """

    def __init__(
        self, inputs: Tensor, shape: tuple[int, ...], channels: int = 16, occupancy: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.occupancy = shape, occupancy
        self.standardise = _Standardise(inputs[:, :1])
        self.register_buffer("image_scale", 1.0 / inputs[:, 1:].std().clamp(min=1e-12))
        self.stages = nn.Sequential(
            nn.Conv3d(2 if occupancy else 1, channels, 3, 2, 1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            _Block(channels, channels, 1),
            _Block(channels, 2 * channels, 2),
            _Block(2 * channels, 4 * channels, 2),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(4 * channels + 1, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,) of inputs (B, 1 + cells)."""
        image = x[:, 1:].reshape(-1, 1, *self.shape) * self.get_buffer("image_scale")
        if self.occupancy:
            image = torch.cat([image, (image != 0).to(image.dtype)], dim=1)
        out: Tensor = self.head(torch.cat([self.stages(image), self.standardise(x[:, :1])], dim=1)).squeeze(1)
        return out


_PLANES = (32, 64, 64, 128)


class ChallengeResNet(nn.Module):
    """The CaloChallenge's convolutional classifier: a three-dimensional ResNet-18 of 32, 64, 64 and 128 channels.

    A convolution of 7x7x7 with stride 2 and a maximum over 3x3x3 with stride 2 come first; the last three stages halve the image. The
    incident energy, normalised over batches, joins the mean features.

    Arguments:
        shape: Shape (layers, alpha, r) of the image.

    References:
        C. Krause et al., CaloChallenge 2022, arXiv:2410.21611, section 4; K. Hara et al., arXiv:1711.09577.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        first = _PLANES[0]
        parts: list[nn.Module] = [
            nn.Conv3d(1, first, 7, 2, 3, bias=False),
            nn.BatchNorm3d(first),
            nn.ReLU(),
            nn.MaxPool3d(3, 2, 1),
        ]
        before = first
        for number, channels in enumerate(_PLANES):
            parts += [_Block(before, channels, 2 if number else 1, True), _Block(channels, channels, 1, True)]
            before = channels
        self.stages = nn.Sequential(*parts, nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.energy = nn.BatchNorm1d(1)
        self.head = nn.Linear(before + 1, 1)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,) of inputs (B, 1 + cells): log10 of the incident energy, then cells over the incident energy."""
        features = self.stages(x[:, 1:].reshape(-1, 1, *self.shape))
        out: Tensor = self.head(torch.cat([features, self.energy(x[:, :1])], dim=1)).squeeze(1)
        return out
