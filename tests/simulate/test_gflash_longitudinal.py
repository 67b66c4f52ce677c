import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gamma

from caloforge.simulate.gflash.column import Medium
from caloforge.simulate.gflash.profiles import Profile, profile_law

LEAD_ARGON = Medium(*(np.array([value]) for value in (60.0, 10.0, 0.33, 0.28)))


def density(t, t_max, alpha):
    """The paper's f(t), written out."""
    beta = (alpha - 1) / t_max
    return (beta * t) ** (alpha - 1) * beta * np.exp(-beta * t) / gamma(alpha)


def profile(t_max, alpha):
    return Profile(np.array([t_max]), np.array([alpha]), np.array([1 / t_max]))


@given(st.floats(1.0, 12.0), st.floats(1.5, 8.0), st.floats(0.1, 30.0))
def test_integral_is_that_of_the_density(t_max, alpha, depth):
    expected, _ = quad(density, 0, depth, args=(t_max, alpha))
    assert profile(t_max, alpha).integral(np.array([[depth]]))[0, 0] == pytest.approx(expected, abs=1e-7)


@given(st.floats(1.0, 12.0), st.floats(1.5, 8.0))
def test_profile_integrates_to_one_with_the_mean_of_the_gamma(t_max, alpha):
    one = profile(t_max, alpha)
    t = np.linspace(0, 400, 40001)
    cumulative = one.integral(t[None])[0]
    assert cumulative[-1] == pytest.approx(1)
    mean = ((t[1:] + t[:-1]) / 2) @ np.diff(cumulative)
    assert mean == pytest.approx(one.mean_depth[0], rel=1e-3)
    assert one.mean_depth[0] == pytest.approx(alpha / (alpha - 1) * t_max)


def test_nothing_before_the_start():
    assert profile(5.0, 4.0).integral(np.array([[-3.0, 0.0]])).tolist() == [[0, 0]]


def test_law_by_hand():
    law = profile_law(np.array([10e3]), LEAD_ARGON)
    log_y = np.log(10e3 / 10.0)
    assert np.exp(law.mean_log_t[0]) == pytest.approx(log_y - 0.812 - 0.55 * 0.33 - 0.69 * 0.28)
    alpha = 0.81 + (0.458 + 2.26 / 60) * log_y - 0.476 * 0.33
    assert np.exp(law.mean_log_alpha[0]) == pytest.approx(alpha)
    assert law.sigma_log_t[0] == pytest.approx(1 / (-2.5 + 1.25 * log_y))
    assert law.sigma_log_alpha[0] == pytest.approx(1 / (-0.82 + 0.79 * log_y))
    assert law.rho[0] == pytest.approx(0.784 - 0.023 * log_y)


def test_draws_have_the_widths_and_the_correlation_of_the_law():
    n = 40000
    medium = Medium(*(np.full(n, value[0]) for value in vars(LEAD_ARGON).values()))
    law = profile_law(np.full(n, 50e3), medium)
    drawn = law.draw(np.random.default_rng(3).standard_normal((n, 2)))
    log_t, log_alpha = np.log(drawn.t_max), np.log(drawn.alpha)
    assert log_t.mean() == pytest.approx(law.mean_log_t[0], abs=0.002)
    assert log_alpha.mean() == pytest.approx(law.mean_log_alpha[0], abs=0.003)
    assert log_t.std() == pytest.approx(law.sigma_log_t[0], rel=0.02)
    assert log_alpha.std() == pytest.approx(law.sigma_log_alpha[0], rel=0.02)
    assert np.corrcoef(log_t, log_alpha)[0, 1] == pytest.approx(law.rho[0], abs=0.02)


def test_tau_of_the_typical_shower_is_depth_over_maximum():
    drawn = profile_law(np.array([20e3]), LEAD_ARGON).draw(np.zeros((1, 2)))
    assert drawn.tau_scale[0] * drawn.t_max[0] == pytest.approx(1)


@given(st.floats(1e-3, 1e8), st.floats(-6, 6), st.floats(-6, 6))
def test_parameters_stay_sound_at_any_energy(energy, first, second):
    law = profile_law(np.array([energy]), LEAD_ARGON)
    drawn = law.draw(np.array([[first, second]]))
    assert drawn.alpha[0] > 1
    assert drawn.t_max[0] > 0
    assert 0 < drawn.tau_scale[0] < np.inf
    assert 0 < law.sigma_log_t[0] <= 0.5
    assert 0 < law.sigma_log_alpha[0] <= 0.5
