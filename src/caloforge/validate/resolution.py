r"""Linearity and resolution against incident energy or angle.

In each bin of the variable, with the ratio :math:`q = E / E_{inc}` of measured to incident energy:

.. math:: R = \langle q \rangle, \qquad \frac{\sigma}{E} = \frac{\mathrm{std}(q)}{\langle q \rangle}

and, robust against tails, half the width of the central 68.3 % over the median. Errors are those of means and standard
deviations (:mod:`caloforge.statistics.moments`). Ratios are taken shower by shower, so that a wide bin does not broaden the
resolution.

The energy dependence is fitted as :math:`\sigma/E = a / \sqrt{E/\mathrm{GeV}} \oplus b / (E/\mathrm{GeV}) \oplus c`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from caloforge.errors import TooFewShowersError
from caloforge.statistics.moments import condition_bins, moments_in_bins
from caloforge.units import plain_number

__all__ = [
    "EnergySlices", "ResolutionFit", "ResponseCurve", "fit_resolution", "plain_fields", "response_curve",
]  # fmt: skip


def plain_fields(record: Any) -> dict[str, Any]:
    """Return a dataclass of arrays and numbers as plain lists and numbers, by attribute."""
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values}


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """Response and resolution in bins of a variable; arrays (k,), NaN in bins of too few showers."""

    variable: str  # "incident_energy" (MeV) or "incident_theta" (degrees)
    edges: NDArray[np.float64]  # (k + 1,) bin edges
    centre: NDArray[np.float64]  # mean of the variable in the bin
    n: NDArray[np.int64]  # showers in the bin
    response: NDArray[np.float64]  # mean measured over incident energy; 1 after calibration
    response_error: NDArray[np.float64]  # one standard deviation
    linearity: NDArray[np.float64]  # response over its mean over all showers, minus 1
    resolution: NDArray[np.float64]  # standard deviation over mean
    resolution_error: NDArray[np.float64]  # one standard deviation
    width68: NDArray[np.float64]  # half the central 68.3 % over the median
    out_of_range: int  # showers outside the edges

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, by attribute."""
        return plain_fields(self)


@dataclass(frozen=True)
class ResolutionFit:
    """Terms of the energy resolution, as fractions at 1 GeV."""

    stochastic: float  # a, of 1 / sqrt(E)
    noise: float  # b, of 1 / E
    constant: float  # c

    def __call__(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the resolution at energies in MeV, of any shape."""
        gev = np.asarray(energy) / 1000.0
        return np.sqrt(self.stochastic**2 / gev + self.noise**2 / gev**2 + self.constant**2)


def response_curve(
    measured: NDArray[np.float64], incident: NDArray[np.float64], variable: NDArray[np.float64] | None = None,
    edges: NDArray[np.float64] | None = None, name: str = "incident_energy", fewest: int = 10,
) -> ResponseCurve:  # fmt: skip
    """Return response, linearity and resolution in bins of the incident energy or another variable.

    Arguments:
        measured: (N,) energies, MeV: visible over the sampling fraction, or reconstructed.
        incident: (N,) MeV.
        variable: (N,) what to bin in; the incident energy when None.
        edges: (k + 1,) bins, the reference's own for a generated sample; from :func:`~caloforge.statistics.moments.condition_bins` when None.
        name: Name of the variable.
        fewest: Showers below which a bin is NaN.

    Raises:
        TooFewShowersError: When there are fewer showers than ``fewest``.
    """
    if len(measured) < fewest:
        msg = f"a response curve needs at least {fewest} showers; got {len(measured)}"
        raise TooFewShowersError(msg)
    variable = incident if variable is None else variable
    edges = condition_bins(variable) if edges is None else edges
    ratio = measured / incident
    found = moments_in_bins(ratio, variable, edges, fewest)
    inside = (variable >= edges[0]) & (variable < edges[-1])
    whole = ratio[inside].mean() if inside.any() else np.nan
    mean = np.where(found.mean > 0, found.mean, np.nan)
    return ResponseCurve(
        variable=name, edges=edges, centre=found.centre, n=found.n,
        response=found.mean, response_error=found.mean_error,
        linearity=found.mean / (whole if whole > 0 else np.nan) - 1.0,
        resolution=found.std / mean, resolution_error=found.std_error / mean,
        width68=found.half_width / np.where(found.median > 0, found.median, np.nan),
        out_of_range=int((~inside).sum()),
    )  # fmt: skip


def fit_resolution(curve: ResponseCurve) -> ResolutionFit:
    """Fit the stochastic, noise and constant terms to a curve against incident energy.

    The squared resolution is linear in the squared terms, which are kept non-negative; bins weigh by their
    errors.

    Raises:
        TooFewShowersError: When fewer than three bins have a resolution.
    """
    good = np.isfinite(curve.resolution) & (curve.resolution_error > 0)
    if good.sum() < 3:
        msg = f"a fit of the resolution needs 3 bins with enough showers; got {int(good.sum())}"
        raise TooFewShowersError(msg)
    gev = curve.centre[good] / 1000.0
    weight = 1.0 / (2 * curve.resolution[good] * curve.resolution_error[good])
    terms = np.stack([1 / gev, 1 / gev**2, np.ones_like(gev)], axis=1)
    squares, _ = nnls(terms * weight[:, None], curve.resolution[good] ** 2 * weight)
    stochastic, noise, constant = np.sqrt(squares)
    return ResolutionFit(float(stochastic), float(noise), float(constant))


@dataclass(frozen=True, eq=False)
class EnergySlices:
    """Slices of incident energy: one at each value where there are few, else of equal numbers."""

    edges: NDArray[np.float64]  # (S + 1,) MeV
    centres: NDArray[np.float64]  # (S,) mean of the reference's energies, MeV

    @classmethod
    def of(cls, energy: NDArray[np.float64], bins: int) -> EnergySlices:
        """Return the slices of the reference's energies (N,)."""
        edges = condition_bins(energy, bins)
        return cls(edges, moments_in_bins(energy, energy, edges).centre)

    def __len__(self) -> int:
        return len(self.centres)

    def members(self, energy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the slice (N,) of each energy (N,); -1 outside."""
        place = np.searchsorted(self.edges, energy, side="right") - 1
        return np.where((place >= 0) & (place < len(self)), place, -1)

    def nearest(self, energy: float) -> int:
        """Return the slice whose mean is nearest to an energy, MeV, in the logarithm."""
        return int(np.abs(np.log(self.centres / energy)).argmin())

    def name(self, number: int) -> str:
        """Return what a slice is called."""
        return f"{plain_number(self.centres[number] / 1000.0)} GeV"
