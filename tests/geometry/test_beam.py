"""Primaries are counted per shower, spread as they should, and cross the front where they must."""

import numpy as np

from caloforge.geometry import get_detector


def test_primaries_do_not_depend_on_how_many_are_drawn() -> None:
    beam = get_detector("atlas-em-barrel").beam
    whole, part = beam.sample(5, 0, 50), beam.sample(5, 20, 10)
    np.testing.assert_array_equal(whole.energy[20:30], part.energy)
    for name, values in part.conditions.items():
        np.testing.assert_array_equal(whole.conditions[name][20:30], values)


def test_atlas_beam_covers_the_cell_and_all_alignments() -> None:
    primaries = get_detector("atlas-em-barrel").beam.sample(0, 0, 5000)
    levels, counts = np.unique(primaries.energy, return_counts=True)
    np.testing.assert_allclose(levels, 1024.0 * 2.0 ** np.arange(9))
    assert counts.min() > 450
    assert set(np.unique(primaries.conditions["alignment_phi"])) == {0, 1, 2, 3}
    assert set(np.unique(primaries.conditions["alignment_eta"])) == {0, 1}
    impact = primaries.conditions["impact"]
    assert np.all(np.abs(impact) <= [37.5 / 2, 36.8 / 2])
    np.testing.assert_allclose(impact[:, 0], primaries.x, atol=1e-5)


def test_inclined_particles_cross_the_front_at_the_entry_point() -> None:
    beam = get_detector("ild-ecal-angled").beam
    primaries = beam.sample(3, 0, 200)
    start, direction = primaries.position, primaries.direction
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1)
    path = -start[:, 2] / direction[:, 2]
    crossing = start + path[:, None] * direction
    np.testing.assert_allclose(crossing[:, 1], beam.y, atol=1e-12)
    np.testing.assert_allclose(crossing[:, 2], 0, atol=1e-12)
    assert np.all(direction[:, 1] >= 0), "angles below 90 degrees lean towards +y"


def test_replace_parses_and_keeps() -> None:
    beam = get_detector("ild-ecal").beam
    changed = beam.replace(energy="1-2GeV", theta="45")
    assert (changed.energy.low, changed.energy.high, changed.theta.low) == (1000.0, 2000.0, 45.0)
    assert changed.particle == "gamma"
    assert beam.replace() == beam
