"""Classifiers between generated and reference showers, as in the CaloChallenge: the AUC and the Jensen-Shannon divergence.

Low-level input: log10 of the incident energy and each cell over the incident energy, on the challenge's meshes with voxels below the
evaluation's cut at 0. High-level input: the CaloChallenge's feature vector (see :mod:`caloforge.validate.metrics.features`). The
network is an MLP of three hidden layers with LeakyReLU after each. The preset "calochallenge" is the challenge's own (2048 wide, Adam
2e-4, batch 1000, 50 epochs, best validation accuracy, inputs as they are), "fast" is 256 wide, standardises its inputs with the
training part and stops early. A small three-dimensional residual network (16, 32, 64 channels, strides 2) on log10 of the cell
energies, cut below at the threshold, takes far longer and runs when ``Settings.cnn`` is set or when it is requested by name, on
regular grids and meshes only.

Each of several networks has its own split; the AUC is their mean, its error the larger of the standard deviation of the networks and
the statistical error of one held-out part. The floor is the same for halves of the reference, another pair of halves for each network:
half as many showers (``floor_size``). Equal samples have the AUC 0.5 and the divergence 0 for any number of showers, since both are
of held-out showers, so that the smaller size widens the floor's error and does not move it.

References:
    O. Amram et al., CaloChallenge 2022: a community challenge for fast calorimeter simulation, arXiv:2410.21611.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caloforge.random import child_seed, generator
from caloforge.statistics.resampling import halves
from caloforge.statistics.training import FEWEST, PRESETS, Builder, Scores, TrainingOptions, train_once
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Pair, cell_pair, high_level_pair, log_cells, low_level_inputs
from caloforge.validate.metrics.two_sample import residual_cnn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caloforge.validate.sample import Sample

__all__ = ["ConvolutionalClassifier", "HighLevelClassifier", "LowLevelClassifier", "classifier_test", "mlp"]


def mlp(inputs: torch.Tensor, options: TrainingOptions) -> nn.Module:
    """Return an MLP with three hidden layers; it may standardise with the training inputs (N, d)."""
    from caloforge.statistics.networks import StandardisedMLP

    return StandardisedMLP(inputs, options.width, options.dropout, options.standardise)


def classifier_test(
    reference: NDArray[np.float32],
    generated: NDArray[np.float32],
    options: TrainingOptions,
    seeds: int,
    seed: int,
    device: str = "cpu",
    build: Builder | None = None,
) -> list[Scores]:
    """Train several classifiers on the same two samples, each with its own split.

    Arguments:
        reference: Inputs (N, d).
        generated: Inputs (M, d); the larger sample is cut to the smaller one's size.
        options: How to train.
        seeds: Number of networks.
        seed: Seed of all.
        device: Where to train.
        build: Makes the network from the training inputs; by default an MLP.
    """
    make = build or (lambda inputs: mlp(inputs, options))
    n = min(len(reference), len(generated))
    a, b = (
        x if len(x) == n else x[generator(seed, "classifier subset").permutation(len(x))[:n]]
        for x in (reference, generated)
    )
    return [train_once(a, b, make, options, child_seed(seed, "classifier", i), device) for i in range(seeds)]


def _combine(scores: list[Scores], what: str) -> tuple[float, float]:
    """Return the mean of ``auc`` or ``jsd`` over the networks and its error."""
    values = np.array([getattr(score, what) for score in scores])
    statistical = float(np.mean([getattr(score, f"{what}_error") for score in scores]))
    return float(values.mean()), max(statistical, float(values.std(ddof=1)) if len(values) > 1 else 0.0)


def entries(
    label: str, pair: Pair, settings: Settings, options: TrainingOptions, build: Builder | None = None
) -> dict[str, Entry]:
    """Return ``auc_LABEL``, ``auc_LABEL_floor`` and ``jsd_LABEL`` of a pair of input matrices."""
    device, a, b = settings.torch_device(), pair.reference, pair.generated
    scores = classifier_test(a, b, options, settings.classifier_seeds, settings.seed, device, build)
    auc, jsd = _combine(scores, "auc"), _combine(scores, "jsd")
    size = len(a) // 2
    detail: dict[str, Any] = {
        "n_used": min(len(a), len(b)),
        "inputs": a.shape[1],
        "networks": [asdict(score) for score in scores],
        **pair.counts,
    }
    if size < FEWEST:
        reason = f"halves of {size} reference showers are too few, a floor needs {FEWEST}"
        values = Value(*auc, detail={**detail, "floor": reason}), Value.missing(reason), Value(*jsd)
    else:
        floors: list[Scores] = []
        for index in range(settings.floor_seeds):
            first, second = (a[rows] for rows in halves(len(a), index, settings.seed))
            seed = child_seed(settings.seed, "classifier floor", index)
            floors += classifier_test(first, second, options, 1, seed, device, build)
        floor = _combine(floors, "auc")
        networks = {"n_used": size, "networks": [asdict(score) for score in floors]}
        values = (
            Value(*auc, *floor, {**detail, "floor_size": size}),
            Value(*floor, detail=networks),
            Value(*jsd, *_combine(floors, "jsd"), {"unit": "bits"}),
        )
    return dict(zip((f"auc_{label}", f"auc_{label}_floor", f"jsd_{label}"), values, strict=True))


def _keys(label: str, inputs: str) -> tuple[Key, ...]:
    return (
        Key(f"auc_{label}", f"AUC, {inputs}", 0.5),
        Key(f"auc_{label}_floor", f"AUC floor, {inputs}", 0.5),
        Key(f"jsd_{label}", f"JSD (bits), {inputs}", 0.0),
    )


class LowLevelClassifier(Metric):
    """AUC and Jensen-Shannon divergence of a classifier on the cells."""

    name: ClassVar[str] = "classifier_low"
    keys: ClassVar[tuple[Key, ...]] = _keys("low", "cells")
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_low``, ``auc_low_floor`` and ``jsd_low``."""
        pair = low_level_inputs(cell_pair(reference, generated, settings))
        return entries("low", pair, settings, PRESETS[settings.classifier])


class HighLevelClassifier(Metric):
    """AUC and Jensen-Shannon divergence of a classifier on the observables."""

    name: ClassVar[str] = "classifier_high"
    keys: ClassVar[tuple[Key, ...]] = _keys("high", "observables")
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_high``, ``auc_high_floor`` and ``jsd_high``."""
        pair = high_level_pair(reference, generated, settings.n_max, seed=settings.seed)
        single = Pair(pair.reference.astype(np.float32), pair.generated.astype(np.float32), pair.counts)
        return entries("high", single, settings, PRESETS[settings.classifier])


class ConvolutionalClassifier(Metric):
    """AUC and Jensen-Shannon divergence of a 3-D convolutional classifier."""

    name: ClassVar[str] = "classifier_cnn"
    keys: ClassVar[tuple[Key, ...]] = _keys("cnn", "3-D CNN")
    minimum: ClassVar[int] = FEWEST
    default: ClassVar[bool] = False

    def wanted(self, settings: Settings) -> bool:
        """Return whether the metric runs by default: when ``cnn`` is set."""
        return settings.cnn

    def not_applicable(self, reference: Sample, generated: Sample, settings: Settings) -> str | None:
        """Return why the metric does not apply to these samples, or None when it does."""
        if len(reference.detector.shape) != 3:
            return f"needs cells on a regular 3-D grid; '{reference.detector.name}' has none"
        return None

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_cnn``, ``auc_cnn_floor`` and ``jsd_cnn``."""
        pair = cell_pair(reference, generated, settings)
        sides = (pair.reference, pair.energy_reference), (pair.generated, pair.energy_generated)
        a, b = (
            np.column_stack([np.log10(energy).astype(np.float32), log_cells(cells, settings.threshold)])
            for cells, energy in sides
        )
        inputs = Pair(a, b, pair.counts)
        return entries("cnn", inputs, settings, **residual_cnn(reference.detector.shape, settings))
