"""Parametrised showers of several detectors, made once."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

import caloforge as cf
from caloforge.geometry import detector_from_definition
from caloforge.showers import Showers

Make = Callable[..., Showers]


@pytest.fixture(scope="session")
def photons() -> Showers:
    """Return 12 photons of 50 GeV in ``ild-ecal``."""
    return cf.simulate("ild-ecal", n=12, engine="gflash", energy="50GeV", seed=1)


@pytest.fixture(scope="session")
def electrons() -> Showers:
    """Return 12 electrons of 10 to 500 GeV in ``clic-ecal``."""
    return cf.simulate("clic-ecal", n=12, engine="gflash", energy="10-500GeV", seed=2)


@pytest.fixture(scope="session")
def inclined() -> Showers:
    """Return 20 photons of 30 to 60 degrees in ``ild-ecal-angled``."""
    return cf.simulate("ild-ecal-angled", n=20, engine="gflash", energy="20-100GeV", theta="30-60", seed=3)


@pytest.fixture(scope="session")
def voxels() -> Showers:
    """Return 30 showers of the mesh of CaloChallenge's set 2, round and short in r, whose cells hold the incident energy."""
    rng = np.random.default_rng(4)
    z, _, r = np.meshgrid(np.arange(45), np.arange(16), np.arange(9), indexing="ij")
    density = (z + 0.5) ** 3 * np.exp(-0.4 * z - 0.8 * r)
    cells = density * rng.exponential(1.0, (30, *density.shape)) * (rng.random((30, *density.shape)) < 0.5)
    energy = rng.uniform(1e3, 1e6, 30)
    cells *= (energy / cells.sum((1, 2, 3)))[:, None, None, None]
    return Showers("calochallenge-2", cells.reshape(30, -1), energy, particle="e-")


@pytest.fixture(scope="session")
def barrel() -> Showers:
    """Return 25 photons in ``atlas-em-barrel``, with named conditions, and facts of a model that has seen some others."""
    made = cf.simulate("atlas-em-barrel", n=25, engine="gflash", seed=5)
    return made.replace(
        source="a model",
        attributes={"physics_list": "one", "seen_seeds": [3, 4]},
        seen=np.arange(5, dtype=np.uint64) + 1,
    )


@pytest.fixture(scope="session")
def own() -> Showers:
    """Return showers of a user's own detector, with a shower that has no energy."""
    layer = {"repeat": 5, "absorber": "G4_W", "absorber_mm": 3, "active": "G4_Si", "active_mm": 0.5}
    place = detector_from_definition(
        json.dumps({"name": "toy", "nx": 3, "ny": 4, "pitch": 5, "layers": [layer]})
    )
    rng = np.random.default_rng(6)
    cells = rng.exponential(10, (40, place.n_cells)) * (rng.random((40, place.n_cells)) < 0.4)
    cells[7] = 0
    return Showers(place, cells, rng.uniform(1e4, 1e5, 40), rng.uniform(30, 90, 40), seed=7)


UNIT = {"absorber": "G4_Pb", "absorber_mm": 6, "active": "plastic", "active_mm": 5}
PLASTIC = {"plastic": {"density": 1.032, "atoms": {"C": 9, "H": 10}}}


def own_showers(**content: object) -> Showers:
    place = detector_from_definition(json.dumps({"materials": PLASTIC, **content}))
    return cf.simulate(place, n=15, engine="gflash", particle="e-", energy="1-5GeV", seed=8)


@pytest.fixture(scope="session")
def finer() -> Showers:
    """Return showers of layers with different cells."""
    layers = [{"repeat": 3, **UNIT}, {"repeat": 2, "nx": 8, "ny": 6, **UNIT}]
    return own_showers(name="finer", nx=4, ny=3, width=120.0, layers=layers)


@pytest.fixture(scope="session")
def rings() -> Showers:
    """Return showers in rings around the beam."""
    layers = [{"repeat": 2, "n_alpha": 4, **UNIT}, {"repeat": 3, "units": 2, **UNIT}]
    return own_showers(name="rings", r_edges=[0, 5, 20, 60], n_alpha=6, layers=layers)
