"""What each transform is: against its formula, a loop or double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transform_cases import ATLAS, draw

from caloforge.geometry import Detector, get_detector
from caloforge.showers import Showers, open_showers
from caloforge.showers.transforms import (
    Compose,
    LayerNormalise,
    LayerRatios,
    LayerRescale,
    Log,
    Logit,
    Power,
    Standardise,
    SumNormalise,
    Threshold,
    Transform,
)


def test_threshold_keeps_what_is_at_it() -> None:
    x = torch.tensor([[0.05, 0.1, 0.2, -1.0]])
    assert Threshold(threshold=0.1)(x).tolist() == [[0.0, x[0, 1].item(), x[0, 2].item(), 0.0]]


def test_log_is_that_of_the_bib_ae() -> None:
    x = torch.tensor([[0.0, 0.2, 50.0]])
    torch.testing.assert_close(Log(epsilon=math.exp(-5))(x), torch.log(x + math.exp(-5)) + 5)


@given(st.floats(-12, 3))
def test_log_is_accurate_far_below_its_offset(power: float) -> None:
    x = torch.tensor([[10.0**power]])
    transform = Log(epsilon=1e-3)
    torch.testing.assert_close(transform.inverse(transform(x)), x, rtol=2e-5, atol=0)


def test_logit_at_its_ends() -> None:
    y = Logit(delta=1e-6)(torch.tensor([[0.0, 0.5, 1.0]]))
    expected = math.log(1e-6 / (1 - 1e-6))
    torch.testing.assert_close(y, torch.tensor([[expected, 0.0, -expected]]))


@given(st.floats(0, 1))
def test_logit_against_double_precision(x: float) -> None:
    single = np.float32(x)
    u = 1e-6 + (1 - 2e-6) * float(single)
    ours = float(Logit(delta=1e-6)(torch.tensor([[single]]))[0, 0])
    assert ours == pytest.approx(math.log(u / (1 - u)), rel=1e-5, abs=1e-6)


def test_power_has_no_infinite_slope_at_zero() -> None:
    x = torch.tensor([[0.0, 4.0, -4.0]], requires_grad=True)
    y = Power(exponent=0.5)(x)
    assert y.tolist() == [[0.0, 2.0, -2.0]]
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.tolist() == [[0.0, 0.25, 0.25]]


def test_layer_rescale_touches_its_layers_only() -> None:
    ild = get_detector("ild-ecal")
    transform = LayerRescale(ild, ild.n_cells, first=20, last=29, factor=2.03)
    grid = transform(torch.ones(1, ild.n_cells)).reshape(30, 30, 30)
    assert (grid[:, :, :20] == 1).all()
    assert torch.equal(grid[:, :, 20:], torch.full((30, 30, 10), 2.03))


@pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal", "calochallenge-1-photons"])
def test_layer_normalise_against_a_loop(name: str) -> None:
    detector = get_detector(name)
    cells, energy = draw(8, 3, 0.5, 0.5, detector)
    y = LayerNormalise(detector)(cells, energy)
    for shower in range(3):
        for layer, inside in enumerate(detector.layer_cells):
            total = sum(float(cells[shower, cell]) for cell in inside)
            assert float(y[shower, detector.n_cells + layer]) == pytest.approx(
                total / float(energy[shower]), rel=1e-5
            )
            some = inside[:20]
            expected = [float(cells[shower, cell]) / total if total else 0.0 for cell in some]
            np.testing.assert_allclose(y[shower, some], expected, rtol=1e-5)


def test_generated_fractions_need_not_sum_to_one() -> None:
    """The layer energies that come out are those of the columns, whatever the cells sum to; none is negative."""
    rows = torch.randn(5, 270, generator=torch.Generator().manual_seed(1)) + 0.5
    rows[:, 266:] = rows[:, 266:].abs()
    energy = torch.full((5,), 100.0)
    transform = LayerNormalise(ATLAS)
    cells = transform.inverse(rows, energy)
    assert (cells >= 0).all()
    torch.testing.assert_close(transform.layers.sums(cells), rows[:, 266:] * 100, rtol=1e-5, atol=1e-4)
    total = SumNormalise().inverse(rows[:, :267], energy).sum(1)
    torch.testing.assert_close(total, rows[:, 266] * 100, rtol=1e-5, atol=1e-4)


def test_layer_ratios_against_a_loop() -> None:
    f = torch.tensor([[0.1, 0.2, 0.5, 0.2], [0.0, 0.0, 0.4, 0.0], [0.0] * 4])
    transform = LayerRatios(4).fit(f)
    assert float(transform.scale) == pytest.approx(1.1)
    for row, u in zip(f.tolist(), transform(f).tolist(), strict=True):
        assert u[0] == pytest.approx(sum(row) / 1.1)
        for i in range(1, 4):
            left = sum(row[i - 1 :])
            assert u[i] == pytest.approx(row[i - 1] / left if left else 0.0, rel=1e-5)


def test_ratios_share_out_the_response_whatever_they_are() -> None:
    transform = LayerRatios(4).fit(torch.tensor([[0.1, 0.2, 0.5, 0.2]]))
    y = torch.tensor([[0.5, 2.0, 0.3, 0.3], [0.5, -1.0, 0.3, 0.3]])
    f = transform.inverse(y)
    assert (f >= 0).all()
    torch.testing.assert_close(f.sum(1), torch.full((2,), 0.55))


@pytest.mark.parametrize("per_column", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_standardise_against_numpy(per_column: bool, batch: int) -> None:
    x = 1e4 + torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 5.0
    transform = Standardise(6, per_column=per_column).fit(x, batch_size=batch)
    axis = 0 if per_column else None
    values = x.double().numpy()
    deviation = values.std(axis)
    np.testing.assert_allclose(transform.mean, np.atleast_1d(values.mean(axis)), rtol=1e-6)
    np.testing.assert_allclose(transform.deviation, np.where(deviation > 0, deviation, 1), rtol=1e-6)
    again = transform(x.double())
    assert again.mean().item() == pytest.approx(0, abs=1e-3)


def test_a_second_fit_forgets_the_first() -> None:
    transform = Standardise(1).fit(torch.tensor([[100.0], [200.0]]))
    transform.fit(torch.tensor([[1.0], [3.0]]))
    assert (float(transform.mean[0]), float(transform.deviation[0])) == (2.0, 1.0)


def test_fitting_leaves_the_data_alone() -> None:
    x = torch.rand(5, 3, dtype=torch.float64)
    before = x.clone()
    Standardise(3).fit(x)
    assert torch.equal(x, before)


def test_a_chain_is_fitted_step_by_step_from_a_file(make, toy: Detector, tmp_path) -> None:
    showers: Showers = make(40)
    config = {
        "name": "compose",
        "transforms": [
            {"name": "layer-normalise"},
            {"name": "layer-ratios"},
            {"name": "logit"},
            {"name": "standardise"},
        ],
    }
    whole, streamed = (Transform.from_config(config, toy) for _ in range(2))
    cells, energy = torch.from_numpy(showers.cells), torch.from_numpy(showers.incident_energy).float()
    whole.fit(cells, energy)
    with open_showers(showers.save(tmp_path / "s.h5")) as file:
        streamed.fit_source(file, 7)
    assert isinstance(whole, Compose)
    assert len(whole) == 4
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(streamed.state_dict()[name], value)
    y = whole(cells, energy)
    assert y.shape == (40, 65)
    torch.testing.assert_close(y.mean(0), torch.zeros(65), atol=1e-5, rtol=0)


def test_constants_travel_in_a_models_state() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = Transform.from_config(
                {"name": "compose", "transforms": [{"name": "standardise"}]}, ATLAS
            )

    model = Model()
    model.transform.fit(torch.rand(9, 266))
    assert list(model.state_dict()) == ["transform.steps.0.mean", "transform.steps.0.deviation"]
    assert list(model.parameters()) == []


def test_printed_form() -> None:
    assert repr(Log(epsilon=0.5)) == "Log(epsilon=0.5)"
