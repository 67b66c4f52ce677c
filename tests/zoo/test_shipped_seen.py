"""What the shipped models have seen: files beside the weights that fit the cards, and the packaged samples."""

from __future__ import annotations

import pytest

from caloforge.data import packed_projections, sample_path
from caloforge.files import sha256_file
from caloforge.showers import read_showers
from caloforge.showers.seen import SeenCheck, SeenCount
from caloforge.zoo.store import Card, shipped_models

CARDS = shipped_models()
each = pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))


@each
def test_the_showers_that_it_has_seen_are_known(card: Card) -> None:
    facts, seen = card.content["seen"], card.seen()
    path = card.path.with_name(facts["file"])
    assert facts["sha256"] == sha256_file(path)
    assert path.stat().st_size < 8 * facts["showers"] + 1000
    assert len(seen.all) == facts["showers"] >= 2000
    assert (seen.all[1:] > seen.all[:-1]).all()
    assert seen.seeds == tuple(facts["seeds"])
    assert not seen.missing
    known = {part.get("seed") for part in card.content["metrics"]["reference"]["parts"]}
    assert not card.content["metrics"]["reference"].get("sealed") or not known & set(seen.seeds)


def test_the_packaged_sample_trained_the_models_of_its_detector() -> None:
    sample = SeenCheck([read_showers(sample_path())])
    for name in ("atlas-photon/vae", "atlas-photon/wgan-gp", "atlas-photon/flow-matching"):
        assert sample.count(CARDS[name].generator()) == SeenCount(4800, 4800)


def test_the_packaged_images_trained_no_shipped_model() -> None:
    path = packed_projections()
    assert path is not None
    images = SeenCheck([read_showers(path)])
    for name in ("ild-photon-50gev/vae-gan", "ild-photon-50gev/flow-matching"):
        count = images.count(CARDS[name].generator())
        assert count is not None
        assert count.n == 0
