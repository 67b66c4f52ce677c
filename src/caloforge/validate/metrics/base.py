"""What a metric is and what it returns.

A metric compares a generated sample with a reference. Each number is a :class:`Value`: the number, its
uncertainty, and, where it means something, its floor, which is what a perfect generator would score with so many
showers (:mod:`caloforge.validate.metrics.floors`). A metric returns a dictionary: one entry for each of its keys in
``metrics.json``, a :class:`Value` or a dictionary of them (by observable, by pair).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from caloforge.registry import Registry
from caloforge.validate.metrics.settings import Settings

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["METRICS", "Entry", "Key", "Metric", "Settings", "Value", "jsonable"]


def jsonable(item: Any) -> Any:
    """Return plain Python data: NumPy scalars and arrays unpacked, numbers that are not finite as None."""
    if isinstance(item, Value):
        return item.to_dict()
    if isinstance(item, Mapping):
        return {str(key): jsonable(value) for key, value in item.items()}
    if isinstance(item, np.ndarray):
        return jsonable(item.tolist())
    if isinstance(item, list | tuple):
        return [jsonable(value) for value in item]
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, float) and not math.isfinite(item):
        return None
    return item


@dataclass(frozen=True)
class Value:
    """One number with its error.

    Attributes:
        value: The number; NaN (null in JSON) when it cannot be said, ``detail["reason"]`` then says why.
        uncertainty: One standard deviation.
        floor: The same for two samples of the reference's distribution and of these sizes.
        floor_uncertainty: One standard deviation of the floor.
        detail: Whatever else is to be known: sizes used, entries out of range, p-values.
    """

    value: float
    uncertainty: float | None = None
    floor: float | None = None
    floor_uncertainty: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON: ``value`` and whichever of the others are known."""
        out: dict[str, Any] = {"value": jsonable(float(self.value))}
        for name in ("uncertainty", "floor", "floor_uncertainty"):
            number = getattr(self, name)
            if number is not None:
                out[name] = jsonable(float(number))
        if self.detail:
            out["detail"] = jsonable(self.detail)
        return out


Entry: TypeAlias = "Value | Mapping[str, Entry]"


@dataclass(frozen=True)
class Key:
    """What one key of ``metrics.json`` means, for tables.

    Attributes:
        name: The key; with dots for one inside another.
        label: A short human-readable name.
        ideal: What a perfect generator would reach (apart from the floor).
        by: What the entries of a dictionary are ("observable", "pair", "sample"); empty for a single value.
    """

    name: str
    label: str
    ideal: float
    by: str = ""

    @property
    def top(self) -> str:
        """The part before the first dot: the key at the top of ``metrics.json``."""
        return self.name.partition(".")[0]

    def find(self, metrics: Mapping[str, Any]) -> Any:
        """Return what a sample's metrics hold under the key; None when it is not there."""
        found: Any = metrics
        for part in self.name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


class Metric(ABC):
    """One metric: compares two samples.

    Attributes:
        name: Name in the registry.
        keys: The keys it writes.
        minimum: Fewest showers a side that it can be computed from.
        default: Whether it runs when nothing is asked for by name.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[Key, ...]]
    minimum: ClassVar[int] = 2
    default: ClassVar[bool] = True

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        return None

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs when no metric is asked for by name."""
        return self.default

    @abstractmethod
    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return an entry for each key.

        Raises:
            TooFewShowersError: When a sample is too small.
        """


METRICS: Registry[type[Metric]] = Registry(
    "metric",
    {
        "separation_power": "caloforge.validate.metrics.separation:SeparationPower",
        "distances": "caloforge.validate.metrics.distances:DistributionDistances",
        "quantile_jsd": "caloforge.validate.metrics.quantile:QuantileDivergence",
        "shape_mse": "caloforge.validate.metrics.shape_mse:ShapeMSE",
        "sampling_fraction": "caloforge.validate.metrics.sampling_fraction:SamplingFraction",
        "spectrum": "caloforge.validate.metrics.spectrum:CellSpectrum",
        "moments": "caloforge.validate.metrics.moments:Moments",
        "layer_fractions": "caloforge.validate.metrics.layer_fractions:LayerFractions",
        "core_cells": "caloforge.validate.metrics.core_cells:CoreCells",
        "covariance_distance": "caloforge.validate.metrics.covariance:CovarianceDistance",
        "ssim": "caloforge.validate.metrics.ssim:StructuralSimilarity",
        "fpd": "caloforge.validate.metrics.fpd:FrechetPhysicsDistance",
        "kpd": "caloforge.validate.metrics.kpd:KernelPhysicsDistance",
        "prdc": "caloforge.validate.metrics.prdc:PrecisionRecall",
        "reconstructed": "caloforge.validate.metrics.reconstructed:Reconstructed",
        "auc_cells": "caloforge.validate.metrics.two_sample:CellsTest",
        "auc_observables": "caloforge.validate.metrics.two_sample:ObservablesTest",
        "auc_spectrum": "caloforge.validate.metrics.two_sample:SpectrumTest",
        "auc_strongest": "caloforge.validate.metrics.two_sample:StrongestTest",
        "detectability": "caloforge.validate.metrics.detectability:Detectability",
        "attribution": "caloforge.validate.metrics.attribution:Attribution",
        "classifier_low": "caloforge.validate.metrics.classifier:LowLevelClassifier",
        "classifier_high": "caloforge.validate.metrics.classifier:HighLevelClassifier",
        "classifier_cnn": "caloforge.validate.metrics.cnn:ConvolutionalClassifier",
    },
    group="caloforge.metrics",
)
