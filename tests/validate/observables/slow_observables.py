"""Every observable as its definition reads: one shower, one cell at a time, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from caloforge.geometry import CylindricalLayer, Detector
from caloforge.showers import Showers

THRESHOLD = 0.1


class Shower:
    """One shower as a list of hits."""

    def __init__(self, showers: Showers, index: int, cut: float | None = None) -> None:
        self.detector: Detector = showers.detector
        self.incident = float(showers.incident_energy[index])
        self.theta = math.radians(float(showers.incident_theta[index]))
        cut = self.detector.evaluation_cut if cut is None else cut
        self.cells = [0.0 if e < cut else float(e) for e in showers.cells[index]]
        shift = self.detector.layer_shift(showers.conditions)
        self.hits = []
        for layer, (geometry, members) in enumerate(
            zip(self.detector.layers, self.detector.layer_cells, strict=True)
        ):
            for place, cell in enumerate(members):
                if self.cells[cell] == 0.0:
                    continue
                x, y, z = (float(v) for v in self.detector.cell_centres[cell])
                if shift is not None:
                    x, y = x + shift[index, layer, 0], y + shift[index, layer, 1]
                own = None
                if isinstance(geometry, CylindricalLayer):
                    ring = place % geometry.n_r
                    own = (geometry.r_edges[ring] + geometry.r_edges[ring + 1]) / 2
                self.hits.append((self.cells[cell], layer, x, y, z, own))
        self.total = math.fsum(hit[0] for hit in self.hits)
        self.shift = None if shift is None else shift[index]

    def mean(self, value: Callable[[tuple], float]) -> float:
        if not self.hits:
            return math.nan
        return math.fsum(hit[0] * value(hit) for hit in self.hits) / self.total

    def centre(self, axis: int) -> float:
        return self.mean(lambda hit: hit[2 + axis])

    def moment(self, i: int, j: int, k: int | None = None) -> float:
        c = [self.centre(axis) for axis in range(3)]

        def value(hit: tuple) -> float:
            product = (hit[2 + i] - c[i]) * (hit[2 + j] - c[j])
            return product if k is None else product * (hit[2 + k] - c[k])

        return self.mean(value)

    def beam_radius(self, hit: tuple) -> float:
        if hit[5] is not None:
            return hit[5]
        beam = self.detector.beam
        return math.hypot(hit[2] - beam.x, hit[3] - beam.y - hit[4] / math.tan(self.theta))

    def axis_radius(self, hit: tuple) -> float:
        if hit[5] is not None:
            return hit[5]
        d = np.array([hit[2 + axis] - self.centre(axis) for axis in range(3)])
        direction = np.array([0.0, math.cos(self.theta), math.sin(self.theta)])
        return float(np.linalg.norm(np.cross(d, direction)))

    def in_layer(self, layer: int) -> list[tuple]:
        return [hit for hit in self.hits if hit[1] == layer]


def layers_of(shower: Shower, value: Callable[[list[tuple], int], float]) -> list[float]:
    return [value(shower.in_layer(layer), layer) for layer in range(shower.detector.n_layers)]


def layer_energy(shower: Shower) -> list[float]:
    return layers_of(shower, lambda hits, layer: math.fsum(hit[0] for hit in hits))


def layer_fraction(shower: Shower) -> list[float]:
    return [energy / shower.total if shower.total else 0.0 for energy in layer_energy(shower)]


def layer_sparsity(shower: Shower) -> list[float]:
    return layers_of(shower, lambda hits, layer: 1 - len(hits) / shower.detector.layers[layer].n_cells)


def lateral(name: str, width: bool) -> Callable[[Shower], list[float]]:
    def of(shower: Shower) -> list[float]:
        def position(hit: tuple) -> float:
            return {"x": hit[2], "y": hit[3]}[name] if name in "xy" else shower.beam_radius(hit)

        def value(hits: list[tuple], layer: int) -> float:
            total = math.fsum(hit[0] for hit in hits) + 1e-16
            centre = math.fsum(hit[0] * position(hit) for hit in hits) / total
            square = math.fsum(hit[0] * position(hit) ** 2 for hit in hits) / total
            return math.sqrt(max(0.0, square - centre**2)) if width else centre

        return layers_of(shower, value)

    return of


def shower_depth(shower: Shower) -> float:
    return shower.mean(lambda hit: hit[1])


def shower_start(shower: Shower) -> float:
    seen = 0.0
    for layer, energy in enumerate(layer_energy(shower)):
        seen += energy
        if shower.total and seen >= 0.01 * shower.total:
            return layer
    return math.nan


def depth_90(shower: Shower) -> float:
    if not shower.hits:
        return math.nan
    z = [layer.z for layer in shower.detector.layers]
    before, z_before = 0.0, 2 * z[0] - z[1]
    target = 0.9 * shower.total
    for here, energy in zip(z, layer_energy(shower), strict=True):
        if before + energy >= target * (1 - 1e-12):
            return z_before + (target - before) / energy * (here - z_before)
        before, z_before = before + energy, here
    raise AssertionError


def radius_90(shower: Shower) -> float:
    seen = 0.0
    for radius, energy in sorted((shower.axis_radius(hit), hit[0]) for hit in shower.hits):
        seen += energy
        if seen >= 0.9 * shower.total * (1 - 1e-12):
            return radius
    return math.nan


def angle_barycentres(shower: Shower) -> float:
    """Fit a straight line to the layers' barycentres, weighted with the layers' energies."""
    points = []
    for layer in range(shower.detector.n_layers):
        hits = shower.in_layer(layer)
        if hits:
            energy = math.fsum(hit[0] for hit in hits)
            points.append((hits[0][4], math.fsum(hit[0] * hit[3] for hit in hits) / energy, energy))
    if len(points) < 2:
        return math.nan
    z, y, weight = np.array(points).T
    slope = np.polyfit(z, y, 1, w=np.sqrt(weight))[0]
    return math.degrees(math.atan2(1.0, slope))


def angle_axis(shower: Shower) -> float:
    if len({hit[1] for hit in shower.hits}) < 2:
        return math.nan
    matrix = np.array([[shower.moment(i, j) for j in range(3)] for i in range(3)])
    values, vectors = np.linalg.eigh(matrix)
    axis = vectors[:, np.argmax(values)]
    axis = axis if axis[2] >= 0 else -axis
    return math.degrees(math.atan2(axis[2], axis[1]))


def core(shower: Shower) -> list[float]:
    """The cells of the core in a grid, from its definition."""
    nx, ny, n_layers = shower.detector.shape
    first = shower.detector.layers[0]
    start = []
    for n, centres, at in ((nx, first.x, shower.detector.beam.x), (ny, first.y, shower.detector.beam.y)):
        entry = min(range(n), key=lambda k: abs(centres[k] - at))
        start.append(min(max(entry - 2, 0), max(n - 7, 0)))
    start.append(min(int(0.4 * n_layers + 1e-9), max(n_layers - 7, 0)))
    return [
        shower.cells[(ix * ny + iy) * n_layers + layer]
        for ix in range(start[0], min(start[0] + 7, nx))
        for iy in range(start[1], min(start[1] + 7, ny))
        for layer in range(start[2], min(start[2] + 7, n_layers))
    ]


def profile(axis: int) -> Callable[[Shower, np.ndarray], list[float]]:
    """Energy in bins of x or y, cells shared by overlap where the detector is layered; outer bins open."""

    def of(shower: Shower, edges: np.ndarray) -> list[float]:
        bins = [0.0] * (len(edges) - 1)
        edges = [-math.inf, *edges[1:-1], math.inf]
        for energy, layer, *rest in shower.hits:
            at = rest[axis]
            if shower.detector.order != "layered":
                index = max(k for k in range(len(bins)) if edges[k] <= at)
                bins[index] += energy
                continue
            geometry = shower.detector.layers[layer]
            pitch = (geometry.pitch_x, geometry.pitch_y)[axis]
            for k in range(len(bins)):
                overlap = min(edges[k + 1], at + pitch / 2) - max(edges[k], at - pitch / 2)
                bins[k] += energy * max(0.0, overlap) / pitch
        return bins

    return of


def radial_profile(shower: Shower, edges: np.ndarray) -> list[float]:
    bins = [0.0] * (len(edges) - 1)
    for hit in shower.hits:
        bins[max(k for k in range(len(bins)) if edges[k] <= shower.axis_radius(hit))] += hit[0]
    return bins


def cell_spectrum(shower: Shower, edges: np.ndarray) -> list[int]:
    bins = [0] * (len(edges) + 1)
    for hit in shower.hits:
        bins[sum(1 for edge in edges if edge <= hit[0])] += 1
    return bins


SCALARS: dict[str, Callable[[Shower], float]] = {
    "visible_energy": lambda s: s.total,
    "response": lambda s: s.total / s.detector.sampling_fraction / s.incident,
    "peak_energy": lambda s: max(s.cells),
    "hits": lambda s: sum(1 for e in s.cells if e > THRESHOLD),
    "sparsity": lambda s: sum(1 for e in s.cells if e == 0) / len(s.cells),
    "shower_depth": shower_depth,
    "shower_start": shower_start,
    "depth_90": depth_90,
    "radius_90": radius_90,
    "centre_x": lambda s: s.centre(0),
    "centre_y": lambda s: s.centre(1),
    "centre_z": lambda s: s.centre(2),
    "second_moment_x": lambda s: s.moment(0, 0),
    "second_moment_y": lambda s: s.moment(1, 1),
    "second_moment_z": lambda s: s.moment(2, 2),
    "third_moment_x": lambda s: s.moment(0, 0, 0),
    "third_moment_y": lambda s: s.moment(1, 1, 1),
    "third_moment_z": lambda s: s.moment(2, 2, 2),
    "angle_barycentres": angle_barycentres,
    "angle_axis": angle_axis,
}

LAYERS: dict[str, Callable[[Shower], list[float]]] = {
    "layer_energy": layer_energy,
    "layer_fraction": layer_fraction,
    "layer_sparsity": layer_sparsity,
    "layer_centre_x": lateral("x", False),
    "layer_centre_y": lateral("y", False),
    "layer_centre_r": lateral("r", False),
    "layer_width_x": lateral("x", True),
    "layer_width_y": lateral("y", True),
    "layer_width_r": lateral("r", True),
}

BINNED: dict[str, Callable[[Shower, np.ndarray], list[float] | list[int]]] = {
    "x_profile": profile(0),
    "y_profile": profile(1),
    "radial_profile": radial_profile,
    "cell_spectrum": cell_spectrum,
}
