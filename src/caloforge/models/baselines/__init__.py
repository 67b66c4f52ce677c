"""Classical densities of shower observables, the baselines of a generator in the amplification study.

They give observables and not showers, so they are no :class:`~caloforge.models.base.ShowerModel` and are not in
``MODELS``: a density in as many dimensions as there are cells cannot be estimated from showers that one has.
"""

from __future__ import annotations

from caloforge.models.baselines.base import DensityEstimator
from caloforge.registry import Registry

__all__ = ["ESTIMATORS", "DensityEstimator"]

ESTIMATORS: Registry[type[DensityEstimator]] = Registry(
    "density estimator",
    {
        "histogram": "caloforge.models.baselines.histogram:HistogramDensity",
        "kde": "caloforge.models.baselines.kde:KernelDensity",
    },
)
