"""The one calibration: rounds of its steps, generation under the training conditions, its stage, and models without it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from adversaries import atlas_showers, dataset, images
from torch import Tensor

from caloforge.geometry import get_detector
from caloforge.models.atlas.vae import Vae
from caloforge.models.atlas.wgan_gp import WganGp
from caloforge.models.calibration.base import STAGE, CalibratedModel, Calibration, Sample, Step, generate_like
from caloforge.models.image_gan.vae_gan import VaeGan
from caloforge.models.nn.cell_networks import LayerSums
from caloforge.models.stage import Batch
from caloforge.showers import Showers

DETECTOR = get_detector("atlas-em-barrel")
MODELS: dict[type[CalibratedModel], tuple[dict[str, object], int]] = {
    Vae: ({"hidden": (16,), "latent": 4}, 80),
    WganGp: ({"generator": (16,), "critic": (16,), "latent": 8}, 80),
    VaeGan: ({"latent": 8, "generator": (8, 4, 2, 2), "discriminator": (4, 2)}, 60),
}


@cache
def _showers(kind: type[CalibratedModel]) -> Showers:
    return images(MODELS[kind][1]) if kind is VaeGan else atlas_showers(MODELS[kind][1])


def _model(kind: type[CalibratedModel], **values: object) -> CalibratedModel:
    torch.manual_seed(0)
    model = kind(_showers(kind).detector, kind.resolve({**MODELS[kind][0], **values}))
    model.fit_transforms(_showers(kind))
    return model.eval()


@cache
def _calibrated(kind: type[CalibratedModel]) -> CalibratedModel:
    model = _model(kind)
    stage = model.stages()[-1]
    assert stage.name == STAGE
    assert stage.fit is not None
    stage.fit(dataset(model, _showers(kind)), torch.Generator())
    return model


class Scale(Step):
    """Give the first column the mean of the reference, by a factor that is corrected in each round."""

    factor: Tensor

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log
        self.register_buffer("factor", torch.ones(1))

    def fit(self, reference: Sample, generated: Sample, turn: int) -> None:
        self.log.append(f"fit {turn}")

    def refine(self, reference: Sample, finished: Sample, turn: int) -> None:
        self.log.append(f"refine {turn}")
        self.factor *= reference.cells.mean() / finished.cells.mean()

    def forward(self, showers: Sample) -> Sample:
        return showers._replace(cells=showers.cells * self.factor)


class Bend(Step):
    """A step that changes what the step before has done."""

    def forward(self, showers: Sample) -> Sample:
        return showers._replace(cells=showers.cells.sqrt())


def test_steps_are_fitted_in_order_and_corrected_for_later_ones() -> None:
    class Six(Calibration):
        rounds = 6

    log: list[str] = []
    calibration = Six(Scale(log), Bend())
    energy = torch.ones(50)
    true, made = (Sample(torch.full((50, 2), value), energy[:, None], energy, energy) for value in (7.0, 4.0))
    assert not calibration.fitted
    calibration.fit(true, made)
    assert calibration.fitted
    assert log == [f"{word} {turn}" for turn in range(6) for word in ("fit", "refine")]
    assert float(calibration(made).mean()) == pytest.approx(7.0, rel=0.05)  # without correction 2


def test_generated_showers_have_the_training_conditions_again_and_again() -> None:
    class Data:
        device = torch.device("cpu")
        cells, conditions = torch.rand(7, 3), torch.arange(7.0)[:, None]

        def __len__(self) -> int:
            return 7

        def take(self, indices: Tensor) -> Batch:
            return Batch(self.cells[indices], self.conditions[indices], indices)

        def batches(self, size: int):
            yield self.take(torch.arange(4))
            yield self.take(torch.arange(4, 7))

    def make(noise: Tensor, conditions: Tensor) -> Tensor:
        return conditions + 0.01 * noise

    data = Data()
    cells, conditions, made, many = generate_like(data, make, 3, 4)
    assert torch.equal(cells, data.cells)
    assert torch.equal(conditions, data.conditions)
    assert torch.equal(many, data.conditions.repeat(4, 1))
    assert (made - many).abs().max() < 0.1
    assert len(made.unique()) == made.numel()
    assert len(generate_like(data, make, 3, 25, fewest=15)[2]) == 21
    assert torch.equal(generate_like(data, make, 3, 1)[2], made[:7])


@pytest.mark.parametrize("kind", MODELS)
def test_before_the_fit_a_model_gives_the_networks_cells(kind: type[CalibratedModel]) -> None:
    model = _model(kind)
    assert model.calibration is not None
    assert not model.calibration.fitted
    conditions = model.condition_matrix(_showers(kind)[:20])
    noise = torch.randn(20, model.noise_size)
    assert torch.equal(model.sample(noise, conditions), model.make(noise, conditions))


@pytest.mark.parametrize("kind", [Vae, WganGp])
def test_dense_cells_are_those_of_the_network_and_small_ones(kind: type[Vae] | type[WganGp]) -> None:
    model = _model(kind)
    conditions = model.condition_matrix(_showers(kind)[:60])
    noise = torch.randn(60, model.noise_size, generator=torch.Generator().manual_seed(1))
    sparse, dense = model.make(noise, conditions), model.make_for_calibration(noise, conditions)
    empty = sparse == 0
    assert empty.any()
    assert (dense[empty] > 0).float().mean() > 0.85  # the rest is in layers without energy
    assert (dense[empty].sum() / dense.sum()).item() < 0.05
    torch.testing.assert_close(dense.sum(1), sparse.sum(1), rtol=0.02, atol=1.0)


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_stage_fits_and_its_constants_are_stored(kind: type[CalibratedModel]) -> None:
    model, showers = _calibrated(kind), _showers(kind)
    conditions = model.condition_matrix(showers)
    cells = model.draw(conditions)
    again = kind(showers.detector, model.config).eval()
    again.load_weights(model.state_dict())
    torch.testing.assert_close(again.draw(conditions), cells)
    sums = LayerSums(showers.detector)
    means = [
        (sums(x) / model.condition(conditions, "incident_energy")).mean(0)
        for x in (torch.from_numpy(showers.cells), cells)
    ]
    assert ((means[0] - means[1]).abs() < 0.1 * means[0].sum()).all()


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_measured_without_its_calibration(kind: type[CalibratedModel]) -> None:
    model = _calibrated(kind)
    conditions = model.condition_matrix(_showers(kind)[:20])
    noise = torch.randn(20, model.noise_size)
    try:
        plain = model.choose({"calibrated": False}).sample(noise, conditions)
    finally:
        model.choose(None)
    assert torch.equal(plain, model.make(noise, conditions))
    assert not torch.allclose(model.sample(noise, conditions), plain)


@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_a_run_without_calibration_load_and_are_not_calibrated(
    kind: type[CalibratedModel],
) -> None:
    without = _model(kind, calibrate=False)
    assert without.calibration is None
    assert [stage.name for stage in without.stages()] == [stage.name for stage in _model(kind).stages()[:-1]]
    conditions = without.condition_matrix(_showers(kind)[:5])
    for model in (_model(kind), _calibrated_copy(kind)):
        model.load_weights(without.state_dict())
        assert model.calibration is not None
        assert not model.calibration.fitted
        assert torch.equal(model.draw(conditions), without.draw(conditions))


def _calibrated_copy(kind: type[CalibratedModel]) -> CalibratedModel:
    model = _model(kind)
    model.load_weights(_calibrated(kind).state_dict())
    return model
