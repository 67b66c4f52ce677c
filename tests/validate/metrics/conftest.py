from __future__ import annotations

import pytest
from toy_samples import toy_showers

from caloforge.validate.metrics import Settings
from caloforge.validate.sample import Sample


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(n_bootstrap=10, n_halves=2, classifier_seeds=1, floor_seeds=1, device="cpu", ssim_pairs=8)


@pytest.fixture(scope="session")
def pair() -> tuple[Sample, Sample]:
    """Two equal samples of atlas-em-barrel."""
    return tuple(Sample(toy_showers("atlas-em-barrel", 240, seed), str(seed)) for seed in (1, 2))


@pytest.fixture(scope="session")
def shifted() -> Sample:
    """A sample of 30 % higher energies."""
    return Sample(toy_showers("atlas-em-barrel", 240, 3, scale=1.3), "shifted")
