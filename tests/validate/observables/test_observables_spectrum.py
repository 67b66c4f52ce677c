"""The MIP peak is found where it was put, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.validate.observables import SPECTRUM_EDGES, mip_peak


def _counts(energies: np.ndarray) -> np.ndarray:
    return np.histogram(energies, SPECTRUM_EDGES)[0]


def _soft(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.exponential(1.0, n) * 10.0 ** rng.uniform(-2, 1, n)


@pytest.mark.parametrize("peak", [0.05, 0.18, 2.0])
def test_a_peak_over_a_falling_spectrum(peak: float) -> None:
    rng = np.random.default_rng(1)
    energies = np.concatenate([_soft(rng, 100_000), rng.normal(peak, 0.2 * peak, 60_000)])
    counts = _counts(energies[energies > 0])
    assert mip_peak(counts) == pytest.approx(peak, rel=0.06)
    assert mip_peak(counts, near=1.2 * peak) == pytest.approx(peak, rel=0.06)
    assert np.isnan(mip_peak(counts, near=50 * peak))


def test_no_peak_in_a_falling_spectrum_nor_in_nothing() -> None:
    rng = np.random.default_rng(2)
    for n in (0, 10, 1000, 200_000):
        assert np.isnan(mip_peak(_counts(_soft(rng, n))))
