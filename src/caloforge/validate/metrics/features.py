"""Inputs of the metrics from samples: columns of observables, feature vectors, cells, histograms of the cells' energies.

The high-level vector is the CaloChallenge's: log10 of the incident energy; for each layer log10(E + 1e-8),
centres and widths in x and y over 100 mm; log10(E_visible + 1e-8); the sparsity of each layer; centre and
width in r over 100 mm. Layers of a mesh with a single angular bin lie at x = y = 0; they have no centre or width in
x and y, here and among the columns. Entries that are not finite become 0, are counted and reported.

Cells below the cut of the sample are 0 in all of these; see :attr:`Detector.evaluation_cut <caloforge.geometry.detector.Detector>`.

References:
    C. Krause et al., CaloChallenge 2022, arXiv:2410.21611, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import TooFewShowersError
from caloforge.geometry import CylindricalLayer, Detector
from caloforge.random import generator
from caloforge.validate.metrics.base import Settings, Value
from caloforge.validate.observables import OBSERVABLES
from caloforge.validate.observables.batch import is_filled
from caloforge.validate.observables.spectrum import CellCounter, CellHistograms
from caloforge.validate.observables.streaming import stream
from caloforge.validate.sample import Sample

__all__ = [
    "Cells",
    "Column",
    "Pair",
    "by_column",
    "cell_histograms",
    "cell_pair",
    "finite_columns",
    "forget_cells",
    "high_level_pair",
    "histograms_key",
    "joint_columns",
    "layer_energies",
    "log_cells",
    "low_level_inputs",
    "make_column",
    "profiles",
]

Cells: TypeAlias = NDArray[np.float32]
Array: TypeAlias = NDArray[np.float64]

_JOINT = (
    ("visible_energy", "peak_energy"),
    ("centre_x", "centre_y"),
    ("visible_energy", "hits", "shower_depth"),
    ("visible_energy", "centre_x", "centre_y", "shower_depth"),
)
_IN_XY = ("layer_centre_x", "layer_centre_y", "layer_width_x", "layer_width_y")
_MM = 100.0
_GUARD = 1e-8


@dataclass(frozen=True)
class Column:
    """One number a shower of both samples, or several that are compared together."""

    name: str
    """Name in ``metrics.json``: the observable's, with the index along its axis where it has one."""
    observable: str
    reference: Array
    generated: Array
    """Finite values (N,) or (N, d) of the reference, (M,) or (M, d) of the generated sample."""
    counts: dict[str, int]
    """How many were not finite on each side."""
    reason: str = ""
    """Why nothing can be compared; empty when it can."""
    index: int | None = None
    """Place along the observable's axis (the layer); None for one number a shower."""


@dataclass(frozen=True)
class Pair:
    """Features (N, d) and (M, d) of both samples; numbers of showers used, and of entries that were not finite."""

    reference: NDArray[Any]
    generated: NDArray[Any]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellPair:
    """Cells (N, n_cells) and (M, n_cells) and incident energies of both samples, MeV; numbers of showers used."""

    reference: Cells
    generated: Cells
    energy_reference: Array
    energy_generated: Array
    counts: dict[str, int]


def make_column(
    name: str, observable: str, a: NDArray[Any], b: NDArray[Any], index: int | None = None
) -> Column:
    """Return the finite values of a column (N,) or (N, d) of the reference and (M,) or (M, d) of the generated sample."""
    kept, counts, reason = [], {}, ""
    for side, values in (("reference", a), ("generated", b)):
        x = np.asarray(values, np.float64)
        finite = np.isfinite(x) if x.ndim == 1 else np.isfinite(x).all(axis=1)
        kept.append(x[finite])
        missing = int(finite.size - finite.sum())
        if missing:
            counts[f"not_finite_{side}"] = missing
        if not finite.any():
            reason = f"no finite value in the {side} sample"
    return Column(name, observable, kept[0], kept[1], counts, reason, index)


def finite_columns(reference: Sample, generated: Sample) -> Iterator[Column]:
    """Yield each observable of one number a shower, and each layer of those of one a layer.

    Centres and widths in x and y come without the layers of a mesh that have a single angular bin.
    """
    table_a, table_b = reference.observables, generated.observables
    angular = set(angular_layers(reference.detector))
    for name in table_a.names:
        axis = OBSERVABLES[name].axis if name in OBSERVABLES else "shower"
        if axis not in ("shower", "layer"):
            continue
        a, b = table_a[name], table_b[name]
        if a.ndim == 1:
            yield make_column(name, name, a, b)
            continue
        for index in range(a.shape[1]):
            if name not in _IN_XY or index in angular:
                yield make_column(f"{name}[{index}]", name, a[:, index], b[:, index], index)


def joint_columns(reference: Sample, generated: Sample) -> Iterator[Column]:
    """Yield the sets of two to four observables that are compared together, named ``a*b``."""
    tables = reference.observables, generated.observables
    for names in _JOINT:
        if all(name in tables[0] for name in names):
            a, b = (np.stack([table[name] for name in names], axis=1) for table in tables)
            yield make_column("*".join(names), "*".join(names), a, b)


def by_column(columns: Iterable[Column], compare: Callable[[Column], Value]) -> dict[str, Value]:
    """Return a comparison of columns by name; NaN with the reason where nothing can be compared."""
    return {x.name: Value.missing(x.reason, **x.counts) if x.reason else compare(x) for x in columns}


def angular_layers(detector: Detector) -> list[int]:
    """Return the layers with cells at different x and y: all but those of a mesh with one angular bin."""
    return [
        index
        for index, layer in enumerate(detector.layers)
        if not isinstance(layer, CylindricalLayer) or layer.n_alpha > 1
    ]


def layer_energies(sample: Sample) -> Array:
    """Return the energy of each layer (N, L), MeV; of a single layer all visible energy."""
    table = sample.observables
    return table["layer_energy"] if sample.detector.n_layers > 1 else table["visible_energy"][:, None]


def profiles(sample: Sample) -> dict[str, Array]:
    """Return each shower's profiles along x, y and z (N, bins), MeV; z are the layers, if several."""
    names = {"x": "x_profile", "y": "y_profile", "z": "layer_energy"}
    return {axis: sample.observables[name] for axis, name in names.items() if name in sample.observables}


def high_level_features(sample: Sample) -> tuple[Array, int]:
    """Return the CaloChallenge's feature vector (N, d) and how many of its entries were not finite."""
    table = sample.observables
    angular = angular_layers(sample.detector)
    parts = [
        np.log10(sample.incident_energy)[:, None],
        np.log10(layer_energies(sample) + _GUARD),
        *(table[name][:, angular] / _MM for name in _IN_XY),
        np.log10(table["visible_energy"] + _GUARD)[:, None],
        table["layer_sparsity"],
        *(table[name] / _MM for name in ("layer_centre_r", "layer_width_r")),
    ]
    features = np.concatenate(parts, axis=1)
    finite = np.isfinite(features)
    return np.where(finite, features, 0.0), int(features.size - finite.sum())


def high_level_pair(reference: Sample, generated: Sample, n_max: int | None = None, *, seed: int) -> Pair:
    """Return the feature vectors of both samples, of at most ``n_max`` showers of each, picked at random by the seed."""
    sides, counts = [], {}
    for side, sample in (("reference", reference), ("generated", generated)):
        features, missing = high_level_features(sample)
        if n_max is not None and len(features) > n_max:
            features = features[_subset(len(features), n_max, seed)]
        sides.append(features)
        counts[f"n_{side}_used"] = len(features)
        if missing:
            counts[f"not_finite_{side}"] = missing
    return Pair(sides[0], sides[1], counts)


def _subset(n: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.sort(generator(seed, "subset").permutation(n)[:size])


def forget_cells(sample: Sample) -> None:
    """Release the cells of a sample, when no further metric of it follows."""
    sample.memo.pop(("cells",), None)


def cell_pair(
    reference: Sample,
    generated: Sample,
    settings: Settings,
    n_max: int | None = None,
    cut: float | None = None,
) -> CellPair:
    """Return the cells of both samples; those below the cut are 0. They are read once and kept as long as the sample.

    Arguments:
        reference, generated: The samples.
        settings: Sizes and seed.
        n_max: A further limit to the showers a side.
        cut: MeV; each sample's own when None, and 0 for the cells as they are.

    Raises:
        TooFewShowersError: When a sample is empty.
    """
    most = settings.showers_a_side(reference.detector.n_cells)
    cells, energies, counts = [], [], {}
    for side, sample in (("reference", reference), ("generated", generated)):
        if sample.n < 1:
            msg = f"the {side} sample has no showers"
            raise TooFewShowersError(msg)
        wanted = (min(sample.n, most), settings.seed)
        if sample.memo.get(("cells",), (None,))[0] != wanted:
            sample.memo["cells",] = wanted, sample.take(*wanted)
        showers = sample.memo["cells",][1]
        x, energy = showers.cells, np.asarray(showers.incident_energy, np.float64)
        if n_max is not None and len(x) > n_max:
            rows = _subset(len(x), n_max, settings.seed)
            x, energy = x[rows], energy[rows]
        limit = sample.cut if cut is None else cut
        cells.append(np.where(is_filled(x, limit), x, np.float32(0.0)) if limit > 0.0 else x)
        energies.append(energy)
        counts[f"n_{side}_used"] = len(x)
    return CellPair(cells[0], cells[1], energies[0], energies[1], counts)


def log_cells(cells: Cells, threshold: float) -> Cells:
    """Return log10 of cell energies (N, n_cells) in units of the threshold, 0 for cells below it."""
    energies: Cells = np.maximum(cells, np.float32(threshold))
    energies /= np.float32(threshold)
    return np.log10(energies, out=energies)


def low_level_inputs(pair: CellPair) -> Pair:
    """Return log10 of the incident energy and each cell over the incident energy (N, 1 + n_cells)."""
    sides = []
    for cells, energy in ((pair.reference, pair.energy_reference), (pair.generated, pair.energy_generated)):
        side = np.empty((len(cells), cells.shape[1] + 1), np.float32)
        side[:, 0] = np.log10(energy)
        np.divide(cells, energy[:, None].astype(np.float32), out=side[:, 1:])
        sides.append(side)
    return Pair(sides[0], sides[1], dict(pair.counts))


def histograms_key(sample: Sample, n_max: int = 10_000, seed: int = 0) -> tuple[object, ...]:
    """Return the key under which :func:`cell_histograms` keeps the histograms in a sample's ``memo``."""
    return ("cell histograms", min(n_max, sample.n), seed if sample.n > n_max else 0)


def cell_histograms(sample: Sample, n_max: int = 10_000, seed: int = 0) -> CellHistograms:
    """Return the histograms of the cells of a sample, or of a random subset of ``n_max`` showers, in one streaming pass.

    They are kept in the sample's ``memo``: a second call returns the same.
    """
    key = histograms_key(sample, n_max, seed)
    if key not in sample.memo:
        part = sample if sample.n <= n_max else sample.part(sample.choose(n_max, seed))
        counter = CellCounter(part.detector, part.threshold)
        stream(part, [counter], part.threshold, part.cut)
        sample.memo[key] = counter.result()
    found: CellHistograms = sample.memo[key]
    return found
