"""Calibration as the last stage of the ATLAS models: before the fit, what it is given, and after it."""

from __future__ import annotations

import pytest
import torch
from adversaries import atlas_showers, dataset

from caloforge.geometry import get_detector
from caloforge.models.atlas.vae import Vae
from caloforge.models.atlas.wgan_gp import WganGp
from caloforge.models.nn.layer_sums import LayerSums

DETECTOR = get_detector("atlas-em-barrel")


def test_before_the_fit_a_model_gives_the_network_s_cells() -> None:
    torch.manual_seed(0)
    model = Vae(DETECTOR, Vae.resolve({"hidden": (16,), "latent": 4})).eval()
    assert model.calibration is not None
    assert not model.calibration.fitted
    conditions = model.condition_matrix(atlas_showers(20))
    noise = torch.randn(20, model.noise_size)
    torch.testing.assert_close(model.sample(noise, conditions), model.make(noise, conditions))


@pytest.mark.parametrize("kind", [Vae, WganGp])
def test_dense_cells_are_those_of_the_network_and_small_ones(kind: type[Vae] | type[WganGp]) -> None:
    torch.manual_seed(0)
    showers = atlas_showers(60)
    model = kind(DETECTOR, kind.resolve({})).eval()
    model.fit_transforms(showers)
    conditions = model.condition_matrix(showers)
    noise = torch.randn(60, model.noise_size)
    sparse, dense = (model.make(noise, conditions, dense=d) for d in (False, True))
    empty = sparse == 0
    assert empty.any()
    assert (dense[empty] > 0).float().mean() > 0.85  # the rest is in layers without energy
    assert (dense[empty].sum() / dense.sum()).item() < 0.05
    torch.testing.assert_close(dense.sum(1), sparse.sum(1), rtol=0.02, atol=1.0)


@pytest.mark.parametrize("kind", [Vae, WganGp])
def test_the_last_stage_fits_and_its_tables_are_stored(kind: type[Vae] | type[WganGp]) -> None:
    torch.manual_seed(0)
    showers = atlas_showers(120)
    model = kind(DETECTOR, kind.resolve({})).eval()
    model.fit_transforms(showers)
    stage = model.stages()[-1]
    assert stage.fit is not None
    with torch.no_grad():
        stage.fit(dataset(model, showers), torch.Generator())
    conditions = model.condition_matrix(showers)
    cells = model.draw(conditions)
    again = kind(DETECTOR, kind.resolve({})).eval()
    again.load_weights(model.state_dict())
    torch.testing.assert_close(again.draw(conditions), cells)
    true = torch.from_numpy(showers.cells)
    fractions = [(LayerSums(DETECTOR)(x) / x.sum(1, keepdim=True)).mean(0) for x in (true, cells)]
    assert (fractions[0] - fractions[1]).abs().max() < 0.03
