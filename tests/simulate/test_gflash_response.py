"""Mean response of the units against a walk through the slabs, and how it depends on energy, angle and particle."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma

from caloforge.errors import UnknownNameError
from caloforge.geometry import active_over_passive, get_detector
from caloforge.simulate.gflash import START_DEPTH, develop
from caloforge.simulate.gflash.parametrisation import column_of


def typical(name, particle, energy, theta=90.0, start=1.0):
    """The response of one typical shower; ``start`` in units of the mean starting depth."""
    column = column_of(get_detector(name))
    one = np.ones(1)
    return column, develop(column, particle, energy * one, theta * one, np.zeros((1, 2)), start * one)


def walk(detector, response, energy, theta):
    """Slow and obvious: follow one shower through every slab and gap of the stack.

    Returns the visible energy (before calibration) of each active slab, and the share of the energy that is inside.
    """
    alpha, beta = response.profile.alpha[0], response.profile.beta[0]
    slant = 1 / np.sin(np.radians(theta))
    start = (
        response.start[0] + response.medium.depth[0] / 2
    )  # a slab stands half a unit behind the unit's middle

    def share(low, high):
        def density(t):
            return (beta * t) ** (alpha - 1) * beta * np.exp(-beta * t) / gamma(alpha)

        low, high = max(low - start, 0.0), max(high - start, 0.0)
        return quad(density, low, high, epsabs=1e-14, epsrel=1e-10)[0]

    pieces, z = [], 0.0
    for slab in detector.stack:
        if slab.z > z + 1e-9:
            pieces.append((detector.medium, slab.z - z, False))
        pieces.append((slab.material, slab.thickness, slab.active))
        z = slab.z + slab.thickness
    units, unit = [], []
    for piece in pieces:
        unit.append(piece)
        if piece[2]:
            units.append(unit)
            unit = []
    t, lost, shown = 0.0, 0.0, []
    for unit in units:
        passive = [(material, length) for material, length, _ in unit[:-1]]
        depth = sum(length / material.x0 for material, length in passive)
        rate = sum(material.mip_energy(length) for material, length in passive) / depth
        lost += rate * share(slant * t, slant * (t + depth))
        t += depth
        material, length, _ = unit[-1]
        within = share(slant * t, slant * (t + length / material.x0))
        t += length / material.x0
        mass = sum(other.density * size for other, size in passive)
        z_passive = sum(other.density * size * other.z for other, size in passive) / mass
        last = 1 - 0.0025 * z_passive if unit is units[-1] else 1.0
        shown.append(
            last * active_over_passive(passive, material, length) * material.mip_energy(material.x0) * within
        )
    inside = share(0.0, slant * t)
    return energy * inside * np.array(shown) / (lost + sum(shown)), inside


@pytest.mark.parametrize(
    ("name", "theta"), [("clic-ecal", 90.0), ("ild-ecal-angled", 50.0), ("atlas-em-barrel", 90.0)]
)
def test_response_is_that_of_a_walk_through_the_slabs(name, theta):
    detector = get_detector(name)
    _, response = typical(name, "gamma", 20e3, theta)
    slow, inside = walk(detector, response, 20e3, theta)
    assert response.inside[0] == pytest.approx(inside, rel=1e-6)
    np.testing.assert_allclose(response.visible[0], slow, rtol=1e-6, atol=1e-9 * slow.max())


def test_response_is_the_sampling_fraction_where_the_calorimeter_is_uniform():
    # r m_active / (r m_active + m_passive) of what is inside
    column, response = typical("clic-ecal", "gamma", 5e3)
    thin = slice(0, 17)
    slab = column.slabs[0]
    visible = column.response[0] * slab.material.mip_energy(slab.thickness)
    absorbed = 1.145 * 19.3 * 0.24
    fraction = visible / (visible + absorbed)
    edges = np.concatenate([[0.0], column.leave[thin]]) - response.medium.depth / 2
    deposited = 5e3 * np.diff(response.profile.integral(edges[None] - response.start[:, None]))[0]
    # units sample the density at their ends, which averages out over the shower
    assert response.visible[0, thin].sum() == pytest.approx(fraction * deposited.sum(), rel=0.03)


def test_shower_maximum_moves_inwards_with_the_logarithm_of_the_energy():
    depths = []
    for energy in (1e3, 10e3, 100e3):
        column, response = typical("clic-ecal", "e-", energy)
        per_depth = response.visible[0] / (column.leave - column.enter)
        depths.append(column.leave[per_depth.argmax()])
    assert np.diff(depths) == pytest.approx([np.log(10)] * 2, abs=1.0)


def test_theta_and_its_mirror_image_give_the_same_response():
    _, low = typical("clic-ecal-wide", "e-", 1e4, 70.0)
    _, high = typical("clic-ecal-wide", "e-", 1e4, 110.0)
    np.testing.assert_allclose(low.visible, high.visible, rtol=1e-10)


def test_inclined_showers_end_earlier_in_z():
    column, straight = typical("ild-ecal", "gamma", 5e4)
    _, inclined = typical("ild-ecal", "gamma", 5e4, 40.0)
    depth = [response.visible[0] @ column.z / response.visible.sum() for response in (straight, inclined)]
    assert depth[1] < depth[0]


def test_photons_start_deeper_than_electrons():
    assert START_DEPTH["gamma"] == pytest.approx(9 / 7)
    assert START_DEPTH["e-"] == START_DEPTH["e+"] < START_DEPTH["gamma"]
    column, photon = typical("clic-ecal", "gamma", 1e4)
    _, electron = typical("clic-ecal", "e-", 1e4)
    depth = [response.visible[0] @ column.leave / response.visible.sum() for response in (photon, electron)]
    assert depth[0] > depth[1]


def test_a_photon_that_does_not_convert_leaves_nothing():
    _, response = typical("ild-ecal", "gamma", 1e4, start=1e3)
    assert response.visible.sum() == 0


def test_unknown_particle_is_refused():
    with pytest.raises(UnknownNameError, match="gamma, e-, e\\+"):
        typical("ild-ecal", "pi+", 1e4)
