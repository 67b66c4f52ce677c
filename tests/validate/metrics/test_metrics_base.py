from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from caloforge.errors import InputError
from caloforge.validate.metrics import METRICS, Metric, Settings, Value, classifiers
from caloforge.validate.metrics.classifiers import HighLevelClassifier
from caloforge.validate.metrics.features import Pair
from caloforge.validate.sample import Sample


def test_value_writes_only_what_is_known_and_no_nan() -> None:
    assert Value(1.5).to_dict() == {"value": 1.5}
    full = Value(
        np.float32(2.0), 0.1, float("nan"), None, {"a": np.arange(2), "b": np.int64(3), "c": [Value(1.0)]}
    )
    text = json.dumps(full.to_dict(), allow_nan=False)
    assert json.loads(text) == {
        "value": 2.0,
        "uncertainty": 0.1,
        "floor": None,
        "detail": {"a": [0, 1], "b": 3, "c": [{"value": 1.0}]},
    }


def test_every_entry_of_the_registry_is_a_metric_with_its_own_keys() -> None:
    keys = [key.name for _, metric in METRICS.items() for key in metric.keys]
    assert len(keys) == len(set(keys))
    for name, metric in METRICS.items():
        assert issubclass(metric, Metric)
        assert metric.name == name
        assert metric.__doc__
        assert metric.minimum >= 2
    wanted = {
        *(
            "auc_low",
            "auc_low_floor",
            "auc_high",
            "auc_high_floor",
            "fpd",
            "kpd",
            "separation_power",
            "ks",
            "wasserstein",
        ),
        *("shape_mse", "sampling_fraction", "cell_mean_ratio", "cell_std_ratio", "ssim"),
        *("precision", "recall", "density", "coverage"),
    }
    assert wanted <= set(keys)


@pytest.mark.parametrize(
    "wrong", [{"sed": 1}, {"n_bootstrap": 0}, {"classifier": "huge"}, {"threshold": 0.0}]
)
def test_settings_refuse_what_they_do_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_showers_in_memory_are_bounded_by_bytes() -> None:
    s = Settings(n_max=10_000, max_bytes=1 << 20)
    assert s.showers_a_side(1) == 10_000
    assert s.showers_a_side(1 << 16) == 4
    assert s.showers_a_side(1 << 30) == 2


@pytest.mark.parametrize(
    ("device", "match"), [("gpu", "not known"), ("cuda:x", "not known"), ("cuda:99", "torch finds")]
)
def test_a_device_that_is_not_there_is_refused(device: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Settings(device=device).torch_device()


def test_auto_takes_what_there_is() -> None:
    assert Settings(device="auto").torch_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    assert Settings(device="cpu").torch_device() == "cpu"


def test_the_showers_of_the_high_level_classifier_follow_the_seed(
    pair: tuple[Sample, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(label: str, inputs: Pair, *rest: object) -> dict[str, Value]:
        seen.append(inputs.reference)
        return {}

    monkeypatch.setattr(classifiers, "entries", keep)
    for seed in (1, 2, 1):
        HighLevelClassifier().compute(*pair, Settings(seed=seed, n_max=100))
    assert seen[0].shape[0] == 100
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()
