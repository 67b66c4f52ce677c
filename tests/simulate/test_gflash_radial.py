import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest

from caloforge.simulate.gflash.column import Medium
from caloforge.simulate.gflash.profiles import Radial, radial_profile

TUNGSTEN_SILICON = Medium(*(np.array([[value]]) for value in (72.0, 8.3, 0.6, 0.3)))


def at(tau, energy=50e3):
    return radial_profile(np.array([[energy]]), np.atleast_2d(tau), TUNGSTEN_SILICON)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_density_is_normalised_and_integrates_to_the_cumulative(tau):
    radial = at(tau)
    near, _ = quad(lambda r: radial.density(np.array([[r]]))[0, 0], 0, 1, limit=200)
    far, _ = quad(lambda r: radial.density(np.array([[r]]))[0, 0], 1, np.inf, limit=200)
    assert near == pytest.approx(radial.integral(np.array([[1.0]]))[0, 0], rel=1e-6)
    assert near + far == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sampled_radii_follow_the_cumulative(dtype):
    radial = at([0.5, 1.0, 3.0])
    u = np.random.default_rng(5).random(30000, dtype=dtype)
    index = np.repeat(np.arange(3), 10000)
    r = radial.radius(u, index)
    assert r.dtype == dtype
    assert np.isfinite(r).all()
    for k in range(3):
        one = Radial(radial.core[0, k], radial.tail[0, k], radial.share[0, k])
        assert kstest(r[index == k], one.integral).pvalue > 1e-3


def test_coefficients_by_hand_at_the_maximum():
    radial = at(1.0, energy=1e3)  # ln E = 0 and tau = 1: few terms are left
    fade = 0.6 * np.exp(-1)
    assert radial.core[0, 0] == pytest.approx(0.0251 + 0.1162 - 0.000381 * 72 - 0.0203 * 0.3 + 0.0397 * fade)
    growth = np.exp(-2.59 * 0.355) + np.exp(0.3585 * 0.355)
    assert radial.tail[0, 0] == pytest.approx((0.659 - 0.00309 * 72) * growth - 0.14 * 0.3 - 0.495 * fade)
    x = (0.401 + 0.00187 * 72 - 1) / 1.313
    share = (2.632 - 0.00094 * 72) * np.exp(x - np.exp(x)) + 0.3 * (0.348 - 0.642 * 0.6)
    assert radial.share[0, 0] == pytest.approx(share)


def test_showers_widen_with_depth():
    contained = at(np.linspace(0.3, 6, 30)).integral(np.full((1, 30), 0.3))
    assert (np.diff(contained) < 0).all()


@given(st.floats(1.0, 1e7), st.floats(0, 1e4))
def test_profiles_stay_sound_at_any_energy_and_depth(energy, tau):
    radial = at(tau, energy)
    assert 0 <= radial.share[0, 0] <= 1
    assert 0 < radial.core[0, 0] < np.inf
    assert 0 < radial.tail[0, 0] < np.inf
