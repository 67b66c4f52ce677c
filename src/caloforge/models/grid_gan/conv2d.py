"""Conv2D GAN: three branches of 2-D convolutions, one for each axis of the grid taken as channels.

The branches see a grid (B, X, Y, L) as images (B, L, X, Y), (B, X, Y, L) and (B, Y, X, L).

Generator: z 200 -> dense 125 -> 5 x 5 x 5 cells, of which each branch makes 25 images of 25 x 25 by convolutions (5 -> 15 -> 30 -> 26 ->
25 cells), each without bias, with leaky rectifier, batch norm and dropout behind it. The branches are permuted back to (x, y, layer), joined along
the layers to 75 channels and merged by a 3 x 3 convolution into the 25 layers. It has 2,053,855 parameters; published are
2.05 million. Three branches have 670,610 each with their batch norms, the dense layer 25,125, the merging one 16,900.

Discriminator: three branches 64 of 8 x 8 (same), then valid 32 of 6, 32 of 5, 32 of 4, 32 of 3 and 9 of 3 (25 -> 20 -> 16 -> 13 -> 11 -> 9);
joined, dense 10, leaky rectifier, batch norm; heads as those of the Conv3D GAN.

The output is linear for the first two epochs of ``paper`` and rectified from the third; the rectifier has no weights, so the
switch changes none. Generation always rectifies.

Preset ``paper`` follows the paper: layers, latent vector z x E / 100 GeV, losses with weights 6 / 0.2 / 0.1, labels 0.9 / 0 with 5 % flips, Adam 5e-4
and 1e-4, batch 128, threshold. Inferred, since only this makes 25 x 25: which convolutions keep the size. Chosen here, since the
paper does not say: cells in GeV x 100 as in the Conv3D GAN; label 1 for the generator's own step; one generator step; leaky rectifiers of
slope 0.3; 600 epochs, whatever the number of showers (the paper: about 600 passes over files of 10,000).

Preset ``improved`` keeps the layers and changes how they learn, as for the Conv3D GAN: see :mod:`~caloforge.models.grid_gan.conv3d` and
:mod:`~caloforge.models.grid_gan.model`. The bottleneck of ten features becomes 64 wide, since spectral norm limits it.

References:
    F. Rehm, S. Vallecorsa, K. Borras, D. Krücker, Physics validation of novel convolutional 2D architectures for
    speeding up high energy physics simulations, 2021, arXiv:2103.13698.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector
from caloforge.models.grid_gan.model import GridGan
from caloforge.models.grid_gan.settings import PUBLISHED, GridGanConfig
from caloforge.models.grid_gan.spectral_conv import evaluate

__all__ = [
    "N_BRANCHES",
    "BranchedDiscriminator",
    "BranchedGenerator",
    "Conv2dGan",
    "Conv2dGanConfig",
    "from_images",
    "to_images",
]


_FORWARD = ((0, 3, 1, 2), (0, 1, 2, 3), (0, 2, 1, 3))
_BACK = ((0, 2, 3, 1), (0, 1, 2, 3), (0, 2, 1, 3))
N_BRANCHES = len(_FORWARD)


def to_images(grid: Tensor, branch: int) -> Tensor:
    """Return the images (B, channels, height, width) that a branch reads of a grid (B, X, Y, L)."""
    return grid.permute(_FORWARD[branch])


def from_images(images: Tensor, branch: int) -> Tensor:
    """Return the grid (B, X, Y, L) of a branch's images."""
    return images.permute(_BACK[branch])


_SHAPE = (25, 25, 25)
_LATENT, _SEED, _LAYERS = 200, 5, 25
_SLOPE = 0.3
_MOMENTUM = 0.01
_ADAM: Mapping[str, Any] = {"betas": (0.9, 0.999), "schedule": "constant", "warmup": 0, "ema": 0.0}


def _same(kernel: int) -> nn.ZeroPad2d:
    """Return the padding after which a kernel of that many cells keeps the size; even ones have one more zero behind."""
    before, behind = (kernel - 1) // 2, kernel // 2
    return nn.ZeroPad2d((before, behind, before, behind))


def _behind(layer: nn.Module, channels: int, norm: bool, dropout: float) -> list[nn.Module]:
    """Return a layer with rectifier, batch norm and dropout."""
    parts = [layer, nn.LeakyReLU(_SLOPE)]
    if norm:
        parts.append(nn.BatchNorm2d(channels, momentum=_MOMENTUM))
    if dropout:
        parts.append(nn.Dropout(dropout))
    return parts


def _generator_branch(dropout: float) -> nn.Sequential:
    """Return (B, 5, 5, 5) -> (B, 25, 25, 25)."""

    def same(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, bias=False)
        return [_same(kernel), *_behind(conv, outputs, True, dropout)]

    def valid(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        return _behind(nn.Conv2d(inputs, outputs, kernel, bias=False), outputs, True, dropout)

    def larger(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        # kernel 5; padding and output padding chosen so that the size grows by the stride exactly
        back = (5 - stride + 1) // 2
        extra = stride - 5 + 2 * back
        up = nn.ConvTranspose2d(inputs, outputs, 5, stride, back, extra, bias=False)
        return _behind(up, outputs, True, dropout)

    return nn.Sequential(
        *same(_SEED, 32, 5),
        *larger(32, 64, 3),  # 15 cells
        *same(64, 64, 5),
        *larger(64, 64, 2),  # 30 cells
        *same(64, 64, 8),
        *valid(64, 64, 5),  # 26 cells
        *same(64, 32, 4),
        *same(32, 32, 3),
        *valid(32, _LAYERS, 2),  # 25 cells
    )


class BranchedGenerator(nn.Module):
    """Latent vectors (B, 200) to values (B, 25, 25, 25), not rectified."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(_LATENT, _SEED**3)
        self.branches = nn.ModuleList(_generator_branch(dropout) for _ in range(N_BRANCHES))
        self.merge = nn.Conv2d(N_BRANCHES * _LAYERS, _LAYERS, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Return values (B, X, Y, L)."""
        with torch.autocast(latent.device.type, enabled=False):  # 8 bits are too few for energies
            seed = self.dense(latent.float()).view(latent.shape[0], _SEED, _SEED, _SEED)
        grids = []
        for index, branch in enumerate(self.branches):
            assert isinstance(branch, nn.Sequential)
            grids.append(from_images(evaluate(branch, to_images(seed, index).contiguous()), index))
        with torch.autocast(latent.device.type, enabled=False):
            joined = torch.cat(grids, 3).float()
            values: Tensor = self.merge(joined.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return values


class BranchedDiscriminator(nn.Module):
    """Values (B, channels, 25, 25, 25) to features (B, width).

    With two channels it sees the cells' shares, too; a branch reads channels x 25 images.
    """

    def __init__(self, channels: int, width: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        for _ in range(N_BRANCHES):
            first = nn.Conv2d(channels * _LAYERS, 64, 8)
            layers = [_same(8), *_behind(first, 64, norm, dropout)]
            inputs = 64
            for outputs, kernel in ((32, 6), (32, 5), (32, 4), (32, 3), (9, 3)):
                layers += _behind(nn.Conv2d(inputs, outputs, kernel), outputs, norm, dropout)
                inputs = outputs
            self.branches.append(nn.Sequential(*layers, nn.Flatten()))
        dense: list[nn.Module] = [nn.Linear(N_BRANCHES * 9 * 9 * 9, width), nn.LeakyReLU(_SLOPE)]
        if norm:
            dense.append(nn.BatchNorm1d(width, momentum=_MOMENTUM))
        self.dense = nn.Sequential(*dense)

    def forward(self, grids: Tensor) -> Tensor:
        """Return features (B, width) of grids (B, channels, X, Y, L)."""
        parts = []
        for index, branch in enumerate(self.branches):
            images = [to_images(grid, index) for grid in grids.unbind(1)]
            parts.append(branch(torch.cat(images, 1)))
        features: Tensor = self.dense(torch.cat(parts, 1))
        return features


class Conv2dGanConfig(GridGanConfig):
    """Settings of the Conv2D GAN."""

    search: ClassVar[Mapping[str, str]] = {**GridGanConfig.search, "width": "32,48,64,96"}

    width: Annotated[int, Field(ge=1)] = 64  # features of the discriminator


class Conv2dGan(GridGan):
    """The Conv2D GAN; see the module."""

    papers: ClassVar[tuple[str, ...]] = ("conv2d-gan",)
    Config = Conv2dGanConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {},
        "paper": {
            **PUBLISHED,
            "epochs": 600,
            "batch_size": 128,
            "generator": {**_ADAM, "lr": 5e-4},
            "discriminator": {**_ADAM, "lr": 1e-4},
            "weights": {"real": 6.0, "energy": 0.2, "total": 0.1},
            "real_label": 0.9,
            "linear_epochs": 2,
            "width": 10,
        },
    }

    config: Conv2dGanConfig

    @classmethod
    def check_detector(cls, detector: Detector) -> None:
        """Raise IncompatibleError for other grids than 25 x 25 x 25."""
        if not detector.is_grid or detector.shape != _SHAPE:
            msg = f"conv2d-gan has no networks for '{detector.name}'; expected a grid of 25 x 25 x 25 cells"
            raise IncompatibleError(msg)

    @property
    def latent_size(self) -> int:
        """Length of the generator's input."""
        return _LATENT

    def build_generator(self) -> nn.Module:
        """Return the generator with three branches."""
        return BranchedGenerator(self.config.dropout)

    def build_discriminator(self, channels: int) -> tuple[nn.Module, int]:
        """Return the discriminator's body with three branches, and the number of its features."""
        body = BranchedDiscriminator(
            channels, self.config.width, self.config.norm == "batch", self.config.dropout
        )
        return body, self.config.width
