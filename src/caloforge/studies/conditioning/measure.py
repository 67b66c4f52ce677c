"""Every observable of every shower, before and after reconstruction, in one pass over the cells.

Before reconstruction, energy is the visible energy over the detector's sampling fraction and direction the principal
axis of all cells. After it, both are those of the leading cluster. The names of what is measured:

- ``energy_response``: measured over incident energy;
- ``angle_residual``: measured minus incident angle, degrees;
- every observable of one number a shower (:mod:`caloforge.validate.observables`), of the cells before, and of the digitised
  cells of the leading cluster after;
- after only: ``n_clusters`` and ``outside``, the part of the energy outside the leading cluster.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.geometry import Detector
from caloforge.progress import progress
from caloforge.showers import ShowerSource
from caloforge.validate.observables import OBSERVABLES, SPECTRUM_EDGES, ShowerBatch
from caloforge.validate.observables.streaming import batches, chunk_rows, prefetch
from caloforge.validate.reconstruction.reconstruct import Reconstruction

__all__ = ["STAGES", "Measured", "measure", "scalar_observables"]

STAGES = ("before", "after")
"""Before and after reconstruction."""
_HIDDEN = ("response", "angle_axis")
"""Observables that ``energy_response`` and ``angle_residual`` say already."""
_PARTS = "values/"


def scalar_observables(detector: Detector) -> list[str]:
    """Return the names of the observables of one number a shower that make sense for a detector."""
    return [
        name
        for name, entry in OBSERVABLES.items()
        if entry.is_scalar and entry.applies(detector) and name not in _HIDDEN
    ]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of N showers.

    Attributes:
        energy: (N,) incident energies, MeV.
        theta: (N,) incident angles, degrees.
        values: For each stage, name to (N,); NaN where a shower does not have it.
        spectrum: (k,) cells in each bin of the cell-energy spectrum, before reconstruction.
    """

    energy: NDArray[np.float64]
    theta: NDArray[np.float64]
    values: dict[str, dict[str, NDArray[np.float64]]]
    spectrum: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.energy)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return everything as arrays by name, for a cache."""
        flat = {"energy": self.energy, "theta": self.theta, "spectrum": self.spectrum}
        for stage, values in self.values.items():
            flat |= {f"{_PARTS}{stage}/{name}": column for name, column in values.items()}
        return flat

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.float64]]) -> Measured:
        """Build it from :meth:`arrays`."""
        values: dict[str, dict[str, NDArray[np.float64]]] = {stage: {} for stage in STAGES}
        for key, column in arrays.items():
            if key.startswith(_PARTS):
                stage, _, name = key.removeprefix(_PARTS).partition("/")
                values[stage][name] = column
        return cls(arrays["energy"], arrays["theta"], values, arrays["spectrum"])


def measure(
    source: ShowerSource, reconstruction: Reconstruction, threshold: float = 0.1, label: str = ""
) -> Measured:
    """Measure all showers of a source.

    Arguments:
        source: N showers.
        reconstruction: Calibrated on the reference.
        threshold: A cell above this energy is a hit, MeV.
        label: Shown with the progress.
    """
    detector = source.detector
    names = scalar_observables(detector)
    columns: dict[str, dict[str, list[NDArray[np.float64]]]] = {stage: {} for stage in STAGES}
    spectrum = np.zeros(len(SPECTRUM_EDGES) - 1)
    chunks = prefetch(source.chunks(chunk_rows(detector)))
    with closing(chunks), progress(len(source), label or "measure") as advance:
        for before in batches(chunks, threshold):
            found = reconstruction(before.showers)
            after = ShowerBatch(found.showers, threshold)
            incident = before.showers.incident_energy
            visible = before.total / detector.sampling_fraction
            _add(columns["before"], before, names, visible / incident, _axis(before) - before.theta)
            _add(columns["after"], after, names, found.energy / incident, found.theta - before.theta)
            for name, extra in (("n_clusters", found.n_clusters), ("outside", found.outside)):
                columns["after"].setdefault(name, []).append(np.asarray(extra, np.float64))
            spectrum += OBSERVABLES["cell_spectrum"].compute(before).sum(axis=0)[1:-1]
            advance(before.n)
    values = {
        stage: {name: np.concatenate(parts) for name, parts in found.items()}
        for stage, found in columns.items()
    }
    return Measured(
        np.asarray(source.incident_energy, np.float64),
        np.asarray(source.incident_theta, np.float64),
        values,
        spectrum,
    )


def _axis(batch: ShowerBatch) -> NDArray[np.float64]:
    return np.asarray(OBSERVABLES["angle_axis"].compute(batch), np.float64)


def _add(
    columns: dict[str, list[NDArray[np.float64]]],
    batch: ShowerBatch,
    names: list[str],
    response: NDArray[np.float64],
    residual: NDArray[np.float64],
) -> None:
    columns.setdefault("energy_response", []).append(response)
    columns.setdefault("angle_residual", []).append(residual)
    for name in names:
        columns.setdefault(name, []).append(np.asarray(OBSERVABLES[name].compute(batch), np.float64))
