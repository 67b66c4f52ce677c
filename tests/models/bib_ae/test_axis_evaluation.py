"""The fast evaluation of the decoder and the lists of cells, against the networks that training uses."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from caloforge.geometry import Detector, get_detector
from caloforge.geometry.definition import DetectorDefinition, Layers
from caloforge.models.base import counted_noise
from caloforge.models.bib_ae.axis import AxisDecoder
from caloforge.models.bib_ae.axis_evaluation import AxisEvaluation
from caloforge.models.bib_ae.generators import AxisGenerator, ShowerGenerator
from caloforge.models.bib_ae.model import BibAe
from caloforge.zoo.store import load

SHIPPED = "ild-photon-angled/bib-ae"


@cache
def _odd() -> Detector:
    """A grid of odd sizes, whose layers are no whole number of tiles."""
    layers = [Layers(repeat=13, absorber="G4_W", absorber_mm=4.0, active="G4_Si", active_mm=0.5, gap_mm=2.0)]
    return DetectorDefinition(
        name="odd-grid", nx=13, ny=15, pitch=8.0, sampling_fraction=0.02, layers=layers
    ).build()


@cache
def _shipped() -> BibAe:
    model = load(SHIPPED, device="cpu").model
    assert isinstance(model, BibAe)
    return model


def _inputs(n: int, n_layers: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    theta = torch.linspace(30.0, 90.0, n)
    moved = 3.0 * torch.randn(2, n, n_layers, generator=generator)
    return torch.randn(n, 9, generator=generator), theta, moved


@pytest.mark.parametrize("detector", ["odd", "ild-ecal", "ild-ecal-angled", "clic-ecal"])
@pytest.mark.parametrize("displaced", [True, False])
@torch.no_grad()
def test_logits_and_maps_are_those_of_the_decoder(detector: str, displaced: bool) -> None:
    torch.manual_seed(0)
    grid = _odd() if detector == "odd" else get_detector(detector)
    decoder = AxisDecoder(grid, 9, features=3, width=16)
    inputs, theta, moved = _inputs(3, grid.shape[2])
    shift = moved if displaced else None
    shares, maps = decoder(inputs, theta, shift)
    weight, bias = decoder.last.weight[1:], decoder.last.bias
    assert bias is not None
    for b, shower in enumerate(AxisEvaluation(decoder)(inputs, theta, shift)):
        logits = shower.logits.permute(1, 2, 0)
        torch.testing.assert_close(logits - logits.logsumexp((0, 1, 2)), shares[b], rtol=1e-5, atol=2e-5)
        found = (shower.features @ weight.T + bias[1:, 0]).view(*shower.logits.shape, 3).permute(3, 1, 2, 0)
        torch.testing.assert_close(found, maps[b], rtol=1e-4, atol=2e-5)


def _generated(
    model: BibAe, n: int, fast: bool, patch: pytest.MonkeyPatch, calibrated: bool = True
) -> Tensor:
    """Return cells of showers of all energies and angles."""
    low, high = model.condition_low, model.condition_high
    part = torch.linspace(0.0, 1.0, n)
    conditions = torch.stack(
        [low[0] + (high[0] - low[0]) * (7.0 * part % 1.0), low[1] + (high[1] - low[1]) * part], 1
    )
    conditions = torch.cat([conditions, high[None], low[None]])
    noise = counted_noise(11, 0, len(conditions), model.noise_size)
    with patch.context() as context, torch.inference_mode():
        if not fast:
            context.setattr(AxisGenerator, "make", ShowerGenerator.make)
        return model.choose({"calibrated": calibrated}).sample(noise, conditions)


@pytest.mark.parametrize("calibrated", [True, False])
def test_shipped_showers_are_those_of_the_plain_networks(
    calibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within rounding; a cell may be a hit in one and not in the other where its number is at the edge."""
    fast, plain = (_generated(_shipped(), 30, way, monkeypatch, calibrated) for way in (True, False))
    _shipped().choose({})
    hit, other = fast > 0, plain > 0
    assert float(hit.sum(1).float().mean()) > 300
    assert int((hit != other).sum()) <= 2
    both = hit & other
    away = ((fast - plain).abs() / plain)[both]
    assert float(away.mean()) < 5e-5
    assert float(away.quantile(0.99)) < 5e-4
    torch.testing.assert_close(fast.sum(1), plain.sum(1), rtol=1e-5, atol=0)


def test_a_shower_does_not_depend_on_those_before_it() -> None:
    model = _shipped()
    noise, conditions = counted_noise(2, 0, 3, model.noise_size), model.condition_high.expand(3, -1)
    with torch.inference_mode():
        together = model.sample(noise, conditions)
        last = model.sample(noise[2:], conditions[2:])
    assert torch.equal(together[2] > 0, last[0] > 0)
    torch.testing.assert_close(together[2], last[0], rtol=1e-2, atol=1e-4)


def test_gradients_and_other_numbers_take_the_plain_networks() -> None:
    numbers = torch.zeros(2, 3)
    assert not AxisEvaluation.possible(numbers)
    with torch.no_grad():
        assert AxisEvaluation.possible(numbers)
        assert not AxisEvaluation.possible(numbers.double())
        assert not AxisEvaluation.possible(numbers.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not AxisEvaluation.possible(numbers)


def test_weights_that_change_are_seen() -> None:
    torch.manual_seed(0)
    model = BibAe(get_detector("ild-ecal"), BibAe.resolve({"latent": "normal"})).eval()
    noise, conditions = counted_noise(2, 0, 1, model.noise_size), torch.tensor([[5e4]])
    with torch.no_grad():
        before = model.sample(noise, conditions)
        decoder = model.generator.decoder
        assert isinstance(decoder, AxisDecoder)
        decoder.body[1].weight.data.mul_(1.5)
        after = model.sample(noise, conditions)
        with torch.enable_grad():
            plain = model.sample(noise, conditions).detach()
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, plain, rtol=1e-2, atol=1e-3)
