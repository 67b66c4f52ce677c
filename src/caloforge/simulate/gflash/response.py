"""Mean visible energy of each sampling unit, for longitudinal profiles drawn shower by shower.

Where a shower starts: a photon converts after an exponential of mean 9/7 X0. An electron radiates its first
hard photon after an exponential of mean 1/2 X0; the paper starts it at the surface, and Geant4's electron
showers in tungsten and silicon then lie a third of a radiation length deeper than the parametrisation's.
This is the one number here that is not the paper's; its profile constants stay as published.

The medium of a shower is the stack's, averaged over the typical profile at its energy, so that matter
upstream and a change of absorber count as much as the shower sees of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import UnknownNameError
from caloforge.simulate.gflash.column import Column
from caloforge.simulate.gflash.longitudinal import Profile, profile_law
from caloforge.simulate.gflash.medium import Medium

__all__ = ["START_DEPTH", "Response", "develop"]

Array = NDArray[np.float64]

START_DEPTH = {"gamma": 9.0 / 7.0, "e-": 0.5, "e+": 0.5}  # mean depth, X0, at which a shower starts


@dataclass(frozen=True)
class Response:
    """Showers before their spots are drawn.

    Arguments:
        visible: (n, U) mean visible energy of each unit, MeV, before calibration.
        tau: (n, U) depth of each active slab in units of the shower's maximum.
        medium: What the profiles were drawn for, fields (n,).
        profile: The longitudinal profiles.
        start: (n,) depth at which the showers start, X0 along the axis.
    """

    visible: Array
    tau: Array
    medium: Medium
    profile: Profile
    start: Array


def develop(
    column: Column, particle: str, energy: Array, theta: Array, normal: Array, exponential: Array
) -> Response:
    """Return the mean response of showers that the given random numbers stand for.

    Arguments:
        column: The detector's sampling units.
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
    medium = _medium_along(column, energy)
    profile = profile_law(energy, medium).draw(normal)
    start = START_DEPTH[particle] * exponential
    slant = 1.0 / np.sin(np.radians(theta))
    depth = np.stack([column.enter, column.leave], axis=1).ravel()  # alternating, (2 U,)
    t = slant[:, None] * depth - start[:, None]
    reached = profile.integral(t)
    share = np.diff(reached, axis=1, prepend=0.0)
    before, within = share[:, 0::2], share[:, 1::2]
    beyond = 1.0 - reached[:, -1]
    loss = before @ column.loss_passive + within @ column.loss_active + beyond * column.loss_passive[-1]
    visible = (energy / loss)[:, None] * (column.e_mip * column.loss_active) * within
    middle = np.maximum((t[:, 0::2] + t[:, 1::2]) / 2, 0.0)
    return Response(visible, profile.tau_scale[:, None] * middle, medium, profile, start)


def _medium_along(column: Column, energy: Array) -> Medium:
    """Return the medium of each shower: the column's, weighted by the typical profile at its energy."""
    weights = np.broadcast_to(column.medium.depth / column.medium.depth.sum(), (len(energy), len(column)))
    whole = column.medium.mean(weights)
    typical = profile_law(energy, whole).draw(np.zeros((len(energy), 2)))
    edges = np.concatenate([[0.0], column.leave])
    share = np.diff(typical.integral(np.broadcast_to(edges, (len(energy), len(edges)))), axis=1)
    share = share + 1e-9 * weights  # for a stack that ends before the shower has begun
    return column.medium.mean(share / share.sum(axis=1, keepdims=True))
