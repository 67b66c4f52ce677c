"""Conditions as inputs of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caloforge.data import sample_path
from caloforge.geometry import get_detector
from caloforge.models.nn.conditions import ConditionEncoder
from caloforge.showers import Showers, read_showers


@pytest.fixture(scope="module")
def atlas() -> Showers:
    return read_showers(sample_path())[:64]


def test_conditions_are_encoded_as_said(atlas: Showers) -> None:
    columns = {"incident_energy": slice(0, 1), "alignment_phi": slice(1, 2), "impact": slice(2, 4)}
    matrix = torch.from_numpy(
        np.concatenate([atlas.condition(n) for n in columns], axis=1).astype(np.float32)
    )
    encoder = ConditionEncoder(atlas.detector, columns, harmonics=2)
    encoder.fit(matrix)
    out = encoder(matrix)
    assert out.shape == (64, encoder.width) == (64, 3 + 8 + 4)
    assert torch.equal(encoder.standardised(matrix), out[:, :3])
    assert torch.allclose(out[:, :3].mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out[:, :3].std(0, unbiased=False), torch.ones(3), atol=1e-4)
    log = np.log(atlas.incident_energy)
    assert np.allclose(out[:, 0].numpy(), (log - log.mean()) / log.std(), atol=1e-4)
    x = matrix[:, 2:3] / (atlas.detector.beam.spread_x / 2)
    assert torch.allclose(out[:, 3:5], torch.sin(np.pi * x * torch.tensor([1.0, 2.0])), atol=1e-5)
    assert np.array_equal(out[:, -4:].argmax(1).numpy(), atlas.conditions["alignment_phi"][:, 0])
    assert (out[:, -4:].sum(1) == 1).all()


def test_a_constant_condition_is_zero() -> None:
    detector = get_detector("ild-ecal")
    encoder = ConditionEncoder(detector, {"incident_energy": slice(0, 1)})
    encoder.fit(torch.full((5, 1), 50_000.0))
    assert torch.allclose(encoder(torch.full((2, 1), 50_000.0)), torch.zeros(2, 1), atol=1e-5)
    empty = ConditionEncoder(detector, {})
    assert empty(torch.zeros(3, 0)).shape == (3, 0)
