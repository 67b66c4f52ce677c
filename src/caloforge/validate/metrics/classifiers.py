"""Classifiers between generated and reference showers: cross-fitted two-sample tests, and the CaloChallenge's.

**Two-sample tests** give the AUC of the strongest classifier on cells, observables, spectra, and on all of them. Several
classifiers are trained by cross-fitting; the validation part of each fold chooses the strongest, the held-out part gives its
AUC (:mod:`caloforge.statistics.two_sample`). An AUC of 0.5 means that the samples are indistinguishable, 1 that each shower can
be recognised. The floor is the AUC between two halves of the reference by the same procedure: 0.5 within its error for any
number of showers, because no test part has an influence on the training or the choice. They are trained once for each pair of
samples and shared between the metrics. Candidates of each set of features:

- cells: gradient boosting on the 400 most occupied cells and a network on the 1,500 most occupied ones (on a GPU on all cells), each
  with both thresholds; a 3-D network on regular grids when there is a GPU or ``Settings.cnn`` is set;
- observables: gradient boosting and a network;
- spectrum: gradient boosting with both thresholds.

Unlike the CaloChallenge's classifiers these see faint cells (logarithms, and which cells are empty), and the energies at which cells
accumulate (histogram of each shower).

**The CaloChallenge's classifiers** give an AUC and a Jensen-Shannon divergence. Low-level input: log10 of the incident energy
and each cell over the incident energy, on the challenge's meshes with voxels below the evaluation's cut at 0. High-level input:
the CaloChallenge's feature vector (see :mod:`caloforge.validate.metrics.features`). The network is an MLP of three hidden
layers with LeakyReLU after each. The preset "calochallenge" is the challenge's own (2048 wide, Adam 2e-4, batch 1000, 50
epochs, best validation accuracy, inputs as they are), "fast" is 256 wide, standardises its inputs with the training part and
stops early. A three-dimensional residual network takes far longer and runs when ``Settings.cnn`` is set or when it is requested by
name, on regular grids and meshes only: with "calochallenge" the challenge's ResNet-18 on the low-level input, otherwise a small one
(16, 32, 64 channels, strides 2) on log10 of the cell energies, cut below at the threshold. Other than in the challenge's evaluation precision is
single, batches are smaller for few showers, and AUCs are those before the isotonic calibration of the scores, which only makes ties.

Each of several networks has its own split; the AUC is their mean, its error the larger of the standard deviation of the networks and
the statistical error of one held-out part. The floor is the same for halves of the reference, another pair of halves for each network:
half as many showers (``floor_size``). Equal samples have the AUC 0.5 and the divergence 0 for any number of showers: of held-out ones.

References:
    C. Krause et al., CaloChallenge 2022: a community challenge for fast calorimeter simulation, arXiv:2410.21611.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from caloforge.random import child_seed, generator
from caloforge.statistics.resampling import halves
from caloforge.statistics.training import (
    FEWEST,
    PRESETS,
    Builder,
    Scores,
    TrainingOptions,
    fit_boosting,
    fit_network,
    train_once,
)
from caloforge.statistics.two_sample import Candidate, Outcome, choose, combine, cross_fit, make_splits
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.features import Pair, cell_pair, high_level_pair, log_cells, low_level_inputs
from caloforge.validate.metrics.two_sample_data import PairData, pair_data

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caloforge.validate.sample import Sample

__all__ = [
    "SETS",
    "CellsTest",
    "ConvolutionalClassifier",
    "FeatureSet",
    "HighLevelClassifier",
    "LowLevelClassifier",
    "ObservablesTest",
    "SpectrumTest",
    "StrongestTest",
    "TrainedTests",
    "candidates",
    "forget_tests",
    "trained_tests",
]

FeatureSet = Literal["cells", "observables", "spectrum"]
SETS: tuple[FeatureSet, ...] = ("cells", "observables", "spectrum")

FEWEST_FLOOR = 50  # fewest showers in a half of the reference for a floor
_BOOSTED_CELLS = 400
_NETWORK_CELLS = 1500
_NETWORK = replace(PRESETS["fast"], epochs=30, patience=6, dropout=0.2)


def _occupancy_mlp(inputs: torch.Tensor) -> nn.Module:
    from caloforge.statistics.networks import OccupancyMLP

    return OccupancyMLP(inputs, _NETWORK.width, _NETWORK.dropout)


def residual_cnn(shape: tuple[int, ...], settings: Settings, occupancy: bool = False) -> dict[str, Any]:
    """Return ``build`` and ``options`` of the 3-D network on images of a shape."""

    def build(inputs: torch.Tensor) -> nn.Module:
        from caloforge.statistics.networks import ResidualCNN

        return ResidualCNN(inputs, shape, occupancy=occupancy)

    options = replace(PRESETS["fast"], epochs=settings.cnn_epochs, batch=64, weight_decay=1e-3)
    return {"build": build, "options": options}


def challenge_resnet(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return ``build`` and ``options`` of the challenge's 3-D network on meshes of a shape."""
    from caloforge.statistics.networks import ChallengeResNet

    return {"build": lambda _: ChallengeResNet(shape), "options": PRESETS["calochallenge"]}


def candidates(data: PairData, which: FeatureSet, settings: Settings) -> list[Candidate]:
    """Return the classifiers of a set of features; the settings say whether networks and the 3-D network are among them."""
    device = "cpu" if settings.quick else settings.torch_device()
    network = partial(fit_network, build=_occupancy_mlp, options=_NETWORK, device=device)
    if which == "observables":
        boosted = Candidate("gradient boosting", data.observable_features, fit_boosting)
        return [boosted, *([] if settings.quick else [replace(boosted, name="network", fit=network)])]
    out: list[Candidate] = []
    for index, threshold in enumerate(data.thresholds):
        boosting, beside = f"gradient boosting, threshold {threshold}", f"network, threshold {threshold}"
        if which == "spectrum":
            out.append(Candidate(boosting, partial(data.spectrum_features, threshold=index), fit_boosting))
            continue
        features: Callable[..., Any] = partial(data.cell_features, threshold=index)
        out.append(Candidate(boosting, partial(features, most=_BOOSTED_CELLS), fit_boosting))
        if not settings.quick:
            most = _NETWORK_CELLS if device == "cpu" else data.detector.n_cells
            out.append(Candidate(beside, partial(features, most=most), network))
    is_grid = len(data.detector.shape) == 3
    if which == "cells" and is_grid and not settings.quick and (settings.cnn or device != "cpu"):
        cnn = residual_cnn(data.detector.shape, settings, occupancy=True)
        fit = partial(fit_network, device=device, **cnn)
        out.append(Candidate("3-D network, threshold 0", data.images, fit))
    return out


class TrainedTests:
    """Both samples, their folds, and the classifiers that were trained on them so far."""

    def __init__(self, data: PairData, settings: Settings) -> None:
        self.data = data
        self.settings = settings
        self.folds = max(2, min(2 if settings.quick else settings.folds, len(data) // 10))
        self.splits = make_splits(
            data.reference.conditions, data.generated.conditions, self.folds, settings.seed
        )
        self._outcomes: dict[str, dict[str, list[Outcome]]] = {}

    def outcomes(self, which: FeatureSet) -> dict[str, list[Outcome]]:
        """Return each candidate's outcome in each fold; trained on the first call."""
        if which not in self._outcomes:
            self._outcomes[which] = {
                candidate.name: cross_fit(candidate, self.splits, child_seed(self.settings.seed, which))
                for candidate in candidates(self.data, which, self.settings)
            }
        return self._outcomes[which]

    def candidate(self, which: FeatureSet, name: str) -> Candidate:
        """Return a candidate by its name."""
        return next(c for c in candidates(self.data, which, self.settings) if c.name == name)

    def merged(self, sets: Sequence[FeatureSet] = SETS) -> dict[str, list[Outcome]]:
        """Return the outcomes of all candidates of several sets, each named "set: candidate"; of one set by their own names."""
        if len(sets) == 1:
            return self.outcomes(sets[0])
        return {f"{which}: {name}": found for which in sets for name, found in self.outcomes(which).items()}


def trained_tests(
    reference: Sample, generated: Sample, settings: Settings
) -> tuple[TrainedTests, TrainedTests | None]:
    """Return the tests of two samples, and those of two halves of the reference (None when it is too small).

    Both are kept with the generated sample until they are requested with another reference or other settings.
    """
    kept = generated.memo.get(("two-sample tests",))
    if kept is None or kept[0] is not reference or kept[1] != settings:
        data = pair_data(reference, generated, settings)
        floor = None
        if len(data) // 2 >= FEWEST_FLOOR:
            floor = TrainedTests(data.halves(settings.seed), settings)
        kept = (reference, settings, TrainedTests(data, settings), floor)
        generated.memo["two-sample tests",] = kept
    return kept[2], kept[3]


def forget_tests(generated: Sample) -> None:
    """Release the classifiers that are kept for a sample."""
    generated.memo.pop(("two-sample tests",), None)


class _TwoSampleTest(Metric):
    """AUC of the strongest classifier of some sets of features."""

    together: ClassVar[str] = "two-sample tests"
    sets: ClassVar[tuple[FeatureSet, ...]]
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the AUC with its error and floor, and in the detail every classifier's AUC."""
        tests, halves = trained_tests(reference, generated, settings)
        found = tests.merged(self.sets)
        test = choose(found)
        detail: dict[str, Any] = {
            "classifier": test.winner,
            "chosen_by_fold": list(test.chosen),
            "classifiers": {name: _summary(name, outcomes) for name, outcomes in found.items()},
            "n_used": len(tests.data),
            "folds": tests.folds,
        }
        if halves is None:
            reason = f"halves of the reference are too small, a floor needs {FEWEST_FLOOR} showers each"
            return {self.name: Value(test.auc, test.error, detail={**detail, "floor": reason})}
        below = choose(halves.merged(self.sets))
        detail["floor_size"] = len(halves.data)
        return {self.name: Value(test.auc, test.error, below.auc, below.error, detail)}


def _summary(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return a classifier's AUC, its error, the mean AUC of the validation parts, and the threshold of its name."""
    value, uncertainty = combine(outcomes)
    validation = sum(outcome.validation for outcome in outcomes) / len(outcomes)
    threshold = name.partition("threshold ")[2] or None
    return {"value": value, "uncertainty": uncertainty, "validation": validation, "threshold": threshold}


class CellsTest(_TwoSampleTest):
    """AUC of the strongest classifier on the logarithms of cells."""

    name: ClassVar[str] = "auc_cells"
    keys: ClassVar[tuple[Key, ...]] = (Key("auc_cells", "AUC, cells (strongest)", 0.5),)
    sets: ClassVar[tuple[FeatureSet, ...]] = ("cells",)


class ObservablesTest(_TwoSampleTest):
    """AUC of the strongest classifier on the observables."""

    name: ClassVar[str] = "auc_observables"
    keys: ClassVar[tuple[Key, ...]] = (Key("auc_observables", "AUC, observables (strongest)", 0.5),)
    sets: ClassVar[tuple[FeatureSet, ...]] = ("observables",)


class SpectrumTest(_TwoSampleTest):
    """AUC of the strongest classifier on each shower's histogram of cell energies."""

    name: ClassVar[str] = "auc_spectrum"
    keys: ClassVar[tuple[Key, ...]] = (Key("auc_spectrum", "AUC, spectrum of cells (strongest)", 0.5),)
    sets: ClassVar[tuple[FeatureSet, ...]] = ("spectrum",)


class StrongestTest(_TwoSampleTest):
    """AUC of the strongest classifier on cells, observables or spectrum."""

    name: ClassVar[str] = "auc_strongest"
    keys: ClassVar[tuple[Key, ...]] = (Key("auc_strongest", "AUC, strongest classifier", 0.5),)
    sets: ClassVar[tuple[FeatureSet, ...]] = SETS


def classifier_test(
    reference: NDArray[np.float32],
    generated: NDArray[np.float32],
    options: TrainingOptions,
    seeds: int,
    seed: int,
    device: str = "cpu",
    build: Builder | None = None,
) -> list[Scores]:
    """Train several networks, by default MLPs, on inputs (N, d) and (M, d), each with its own split.

    The larger sample is cut to the smaller one's size.
    """

    def mlp(inputs: torch.Tensor) -> nn.Module:
        from caloforge.statistics.networks import StandardisedMLP

        return StandardisedMLP(inputs, options.width, options.dropout, options.standardise)

    n = min(len(reference), len(generated))
    a, b = (
        x if len(x) == n else x[generator(seed, "classifier subset").permutation(len(x))[:n]]
        for x in (reference, generated)
    )
    make = build or mlp
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


class _OfTheChallenge(Metric):
    papers: ClassVar[tuple[str, ...]] = ("calochallenge",)
    minimum: ClassVar[int] = FEWEST


class LowLevelClassifier(_OfTheChallenge):
    """AUC and Jensen-Shannon divergence of a classifier on the cells."""

    name: ClassVar[str] = "classifier_low"
    keys: ClassVar[tuple[Key, ...]] = _keys("low", "cells")

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_low``, ``auc_low_floor`` and ``jsd_low``."""
        pair = low_level_inputs(cell_pair(reference, generated, settings))
        return entries("low", pair, settings, PRESETS[settings.classifier])


class HighLevelClassifier(_OfTheChallenge):
    """AUC and Jensen-Shannon divergence of a classifier on the observables."""

    name: ClassVar[str] = "classifier_high"
    keys: ClassVar[tuple[Key, ...]] = _keys("high", "observables")

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return ``auc_high``, ``auc_high_floor`` and ``jsd_high``."""
        pair = high_level_pair(reference, generated, settings.n_max, seed=settings.seed)
        single = Pair(pair.reference.astype(np.float32), pair.generated.astype(np.float32), pair.counts)
        return entries("high", single, settings, PRESETS[settings.classifier])


class ConvolutionalClassifier(_OfTheChallenge):
    """AUC and Jensen-Shannon divergence of a 3-D convolutional classifier."""

    name: ClassVar[str] = "classifier_cnn"
    keys: ClassVar[tuple[Key, ...]] = _keys("cnn", "3-D CNN")

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
        shape = reference.detector.shape
        if settings.classifier == "calochallenge":
            return entries("cnn", low_level_inputs(pair), settings, **challenge_resnet(shape))
        sides = (pair.reference, pair.energy_reference), (pair.generated, pair.energy_generated)
        a, b = (
            np.column_stack([np.log10(energy).astype(np.float32), log_cells(cells, settings.threshold)])
            for cells, energy in sides
        )
        return entries("cnn", Pair(a, b, pair.counts), settings, **residual_cnn(shape, settings))
