"""What is measured in the events of the application: energies, hits, profiles, and how many showers are seen.

The axis of an event is the line of its primary particle, (x, y) = impact + z (dx, dy)/dz.

Two showers are distinguished in the image of the cells summed along that axis, cell by cell. Its peaks are the cells that hold no less than
their eight neighbours and at least ``SHARE`` of the image's energy. The highest is a shower; each further one, from the highest down, is
another when on the straight line to every shower before it the image falls below ``VALLEY`` times the lower of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from caloforge.errors import FileFormatError
from caloforge.showers import Showers, open_showers

__all__ = ["RINGS", "Run", "count_showers", "photon_pairs", "read_run"]

HIT = 0.1  # MeV
RINGS = np.array([0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 70.0, 100.0, 150.0])  # mm
SHARE = 0.015
VALLEY = 0.8
_PION = 134.977  # mass of the neutral pion, MeV
_COMPLETE = 0.99  # share of the pion's energy that its two photons have at the face
_CHUNK = 50


@dataclass(frozen=True)
class Run:
    """Events of one run, in order; the same number is the same primary particle in all runs of a seed."""

    columns: dict[str, NDArray[Any]]  # those of the application
    energy: NDArray[np.float64]  # (N,) total energy of the primary particle, MeV
    visible: NDArray[np.float64]  # (N,) MeV
    hits: NDArray[np.float64]  # (N,) cells above 0.1 MeV
    largest: NDArray[np.float64]  # (N,) energy of the largest cell, MeV
    depth: NDArray[np.float64]  # (N,) energy-weighted mean depth, radiation lengths
    layers: NDArray[np.float64]  # (N, n_layers) MeV
    rings: NDArray[np.float64]  # (N, rings) MeV, by distance from the axis
    offset: NDArray[np.float64]  # (N, 2) energy-weighted mean distance from the axis in x and y, mm
    showers: NDArray[np.int64]  # (N,) showers that are distinguished
    images: NDArray[np.float64]  # (50, nx, ny) MeV, of the first events at most
    layer_depth: NDArray[np.float64]  # (n_layers,) radiation lengths

    def __len__(self) -> int:
        return len(self.visible)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Processor time of each event (N,), s."""
        return np.asarray(self.columns["seconds"], np.float64)


def read_run(path: Path) -> Run:
    """Measure the events of ``path`` (.h5) and of the .npz beside it.

    Raises:
        FileFormatError: When one is missing or does not fit the other.
    """
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        raise FileFormatError(
            beside, "", "not found; expected what the application writes beside its showers"
        )
    with np.load(beside) as content:
        columns = {name: content[name] for name in content.files}
    with open_showers(path) as source:
        if len(source) != len(columns["energy"]):
            raise FileFormatError(
                path, "", f"{len(source)} events; {beside.name} has {len(columns['energy'])}"
            )
        particle, n = source.particle, len(source)
        parts = [
            _measure(
                showers,
                columns["impact"][first : first + _CHUNK],
                columns["direction"][first : first + _CHUNK],
            )
            for first, showers in zip(range(0, n, _CHUNK), source.chunks(_CHUNK), strict=True)
        ]
        depth = np.array([layer.depth_x0 for layer in source.detector.layers])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "images"}
    mass = _PION if particle == "pi0" else 0.0
    return Run(columns, columns["energy"] + mass, images=parts[0]["images"], layer_depth=depth, **joined)


def _measure(
    showers: Showers, impact: NDArray[np.float64], direction: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Return the observables of some events, impact (N, 2) mm and direction (N, 3) of whose axes are given."""
    detector, n = showers.detector, len(showers)
    nx, ny, n_layers = detector.shape
    event, cell = np.nonzero(showers.cells)
    energy = showers.cells[event, cell].astype(np.float64)
    centre, layer = detector.cell_centres[cell], detector.cell_layer[cell]
    slope = direction[:, :2] / direction[:, 2:]
    straight = centre[:, :2] - centre[:, 2:] * slope[event]  # moved along the axis to the face
    distance = straight - impact[event]
    ring = np.searchsorted(RINGS, np.hypot(distance[:, 0], distance[:, 1]), side="right") - 1
    near = ring < len(RINGS) - 1
    visible = np.bincount(event, energy, n)
    depth = np.array([one.depth_x0 for one in detector.layers])

    def summed(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(event, weights, n) / np.maximum(visible, 1e-9)

    def table(column: NDArray[np.int64], width: int, kept: NDArray[np.bool_] | slice) -> NDArray[np.float64]:
        flat = event[kept] * width + column[kept]
        total: NDArray[np.float64] = np.bincount(flat, energy[kept], n * width).astype(np.float64)
        return total.reshape(n, width)

    pitch = np.array([detector.layers[0].pitch_x, detector.layers[0].pitch_y])  # type: ignore[union-attr]
    index = np.floor(straight / pitch + np.array([nx, ny]) / 2).astype(np.int64)
    inside = ((index >= 0) & (index < np.array([nx, ny]))).all(axis=1)
    images = table(index[:, 0] * ny + index[:, 1], nx * ny, inside).reshape(n, nx, ny)
    return {
        "visible": visible,
        "hits": np.bincount(event, energy > HIT, n),
        "largest": showers.cells.max(axis=1).astype(np.float64),
        "depth": summed(energy * depth[layer]),
        "layers": table(layer, n_layers, slice(None)),
        "rings": table(ring, len(RINGS) - 1, near),
        "offset": np.stack([summed(energy * distance[:, axis]) for axis in (0, 1)], axis=1),
        "showers": np.array([count_showers(image) for image in images]),
        "images": images,
    }


def count_showers(image: NDArray[np.float64]) -> int:
    """Return how many showers are distinguished in an image (nx, ny), MeV; see the module."""
    neighbours = np.ones((3, 3), bool)
    neighbours[1, 1] = False
    around = ndimage.maximum_filter(image, footprint=neighbours, mode="constant")
    peaks = np.argwhere((image >= around) & (image >= SHARE * image.sum()))
    peaks = peaks[np.argsort(-image[tuple(peaks.T)])]
    found: list[NDArray[np.int64]] = []
    for peak in peaks:
        if all(_valley(image, peak, other) < VALLEY * image[tuple(peak)] for other in found):
            found.append(peak)
    return len(found)


def _valley(image: NDArray[np.float64], a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the lowest value of an image on the straight line between two cells, interpolated."""
    steps = np.linspace(0.0, 1.0, 2 * int(np.abs(a - b).max()) + 1)
    line = np.outer(1 - steps, a) + np.outer(steps, b)
    return float(ndimage.map_coordinates(image, line.T, order=1).min())


def photon_pairs(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the events whose pion entered as two photons: number (K,), distance (K,) mm and smaller energy (K,) MeV at the face."""
    columns = run.columns
    number, distance, smaller = [], [], []
    for event, total in enumerate(run.energy):
        rows = np.flatnonzero((columns["face_event"] == event) & (columns["face_name"] == "gamma"))
        rows = rows[np.argsort(-columns["face_energy"][rows])][:2]
        energy = columns["face_energy"][rows]
        if len(rows) == 2 and energy.sum() > _COMPLETE * total:
            first, second = columns["face_position"][rows]
            number.append(event)
            distance.append(float(np.hypot(*(first - second))))
            smaller.append(float(energy[1]))
    return np.array(number, np.int64), np.array(distance), np.array(smaller)
