"""Pearson correlations: between layers, and between observables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caloforge.validate.observables.table import ObservableTable

__all__ = ["correlation", "layer_correlation", "observable_correlation"]


def correlation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation matrix of columns.

    Arguments:
        values: (N, K); rows with a NaN are left out.

    Returns:
        (K, K); NaN in the rows and columns of constants, 1 on the rest of the diagonal.
    """
    good = values[np.isfinite(values).all(axis=1)]
    if len(good) < 2:
        return np.full((values.shape[1], values.shape[1]), np.nan)
    offset = good - good.mean(axis=0)
    scale = np.sqrt((offset**2).mean(axis=0))
    scale[scale <= 1e-12 * np.abs(good).max(axis=0)] = np.nan  # constant up to rounding
    unit = offset / scale
    return np.asarray(np.clip(unit.T @ unit / len(good), -1.0, 1.0))


def layer_correlation(table: ObservableTable) -> NDArray[np.float64]:
    """Return the correlation of the layers' energies (n_layers, n_layers)."""
    return correlation(table["layer_energy"])


def observable_correlation(
    table: ObservableTable, names: Sequence[str] | None = None
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the correlation of observables.

    Arguments:
        table: The observables.
        names: Which; all that give one number a shower when None.

    Returns:
        Names (K,) and matrix (K, K).
    """
    labels, values = table.columns(names)
    return labels, correlation(values)
