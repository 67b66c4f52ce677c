from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from caloforge.validate.metrics import METRICS, Metric, Settings, Value


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
