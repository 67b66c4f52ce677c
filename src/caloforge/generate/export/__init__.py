r"""A generator as one file that runs without caloforge: an ONNX graph, or a compiled package of torch.

The graph is a function of numbers alone,

.. math:: (\text{noise}, \text{conditions}) \mapsto (\text{cells}, \text{in range}),

- ``noise`` (B, noise_size) float32: independent standard normal numbers;
- ``conditions`` (B, C) float32: energies in MeV, angles in degrees, further conditions in the detector's units;
- ``cells`` (B, n_cells) float32: energies in MeV, in the detector's order of cells;
- ``in_range`` (B,) bool: whether the conditions lie in the range of the training. A graph cannot raise, so whoever runs it looks here.

B is any number of showers. The metadata say what every column is (:func:`caloforge.generate.export.form.describe`). The form ``par04``
has one input instead, as Geant4's example Par04 and DDML give it (:class:`~caloforge.generate.export.form.Par04Form`).

What a graph cannot hold is set in it when it is made: whether the calibration is applied, the number of steps, the precision.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from caloforge.errors import InputError, UnknownNameError
from caloforge.files import atomic_path, check_output
from caloforge.generate import Generator
from caloforge.generate.export.form import FORMS, PLACES, describe, frozen, random_inputs
from caloforge.generate.export.writers import WRITERS, load_exported

__all__ = ["RELATIVE", "Deviation", "Exported", "compare", "export", "load_exported"]

_CHECKED = 16  # showers that a new file is checked with
RELATIVE = 1e-4
"""Largest relative difference of a cell that counts as the same."""
_FLOOR = 1e-5  # MeV, a tenth of the smallest energy that the showers' cells have


class Deviation(NamedTuple):
    """Cells of an exported file against torch, for the same noise and conditions."""

    cells: int  # cells above 1e-4 MeV in either
    beyond: int  # of these, how many differ by more than 1e-4 of the larger
    switched: (
        int  # of those, how many are empty in one of the two: they fell to the other side of a threshold
    )
    largest: float  # largest difference of a cell, as a part of its shower's energy
    energy: float  # largest relative difference of the visible energies


class Exported(NamedTuple):
    """What was written."""

    path: Path
    bytes: int
    showers: int  # showers of the check
    deviation: Deviation


def compare(reference: np.ndarray, found: np.ndarray) -> Deviation:
    """Compare cells (B, n_cells), MeV, with those of torch, each against the larger of the two."""
    a, b = (np.asarray(cells, np.float64) for cells in (reference, found))
    larger, difference = np.maximum(a, b), np.abs(a - b)
    some = larger > 10 * _FLOOR
    beyond = some & (difference > RELATIVE * larger)
    total = np.maximum(a.sum(1), _FLOOR)
    return Deviation(
        int(some.sum()),
        int(beyond.sum()),
        int((beyond & (np.minimum(a, b) < _FLOOR)).sum()),
        float((difference / total[:, None]).max()),
        float((np.abs(a.sum(1) - b.sum(1)) / total).max()),
    )


def export(generator: Generator, path: str | Path, form: str = "cells", force: bool = False) -> Exported:
    """Write a generator as a file that runs without caloforge, and compare it with the generator.

    Arguments:
        generator: The generator, of one model, on the CPU.
        path: File to write: ``.onnx``, or ``.pt2`` for a compiled package of torch.
        form: ``cells``, or ``par04`` for the one input of Geant4's example Par04.
        force: Whether a file that exists is replaced.

    Raises:
        InputError: For an unknown suffix or form, an ensemble, a model that does not fit the form or has an operator without ONNX
            form, or a missing compiler.
        MissingExtraError: When packages are missing.
    """
    path = check_output(path, force)
    if path.suffix not in WRITERS:
        msg = f"{path}: unknown suffix '{path.suffix}'; expected {' or '.join(WRITERS)}"
        raise InputError(msg)
    if form not in FORMS:
        raise UnknownNameError("form", form, list(FORMS))
    if len(generator.members) > 1:
        msg = (
            f"'{generator.name}' is an ensemble of {len(generator.members)} models; a file holds one: "
            "export the members one by one and take shower i from member i mod k"
        )
        raise InputError(msg)
    if generator.device.type != "cpu":
        msg = f"'{generator.name}' is on {generator.device.type}; load it with device='cpu' to export it"
        raise InputError(msg)
    writer = WRITERS[path.suffix]
    writer.check()
    graph = FORMS[form](frozen(generator.model)).eval()
    metadata = describe(generator, graph)
    inputs = random_inputs(graph, _CHECKED)
    with atomic_path(path, force) as part, torch.no_grad():
        partial = part.with_name(part.name + path.suffix)  # the writers look at the suffix
        try:
            writer.write(graph, {k: v[:PLACES] for k, v in inputs.items()}, partial, metadata)
            run = load_exported(partial)
            found = run({name: values.numpy() for name, values in inputs.items()})[0]
            shutil.copyfile(partial, part)
        finally:
            partial.unlink(missing_ok=True)
    with torch.no_grad():
        reference = graph(*inputs.values())[0].numpy()
    deviation = compare(graph.in_mev(reference, inputs), graph.in_mev(found, inputs))
    return Exported(path, path.stat().st_size, _CHECKED, deviation)
