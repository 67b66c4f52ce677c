r"""The mean response of showers: what each sampling unit shows of a shower whose profile was drawn.

Of what a shower deposits, each unit shows its share of active matter. With the number of charged particles N proportional to
the profile f at depth t (in X0), and their ``loss = dE/dx X0`` per radiation length, a property of the material::

    E_inside = E integral_stack(f dt)
    N = E_inside f / integral_stack(f loss dt)          E_visible = k r loss_active integral_active(N dt)

where loss is r loss_active in active slabs, and r is :func:`caloforge.geometry.active_over_passive`. So what leaks behind the stack
is lost to it, and what is inside is shared among its materials, also behind a change of absorber or behind light matter upstream,
which the paper leaves open. In a uniform calorimeter that contains the shower the response is the sampling fraction
E r m_active/(r m_active + m_passive), with the energies m that a minimum-ionising particle loses. The factor k is
:func:`caloforge.simulate.gflash.containment.calibration`.

Depths. The published mean of T falls by 0.55/F, for most part because the paper puts the energy of a unit at the unit's middle,
while its active slab stands at the end. Here slabs stand where they are, so that the profile is read half a unit in front of them; at an
angle, units are 1/sin(theta) as deep. The mean depths of Geant4's electron showers, in units of 0.1 to 2 X0 of aluminium to lead, then
are those of the published profile to 0.1 X0 (0.3 at most) without a constant of ours; without the half unit they go from 0.4 X0 above (thin units)
to 0.3 X0 below.

First interaction. The paper's profiles are those of electrons. A photon first travels an exponential of mean 9/7 X0, then it is a pair that shares
its energy as x and 1-x. The mean depth grows with ln E, so that the pair's showers lie less deep by ``-<x ln x + (1-x) ln(1-x)> = 1/2``
for uniform x. An electron radiates its first hard photon after an exponential of mean 0.3 X0, and the showers that follow lie less
deep by the same 0.3 X0: the paper's mean, but with the fluctuation of the start, which the spread of the mean depths above 20 GeV and of the response of
thin calorimeters in Geant4 calls for. This 0.3 is a choice of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import UnknownNameError
from caloforge.simulate.gflash.parametrisation import Column, Medium, Profile, profile_law

__all__ = ["SPLIT", "START_DEPTH", "Response", "develop"]

Array = NDArray[np.float64]

START_DEPTH = {"gamma": 9.0 / 7.0, "e-": 0.3, "e+": 0.3}  # mean depth, X0, of the first interaction
SPLIT = {"gamma": 0.5, "e-": 0.3, "e+": 0.3}  # ln of its energy over that of the showers that follow


@dataclass(frozen=True)
class Response:
    """Showers before their spots are drawn."""

    visible: Array  # (n, U) mean visible energy of each unit, MeV, before calibration
    inside: Array  # (n,) share of the energy that does not leak behind the stack
    tau: Array  # (n, U) depth of each active slab in units of the shower's maximum
    medium: Medium  # what the profiles were drawn for, fields (n,)
    profile: Profile
    start: Array  # (n,) depth of the first interaction, X0 along the axis


def develop(
    column: Column, particle: str, energy: Array, theta: Array, normal: Array, exponential: Array
) -> Response:
    """Return the mean response of showers drawn with these random numbers.

    Arguments:
        particle: "gamma", "e-" or "e+".
        energy: (n,) MeV.
        theta: (n,) degrees.
        normal: (n, 2) standard normal numbers.
        exponential: (n,) exponential numbers of mean one.

    Raises:
        UnknownNameError: For another particle.
    """
    if particle not in START_DEPTH:
        kind = "particle of an electromagnetic shower"
        raise UnknownNameError(kind, particle, list(START_DEPTH))
    slant = 1.0 / np.sin(np.radians(theta))
    medium = _medium_along(column, energy, slant)
    profile = profile_law(energy, medium, SPLIT[particle]).draw(normal)
    start = START_DEPTH[particle] * exponential
    depth = np.stack([column.enter, column.leave], axis=1).ravel()  # alternating, (2 U,)
    t = slant[:, None] * depth - (start + medium.depth / 2)[:, None]
    reached = profile.integral(t)
    share = np.diff(reached, axis=1, prepend=0.0)
    before, within = share[:, 0::2], share[:, 1::2]
    inside = reached[:, -1]
    loss_active = column.response * column.loss_active
    loss = before @ column.loss_passive + within @ loss_active
    visible = (energy * inside / np.where(loss > 0, loss, 1.0))[:, None] * loss_active * within
    middle = np.maximum((t[:, 0::2] + t[:, 1::2]) / 2, 0.0)
    return Response(visible, inside, profile.tau_scale[:, None] * middle, medium, profile, start)


def _medium_along(column: Column, energy: Array, slant: Array) -> Medium:
    """Return the medium of each shower: the column's, weighted by the typical profile at its energy; units are ``slant`` as deep."""
    weights = np.broadcast_to(column.medium.depth / column.medium.depth.sum(), (len(energy), len(column)))
    whole = column.medium.mean(weights)
    typical = profile_law(energy, whole).draw(np.zeros((len(energy), 2)))
    edges = np.concatenate([[0.0], column.leave])
    share = np.diff(typical.integral(np.broadcast_to(edges, (len(energy), len(edges)))), axis=1)
    share = share + 1e-9 * weights  # for a stack that ends before the shower has begun
    medium = column.medium.mean(share / share.sum(axis=1, keepdims=True))
    return replace(medium, depth=slant * medium.depth)
