"""What a density estimator of observables is: fit, sample, log_prob."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from caloforge.errors import InputError, TooFewShowersError
from caloforge.random import generator

__all__ = ["DensityEstimator", "folds", "table"]

LEAST = 20
"""Fewest showers to fit."""


class DensityEstimator(ABC):
    """Density of k observables a shower, such as E_vis, E_peak, CG_x and CG_y, estimated from N showers."""

    @abstractmethod
    def fit(self, values: ArrayLike, seed: int = 0) -> Self:
        """Choose the smoothness by five-fold cross-validation and fit all showers.

        Arguments:
            values: (N, k) observables, any units; (N,) for one.
            seed: Of the folds.

        Raises:
            InputError: When values are not finite or of another shape.
            TooFewShowersError: For less than 20 showers.
        """

    @abstractmethod
    def sample(self, n: int, seed: int = 0, start: int = 0) -> NDArray[np.float64]:
        """Draw observables (n, k); row i depends on (seed, start + i) alone."""

    @abstractmethod
    def log_prob(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return ln of the density (N,) at observables (N, k), in 1 over their units; -inf where it is 0."""


def table(values: ArrayLike, columns: int | None = None) -> NDArray[np.float64]:
    """Return observables as (N, k), checked.

    Raises:
        InputError: When they are not finite, or of another shape.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0 or (columns is not None and array.shape[1] != columns):
        wanted = "k" if columns is None else str(columns)
        msg = f"observables have shape {np.shape(values)}; expected (N, {wanted})"
        raise InputError(msg)
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        msg = f"observable {column} of shower {row} is {array[row, column]}; expected a finite number"
        raise InputError(msg)
    return array


def training_table(values: ArrayLike) -> NDArray[np.float64]:
    """Return observables to fit as (N, k).

    Raises:
        TooFewShowersError: For less than 20 showers.
    """
    array = table(values)
    if len(array) < LEAST:
        msg = f"{len(array)} showers are too few for a density; expected at least {LEAST}"
        raise TooFewShowersError(msg)
    return array


def folds(n: int, k: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return k disjoint (training, held-out) index sets that cover n showers, shuffled."""
    parts = np.array_split(generator(seed, "folds").permutation(n), k)
    return [(np.concatenate([*parts[:i], *parts[i + 1 :]]), parts[i]) for i in range(k)]
