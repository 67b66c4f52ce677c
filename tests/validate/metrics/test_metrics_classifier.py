from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from caloforge.errors import TooFewShowersError
from caloforge.statistics.networks import ResidualCNN, threads_for
from caloforge.statistics.scoring import auc_with_error, calibrate, divergence_bits
from caloforge.statistics.training import PRESETS, TrainingOptions, _Part
from caloforge.validate.metrics import Settings, classifier
from caloforge.validate.metrics.base import Value
from caloforge.validate.metrics.classifier import HighLevelClassifier, classifier_test
from caloforge.validate.metrics.features import Pair
from caloforge.validate.sample import Sample

QUICK = replace(PRESETS["fast"], width=16, epochs=12, dropout=0.0)


def gaussians(n: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 3)).astype(np.float32)
    b[:, 1] += shift
    return a, b


def test_auc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 300), rng.integers(2, 10, 200)
    labels = np.repeat([0, 1], [300, 200])
    auc, error = auc_with_error(a, b)
    assert auc == pytest.approx(roc_auc_score(labels, np.concatenate([a, b])))
    boot = [auc_with_error(rng.choice(a, 300), rng.choice(b, 200))[0] for _ in range(300)]
    assert error == pytest.approx(np.std(boot), rel=0.2)


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_auc_of_shifted_gaussians(shift: float) -> None:
    a, b = gaussians(4000, shift)
    (score,) = classifier_test(a, b, QUICK, seeds=1)
    assert abs(score.auc - norm.cdf(shift / np.sqrt(2))) < 4 * score.auc_error + 0.01
    x = np.linspace(-8, 8 + shift, 20_001)
    p, q = norm.pdf(x), norm.pdf(x - shift)
    exact = 0.5 * np.trapezoid(p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q)), x)
    assert abs(score.jsd - exact) < 4 * score.jsd_error + 0.01


def test_equal_distributions_give_one_half() -> None:
    a, b = gaussians(1500, 0.0)
    scores = classifier_test(a, b[:1200], QUICK, seeds=2)
    for score in scores:
        assert abs(score.auc - 0.5) < 4 * score.auc_error
        assert abs(score.jsd) < 4 * score.jsd_error + 0.01
        assert score.held_out == 240
    assert scores[0] != scores[1]
    assert classifier_test(a, b[:1200], QUICK, seeds=2) == scores


def test_constant_inputs_carry_nothing() -> None:
    a, b = gaussians(200, 3.0)
    a[:, 0], b[:, 0] = 1.0, 1.0
    (score,) = classifier_test(a, b, QUICK, seeds=1)
    assert 0.9 < score.auc <= 1.0


@pytest.mark.parametrize("truth", [(1.0, 0.0), (0.4, 0.7)])
def test_calibration_is_logistic_regression(truth: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=5000) * 2
    y = (rng.random(5000) < 1 / (1 + np.exp(-truth[0] * z - truth[1]))).astype(float)
    slope, offset = calibrate(z, y)
    fit = LogisticRegression(C=np.inf).fit(z[:, None], y)
    assert slope == pytest.approx(fit.coef_[0, 0], abs=0.01)
    assert offset == pytest.approx(fit.intercept_[0], abs=0.01)


def test_calibration_of_separable_scores_is_finite() -> None:
    z = np.concatenate([np.full(50, -3.0), np.full(50, 3.0)])
    slope, offset = calibrate(z, np.repeat([0.0, 1.0], 50))
    assert np.isfinite([slope, offset]).all()
    jsd, error = divergence_bits(slope * z[:50] + offset, slope * z[50:] + offset)
    assert 0.8 < jsd < 1.0
    assert error == pytest.approx(0.0, abs=1e-9)


def test_the_challenges_preset() -> None:
    assert PRESETS["calochallenge"] == TrainingOptions(
        2048, 2e-4, 1000, 50, None, by_accuracy=True, standardise=False
    )
    (score,) = classifier_test(*gaussians(60, 2.0), replace(PRESETS["calochallenge"], width=32), seeds=1)
    assert score.epochs == 50


def test_a_network_that_sees_images() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 80, 1 + 6 * 6 * 6)).astype(np.float32)
    b[:, 1:] *= 1.5
    options = replace(PRESETS["fast"], epochs=12, batch=16)
    (score,) = classifier_test(a, b, options, 1, build=lambda x: ResidualCNN(x, (6, 6, 6), channels=4))
    assert score.auc > 0.9


def test_too_few() -> None:
    with pytest.raises(TooFewShowersError, match="at least 50"):
        classifier_test(*gaussians(49, 0.0), QUICK, seeds=1)


def test_a_part_is_gathered_with_its_labels() -> None:
    a, b = torch.arange(20.0).reshape(10, 2), -torch.arange(20.0).reshape(10, 2)
    part = _Part(a, b, np.array([7, 2, 5]), np.array([1, 9]))
    x, y = part.batch(np.array([4, 0, 2, 3]))
    np.testing.assert_array_equal(x.numpy(), np.concatenate([a[[7, 5]], b[[9, 1]]]))
    np.testing.assert_array_equal(y.numpy(), [0, 0, 1, 1])
    np.testing.assert_array_equal(part.all().numpy(), np.concatenate([a[[7, 2, 5]], b[[1, 9]]]))
    np.testing.assert_array_equal(part.labels, [0, 0, 0, 1, 1])


def test_a_training_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []

    class Watched(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x).squeeze(1)

    a, b = gaussians(60, 0.0)
    classifier_test(a, b, replace(QUICK, epochs=1), 1, build=lambda inputs: Watched(3, 1))
    assert set(seen) == {1}
    with threads_for(1e12):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_showers_of_the_high_level_classifier_follow_the_seed(
    pair: tuple[Sample, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(label: str, inputs: Pair, *rest: object) -> dict[str, Value]:
        seen.append(inputs.reference)
        return {}

    monkeypatch.setattr(classifier, "entries", keep)
    for seed in (1, 2, 1):
        HighLevelClassifier().compute(*pair, Settings(seed=seed, n_max=100))
    assert seen[0].shape[0] == 100
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()
