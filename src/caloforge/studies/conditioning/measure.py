r"""Every observable of every shower, before and after reconstruction, in one pass, and response curves of energy and angle.

Before reconstruction, energy is the visible energy over the detector's sampling fraction and direction the principal
axis of all cells. After it, both are those of the leading cluster. The names of what is measured:

- ``energy_response``: measured over incident energy;
- ``angle_residual``: measured minus incident angle, degrees;
- every observable of one number a shower (:mod:`caloforge.validate.observables`), of the cells before, and of the digitised
  cells of the leading cluster after;
- after only: ``n_clusters`` and ``outside``, the part of the energy outside the leading cluster.

Curves are in bins of energy and of angle. With the residual :math:`\delta = \theta - \theta_{inc}` of each shower, the bias of the angle is
:math:`\langle\delta\rangle` and its resolution the standard deviation of :math:`\delta`. A few showers point far off (two
clusters, early conversions), so that half the width of the central 68.3 % is calculated as well. Energy response and
resolution are those of :mod:`caloforge.validate.resolution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.progress import progress
from caloforge.showers import ShowerSource
from caloforge.statistics.moments import condition_bins, moments_in_bins
from caloforge.validate.observables import OBSERVABLES, SPECTRUM_EDGES, ShowerBatch
from caloforge.validate.observables.streaming import batches, chunk_rows, prefetch
from caloforge.validate.reconstruction import Reconstruction
from caloforge.validate.resolution import ResponseCurve, fit_resolution, plain_fields, response_curve

__all__ = [
    "STAGES",
    "AngleCurve",
    "Curve",
    "Measured",
    "angle_curve",
    "curves_of",
    "measure",
    "resolution_fits",
]


STAGES = ("before", "after")
"""Before and after reconstruction."""
_HIDDEN = ("response", "angle_axis")
"""Observables that ``energy_response`` and ``angle_residual`` repeat."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of N showers."""

    energy: NDArray[np.float64]  # (N,) incident energies, MeV
    theta: NDArray[np.float64]  # (N,) incident angles, degrees
    values: dict[str, dict[str, NDArray[np.float64]]]  # by stage and name, (N,); NaN where there is none
    spectrum: NDArray[np.float64]  # (k,) cells in each bin of the cell-energy spectrum, before reconstruction

    def __len__(self) -> int:
        return len(self.energy)

    @classmethod
    def of(cls, arrays: dict[str, NDArray[np.float64]]) -> Measured:
        """Return it from the arrays of :func:`measure`."""
        values: dict[str, dict[str, NDArray[np.float64]]] = {stage: {} for stage in STAGES}
        for stage, _, name in (key.partition("/") for key in arrays if "/" in key):
            values[stage][name] = arrays[f"{stage}/{name}"]
        return cls(arrays["energy"], arrays["theta"], values, arrays["spectrum"])


def measure(
    source: ShowerSource, reconstruction: Reconstruction, threshold: float = 0.1, label: str = ""
) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of a :class:`Measured` of N showers: "energy", "theta", "spectrum" and "STAGE/NAME".

    A cell above ``threshold`` (MeV) is a hit; ``label`` is shown with the progress.
    """
    detector = source.detector
    names = [
        name
        for name, entry in OBSERVABLES.items()
        if entry.is_scalar and not entry.rule(detector) and name not in _HIDDEN
    ]
    columns: dict[str, list[NDArray[np.float64]]] = {}
    spectrum = np.zeros(len(SPECTRUM_EDGES) - 1)
    chunks = prefetch(source.chunks(chunk_rows(detector)))
    with closing(chunks), progress(len(source), label or "measure") as advance:
        for before in batches(chunks, threshold):
            reconstructed = reconstruction(before.showers)
            after = ShowerBatch(reconstructed.showers, threshold)
            incident = before.showers.incident_energy
            visible = before.total / detector.sampling_fraction
            axis = OBSERVABLES["angle_axis"].compute(before)
            clusters = {"n_clusters": reconstructed.n_clusters, "outside": reconstructed.outside}
            measured: dict[str, tuple[ShowerBatch, Any, Any, dict[str, Any]]] = {
                "before": (before, visible, axis, {}),
                "after": (after, reconstructed.energy, reconstructed.theta, clusters),
            }
            for stage, (batch, energy, theta, extra) in measured.items():
                row = {
                    "energy_response": energy / incident,
                    "angle_residual": theta - before.showers.incident_theta,
                }
                row |= {name: OBSERVABLES[name].compute(batch) for name in names}
                for name, values in (row | extra).items():
                    columns.setdefault(f"{stage}/{name}", []).append(np.asarray(values, np.float64))
            spectrum += OBSERVABLES["cell_spectrum"].compute(before).sum(axis=0)[1:-1]
            advance(before.n)
    arrays = {"energy": source.incident_energy, "theta": source.incident_theta, "spectrum": spectrum}
    found = {name: np.asarray(values, np.float64) for name, values in arrays.items()}
    return found | {name: np.concatenate(parts) for name, parts in columns.items()}


@dataclass(frozen=True, eq=False)
class AngleCurve:
    """Bias and resolution of the direction in bins; arrays (k,), NaN in bins of too few showers, angles in degrees."""

    variable: str  # "incident_energy" (MeV) or "incident_theta" (degrees); ``centre`` is its mean in a bin
    edges: NDArray[np.float64]
    centre: NDArray[np.float64]
    n: NDArray[np.int64]  # showers with a direction; ``missing`` is the number of those without
    bias: NDArray[np.float64]  # mean residual
    bias_error: NDArray[np.float64]
    resolution: NDArray[np.float64]  # standard deviation of the residual
    resolution_error: NDArray[np.float64]
    width68: NDArray[np.float64]  # half the width of the central 68.3 %
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, by attribute."""
        return plain_fields(self)


Curve = ResponseCurve | AngleCurve


def angle_curve(
    residual: NDArray[np.float64],
    variable: NDArray[np.float64],
    edges: NDArray[np.float64] | None = None,
    name: str = "incident_theta",
) -> AngleCurve:
    """Return bias and resolution of the direction in bins of a variable (N,).

    Arguments:
        residual: (N,) measured minus incident angle, degrees; NaN without a direction.
        edges: (k + 1,) bins; from :func:`~caloforge.statistics.moments.condition_bins` when None.
    """
    edges = condition_bins(variable) if edges is None else edges
    found = moments_in_bins(residual, variable, edges)
    return AngleCurve(
        name,
        edges,
        found.centre,
        found.n,
        bias=found.mean,
        bias_error=found.mean_error,
        resolution=found.std,
        resolution_error=found.std_error,
        width68=found.half_width,
        missing=int((~np.isfinite(residual)).sum()),
    )


def curves_of(samples: Sequence[Measured]) -> dict[str, dict[str, list[Curve]]]:
    """Return every curve by name, stage and sample, in bins of the reference, the first sample."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for variable, name in (("energy", "incident_energy"), ("theta", "incident_theta")):
        edges = condition_bins(getattr(samples[0], variable), 8)
        energy: dict[str, list[Curve]] = {stage: [] for stage in STAGES}
        angle: dict[str, list[Curve]] = {stage: [] for stage in STAGES}
        for stage in STAGES:
            for sample in samples:
                values, x = sample.values[stage], getattr(sample, variable)
                ratio = values["energy_response"]
                energy[stage].append(response_curve(ratio, np.ones_like(ratio), x, edges, name))
                angle[stage].append(angle_curve(values["angle_residual"], x, edges, name))
        found |= {f"energy_against_{variable}": energy, f"angle_against_{variable}": angle}
    return found


def resolution_fits(
    curves: Mapping[str, Sequence[Any]], labels: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return stochastic, noise and constant terms by stage and sample, where there are energies enough."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for stage, found in curves.items():
        out[stage] = {}
        for label, curve in zip(labels, found, strict=True):
            try:
                out[stage][label] = vars(fit_resolution(curve))
            except TooFewShowersError:
                continue
    return out
