"""Metrics that compare a generated sample with a reference; see :mod:`caloforge.validate.metrics.base`."""

from caloforge.validate.metrics.base import METRICS, Entry, Key, Metric, Value
from caloforge.validate.metrics.run import compute_metrics
from caloforge.validate.metrics.settings import Settings

__all__ = ["METRICS", "Entry", "Key", "Metric", "Settings", "Value", "compute_metrics"]
