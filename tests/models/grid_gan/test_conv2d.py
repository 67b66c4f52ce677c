from __future__ import annotations

import pytest
import torch
from grids import RecordingUpdater, batch_of, built, grid_showers
from torch import nn

from caloforge.errors import IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models.grid_gan.conv2d import (
    N_BRANCHES,
    BranchedDiscriminator,
    BranchedGenerator,
    Conv2dGan,
    from_images,
    to_images,
)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_generator_has_the_published_parameters() -> None:
    generator = BranchedGenerator(0.2)
    # channels in, channels out, cells of the kernel
    convolutions = [
        (5, 32, 25),
        (32, 64, 25),
        (64, 64, 25),
        (64, 64, 25),
        (64, 64, 64),
        (64, 64, 25),
        (64, 32, 16),
        (32, 32, 9),
        (32, 25, 4),
    ]
    branch = sum(a * b * k + 2 * b for a, b, k in convolutions)
    assert [_count(b) for b in generator.branches] == [branch] * 3
    assert _count(generator) == 3 * branch + 201 * 125 + (75 * 9 + 1) * 25 == 2_053_855
    assert round(_count(generator) / 1e6, 2) == 2.05


def test_each_stage_of_a_branch_has_its_size() -> None:
    branch = BranchedGenerator(0.2).branches[0].eval()
    sizes = []
    images = torch.randn(1, 5, 5, 5)
    with torch.no_grad():
        for part in branch:
            images = part(images)
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                assert part.bias is None
                sizes.append(tuple(images.shape[1:]))
    assert sizes == [
        (32, 5, 5),
        (64, 15, 15),
        (64, 15, 15),
        (64, 30, 30),
        (64, 30, 30),
        (64, 26, 26),
        (32, 26, 26),
        (32, 26, 26),
        (25, 25, 25),
    ]


def test_discriminator_narrows_as_published() -> None:
    body = BranchedDiscriminator(1, 10, True, 0.2).eval()
    sizes = []
    images = torch.rand(1, 25, 25, 25)
    with torch.no_grad():
        for part in body.branches[0]:
            images = part(images)
            if isinstance(part, nn.Conv2d):
                sizes.append((images.shape[1], images.shape[2]))
        assert body(torch.rand(2, 1, 25, 25, 25)).shape == (2, 10)
    assert sizes == [(64, 25), (32, 20), (32, 16), (32, 13), (32, 11), (9, 9)]


def test_a_branch_turns_with_its_axis() -> None:
    """With equal branches and a merging layer that copies one of them, turning the seed turns the shower."""
    generator = BranchedGenerator(0.0).eval()
    for branch in generator.branches[1:]:
        branch.load_state_dict(generator.branches[0].state_dict())
    seed = torch.randn(1, 5, 5, 5)
    with torch.no_grad():
        first = from_images(generator.branches[0](to_images(seed, 0)), 0)
        second = from_images(generator.branches[1](to_images(seed.permute(0, 3, 1, 2), 1)), 1)
    torch.testing.assert_close(second, first.permute(0, 3, 1, 2))


def test_rectifier_from_the_third_epoch_keeps_the_weights() -> None:
    showers = grid_showers()
    model = built(Conv2dGan, showers, preset="paper").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    conditions = model.condition_matrix(showers)
    noise = torch.randn(len(showers), model.noise_size)
    with torch.no_grad():
        linear = model.values(noise, conditions, rectified=False)
        rectified = model.values(noise, conditions, rectified=True)
    assert (linear < 0).any()
    torch.testing.assert_close(rectified, torch.relu(linear))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("epoch", "linear"), [(1, True), (2, False)])
def test_output_is_linear_for_two_epochs_of_training(epoch: int, linear: bool) -> None:
    model = built(Conv2dGan, grid_showers(), preset="paper")
    seen = []
    judge = model.judge

    def watched(values: torch.Tensor, conditions: torch.Tensor):
        seen.append(bool((values < 0).any()))
        return judge(values, conditions)

    model.judge = watched  # type: ignore[method-assign]
    batch = batch_of(model, grid_showers()[:3])
    model.stages()[0].step(batch, RecordingUpdater(model, epoch=epoch))
    assert seen == [False, linear, linear]


def test_other_grids_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="25 x 25 x 25"):
        Conv2dGan(get_detector("clic-ecal-wide"), Conv2dGan.resolve())


@pytest.mark.parametrize("branch", range(N_BRANCHES))
def test_axis_permutation_and_its_inverse(branch: int) -> None:
    grid = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    images = to_images(grid, branch)
    assert images.shape == [(2, 5, 3, 4), (2, 3, 4, 5), (2, 4, 3, 5)][branch]
    assert torch.equal(from_images(images, branch), grid)
    # the channels are layer, x and y in turn
    assert torch.equal(images[:, 1], [grid[..., 1], grid[:, 1], grid[:, :, 1]][branch])
