"""Seen reference showers: counted by identity and by seed, refused unless allowed."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.errors import SeenShowersError
from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.showers.identity import seen_union
from caloforge.showers.seen import SeenCheck, identities, seeds_of, warnings_of
from caloforge.showers.views import project_showers

IMAGE = get_detector("ild-ecal-10x10")


def images(n: int = 40, number: int = 0, **facts) -> Showers:
    rng = np.random.default_rng(number)
    cells = rng.gamma(0.3, 10.0, (n, 100)).astype(np.float32)
    cells[cells < 1.0] = 0.0
    cells[::7] = 0.0
    return Showers(IMAGE, cells, rng.uniform(1e4, 1e5, n), particle="gamma", **facts)


def test_seen_reference_showers_are_counted_and_refused() -> None:
    reference = images(40)
    known = identities(reference)
    model = images(5, 8, seen=seen_union([known[:10]]))
    inside = int((known[:10] != 0).sum())
    check = SeenCheck([reference])
    assert check.count(images(5, 8)) is None
    assert check.count(model).as_dict() == {"n": inside, "of": 40}
    with pytest.raises(
        SeenShowersError, match=f"^{inside} of 40 reference showers .* 'vae'; use allow_seen=True"
    ):
        check.require_unseen([("vae", model)])
    assert check.require_unseen([("vae", model), ("x", images())], allow_seen=True)["vae"].n == inside
    assert SeenCheck([images(number=5)]).require_unseen([("vae", model)])["vae"].n == 0


def test_a_seed_that_was_seen_counts_as_a_whole() -> None:
    model = images(5, 8, attributes={"seen_seeds": [2001, 2003]})
    same, packed = images(30, 1, source="geant4", seed=2001), images(20, 2, source="geant4")
    packed.attributes["seeds"] = [5, 2003]
    fresh, fast = images(10, 3, source="geant4", seed=2002), images(10, 3, source="gflash", seed=2001)
    assert seeds_of(packed) == (5, 2003)
    assert SeenCheck([same, packed, fresh, fast]).count(model).as_dict() == {"n": 50, "of": 70}


def test_projected_showers_are_recognised_by_their_images() -> None:
    rng = np.random.default_rng(0)
    cells = rng.gamma(0.05, 1.0, (6, 27_000)).astype(np.float32)
    whole = Showers("ild-ecal", cells, np.full(6, 5e4), source="geant4")
    seen = seen_union([identities(project_showers(whole[:4], IMAGE))])
    np.testing.assert_array_equal(identities(whole, IMAGE, 2), identities(project_showers(whole, IMAGE)))
    assert SeenCheck([whole]).count(images(seen=seen)).n == 4
    grid = Showers("ild-ecal", cells, np.full(6, 5e4), seen=seen_union([identities(whole)]))
    assert SeenCheck([project_showers(whole, IMAGE)]).count(grid).n == 0


def test_what_is_wrong_with_a_model_is_said() -> None:
    assert warnings_of("vae", {}) == []
    showers = images(
        attributes={"model_status": "unfinished: stage post not trained", "seen_incomplete": "x"}
    )
    first, second = warnings_of("vae", showers.attributes)
    assert "stage post not trained" in first
    assert "not all showers" in second
