"""Bad configurations and missing input are named."""

from __future__ import annotations

import pytest
import torch
from transform_cases import ATLAS, CONFIGS, ILD, draw

from caloforge.errors import ConfigError, UnknownNameError
from caloforge.showers.transforms import (
    LayerRatios,
    Standardise,
    Transform,
)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "'name' is missing; known: threshold, scale"),
        ({"name": "log"}, "transform 'log': option 'epsilon' is missing"),
        ({"name": "log", "epsilon": 1, "base": 2}, "transform 'log': unknown option 'base'; known: epsilon"),
        ({"name": "energy-normalise", "x": 1}, "unknown option 'x'; known: none"),
        ({"name": "log", "epsilon": 0}, "transform 'log': epsilon is 0; expected a number above 0"),
        ({"name": "log", "epsilon": "a"}, "transform 'log': an option has the wrong type"),
        ({"name": "threshold", "threshold": -1}, "threshold is -1; expected an energy of at least 0"),
        ({"name": "scale", "factor": 0}, "factor is 0; expected a finite number other than 0"),
        ({"name": "logit", "delta": 0.5}, "delta is 0.5; expected"),
        ({"name": "power", "exponent": -1}, "exponent is -1"),
        (
            {"name": "layer-rescale", "first": 0, "last": 4, "factor": 2},
            "last is 4; expected a layer from 0 to 3",
        ),
        (
            {"name": "layer-rescale", "first": 4, "last": 4, "factor": 2},
            "first is 4; expected a layer from 0 to 3",
        ),
        (
            {"name": "layer-rescale", "first": 0, "last": 1, "factor": 0},
            "factor is 0; expected a number above 0",
        ),
        ({"name": "compose", "transforms": "log"}, "'transforms' is 'log'; expected a list"),
        ({"name": "columns"}, "transform 'columns': option 'transform' is missing"),
        (
            {"name": "columns", "transform": {"name": "layer-normalise"}},
            "'layer-normalise' changes the number of col",
        ),
        (
            {"name": "columns", "start": 300, "transform": {"name": "energy-normalise"}},
            "expected some of the 266 col",
        ),
    ],
)
def test_bad_configurations(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transform.from_config(config, ATLAS)


def test_unknown_transforms() -> None:
    with pytest.raises(UnknownNameError, match="unknown transform 'sqrt'; known: threshold, "):
        Transform.from_config({"name": "sqrt"}, ATLAS)


@pytest.mark.parametrize("name", ["energy-normalise", "sum-normalise", "layer-normalise"])
def test_energies_that_are_missing(name: str) -> None:
    transform = Transform.from_config({"name": name}, ATLAS)
    with pytest.raises(ConfigError, match=f"transform '{name}' needs the incident energies"):
        transform(torch.ones(1, 266))


def test_nothing_to_fit_to() -> None:
    with pytest.raises(ConfigError, match="no showers to fit to"):
        Standardise(3).fit(torch.ones(0, 3))
    with pytest.raises(ConfigError, match="no shower with energy to fit to"):
        LayerRatios(3).fit(torch.zeros(4, 3))


def test_transforms_run_on_images_of_one_layer() -> None:
    cells, energy = draw(2, 4, 0.5, 0.5, ILD)
    config = {"name": "compose", "transforms": [{"name": "layer-normalise"}, {"name": "layer-ratios"}]}
    transform = Transform.from_config(config, ILD).fit(cells, energy)
    torch.testing.assert_close(
        transform.inverse(transform(cells, energy), energy), cells, rtol=1e-5, atol=1e-6
    )


def test_a_chain_exports_for_onnx() -> None:
    cells, energy = draw(2, 4, 0.5, 0.5)
    transform = Transform.from_config({"name": "compose", **CONFIGS["compose"][1]}, ATLAS).fit(cells, energy)

    class Inverse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = transform

        def forward(self, y: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
            return self.transform.inverse(y, e)

    y = transform(cells, energy)
    exported = torch.export.export(
        Inverse(), (y, energy), dynamic_shapes=({0: torch.export.Dim("batch")},) * 2
    )
    some = slice(0, 3)
    torch.testing.assert_close(
        exported.module()(y[some], energy[some]), transform.inverse(y[some], energy[some])
    )
