"""Hits at positions in mm, put into the cells of a detector.

A hit belongs to the layer whose boundaries, half way to the neighbouring layers, are around its depth, and there to the cell around its x and y. Files of whole
detectors have other coordinates: ``origin`` is where our x = y = z = 0 (the axis at the front face) is in the file, ``axes`` names the file's first, second and third
coordinate in our letters (``zxy``: its x is our depth z, its y our x, its z our y).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.errors import FileFormatError, InputError
from caloforge.formats.base import ReadOptions
from caloforge.geometry import Detector
from caloforge.showers.sparse import Cells

__all__ = ["HitCells"]


class HitCells:
    """The way from hits to cells, with an account of what lies outside.

    Arguments:
        path: The file, for messages.
        detector: Detector of the cells.
        options: The user's ``origin``, ``axes`` and ``drop_outside``.
    """

    def __init__(self, path: Path, detector: Detector, options: ReadOptions) -> None:
        self._path, self._detector, self._options = path, detector, options
        self._cells = Cells(detector)
        z = np.array([layer.z for layer in detector.layers])
        step = np.diff(z) / 2 if len(z) > 1 else np.array([np.inf])
        middles = z[:-1] + step if len(z) > 1 else z[:0]
        self._edges = np.concatenate([[z[0] - step[0]], middles, [z[-1] + step[-1]]])
        self._outside = self._total = 0.0

    @staticmethod
    def turned(vectors: NDArray[np.float64], options: ReadOptions) -> NDArray[np.float64]:
        """Return vectors (n, 3) of the file in our coordinates.

        Raises:
            InputError: When the order of axes is none of x, y and z.
        """
        axes = options.axes or "xyz"
        if sorted(axes) != ["x", "y", "z"]:
            raise InputError(f"--axes {axes} does not name coordinates; expected an order of x, y, z")
        return vectors[:, [axes.index(letter) for letter in "xyz"]]

    def fill(
        self,
        first_row: int,
        counts: NDArray[np.int64],
        position: NDArray[np.float64],
        energy: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return cells (n, n_cells) of showers with ``counts`` hits each, at positions (H, 3) mm of the file; energies are summed.

        Raises:
            FileFormatError: When a hit is outside of the cells and may not be left out, or its position is not finite.
        """
        ours = self.turned(position - np.asarray(self._options.origin, np.float64), self._options)
        layer = np.searchsorted(self._edges, ours[:, 2], "right") - 1
        layer = np.where((layer < 0) | (layer >= self._detector.n_layers), -1, layer)
        points = np.column_stack([ours[:, :2], layer]).astype(np.float32)
        cell = self._cells.find(points)
        row = np.repeat(np.arange(len(counts)), counts)
        self._account(first_row, row, cell, ours, energy)
        inside = cell >= 0
        place = row[inside] * self._detector.n_cells + cell[inside]
        size = len(counts) * self._detector.n_cells
        summed = np.bincount(place, energy[inside].astype(np.float64), size)
        return summed.reshape(len(counts), -1).astype(np.float32)

    def _account(
        self,
        first_row: int,
        row: NDArray[np.int64],
        cell: NDArray[np.int64],
        ours: NDArray[np.float64],
        energy: NDArray[np.float32],
    ) -> None:
        outside = cell < 0
        self._total += float(energy.sum(dtype=np.float64))
        self._outside += float(energy[outside].sum(dtype=np.float64))
        if not outside.any() or self._options.drop_outside:
            return
        hit = int(np.argmax(outside))
        x, y, z = ours[hit]
        share = float(energy[outside].sum(dtype=np.float64)) / max(float(energy.sum(dtype=np.float64)), 1e-30)
        message = (
            f"a hit is at x = {x:.1f}, y = {y:.1f}, z = {z:.1f} mm of '{self._detector.name}', outside of its cells, as is {100 * share:.3g} % of the energy; "
            "settle it with --origin and --axes, or leave such hits out with --drop-outside"
        )
        raise FileFormatError(self._path, f"shower {first_row + int(row[hit])}", message)

    def forget(self) -> None:
        """Begin the account of what lies outside again."""
        self._outside = self._total = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """How much was left out."""
        if not self._outside:
            return ()
        share = 100 * self._outside / self._total if self._total else 0.0
        return (f"hits outside of the cells were left out: {share:.3g} % of the energy",)
