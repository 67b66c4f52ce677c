r"""Two-sample tests: the AUC of the strongest classifier on cells, observables, spectra, and on all of them.

The classifiers of the two-sample tests, trained once for each pair of samples and shared between the metrics.

Candidates of each set of features:

- cells: gradient boosting on the 400 most occupied cells and a network on the 1,500 most occupied ones (on a GPU on all
  cells), each with both thresholds; a 3-D network on regular grids when there is a GPU or the settings say so;
- observables: gradient boosting and a network;
- spectrum: gradient boosting with both thresholds.

Two-sample tests: the AUC of the strongest classifier on cells, observables, spectra, and on all of them.

Several classifiers (:mod:`caloforge.validate.metrics.two_sample`) are trained by cross-fitting; the validation part of
each fold chooses the strongest, the held-out part gives its AUC, see :mod:`caloforge.statistics.two_sample`. An AUC of 0.5
means that the samples cannot be told apart, 1 that each shower can be recognised. The floor is the AUC between two
halves of the reference by the same procedure. It is 0.5 within its error for any number of showers, because no test
part has an influence on what is trained or chosen.

Beside the CaloChallenge's classifiers these see faint cells (logarithms, and which cells are empty), and the energies
at which cells pile up (histogram of each shower).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from weakref import WeakKeyDictionary

from caloforge.random import child_seed
from caloforge.statistics.importance import fit_boosting
from caloforge.statistics.training import FEWEST, PRESETS, fit_network
from caloforge.statistics.two_sample import (
    Candidate,
    Features,
    Outcome,
    Rows,
    Split,
    Test,
    choose,
    combine,
    cross_fit,
    make_splits,
)
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.two_sample_data import PairData, pair_data

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caloforge.validate.sample import Sample

__all__ = [
    "SETS",
    "CellsTest",
    "FeatureSet",
    "ObservablesTest",
    "SpectrumTest",
    "StrongestTest",
    "Study",
    "candidates",
    "forget_study",
    "study_of",
]


FeatureSet = Literal["cells", "observables", "spectrum"]
SETS: tuple[FeatureSet, ...] = ("cells", "observables", "spectrum")

_BOOSTED_CELLS = 400
_NETWORK_CELLS = 1500
_NETWORK = replace(PRESETS["fast"], epochs=30, patience=6, dropout=0.2)


def _mlp(inputs: torch.Tensor) -> nn.Module:
    from caloforge.statistics.networks import OccupancyMLP

    return OccupancyMLP(inputs, _NETWORK.width, _NETWORK.dropout)


def candidates(data: PairData, which: FeatureSet, settings: Settings) -> list[Candidate]:
    """Return the classifiers of a set of features.

    Arguments:
        data: Both samples.
        which: The set of features.
        settings: Device, whether only the quick ones, whether the 3-D network is wanted.
    """
    device = "cpu" if settings.quick else settings.torch_device()
    network = partial(fit_network, build=_mlp, options=_NETWORK, device=device)
    out: list[Candidate] = []
    if which == "observables":
        out.append(Candidate("gradient boosting", data.observable_features, fit_boosting, {}))
        if not settings.quick:
            out.append(Candidate("network", data.observable_features, network, {}))
        return out
    for index, threshold in enumerate(data.thresholds):
        facts = {"threshold": threshold}
        if which == "spectrum":
            out.append(
                Candidate(
                    f"gradient boosting, threshold {threshold}",
                    partial(_spectrum, data, index),
                    fit_boosting,
                    facts,
                )
            )
            continue
        boosted = partial(_cells, data, index, _BOOSTED_CELLS)
        out.append(Candidate(f"gradient boosting, threshold {threshold}", boosted, fit_boosting, facts))
        if not settings.quick:
            most = _NETWORK_CELLS if device == "cpu" else data.detector.n_cells
            out.append(
                Candidate(
                    f"network, threshold {threshold}", partial(_cells, data, index, most), network, facts
                )
            )
    is_grid = len(data.detector.shape) == 3
    if which == "cells" and is_grid and not settings.quick and (settings.cnn or device != "cpu"):
        out.append(
            Candidate("3-D network, threshold 0", partial(_images, data), _cnn(data, settings, device), facts)
        )
    return out


def _spectrum(data: PairData, index: int, rows: Rows) -> Features:
    return data.spectrum_features(index)


def _cells(data: PairData, index: int, most: int, rows: Rows) -> Features:
    return data.cell_features(rows, index, most)


def _images(data: PairData, rows: Rows) -> Features:
    return data.images()


def _cnn(data: PairData, settings: Settings, device: str) -> partial:  # type: ignore[type-arg]
    def build(inputs: torch.Tensor) -> nn.Module:
        from caloforge.statistics.networks import ResidualCNN

        return ResidualCNN(inputs, data.detector.shape, occupancy=True)

    options = replace(PRESETS["fast"], epochs=settings.cnn_epochs, batch=64, weight_decay=1e-3)
    return partial(fit_network, build=build, options=options, device=device)


class Study:
    """Both samples, their folds, and what was trained on them so far.

    Arguments:
        data: Both samples.
        settings: Folds, seed and device.
    """

    def __init__(self, data: PairData, settings: Settings) -> None:
        self.data = data
        self.settings = settings
        self.folds = max(2, min(2 if settings.quick else settings.folds, len(data) // 10))
        self.splits: list[Split] = make_splits(
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
        """Return the outcomes of all candidates of several sets, each named "set: candidate"."""
        return {f"{which}: {name}": found for which in sets for name, found in self.outcomes(which).items()}


_STUDIES: WeakKeyDictionary[Sample, tuple[int, Settings, Study, list[Study]]] = WeakKeyDictionary()


def study_of(reference: Sample, generated: Sample, settings: Settings) -> tuple[Study, list[Study]]:
    """Return the study of two samples, and that of two halves of the reference (empty when it is too small).

    Both are kept as long as the generated sample, until another pair or other settings are asked for.
    """
    kept = _STUDIES.get(generated)
    if kept is None or kept[0] != id(reference) or kept[1] != settings:
        data = pair_data(reference, generated, settings)
        floors = []
        if len(data) // 2 >= FEWEST_FLOOR:
            floors.append(Study(data.halves(settings.seed), settings))
        kept = (id(reference), settings, Study(data, settings), floors)
        _STUDIES[generated] = kept
    return kept[2], kept[3]


FEWEST_FLOOR = 50  # showers in a half of the reference


def forget_study(generated: Sample) -> None:
    """Release the classifiers that are kept for a sample."""
    _STUDIES.pop(generated, None)


def _threshold(name: str) -> str | None:
    """Return the threshold that a candidate's name ends with; None without one."""
    _, found, threshold = name.partition("threshold ")
    return threshold if found else None


class _TwoSampleTest(Metric):
    """AUC of the strongest classifier of some sets of features."""

    sets: ClassVar[tuple[FeatureSet, ...]]
    minimum: ClassVar[int] = FEWEST

    def compute(self, reference: Sample, generated: Sample, settings: Settings) -> dict[str, Entry]:
        """Return the AUC with its error and floor, and in the detail every classifier's AUC."""
        study, floors = study_of(reference, generated, settings)
        test = self._test(study)
        detail: dict[str, Any] = {
            "classifier": test.winner,
            "chosen_by_fold": list(test.chosen),
            "classifiers": self._classifiers(study),
            "n_used": len(study.data),
            "folds": study.folds,
        }
        if not floors:
            detail["floor"] = (
                f"halves of the reference are too small, a floor needs {FEWEST_FLOOR} showers each"
            )
            return {self.name: Value(test.auc, test.error, detail=detail)}
        below = [self._test(floor) for floor in floors]
        detail["floor_size"] = len(floors[0].data)
        return {
            self.name: Value(
                test.auc,
                test.error,
                sum(floor.auc for floor in below) / len(below),
                (sum(floor.error**2 for floor in below) ** 0.5) / len(below),
                detail,
            )
        }

    def _test(self, study: Study) -> Test:
        return choose(study.outcomes(self.sets[0]) if len(self.sets) == 1 else study.merged(self.sets))

    def _classifiers(self, study: Study) -> dict[str, Any]:
        found = study.outcomes(self.sets[0]) if len(self.sets) == 1 else study.merged(self.sets)
        out: dict[str, Any] = {}
        for name, outcomes in found.items():
            value, uncertainty = combine(outcomes)
            out[name] = {
                "value": value,
                "uncertainty": uncertainty,
                "validation": sum(outcome.validation for outcome in outcomes) / len(outcomes),
                "threshold": _threshold(name),
            }
        return out


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
