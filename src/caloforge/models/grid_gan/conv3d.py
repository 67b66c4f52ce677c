"""Conv3D GAN: 3-D convolutions on the whole shower, conditional on the energy, in the wide grid also on the angle.

One table has the sizes of both published networks; the detector's shape chooses. Sizes (generator, 25 x 25 x 25):
z 200 -> dense 3136 -> 8 channels of 7 x 7 x 8 -> 64 of 7 x 7 x 8 -> 6 of 13 x 14 x 9 -> 6 of 26 x 26 x 26 -> 25 x 25 x 25;
872,808 parameters, 630,336 of them in the dense layer. Wide: 256 -> dense 5184 -> 8 of 9 x 9 x 8 -> 49 x 49 x 41 -> 50 x 50 x 38 ->
51 x 51 x 35 -> 52 x 52 x 32 -> 52 x 52 x 28 -> 52 x 52 x 26 -> 51 x 51 x 25; 1,364,983 parameters, 1,332,288 in the dense layer.

Preset ``paper`` follows the papers: layers, latent vector, cells in GeV x 100 (and to the power 0.85 with angles), threshold,
losses and weights, label flips, two generator steps, RMSprop, batch, epochs, dropout, batch norm. What they do not say and was
chosen here: leaky rectifiers of slope 0.3, batch norm of momentum 0.99 and RMSprop of smoothing 0.9 (defaults of the library they
used); cells of the wide grid also in units of 10 MeV; Glorot's initial weights with biases of 0 (that library's too); generated showers have the conditions of the batch's
real ones; the cell sum is compared with the mean visible energy at those conditions. The MAPE of the energy is in per cent, the angle in radians,
as the published weights need it. Since the published latent vector vanishes with the energy, showers of a few GeV
are alike, and empty in the first steps.

Preset ``improved`` keeps the networks' layers and changes how they learn: cells as logarithms in units of 0.2 MeV; the latent vector
begins with the standardised conditions; spectral norm and the R1 penalty in place of batch norm, dropout and label flips in the discriminator,
which also sees profiles and conditions; the symmetries of the square; the visible energy drawn from its fitted distribution;
Adam with a cosine schedule, moving averages of the weights. For the wide grid also ``constant``: the small grid behind the dense layer begins
with fixed normal numbers, as the learned constant of Karras et al. (arXiv:1812.04948), so that the convolutions can distinguish
positions from the first step on; with biases of 0 they learn that only as fast as those grow. See :mod:`~caloforge.models.grid_gan.model` for each.

References:
    G. Khattak, S. Vallecorsa, F. Carminati, G. M. Khan, Fast simulation of a high granularity calorimeter by
    generative adversarial networks, 2021, arXiv:2109.07388.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.grid_gan.banded_conv import BandedConv3d
from caloforge.models.grid_gan.model import GridGan
from caloforge.models.grid_gan.settings import PUBLISHED, GridGanConfig
from caloforge.settings import ModelConfig, merge

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Conv",
    "Conv3dGan",
    "Conv3dGanConfig",
    "GridStack",
    "SeededStack",
    "Size",
]


Size = tuple[int, int, int]
_MOMENTUM = 0.01
"""Of the new batch in the batch norms; the published library counts it the other way round, 0.99."""


@dataclass(frozen=True)
class Conv:
    """One layer: repeat cells, pad, convolve, then activation and perhaps batch norm and dropout."""

    channels: int  # channels of the output
    kernel: Size  # cells of the kernel along x, y and the layers
    pad: Size | None = (0, 0, 0)  # zeros on each side; None for as many as keep the size
    up: Size = (1, 1, 1)  # how often each cell is repeated along each axis, before all else
    norm: bool = True  # whether a batch norm follows the activation
    bias: bool = True  # whether the convolution has one


def _stack(
    channels: int, size: Size, layers: Sequence[Conv], slope: float, norm: bool, dropout: float
) -> tuple[nn.Sequential, int, Size]:
    """Return blocks of convolution, rectifier, and perhaps batch norm and dropout, and the channels and size of their output."""
    blocks = []
    for layer in layers:
        convolution = _convolution(channels, size, layer)
        parts = [convolution, nn.LeakyReLU(slope)]
        channels, size = layer.channels, convolution.size
        if norm and layer.norm:
            parts.append(nn.BatchNorm3d(channels, momentum=_MOMENTUM))
        if dropout:
            parts.append(nn.Dropout(dropout))
        blocks.append(nn.Sequential(*parts))
    return nn.Sequential(*blocks), channels, size


def _convolution(channels: int, size: Size, layer: Conv) -> BandedConv3d:
    """Return the convolution of a layer, which repeats and pads, for a grid of that size.

    Padding that keeps the size has (k - 1) // 2 of k - 1 zeros before, so that even kernels have one more behind.
    """
    pads = [((k - 1) // 2, k // 2) for k in layer.kernel]
    if layer.pad is not None:
        pads = [(n, n) for n in layer.pad]
    return BandedConv3d(channels, layer.channels, layer.kernel, size, layer.up, pads, layer.bias)


class SeededStack(nn.Module):
    """A generator: a dense layer makes a small grid, convolutions make it large; the last one is not activated here."""

    def __init__(self, latent: int, channels: int, seed: Size, layers: Sequence[Conv], slope: float) -> None:
        super().__init__()
        self.seed = (channels, *seed)
        self.dense = nn.Linear(latent, channels * seed[0] * seed[1] * seed[2])
        self.blocks, channels, size = _stack(channels, seed, layers[:-1], slope, True, 0.0)
        self.last = _convolution(channels, size, layers[-1])

    def forward(self, latent: Tensor) -> Tensor:
        """Return values (B, X, Y, L) of latent vectors (B, latent), not rectified."""
        with torch.autocast(latent.device.type, enabled=False):  # 8 bits are too few for energies
            seed = self.dense(latent.float()).view(latent.shape[0], *self.seed)
        grid = self.blocks(seed)
        with torch.autocast(latent.device.type, enabled=False):
            values: Tensor = self.last(grid.float())
        return values[:, 0]


class GridStack(nn.Module):
    """The body of a discriminator: convolutions, average pool of 2 along each axis, flattened to ``features`` numbers.

    ``norm`` says whether batch norms follow the layers with ``Conv.norm``.
    """

    def __init__(self, channels: int, size: Size, layers: Sequence[Conv], norm: bool, dropout: float) -> None:
        super().__init__()
        self.blocks, channels, size = _stack(channels, size, layers, 0.3, norm, dropout)
        self.features = channels * (size[0] // 2) * (size[1] // 2) * (size[2] // 2)

    def forward(self, grid: Tensor) -> Tensor:
        """Return features (B, features) of a grid (B, channels, X, Y, L)."""
        return F.avg_pool3d(self.blocks(grid), 2).flatten(1)


@dataclass(frozen=True)
class Architecture:
    """Sizes of both networks for one grid."""

    latent: int  # length of the latent vector
    channels: int  # channels of the grid behind the dense layer
    seed: Size  # its size
    slope: float  # of the generator's leaky rectifiers
    generator: tuple[Conv, ...]  # its convolutions
    discriminator: tuple[Conv, ...]  # its convolutions


ARCHITECTURES: Mapping[tuple[int, ...], Architecture] = {
    (25, 25, 25): Architecture(
        latent=200,
        channels=8,
        seed=(7, 7, 8),
        slope=0.3,
        generator=(
            Conv(64, (6, 6, 8), pad=None),
            Conv(6, (6, 5, 8), pad=(2, 2, 0), up=(2, 2, 2)),
            Conv(6, (3, 3, 8), pad=(1, 0, 3), up=(2, 2, 3), norm=False),
            Conv(1, (2, 2, 2), bias=False),
        ),
        discriminator=(Conv(32, (5, 5, 5), pad=None, norm=False), *3 * (Conv(8, (5, 5, 5), pad=(2, 2, 1)),)),
    ),
    (51, 51, 25): Architecture(
        latent=256,
        channels=8,
        seed=(9, 9, 8),
        slope=0.0,
        generator=(
            Conv(8, (6, 6, 8), up=(6, 6, 6)),
            *3 * (Conv(6, (4, 4, 6), pad=(2, 2, 1)),),
            Conv(6, (3, 3, 5), pad=(1, 1, 0)),
            Conv(6, (3, 3, 3), pad=(1, 1, 0), norm=False),
            Conv(1, (2, 2, 2)),
        ),
        discriminator=(Conv(16, (5, 6, 6), pad=None, norm=False), *3 * (Conv(8, (5, 6, 6)),)),
    ),
}
"""Shape of a grid to the networks for it."""

_RMSPROP: Mapping[str, Any] = {
    "kind": "rmsprop",
    "lr": 1e-3,
    "alpha": 0.9,
    "schedule": "constant",
    "warmup": 0,
    "ema": 0.0,
}
_PAPER: Mapping[str, Any] = {
    **PUBLISHED,
    "epochs": 50,
    "batch_size": 128,
    "generator": _RMSPROP,
    "discriminator": _RMSPROP,
    "weights": {"real": 2.0, "energy": 0.1, "total": 0.1},
    "generator_steps": 2,
}


class Conv3dGanConfig(GridGanConfig):
    """Settings of the Conv3D GAN."""

    # width of the normal numbers that the dense layer's biases begin with; 0 as published
    constant: Annotated[float, Field(ge=0)] = 0.0


class Conv3dGan(GridGan):
    """The Conv3D GAN; see the module.

    Presets: ``improved``; ``paper``, for 25 x 25 x 25; ``paper-angled``, for 51 x 51 x 25.
    """

    papers: ClassVar[tuple[str, ...]] = ("3dgan",)
    Config = Conv3dGanConfig
    config: Conv3dGanConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {},
        "paper": _PAPER,
        "paper-angled": merge(
            _PAPER,
            {
                "epochs": 120,
                "batch_size": 64,
                "cell_power": 0.85,
                "weights": {"real": 3.0, "energy": 0.1, "angle": 25.0, "total": 0.1},
            },
        ),
    }

    def __init__(self, detector: Detector, config: ModelConfig) -> None:
        super().__init__(detector, config)
        if self.config.constant:
            nn.init.normal_(self.generator.get_parameter("dense.bias"), std=self.config.constant)

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Raise IncompatibleError for a grid that the table has no networks for."""
        if not detector.is_grid or detector.shape not in ARCHITECTURES:
            known = ", ".join(" x ".join(map(str, shape)) for shape in ARCHITECTURES)
            msg = f"conv3d-gan has no networks for '{detector.name}'; expected a grid of {known} cells"
            raise IncompatibleError(msg)

    @property
    def architecture(self) -> Architecture:
        """Sizes of the networks for the detector's grid."""
        return ARCHITECTURES[self.detector.shape]

    @property
    def latent_size(self) -> int:
        """Length of the generator's input."""
        return self.architecture.latent

    def build_generator(self) -> nn.Module:
        """Return the generator of the table."""
        a = self.architecture
        return SeededStack(a.latent, a.channels, a.seed, a.generator, a.slope)

    def build_discriminator(self, channels: int) -> tuple[nn.Module, int]:
        """Return the discriminator's body of the table, and the number of its features."""
        nx, ny, n_layers = self.detector.shape
        body = GridStack(
            channels,
            (nx, ny, n_layers),
            self.architecture.discriminator,
            self.config.norm == "batch",
            self.config.dropout,
        )
        return body, body.features
