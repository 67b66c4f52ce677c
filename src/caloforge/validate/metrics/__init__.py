"""Metrics that compare a generated sample with a reference; see :mod:`caloforge.validate.metrics.base`."""

from caloforge.validate.metrics.base import METRICS, Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.run import compute_metrics

__all__ = ["METRICS", "Entry", "Key", "Metric", "Settings", "Value", "compute_metrics"]
