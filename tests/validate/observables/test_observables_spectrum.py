"""The MIP peak is found where it was put, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from caloforge.geometry import get_detector
from caloforge.showers import Showers
from caloforge.validate.observables import SPECTRUM_EDGES, mip_peak, observe


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


def test_energies_on_and_beside_the_edges_fall_into_the_right_bins() -> None:
    edges = SPECTRUM_EDGES.astype(np.float32)
    energies = np.concatenate(
        [np.nextafter(edges, 0, dtype=np.float32), edges, np.nextafter(edges, np.inf, dtype=np.float32)]
    )
    energies = np.append(energies, [1e-30, 3e-39, 1e30]).astype(np.float32)
    detector = get_detector("clic-ecal")
    cells = np.zeros((1, detector.n_cells), np.float32)
    cells[0, : len(energies)] = energies
    table = observe(Showers(detector, cells, [1e4]), ["cell_spectrum"])
    bins = np.searchsorted(SPECTRUM_EDGES, energies.astype(float), side="right")
    np.testing.assert_array_equal(table["cell_spectrum"][0], np.bincount(bins, minlength=len(edges) + 1))
