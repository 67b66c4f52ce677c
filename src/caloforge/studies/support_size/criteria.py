r"""When two showers are duplicates: criteria, and divergences of all pairs of profiles.

How far apart two showers are: the divergences of all pairs of profiles, in blocks.

The Jensen-Shannon divergence of two profiles :math:`P, Q` (energy in bins of x, of y, or in layers) with the
Kullback-Leibler divergence of unnormalised densities, :math:`K(P, Q) = \sum_k P_k \ln(P_k / Q_k) - P_k + Q_k`,
is, with :math:`M = (P + Q)/2`, the two linear terms falling out,

.. math::
    J(P, Q) = \tfrac12 K(P, M) + \tfrac12 K(Q, M)
            = \tfrac12 \sum_k \left( P_k \ln P_k + Q_k \ln Q_k \right) - \sum_k M_k \ln M_k .

The first sum belongs to single showers, so that a pair costs one logarithm a bin. It is homogeneous of degree
one: another unit of energy scales every divergence alike and leaves the quantiles where they are.

Values of all pairs are kept in condensed order, (0, 1), (0, 2), ..., (1, 2), ..., as SciPy's ``pdist`` does.

References:
    G. R. Khattak, S. Vallecorsa et al., the support size of the 3DGAN by the birthday paradox.

When two showers are duplicates.

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

from caloforge.errors import InputError, TooFewShowersError
from caloforge.showers import ShowerSource
from caloforge.validate.observables import observe

__all__ = [
    "DEFINITIONS",
    "Definition",
    "Limits",
    "PairTable",
    "Profiles",
    "condensed_size",
    "limits_of",
    "pair_differences",
    "pair_divergences",
    "pair_indices",
    "profiles_of",
]


_TINY = 1e-300  # stands for an empty bin: 0 ln 0 = 0
_TILE = {"cpu": 1 << 18, "cuda": 1 << 24}  # pairs held at once


def condensed_size(n: int) -> int:
    """Return the number of pairs of ``n`` showers."""
    return n * (n - 1) // 2


def pair_indices(positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the showers (K, 2), i < j, of positions (K,) in the condensed order of ``n`` showers."""
    row = np.arange(n, dtype=np.int64)
    starts = row * n - row * (row + 1) // 2  # of the pairs (i, i + 1), ...
    first = np.searchsorted(starts[: n - 1], positions, side="right") - 1
    second = positions - starts[first] + first + 1
    return np.stack([first, second], axis=1)


def pair_divergences(profiles: NDArray[np.floating], device: str = "cpu") -> NDArray[np.float32]:
    """Return the Jensen-Shannon divergence of every pair of profiles.

    Arguments:
        profiles: Energies (N, K) in K bins, not negative.
        device: Where to compute.

    Returns:
        (N (N - 1) / 2,) in condensed order, in the unit of the profiles.

    Raises:
        InputError: When an energy is negative or not finite.
    """
    import torch

    if profiles.ndim != 2 or not (np.isfinite(profiles).all() and (profiles >= 0).all()):
        msg = f"profiles of shape {profiles.shape}: expected (N, K) energies, finite and not negative"
        raise InputError(msg)
    n = len(profiles)
    # bins first, so that each step works on a whole tile of pairs
    p = torch.as_tensor(np.ascontiguousarray(profiles.T, dtype=np.float64), device=device)
    own = 0.5 * torch.special.xlogy(p, p).sum(dim=0)
    half = 0.5 * p
    out = np.empty(condensed_size(n), np.float32)
    rows = max(1, int(_TILE[torch.device(device).type] // max(n, 1)))
    end = 0
    for start in range(0, n - 1, rows):
        stop = min(start + rows, n - 1)
        left, right = slice(start, stop), slice(start + 1, n)
        total = own[left, None] + own[None, right]
        for a, b in zip(half[:, left], half[:, right], strict=True):
            middle = (a[:, None] + b[None, :]).clamp_(min=_TINY)
            total.addcmul_(middle, middle.log(), value=-1.0)
        block = total.clamp_(min=0.0).to(torch.float32).cpu().numpy()
        for row in range(stop - start):  # the pairs (i, j > i) of each row
            values = block[row, row:]
            out[end : end + len(values)] = values
            end += len(values)
    return out


def pair_differences(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the absolute difference (N (N - 1) / 2,) of every pair of values (N,), in condensed order."""
    x = np.asarray(values, np.float64)
    out = np.empty(condensed_size(len(x)), np.float32)
    end = 0
    for row in range(len(x) - 1):
        difference = np.abs(x[row + 1 :] - x[row])
        out[end : end + len(difference)] = difference
        end += len(difference)
    return out


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
