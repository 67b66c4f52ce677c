"""Numbers belong to a shower, not to the call that draws them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from caloforge.random import child_seed, generator, normals, uniforms


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 9))
def test_any_slice_is_the_slice_of_the_whole(start: int, n: int, draws: int) -> None:
    for draw in (uniforms, normals):
        whole = draw(7, "test", 0, start + n, draws)
        np.testing.assert_array_equal(whole[start:], draw(7, "test", start, n, draws))


def test_streams_and_seeds_differ() -> None:
    first = uniforms(1, "a", 0, 100, 3)
    assert not np.any(first == uniforms(1, "b", 0, 100, 3))
    assert not np.any(first == uniforms(2, "a", 0, 100, 3))


def test_distributions() -> None:
    u, z = uniforms(3, "u", 0, 20000, 3), normals(3, "z", 0, 20000, 3)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.03
    assert np.all((u >= 0) & (u < 1))


def test_generators_and_child_seeds() -> None:
    assert generator(1, "g", 5).random() == generator(1, "g", 5).random()
    assert generator(1, "g", 5).random() != generator(1, "g", 6).random()
    seeds = {child_seed(1, "s", index) for index in range(1000)}
    assert len(seeds) == 1000
    assert min(seeds) >= 1
    assert max(seeds) < 2**31
