r"""When two showers are duplicates.

Three definitions, each stricter than the one before it:

- profiles: the Jensen-Shannon divergences of the x, y and z profiles are each at most their limits;
- with energy: the total energies, too, differ by at most their limit;
- with similarity: the structural similarity, too, is at least its limit.

The limits are quantiles over all pairs of trusted showers: the :math:`\alpha` quantile of each divergence and of
the difference of energies, and the :math:`1 - \alpha` quantile of the similarity, the latter over a random
sample of the pairs. The same limits judge every sample. The number that a sample is given follows from them:
with four independent criteria two trusted showers would be duplicates with probability :math:`\alpha^4`, so that
supports compare samples at one :math:`\alpha`, and are not numbers of showers that exist.

References:
    G. R. Khattak, S. Vallecorsa et al., the support size of the 3DGAN by the birthday paradox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.showers import ShowerSource
from caloforge.studies.support_size.divergence import condensed_size, pair_differences, pair_divergences
from caloforge.validate.observables import observe

__all__ = ["DEFINITIONS", "Definition", "Limits", "PairTable", "Profiles", "limits_of", "profiles_of"]


@dataclass(frozen=True)
class Definition:
    """One definition of a duplicate.

    Arguments:
        name: In ``study.json`` and ``papers.toml``.
        label: In tables and figures.
        criteria: Cheap criteria, all of which a pair must pass.
        similarity: Whether it must be similar in structure, too.
    """

    name: str
    label: str
    criteria: tuple[str, ...]
    similarity: bool = False


DEFINITIONS = (
    Definition("profiles", "profiles", ("x", "y", "z")),
    Definition("energy", "profiles + energy", ("x", "y", "z", "energy")),
    Definition("similarity", "profiles + energy + SSIM", ("x", "y", "z", "energy"), similarity=True),
)

_AXES = {"x": "x_profile", "y": "y_profile", "z": "layer_energy"}


@dataclass(frozen=True, eq=False)
class Profiles:
    """What the cheap criteria need of each shower, MeV.

    Attributes:
        x: (N, columns).
        y: (N, rows).
        z: (N, layers).
        energy: (N,) totals.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    energy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.energy)

    def axis(self, name: str, normalised: bool) -> NDArray[np.float64]:
        """Return a profile (N, K), of unit sum when ``normalised``; empty showers stay empty."""
        values: NDArray[np.float64] = getattr(self, name)
        total = values.sum(axis=1, keepdims=True)
        return values / np.where(total > 0, total, 1.0) if normalised else values


def profiles_of(showers: ShowerSource, label: str = "") -> Profiles:
    """Return the profiles of showers, in one pass; the z profile of a single layer is the total energy."""
    table = observe(showers, [*_AXES.values(), "visible_energy"], label=label)
    total = table["visible_energy"]
    x, y, z = (table[name] if name in table else total[:, None] for name in _AXES.values())
    return Profiles(x, y, z, total)


class PairTable:
    """The cheap criteria of every pair of a sample, in condensed order: 16 bytes a pair.

    Arguments:
        profiles: Of N showers, at least two.
        normalised: Compare profiles of unit sum, shapes alone, instead of energies.
        device: Where to compute.
    """

    def __init__(self, profiles: Profiles, normalised: bool = False, device: str = "cpu") -> None:
        self.n = len(profiles)
        if self.n < 2:
            msg = f"pairs of showers: at least 2 are needed, there are {self.n}"
            raise TooFewShowersError(msg)
        self.values: dict[str, NDArray[np.float32]] = {
            name: pair_divergences(profiles.axis(name, normalised), device) for name in _AXES
        } | {"energy": pair_differences(profiles.energy)}

    def __len__(self) -> int:
        return condensed_size(self.n)

    def passing(self, limits: Mapping[str, float], criteria: Iterable[str]) -> NDArray[np.int64]:
        """Return the positions (K,) of the pairs that are at or below every limit."""
        first, *rest = criteria
        found = np.flatnonzero(self.values[first] <= np.float32(limits[first]))
        for name in rest:
            found = found[self.values[name][found] <= np.float32(limits[name])]
        return found

    def closeness(self, positions: NDArray[np.int64], limits: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the largest criterion in units of its limit (K,): 0 for equal profiles, 1 for a bare duplicate."""
        parts = [self.values[name][positions] / max(limits[name], 1e-30) for name in self.values]
        return np.asarray(np.max(parts, axis=0), np.float64)


@dataclass(frozen=True)
class Limits:
    """The limits at one alpha.

    Attributes:
        alpha: Quantile.
        cheap: Upper limits of x, y, z and energy; MeV, or pure numbers for normalised profiles.
        similarity: Lower limit of the structural similarity; None where it does not apply.
    """

    alpha: float
    cheap: Mapping[str, float]
    similarity: float | None


def limits_of(
    table: PairTable, alphas: Sequence[float], similarities: NDArray[np.float64] | None = None
) -> list[Limits]:
    """Return the limits at each alpha.

    Arguments:
        table: The pairs of trusted showers.
        alphas: Quantiles.
        similarities: Structural similarities of random pairs (K,); None where they do not apply.
    """
    cheap = {name: np.quantile(values, alphas) for name, values in table.values.items()}
    return [
        Limits(
            alpha,
            {name: float(values[k]) for name, values in cheap.items()},
            None if similarities is None else float(np.quantile(similarities, 1.0 - alpha)),
        )
        for k, alpha in enumerate(alphas)
    ]
