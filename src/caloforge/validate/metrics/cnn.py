"""A three-dimensional convolutional classifier on showers as images.

A small residual network (16, 32, 64 channels, strides 2) sees log10 of the cell energies, cut below at the
threshold, and log10 of the incident energy. It takes far longer than the others and runs when
``Settings.cnn`` is set or when it is asked for by name. Only for regular grids and regular meshes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from caloforge.statistics.training import FEWEST, PRESETS
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings
from caloforge.validate.metrics.classifier import entries
from caloforge.validate.metrics.features import Pair, cell_pair
from caloforge.validate.metrics.prdc import log_cells

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caloforge.validate.sample import Sample

__all__ = ["ConvolutionalClassifier"]


class ConvolutionalClassifier(Metric):
    """AUC and Jensen-Shannon divergence of a 3-D convolutional classifier."""

    name: ClassVar[str] = "classifier_cnn"
    keys: ClassVar[tuple[Key, ...]] = (
        Key("auc_cnn", "AUC, 3-D CNN", 0.5),
        Key("auc_cnn_floor", "AUC floor, 3-D CNN", 0.5),
        Key("jsd_cnn", "JSD (bits), 3-D CNN", 0.0),
    )
    minimum: ClassVar[int] = FEWEST
    default: ClassVar[bool] = False

    def wanted(self, settings: Settings) -> bool:
        """Return whether the settings ask for it."""
        return settings.cnn

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        if len(reference.detector.shape) != 3:
            return f"needs cells on a regular 3-D grid; '{reference.detector.name}' has none"
        return None

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_cnn``, ``auc_cnn_floor`` and ``jsd_cnn``."""
        cells = cell_pair(reference, generated, settings)
        sides = [
            np.concatenate(
                [np.log10(energy)[:, None].astype(np.float32), log_cells(side, settings.threshold)], axis=1
            )
            for side, energy in (
                (cells.reference, cells.energy_reference),
                (cells.generated, cells.energy_generated),
            )
        ]
        options = replace(PRESETS["fast"], epochs=settings.cnn_epochs, batch=64, weight_decay=1e-3)

        def build(inputs: torch.Tensor) -> nn.Module:
            from caloforge.statistics.networks import ResidualCNN

            return ResidualCNN(inputs, reference.detector.shape)

        return entries("cnn", Pair(sides[0], sides[1], cells.counts), settings, options, build)
