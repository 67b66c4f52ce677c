"""What a card says of conditions and cell energies, and that showers like those of the card can be made from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from like_cards import showers_like

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.sample import Sample
from caloforge.zoo.cards import (
    SPECTRUM_CARD_EDGES,
    compare_moments,
    describe_conditions,
    mean_spectrum,
    spectrum,
)


def sparse(name: str, n: int, seed: int = 0) -> Showers:
    detector = get_detector(name)
    rng = np.random.default_rng(seed)
    cells = 10.0 ** rng.uniform(-6, 5, (n, detector.n_cells))
    cells[rng.random(cells.shape) < 0.8] = 0.0
    energy = 1024.0 * 2.0 ** rng.integers(0, 9, n) if name.startswith("atlas") else rng.uniform(1e4, 1e5, n)
    theta = None if name.startswith("atlas") else rng.uniform(30, 90, n)
    conditions = {
        key: rng.integers(0, 3, (n, size)).astype(np.float32)
        for key, size in detector.condition_sizes.items()
    }
    return Showers(detector, cells.astype(np.float32), energy, theta, conditions)


def test_the_spectrum_is_that_of_a_loop() -> None:
    showers = sparse("atlas-em-barrel", 7)
    cells, errors = mean_spectrum(Sample(showers, "a"))
    assert SPECTRUM_CARD_EDGES[[0, -1]] == pytest.approx([1e-4, 1e4])
    assert np.diff(np.log10(SPECTRUM_CARD_EDGES)) == pytest.approx(0.2)
    counts = np.zeros((7, 42))
    for row, shower in enumerate(showers.cells):
        for energy in shower[shower > 0]:
            counts[row, sum(1 for edge in SPECTRUM_CARD_EDGES if energy >= edge)] += 1
    np.testing.assert_allclose(cells, counts.mean(axis=0))
    np.testing.assert_allclose(errors, counts.std(axis=0, ddof=1) / np.sqrt(7))
    assert cells.sum() == pytest.approx((showers.cells > 0).sum() / 7)
    assert cells[0] > 0
    assert cells[-1] > 0


def test_the_entry_of_a_card_is_plain_data() -> None:
    a, b = (Sample(sparse("clic-ecal", 5, seed), str(seed)) for seed in (1, 2))
    found = json.loads(json.dumps(spectrum(a, b)))
    assert (found["low"], found["high"], found["bins"]) == (pytest.approx(1e-4), pytest.approx(1e4), 40)
    np.testing.assert_allclose(found["generated"]["cells"], mean_spectrum(b)[0])
    assert len(found["reference"]["uncertainty"]) == 42


@pytest.mark.parametrize("name", ["atlas-em-barrel", "ild-ecal-angled"])
def test_showers_have_the_conditions_of_the_card(name: str) -> None:
    source = sparse(name, 200)
    described = json.loads(json.dumps(describe_conditions(source)))
    drawn = showers_like(described, source.detector, 4000, seed=3)
    assert drawn.condition_names == source.condition_names
    assert drawn.has_theta == source.has_theta
    for condition in ("incident_energy", "incident_theta", *source.condition_names):
        a, b = np.ravel(source.condition(condition)), np.ravel(drawn.condition(condition))
        assert b.min() >= a.min() - 1e-6
        assert b.max() <= a.max() + 1e-6
        error = a.std() / np.sqrt(4000)
        assert abs(a.mean() - b.mean()) <= 5 * error + 0.02 * a.std()
        assert b.std() == pytest.approx(a.std(), rel=0.06)
    same = showers_like(described, source.detector, 4000, seed=3)
    np.testing.assert_array_equal(same.incident_energy, drawn.incident_energy)
    assert (showers_like(described, source.detector, 4000, 4).incident_energy != drawn.incident_energy).any()


def test_a_single_energy_stays_single() -> None:
    showers = sparse("clic-ecal", 4)
    fixed = Showers(showers.detector, showers.cells, np.full(4, 5e4))
    described = describe_conditions(fixed)
    assert described == {"incident_energy": [{"values": [5e4], "counts": [4]}]}
    drawn = showers_like(described, fixed.detector, 10)
    assert (drawn.incident_energy == 5e4).all()
    assert not drawn.has_theta


def test_standard_deviations_have_errors() -> None:
    rng = np.random.default_rng(0)
    found = [compare_moments(rng.normal(size=50), 2 * rng.normal(size=400)) for _ in range(300)]
    widths = np.array([entry["generated_std"] for entry in found])
    assert widths.mean() == pytest.approx(2.0, rel=0.01)
    assert np.mean([entry["generated_std_uncertainty"] for entry in found]) == pytest.approx(
        widths.std(), rel=0.15
    )
    one = found[0]
    assert one["width"] == pytest.approx(one["generated_std"] / one["reference_std"])
