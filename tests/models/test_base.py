"""The base of models: conditions, counted noise, settings, figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caloforge.data import sample_path
from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import get_detector
from caloforge.models import MODELS
from caloforge.models.base import condition_sizes, counted_noise
from caloforge.models.selection import compare
from caloforge.models.stage import Stage
from caloforge.random import normals
from caloforge.settings import merge
from caloforge.showers import Showers, read_showers


@pytest.fixture(scope="module")
def atlas() -> Showers:
    return read_showers(sample_path())[:64]


@given(st.integers(0, 2**31), st.integers(0, 50), st.integers(1, 20), st.integers(1, 40))
def test_noise_is_that_of_counted_normals(seed: int, start: int, n: int, size: int) -> None:
    noise = counted_noise(seed, start, n, size)
    assert noise.shape == (n, size)
    assert noise.dtype == torch.float32
    known = normals(seed, "noise", 0, start + n, size)[start:].astype(np.float32)
    np.testing.assert_array_max_ulp(noise.numpy(), known, maxulp=1)


def test_the_condition_matrix_holds_what_the_showers_say(atlas: Showers) -> None:
    kind = MODELS["vae"]
    names = ("incident_energy", "impact", "incident_theta", "alignment_eta")
    model = kind(atlas.detector, kind.resolve({"conditions": names}))
    matrix = model.condition_matrix(atlas)
    assert matrix.shape == (64, 5)
    assert model.conditions == names
    for name in names:
        assert np.allclose(model.condition(matrix, name).numpy(), atlas.condition(name))
    bare = atlas.replace(conditions={})
    with pytest.raises(IncompatibleError, match="no condition 'impact'"):
        model.condition_matrix(bare)


def test_the_range_of_the_training_is_kept(atlas: Showers) -> None:
    kind = MODELS["vae"]
    model = kind(atlas.detector, kind.resolve())
    model.fit_transforms(atlas)
    assert float(model.condition_low[0]) == pytest.approx(atlas.incident_energy.min())
    assert float(model.condition_high[0]) == pytest.approx(atlas.incident_energy.max())


def test_sizes_of_conditions() -> None:
    sizes = condition_sizes(get_detector("atlas-em-barrel"))
    assert sizes == {
        "incident_energy": 1,
        "incident_theta": 1,
        "alignment_phi": 1,
        "alignment_eta": 1,
        "impact": 2,
    }


def test_merged_settings_keep_what_is_not_named() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 5}, "e": 6}) == {"a": {"b": 5, "c": 2}, "d": 3, "e": 6}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_stage_steps_or_fits() -> None:
    with pytest.raises(ConfigError, match="'both' must have either"):
        Stage("both", step=lambda b, u: {}, fit=lambda d, g: None)
    with pytest.raises(ConfigError, match="'none' must have either"):
        Stage("none")


class TestFigures:
    layer = torch.tensor([0, 0, 1, 1])

    def cells(self) -> tuple[torch.Tensor, torch.Tensor]:
        energy = torch.linspace(1e3, 1e4, 90)
        noise = torch.rand(90, 4, generator=torch.Generator().manual_seed(0))
        return energy, (0.5 + noise) * energy[:, None] / 10

    def test_equal_samples_differ_in_nothing(self) -> None:
        energy, cells = self.cells()
        assert all(value == 0 for value in compare(cells, cells, energy, self.layer).values())

    def test_more_energy_is_a_response_alone(self) -> None:
        energy, cells = self.cells()
        found = compare(cells, 1.1 * cells, energy, self.layer)
        assert found["response"] == pytest.approx(0.1, abs=1e-5)
        assert found["layer_fraction"] == pytest.approx(0.0, abs=1e-4)
        assert found["resolution"] == pytest.approx(0.1, abs=1e-4)
        assert found["physics"] > 0

    def test_energy_moved_between_layers(self) -> None:
        energy, cells = self.cells()
        moved = cells.clone()
        moved[:, 0] -= 0.02 * cells.sum(1)
        moved[:, 2] += 0.02 * cells.sum(1)
        found = compare(cells, moved, energy, self.layer, groups=1)
        assert found["layer_fraction"] == pytest.approx(2.0, abs=1e-3)
        assert found["profile"] == pytest.approx(0.02, abs=1e-5)
        assert found["response"] == pytest.approx(0.0, abs=1e-6)

    def test_hits_count_cells_above_threshold(self) -> None:
        energy, cells = self.cells()
        fewer = cells.clone()
        fewer[:, 3] = 0.05
        assert compare(cells, fewer, energy, self.layer)["hits"] == pytest.approx(0.25)


def test_one_setting_of_a_group_leaves_the_presets_others() -> None:
    from caloforge.models.grid_gan.conv3d import Conv3dGan

    whole = Conv3dGan.resolve({})
    changed = Conv3dGan.resolve({"discriminator": {"lr": 3e-4}})
    assert changed.discriminator == whole.discriminator.model_copy(update={"lr": 3e-4})
    assert whole.discriminator.schedule == "cosine"
