"""Mean fraction of the visible energy in each layer, and how far the generated ones are off.

The figure is the largest absolute difference over the layers, in percentage points; the detail holds the
mean fractions of both samples. Showers without energy have no fractions and are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import layer_energies
from caloforge.validate.metrics.floors import floor_at
from caloforge.validate.metrics.resampling import bootstrap_counts, halves, spread

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["LayerFractions", "fractions"]

_PERCENT = 100.0


def fractions(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return layer energies (N, L) as fractions of their sums, without the showers that have none."""
    total = energies.sum(axis=1)
    good = np.isfinite(total) & (total > 0)
    out: NDArray[np.float64] = energies[good] / total[good, None]
    return out


def _largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max() * _PERCENT)


class LayerFractions(Metric):
    """Largest difference of a layer's mean energy fraction, percentage points."""

    name: ClassVar[str] = "layer_fractions"
    keys: ClassVar[tuple[Key, ...]] = (Key("layer_fractions", "Largest layer fraction difference (%)", 0.0),)

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        detector = reference.detector
        return None if detector.n_layers > 1 else f"needs several layers; '{detector.name}' has one"

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the largest difference, bootstrapped over showers; the floor is that of two halves."""
        ref, gen = layer_energies(reference), layer_energies(generated)
        a, b = fractions(ref), fractions(gen)
        counts = {
            "without_energy_reference": len(ref) - len(a),
            "without_energy_generated": len(gen) - len(b),
        }
        if len(a) < 2 or len(b) < 2:
            reason = "fewer than two showers of one of the samples have visible energy"
            return {"layer_fractions": Value(float("nan"), detail={"reason": reason, **counts})}
        weights_a = bootstrap_counts(len(a), settings.n_bootstrap, settings.seed, "reference")
        weights_b = bootstrap_counts(len(b), settings.n_bootstrap, settings.seed, "generated")
        means_a, means_b = weights_a @ a / len(a), weights_b @ b / len(b)
        boot = np.array([_largest(x, y) for x, y in zip(means_a, means_b, strict=True)])
        floor = []
        for index in range(settings.n_halves if len(a) > 3 else 0):
            first, second = halves(len(a), index, settings.seed)
            floor.append(_largest(a[first].mean(axis=0), a[second].mean(axis=0)))
        below = floor_at(np.array(floor), len(a), len(b), degree=1)
        detail = {
            "reference": a.mean(axis=0),
            "reference_uncertainty": a.std(axis=0, ddof=1) / np.sqrt(len(a)),
            "generated": b.mean(axis=0),
            "generated_uncertainty": b.std(axis=0, ddof=1) / np.sqrt(len(b)),
            **below.detail,
            **counts,
        }
        value = _largest(a.mean(axis=0), b.mean(axis=0))
        return {"layer_fractions": Value(value, spread(boot), below.value, below.uncertainty, detail)}
