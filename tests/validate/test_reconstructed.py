"""After reconstruction: kept samples, metrics, figures and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.limits import check_limits, read_limits
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.plots.families import all_figures, reconstructed
from caloforge.validate.reconstruction.sample import MAIN, can_reconstruct, fitted, reconstruct, why_not
from caloforge.validate.report.build import before_after
from caloforge.validate.report.page import Table
from caloforge.validate.sample import Sample

QUICK = Settings(n_bootstrap=4, n_halves=2, device="cpu")


def made(n: int = 60, seed: int = 0, scale: float = 1.0, noise: float = 0.0) -> Showers:
    """Return showers of ild-ecal: a column of hits through the middle, and cells below 0.5 MIP elsewhere."""
    detector = get_detector("ild-ecal")
    rng = np.random.default_rng(seed)
    energy = rng.choice([10_000.0, 40_000.0], n)
    mip = detector.layers[0].mip
    cells = np.zeros((n, *detector.shape))
    weight = np.exp(-((np.arange(30) - 10.0) ** 2) / 50.0)
    for x in range(14, 17):
        for y in range(14, 17):
            share = rng.gamma(20.0, 0.05, (n, 30)) * weight / weight.sum() / 9
            cells[:, x, y] = scale * share * 0.02 * energy[:, None]
    cells[cells < mip] = 0.0
    cells[:, 2:5, 2:5, :] = rng.uniform(0.0, noise * 0.49 * mip, (n, 3, 3, 30))
    flat = cells.reshape(n, -1).astype(np.float32)
    return Showers(detector, flat, energy, particle="gamma", source="toy", seed=seed)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        Sample(showers, label, threshold=0.02)
        for showers, label in (
            (made(), "reference"),
            (made(seed=1, noise=1.0), "noisy"),
            (made(seed=2, scale=1.2), "high"),
        )
    ]


@pytest.fixture(scope="module")
def metrics(samples: list[Sample]) -> dict[str, Any]:
    names = ["separation_power", "distances", "reconstructed"]
    return {
        "samples": {sample.label: compute_metrics(samples[0], sample, QUICK, names) for sample in samples[1:]}
    }


def test_observables_after_are_those_of_the_reconstructed_showers(samples: list[Sample]) -> None:
    used = fitted(samples[0])
    for sample in samples:
        after = reconstruct(samples[0], sample)
        found = used(sample.source[:])
        np.testing.assert_allclose(
            after.sample.observables["visible_energy"], found.showers.visible_energy, rtol=1e-6
        )
        np.testing.assert_allclose(after.response, found.energy / sample.incident_energy)
        np.testing.assert_allclose(after.direction, found.theta - 90.0)
        np.testing.assert_array_equal(after.n_clusters, found.n_clusters)
        np.testing.assert_allclose(after.outside, found.outside)
        assert set(MAIN) <= set(after.sample.observables.names)


def test_one_calibration_serves_all_and_nothing_is_done_twice(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [reconstruct(samples[0], sample) for sample in samples]
    monkeypatch.setattr(type(fitted(samples[0])), "__call__", None)
    assert [reconstruct(samples[0], sample) for sample in samples] == first


def test_a_part_of_a_sample_is_reconstructed_as_the_whole(samples: list[Sample]) -> None:
    part = samples[1].part([3, 7, 20])
    whole = reconstruct(samples[0], samples[1])
    np.testing.assert_allclose(reconstruct(samples[0], part).response, whole.response[[3, 7, 20]])


def test_noise_below_the_threshold_is_gone_afterwards(metrics: dict[str, Any]) -> None:
    noisy = metrics["samples"]["noisy"]
    assert noisy["ks"]["hits"]["value"] == 1.0
    after = noisy["reconstructed"]
    assert after["ks"]["hits"]["value"] < 0.4
    assert after["ks"]["hits"]["detail"]["p"] > 0.001
    assert after["response"]["ratio"]["value"] == pytest.approx(1.0, abs=0.02)


def test_the_calibration_is_the_references(metrics: dict[str, Any]) -> None:
    high = metrics["samples"]["high"]["reconstructed"]["response"]
    assert high["reference"]["value"] == pytest.approx(1.0, abs=0.02)
    assert high["generated"]["value"] == pytest.approx(1.2, abs=0.03)
    assert high["ratio"]["value"] == pytest.approx(1.2, abs=0.03)
    curve = high["generated"]["detail"]["incident_energy"]
    assert len(curve["response"]) == 2
    np.testing.assert_allclose(curve["centre"], [10_000.0, 40_000.0])


def test_numbers_follow_their_definitions(samples: list[Sample], metrics: dict[str, Any]) -> None:
    after = reconstruct(samples[0], samples[2])
    found = metrics["samples"]["high"]["reconstructed"]
    assert found["resolution"]["generated"]["value"] == pytest.approx(
        after.response.std(ddof=1) / after.response.mean()
    )
    assert found["direction"]["generated"]["value"] == pytest.approx(after.direction.std(ddof=1))
    assert found["direction"]["generated"]["detail"]["mean"] == pytest.approx(after.direction.mean())


def test_limits_reach_inside(metrics: dict[str, Any]) -> None:
    limits = read_limits(
        {
            "reconstructed.ks.hits.p": {"min": 0.001},
            "reconstructed.response.ratio": {"max": 1.1},
            "reconstructed.separation_power.*": {"max": 1.0},
        }
    )
    rows = check_limits(limits, metrics["samples"])
    assert {(row.sample, row.name) for row in rows if not row.passed} >= {
        ("high", "reconstructed.response.ratio")
    }
    powers = [row for row in rows if row.name.startswith("reconstructed.separation_power.")]
    assert len(powers) == 2 * (len(MAIN) + 4)
    assert all(row.passed for row in powers if row.value is not None)


# -- where it is done


@pytest.mark.parametrize(
    ("name", "wanted", "done"),
    [
        ("ild-ecal", None, True),
        ("clic-ecal", None, True),
        ("ild-ecal", False, False),
        ("atlas-em-barrel", None, False),
        ("atlas-em-barrel", True, True),
        ("calochallenge-2", None, False),
    ],
)
def test_grids_of_known_mip_energy_are_reconstructed_unasked(
    name: str, wanted: bool | None, done: bool
) -> None:
    assert (why_not(get_detector(name), wanted) == "") == done


def test_a_detector_without_a_mip_says_so() -> None:
    detector = get_detector("calochallenge-2")
    cells = np.zeros((20, detector.n_cells), np.float32)
    cells[:, 0] = 1.0
    sample = Sample(Showers(detector, cells, np.full(20, 1e4)), "mesh")
    assert "MIP" in can_reconstruct(sample)
    assert reconstructed([sample, sample]) == []
    settings = QUICK.model_copy(update={"reconstruction": True})
    skipped = compute_metrics(sample, sample, settings, ["reconstructed"])["skipped"]
    assert "give the energy of a MIP" in skipped["reconstructed"]
    off = compute_metrics(sample, sample, QUICK.model_copy(update={"reconstruction": False}), ["shape_mse"])
    assert "reconstructed" not in off


# -- figures and tables


def test_figures_show_the_reconstructed_samples(samples: list[Sample]) -> None:
    panels = {panel.name: panel for panel in reconstructed(samples)}
    assert {
        f"reconstructed_{name}" for name in ("cluster_response", "cluster_direction", "hits", "layer_energy")
    } <= set(panels)
    linearity = panels["reconstructed_linearity_energy"]
    after = [reconstruct(samples[0], sample) for sample in samples]
    for curve, each in zip(linearity.curves, after, strict=True):
        means = [each.response[each.sample.incident_energy == energy].mean() for energy in (1e4, 4e4)]
        np.testing.assert_allclose(curve.y, means)
    layers = panels["reconstructed_layer_energy"].curves[1].y
    np.testing.assert_allclose(layers, after[1].sample.observables["layer_energy"].mean(axis=0), rtol=1e-5)
    assert "reconstructed" not in all_figures(samples[:2], without=("reconstructed",))


def test_the_table_sets_before_against_after(metrics: dict[str, Any]) -> None:
    clusters, table = before_after(metrics)
    assert isinstance(clusters, Table)
    assert isinstance(table, Table)
    row = next(row for row in table.cells if (row[0].text, row[1].text) == ("noisy", "hits"))
    noisy = metrics["samples"]["noisy"]
    expected = [
        noisy["separation_power"]["hits"]["value"],
        noisy["reconstructed"]["separation_power"]["hits"]["value"],
        noisy["wasserstein"]["hits"]["value"],
        noisy["reconstructed"]["wasserstein"]["hits"]["value"],
    ]
    assert [cell.sort for cell in row[2:]] == expected
    response = next(row for row in clusters.cells if row[0].text == "high")
    assert response[4].flag == "bad"
    assert before_after({"samples": {"a": {}}}) == []
