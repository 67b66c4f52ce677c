r"""Two-sample tests: the AUC of the strongest classifier on cells, observables, spectra, and on all of them.

Several classifiers (:mod:`caloforge.validate.metrics.two_sample_study`) are trained by cross-fitting; the validation part of
each fold chooses the strongest, the held-out part gives its AUC, see :mod:`caloforge.statistics.two_sample`. An AUC of 0.5
means that the samples cannot be told apart, 1 that each shower can be recognised. The floor is the AUC between two
halves of the reference by the same procedure. It is 0.5 within its error for any number of showers, because no test
part has an influence on what is trained or chosen.

Beside the CaloChallenge's classifiers these see faint cells (logarithms, and which cells are empty), and the energies
at which cells pile up (histogram of each shower).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from caloforge.statistics.training import FEWEST
from caloforge.statistics.two_sample import Test, choose, combine
from caloforge.validate.metrics.base import Entry, Key, Metric, Settings, Value
from caloforge.validate.metrics.two_sample_study import FEWEST_FLOOR, SETS, FeatureSet, Study, study_of

if TYPE_CHECKING:
    from caloforge.validate.sample import Sample

__all__ = ["CellsTest", "ObservablesTest", "SpectrumTest", "StrongestTest"]


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
