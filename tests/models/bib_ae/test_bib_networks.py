"""Published encoder, decoder and post-processor of the BIB-AE."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from caloforge.models.bib_ae.networks import BibDecoder, BibEncoder, Pointwise, PostProcessor, seed_size

ANGLED = (30, 60, 30)


def test_decoder_passes_the_published_sizes() -> None:
    decoder = BibDecoder(ANGLED, 24 + 488 + 2)
    assert decoder.seed == (8, 7, 15, 7)
    assert [m.out_features for m in decoder.dense if isinstance(m, nn.Linear)] == [512, 800, 8 * 7 * 7 * 15]
    sizes, channels = [], []
    grid = torch.zeros(1, *decoder.seed)
    with torch.no_grad():
        for part in decoder.body:
            grid = part(grid)
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                sizes.append(tuple(grid.shape[2:]))
                channels.append(grid.shape[1])
    assert sizes[:3] == [(17, 32, 17), (36, 66, 36), (34, 64, 34)]
    assert sizes[4:] == 4 * [ANGLED]
    assert channels[2:] == [8, 8, 8, 16, 32, 16]
    assert decoder(torch.randn(1, 514)).shape == (1, *ANGLED)


@pytest.mark.parametrize("n", range(12, 61))
def test_seeds_reach_every_grid_and_are_the_smallest(n: int) -> None:
    seed, kernel = seed_size(n)

    def end(seed: int) -> int:
        return 2 * (2 * (seed - 1) + kernel - 1) + 4 - 6

    assert end(seed) >= n
    assert seed == 2 or end(seed - 1) < n


@pytest.mark.parametrize("shape", [(30, 30, 30), (25, 25, 25), (12, 14, 12)])
def test_networks_scale_with_the_grid(shape: tuple[int, int, int]) -> None:
    with torch.no_grad():
        assert BibDecoder(shape, 30)(torch.randn(2, 30)).shape == (2, *shape)
        for small in (False, True):
            mean, log_variance = BibEncoder(shape, 1, 2, 7, small=small)(
                torch.rand(2, 1, *shape), torch.rand(2, 2)
            )
            assert mean.shape == log_variance.shape == (2, 7)


def test_encoder_has_the_published_features() -> None:
    encoder = BibEncoder(ANGLED, 1, 2, 24)
    assert encoder.dense[0].in_features == 27 * 32 + 2
    kernels = [m.kernel_size for m in encoder.body if isinstance(m, nn.Conv3d)]
    assert kernels == [(2, 3, 2), (2, 2, 2), (4, 4, 4), (4, 4, 4)]
    assert [m.out_features for m in encoder.dense if isinstance(m, nn.Linear)] == [800, 512]


def test_pointwise_is_a_convolution_of_one_cell() -> None:
    for bias in (True, False):
        mine, theirs = Pointwise(3, 5, bias), torch.nn.Conv3d(3, 5, 1, bias=bias)
        with torch.no_grad():
            theirs.weight.copy_(mine.weight[:, :, None, None, None])
            if mine.bias is not None and theirs.bias is not None:
                theirs.bias.copy_(mine.bias[:, 0])
        x = torch.randn(2, 3, 4, 5, 6)
        torch.testing.assert_close(mine(x), theirs(x))


def test_the_published_one_starts_as_the_identity_and_moves() -> None:
    processor = PostProcessor(3, width=8)
    mean, conditions = torch.exp(2.0 * torch.randn(2, 6, 6, 6) - 2.0), torch.randn(2, 3)
    convolutions = [m for m in processor.modules() if isinstance(m, Pointwise)]
    assert len(convolutions) == 6
    made = processor(mean, conditions)
    assert torch.equal(made, mean)
    optimizer = torch.optim.SGD(processor.parameters(), lr=1e-2)
    before = [p.detach().clone() for p in processor.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        (processor(mean, conditions) - 0.5 * mean).square().mean().backward()
        optimizer.step()
    assert all(not torch.equal(p, q) for p, q in zip(processor.parameters(), before, strict=True))
    assert (processor(mean, conditions) >= 0).all()
