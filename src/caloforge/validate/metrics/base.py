"""Base class of metrics, their values, and the settings of a comparison.

A metric compares a generated sample with a reference. Each number is a :class:`Value`: the number, its uncertainty, and, where it is
meaningful, its floor: the value of a perfect generator for these sample sizes (:mod:`caloforge.statistics.resampling`). A metric
returns a dictionary: one entry for each of its keys in ``metrics.json``, a :class:`Value` or a dictionary of them (by observable,
by pair).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from caloforge.registry import Registry
from caloforge.settings import torch_device
from caloforge.statistics.resampling import Floor
from caloforge.validate.sample import Sample

__all__ = ["METRICS", "Entry", "Key", "Metric", "Settings", "Value", "jsonable"]

ClassifierPreset = Literal["fast", "calochallenge"]


class Settings(BaseModel):
    """Options of every metric. One seed fixes all random choices.

    Attributes:
        seed: Seed of subsets, splits, bootstrap and classifiers.
        n_max: Most showers a side for the metrics that need cells in memory or compare all pairs; the
            number used is reported with each value.
        max_bytes: Most bytes of cells a side in memory; lowers ``n_max`` for large detectors.
        n_bootstrap: Bootstrap samples behind an uncertainty.
        n_halves: How often the reference is split into halves for a floor.
        threshold: Cell energy below which the logarithms of cells are cut (MeV).
        device: Where torch computes: "auto" takes a GPU when there is one.
        classifier: "fast" (256-wide, early stopping) or "calochallenge" (2048-wide, 50 epochs).
        classifier_seeds: Networks trained for each AUC, each with its own split.
        floor_seeds: Networks trained for the floor of each AUC.
        cnn: Whether the 3-D convolutional classifier runs as well.
        cnn_epochs: Most epochs of the 3-D convolutional classifier.
        n_quantiles: Bins of the quantile divergence; by default the largest power of two not above a
            tenth of the smaller sample, and at most 256.
        neighbours: k of precision, recall, density and coverage.
        ssim_pairs: Pairs of showers behind each mean structural similarity.
        reconstruction: Whether samples are compared after reconstruction as well; by default for grids of
            known MIP energy.
        folds: Folds of the two-sample tests: each shower is scored by a classifier trained on the others.
        quick: Whether the two-sample tests use gradient boosting alone, in two folds, and detectability is left out.
        covariance_cells: Most cells in the covariance distance (the most energetic ones).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**63)
    n_max: int = Field(default=10_000, ge=2)
    max_bytes: int = Field(default=1 << 29, ge=1 << 16)
    n_bootstrap: int = Field(default=30, ge=2)
    n_halves: int = Field(default=5, ge=1)
    threshold: float = Field(default=0.1, gt=0.0)
    device: str = "auto"
    classifier: ClassifierPreset = "fast"
    classifier_seeds: int = Field(default=3, ge=1)
    floor_seeds: int = Field(default=2, ge=1)
    cnn: bool = False
    cnn_epochs: int = Field(default=15, ge=1)
    n_quantiles: int | None = Field(default=None, ge=2)
    neighbours: int = Field(default=5, ge=1)
    ssim_pairs: int = Field(default=1000, ge=2)
    reconstruction: bool | None = None
    folds: int = Field(default=3, ge=2)
    quick: bool = False
    covariance_cells: int = Field(default=500, ge=2)

    def torch_device(self) -> str:
        """Return the name of the torch device to compute on.

        Raises:
            InputError: When the device is not known, or there is no such GPU.
        """
        return torch_device(self.device)

    def showers_a_side(self, n_cells: int) -> int:
        """Return how many showers a side may be in memory as float32 cells, ``n_cells`` a shower."""
        return max(2, min(self.n_max, self.max_bytes // (4 * n_cells)))


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
    """One number with its error."""

    value: float
    """The number; NaN (null in JSON) when it is not defined, ``detail["reason"]`` then says why."""
    uncertainty: float | None = None
    floor: float | None = None
    """The same for two samples of the reference's distribution and of these sizes."""
    floor_uncertainty: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Further numbers: sizes used, entries out of range, p-values."""

    @classmethod
    def with_floor(cls, value: float, uncertainty: float | None, floor: Floor, **detail: Any) -> Value:
        """Return a value with its floor, whose detail is added."""
        return cls(value, uncertainty, floor.value, floor.uncertainty, {**detail, **floor.detail})

    @classmethod
    def missing(cls, reason: str, **detail: Any) -> Value:
        """Return an undefined value with the reason."""
        return cls(float("nan"), detail={"reason": reason, **detail})

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
    """Meaning of one key of ``metrics.json``, for tables."""

    name: str
    """The key; with dots for one inside another."""
    label: str
    ideal: float
    """The value of a perfect generator (apart from the floor)."""
    by: str = ""
    """Kind of the entries of a dictionary ("observable", "pair", "sample"); empty for a single value."""

    @property
    def top(self) -> str:
        """The part before the first dot: the key at the top of ``metrics.json``."""
        return self.name.partition(".")[0]

    def find(self, metrics: Mapping[str, Any]) -> Any:
        """Return the entry of a sample's metrics under the key; None when it is not there."""
        found: Any = metrics
        for part in self.name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


class Metric(ABC):
    """One metric: compares two samples."""

    name: ClassVar[str]
    """Name in the registry."""
    keys: ClassVar[tuple[Key, ...]]
    """The keys it writes."""
    minimum: ClassVar[int] = 2
    """Fewest showers a side that it can be computed from."""
    together: ClassVar[str] = ""
    """Metrics of one such name share work, and are computed in one process; empty: alone."""
    papers: ClassVar[tuple[str, ...]] = ()
    """Papers that it is from: keys (``abbreviation``) in ``CITATION.cff``."""

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        return None

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs when no metrics are requested by name."""
        return True

    @abstractmethod
    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return an entry for each key.

        Raises:
            TooFewShowersError: When a sample is too small.
        """


_HERE = "caloforge.validate.metrics"

METRICS: Registry[type[Metric]] = Registry(
    "metric",
    {
        "separation_power": f"{_HERE}.separation:SeparationPower",
        "distances": f"{_HERE}.distances:DistributionDistances",
        "quantile_jsd": f"{_HERE}.distances:QuantileDivergence",
        "shape_mse": f"{_HERE}.shapes:ShapeMSE",
        "sampling_fraction": f"{_HERE}.moments:SamplingFraction",
        "spectrum": f"{_HERE}.spectrum:CellSpectrum",
        "moments": f"{_HERE}.moments:Moments",
        "layer_fractions": f"{_HERE}.shapes:LayerFractions",
        "core_cells": f"{_HERE}.shapes:CoreCells",
        "covariance_distance": f"{_HERE}.shapes:CovarianceDistance",
        "ssim": f"{_HERE}.shapes:StructuralSimilarity",
        "fpd": f"{_HERE}.distances:FrechetPhysicsDistance",
        "kpd": f"{_HERE}.distances:KernelPhysicsDistance",
        "prdc": f"{_HERE}.distances:PrecisionRecall",
        "reconstructed": f"{_HERE}.reconstructed:Reconstructed",
        "auc_cells": f"{_HERE}.classifiers:CellsTest",
        "auc_observables": f"{_HERE}.classifiers:ObservablesTest",
        "auc_spectrum": f"{_HERE}.classifiers:SpectrumTest",
        "auc_strongest": f"{_HERE}.classifiers:StrongestTest",
        "detectability": f"{_HERE}.detectability:Detectability",
        "attribution": f"{_HERE}.detectability:Attribution",
        "classifier_low": f"{_HERE}.classifiers:LowLevelClassifier",
        "classifier_high": f"{_HERE}.classifiers:HighLevelClassifier",
        "classifier_cnn": f"{_HERE}.classifiers:ConvolutionalClassifier",
    },
    group="caloforge.metrics",
)
