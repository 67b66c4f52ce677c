"""The stack as a shower sees it: sampling units, their effective medium, depths and losses. Longitudinal and radial profiles against their densities, written out and integrated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gamma
from scipy.stats import kstest

from caloforge.errors import IncompatibleError
from caloforge.geometry import e_over_mip, get_detector, get_material
from caloforge.simulate.gflash.parametrisation import (
    Medium,
    Profile,
    Radial,
    column_of,
    effective_medium,
    profile_law,
    radial_profile,
)

SIMULABLE = ["ild-ecal", "ild-ecal-angled", "clic-ecal", "clic-ecal-wide", "atlas-em-barrel"]


@pytest.mark.parametrize("name", SIMULABLE)
def test_column_covers_the_active_slabs_in_order(name):
    detector = get_detector(name)
    column = column_of(detector)
    active = [slab for slab in detector.stack if slab.active]
    assert len(column) == len(active)
    assert column.layer.tolist() == [slab.layer for slab in active]
    np.testing.assert_allclose(column.leave - column.enter, [s.thickness / s.material.x0 for s in active])
    assert (np.diff(np.stack([column.enter, column.leave], 1).ravel()) > 0).all()
    assert ((column.edges[:-1] < column.z) & (column.z < column.edges[1:])).all()
    assert column.leave[-1] == pytest.approx(detector.depth_x0, rel=0.01)


def test_depth_is_the_sum_over_all_matter_in_front_gaps_included():
    detector = get_detector("atlas-em-barrel")
    column = column_of(detector)
    argon = detector.medium
    for unit in (0, 1, 5, 40):
        slab = column.slabs[unit]
        before = [other for other in detector.stack if other.z < slab.z]
        depth = sum(other.thickness / other.material.x0 for other in before)
        gap = slab.z - sum(other.thickness for other in before)
        assert column.enter[unit] == pytest.approx(depth + gap / argon.x0)


def test_losses_are_those_of_the_materials():
    column = column_of(get_detector("ild-ecal"))
    silicon = column.slabs[0].material
    np.testing.assert_allclose(column.loss_active, silicon.dedx * silicon.density * silicon.x0 / 10)
    np.testing.assert_allclose(column.loss_passive, 1.145 * 19.3 * 0.350418, rtol=1e-3)
    np.testing.assert_allclose(1 - column.medium.e, 1 / (1 + 0.007 * 60), rtol=1e-3)


def test_matter_upstream_keeps_its_own_values():
    column = column_of(get_detector("atlas-em-barrel"))
    assert column.medium.depth[0] > 5 * column.medium.depth[1]
    assert column.medium.critical_energy[0] > 3 * column.medium.critical_energy[1]
    assert column.medium.e[0] < 0 < column.medium.e[1]  # aluminium is lighter than argon, lead heavier
    assert column.response[0] > 1 > column.response[1]
    # the width follows the matter over some radiation lengths, not at once
    assert column.moliere_radius[1] == pytest.approx(column.moliere_radius[0], rel=0.06)
    assert column.moliere_radius[-1] < 0.9 * column.moliere_radius[0]


@pytest.mark.parametrize("name", ["calochallenge-1-photons", "ild-ecal-10x10"])
def test_mesh_without_stack_is_refused(name):
    with pytest.raises(IncompatibleError, match="no stack"):
        column_of(get_detector(name))


def test_one_material_is_its_own_effective_medium():
    lead = get_material("G4_Pb")
    z, x0, energy = effective_medium([lead, lead], [1.0, 3.0])
    assert (z, x0, energy) == pytest.approx((lead.z, lead.x0, lead.critical_energy))


def test_effective_medium_follows_the_mass_fractions_of_the_paper():
    parts = [(get_material("G4_W"), 2.1), (get_material("G4_Si"), 0.525)]
    mass = sum(material.density * length for material, length in parts)
    z = inverse_x0 = energy = 0.0
    for material, length in parts:
        share = material.density * length / mass
        x0 = material.x0 / 10 * material.density  # g/cm2
        z += share * material.z
        inverse_x0 += share / x0
        energy += share * material.critical_energy / x0
    density = mass / sum(length for _, length in parts)
    expected = (z, 10 / (inverse_x0 * density), energy / inverse_x0)
    assert effective_medium(*zip(*parts, strict=True)) == pytest.approx(expected)


def test_gaps_dilute_the_medium_but_hardly_change_its_composition():
    tungsten, air = get_material("G4_W"), get_material("G4_AIR")
    z, x0, energy = effective_medium([tungsten, air], [2.0, 2.0])
    assert z == pytest.approx(tungsten.z, rel=1e-3)
    assert energy == pytest.approx(tungsten.critical_energy, rel=1e-3)
    assert x0 == pytest.approx(2 * tungsten.x0, rel=1e-3)


def test_e_mip_is_one_for_equal_materials_and_below_for_heavy_absorbers():
    assert e_over_mip(18.0, 18.0) == 1.0
    assert e_over_mip(82.0, 18.0) == pytest.approx(1 / 1.448)


def test_mean_weights_every_field():
    medium = Medium(*(np.array([1.0, 3.0]) * scale for scale in (1, 2, 3, 4)))
    mean = medium.mean(np.array([[0.5, 0.5], [1.0, 0.0]]))
    np.testing.assert_allclose(mean.z, [2, 1])
    np.testing.assert_allclose(mean.critical_energy, [4, 2])
    np.testing.assert_allclose(mean.columns.e, [[8], [4]])


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
    assert mean == pytest.approx(alpha / (alpha - 1) * t_max, rel=1e-3)


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


TUNGSTEN_SILICON = Medium(*(np.array([[value]]) for value in (72.0, 8.3, 0.6, 0.3)))


def at(tau, energy=50e3):
    return radial_profile(np.array([[energy]]), np.atleast_2d(tau), TUNGSTEN_SILICON)


def contained(radial, r):
    """Share of the energy within r, from the integrals r^2 / (r^2 + R^2) of the two components."""
    inner, outer = r * r / (r * r + radial.core**2), r * r / (r * r + radial.tail**2)
    return radial.share * inner + (1 - radial.share) * outer


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_the_density_integrates_to_the_contained_share(tau):
    core, tail, share = (values[0, 0] for values in vars(at(tau)).values())

    def density(r):
        inner, outer = core**2 / (r * r + core**2) ** 2, tail**2 / (r * r + tail**2) ** 2
        return 2 * r * (share * inner + (1 - share) * outer)

    near, _ = quad(density, 0, 1, limit=200)
    far, _ = quad(density, 1, np.inf, limit=200)
    assert near == pytest.approx(contained(at(tau), 1.0)[0, 0], rel=1e-6)
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
        assert kstest(r[index == k], lambda x, one=one: contained(one, x)).pvalue > 1e-3


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
    assert (np.diff(contained(at(np.linspace(0.3, 6, 30)), 0.3)) < 0).all()


@given(st.floats(1.0, 1e7), st.floats(0, 1e4))
def test_profiles_stay_sound_at_any_energy_and_depth(energy, tau):
    radial = at(tau, energy)
    assert 0 <= radial.share[0, 0] <= 1
    assert 0 < radial.core[0, 0] < np.inf
    assert 0 < radial.tail[0, 0] < np.inf
