r"""Weights of a flow for another detector.

Most weights of both transformers do not depend on the grid. Those that belong to a layer (a row of the summary) or to a patch of cells are
taken from the layer or patch of the source that lies at the same place of the shower: depths are in radiation lengths, distances from the beam
in Moliere radii of the mean matter, so that a layer at 6 X0 in lead begins as one at 6 X0 in tungsten. Rows of layers are interpolated
linearly in depth; a patch takes the nearest one's weights. Where a network adds up inputs of all layers, a weight is multiplied by the number of the source's
layers over that of the target's. Conditions are matched by name; those that the source does not know begin with weights of 0. Weights that find
no partner (patches with another number of cells) begin anew.

Constants (moments, tables, averages of cells) belong to the detector and are never taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caloforge.geometry import Detector
from caloforge.geometry.terms import SCATTERING
from caloforge.models.flow.calibrated import FITTED
from caloforge.models.flow.family import check_family
from caloforge.showers import Showers

__all__ = ["STRUCTURE", "start", "transferred"]

STRUCTURE = (
    "cut", "threshold", "width", "blocks", "repeats", "heads", "local",
    "summary_width", "summary_blocks", "summary_heads", "moments", "radial", "feedback", "detector_conditions",
)  # fmt: skip
"""Settings that decide what a weight of a flow is."""
_BY_ROW = ("summary_net.embed.", "summary_net.position", "summary_net.head.out.")
_BY_PATCH = ("cell_net.embed.", "cell_net.position", "cell_net.head.out.")


def start(model: Any, source: Any, showers: Showers) -> None:
    """Let a flow start from another one; its constants follow from the showers.

    Those of a source of the same detector and conditions, or of several detectors, are what few showers draw them to; others are fitted anew.

    Raises:
        IncompatibleError: When the source is a flow of several detectors whose grid or conditions are others.
    """
    if source.serves_others:
        check_family([source.detector, model.detector])
        model.load_weights(source.state_dict())  # constants become the detector's
        model.family.clear()
        model.fit_transforms(showers, adapt=True)
        return
    own, before = model.state_dict(), source.state_dict()
    if source.detector == model.detector and source.columns == model.columns:
        kept = {name: value for name, value in before.items() if not name.startswith(FITTED)}
        fresh = {name: value for name, value in own.items() if name.startswith(FITTED)}
        edge = torch.full_like(before["core.spread"], -torch.inf)
        model.load_weights(kept | fresh | {"core.edge": edge})
        model.fit_transforms(showers, adapt=True)
    else:
        model.fit_transforms(showers)
        model.load_weights(model.state_dict() | transferred(model, source))


def transferred(model: Any, source: Any) -> dict[str, Tensor]:
    """Return the parameters of a flow that those of another detector's give, by name."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    given = {name: p.detach() for name, p in source.named_parameters()}
    rows = _row_weights(model.detector, source.detector)
    patches = _nearest(model, source)
    out: dict[str, Tensor] = {}
    for name, value in given.items():
        mine = own.get(name)
        if mine is None:
            continue
        if name.startswith(_BY_ROW):
            value = _indexed(value, mine, rows.to(value), name.endswith("weight"))
        elif name.startswith(_BY_PATCH):
            value = _indexed(value, mine, patches.to(value), name.endswith("weight"))
        elif name == "summary_net.condition.0.weight":
            value = _conditions(model, source, value, mine)
        elif name == "cell_net.condition.0.weight":
            value = _whole(model, source, value, mine, rows.to(value))
        elif name in ("cell_net.rows.weight", "cell_net.misses.weight"):
            value = _layers(value, mine, model, source)
        if value.shape == mine.shape:
            out[name] = value.to(mine).clone()
    return out


def _depths(detector: Detector) -> NDArray[np.float64]:
    """Return how deep the layers lie (n_layers,), in radiation lengths, or from 0 to 1 where the stack is not known."""
    depth = np.cumsum(detector.sampled_depth()) if detector.stack else np.zeros(0)
    return depth if len(depth) and depth[-1] > 0 else np.linspace(0.0, 1.0, detector.n_layers)


def _common_depths(detector: Detector, source: Detector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the depths of the layers of both on one scale: radiation lengths if both stacks are known, else parts of the whole."""
    here, there = _depths(detector), _depths(source)
    if detector.stack and source.stack:
        return here, there
    return here / max(here[-1], 1e-9), there / max(there[-1], 1e-9)


def _row_weights(detector: Detector, source: Detector) -> Tensor:
    """Return the parts (rows, source's rows) of the source's rows of a summary in each row; the last is the whole shower's."""
    here, there = _common_depths(detector, source)
    parts = np.zeros((len(here) + 1, len(there) + 1))
    for k, line in enumerate(np.eye(len(there))):
        parts[:-1, k] = np.interp(here, there, line)
    parts[-1, -1] = 1.0
    return torch.from_numpy(parts)


def _radius(detector: Detector) -> float:
    """Return the Moliere radius of the mean matter, mm; half the width of the widest layer where the stack is not known."""
    length = sum(slab.thickness for slab in detector.stack)
    if not length or not detector.depth_x0:
        return float(np.abs(detector.cell_centres[:, :2]).max())
    parts = [(slab.thickness / slab.material.x0, slab.material.critical_energy) for slab in detector.stack]
    critical = sum(x * energy for x, energy in parts) / detector.depth_x0
    return detector.length / detector.depth_x0 * SCATTERING / critical


def _places(model: Any, depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the patches lie (n, 3): distances from the beam in Moliere radii, depth."""
    detector, index = model.detector, model.cell_net.patches.index.cpu().numpy()
    beam = detector.beam
    cells = (detector.cell_centres[:, :2] - (beam.x, beam.y)) / _radius(detector)
    table = np.concatenate([cells, depth[detector.cell_layer][:, None]], 1)
    table = np.concatenate([table, np.full((1, 3), np.nan)])
    found: NDArray[np.float64] = np.nanmean(table[index], axis=1)
    return found


def _nearest(model: Any, source: Any) -> Tensor:
    """Return a 1 for the source's nearest patch (n, source's n) of each patch."""
    here, there = _common_depths(model.detector, source.detector)
    mine, others = _places(model, here), _places(source, there)
    away = ((mine[:, None] - others[None]) ** 2).sum(2)
    return torch.from_numpy(np.eye(len(others))[away.argmin(1)])


def _indexed(value: Tensor, mine: Tensor, parts: Tensor, matrix: bool) -> Tensor:
    """Return weights by row or patch (n, ...), by kind, or one for all, from the source's by its rows or patches, by kind, or one for all.

    A ``matrix`` for all has two dimensions, separate ones have three; other weights for all have one row. The kind of a patch is its
    number modulo that of kinds; a kind takes the mean of its patches.
    """
    separate, separate_here = (x.dim() == 3 if matrix else x.shape[0] > 1 for x in (value, mine))
    if not separate:
        fits = value.shape == mine.shape[1:] if matrix else value.shape[1:] == mine.shape[1:]
        return value.expand(mine.shape) if separate_here and fits else value
    if not separate_here:
        return value.mean(0, keepdim=not matrix)
    each = value[torch.arange(parts.shape[1], device=value.device) % len(value)]
    found = (parts @ each.flatten(1)).view(-1, len(mine), *value.shape[1:])
    return found.mean(0)


def _encoded(model: Any) -> list[tuple[str, int]]:
    """Return name and number of each column of the encoded conditions."""
    encoder, names = model.encoder, dict[int, tuple[str, int]]()
    for name, where in model.columns.items():
        names |= {column: (name, column - where.start) for column in range(where.start, where.stop)}
    columns = [names[column] for column in encoder.continuous]
    for column, _ in encoder.periodic:
        columns += [(f"{names[column][0]} wave {names[column][1]}", k) for k in range(2 * encoder.harmonics)]
    for column, count in encoder.discrete:
        columns += [(names[column][0], k) for k in range(count)]
    return columns


def _conditions(model: Any, source: Any, value: Tensor, mine: Tensor) -> Tensor:
    """Return weights (width, conditions) of encoded conditions; 0 for those that the source does not know."""
    there = {column: k for k, column in enumerate(_encoded(source))}
    out = torch.zeros(value.shape[0], mine.shape[1], dtype=value.dtype, device=value.device)
    for k, column in enumerate(_encoded(model)):
        if column in there:
            out[:, k] = value[:, there[column]]
    return out


def _whole(model: Any, source: Any, value: Tensor, mine: Tensor, rows: Tensor) -> Tensor:
    """Return weights (width, conditions + rows x kinds) of encoded conditions and the whole summary."""
    width, theirs, kinds = model.encoder.width, source.encoder.width, model.summary.kinds
    first = _conditions(model, source, value[:, :theirs], mine[:, :width])
    table = value[:, theirs:].view(len(value), -1, kinds)
    ratio = torch.full((len(rows), 1), source.detector.n_layers / model.detector.n_layers).to(value)
    ratio[-1] = 1.0
    rest = torch.einsum("rs,wsk->wrk", rows * ratio, table)
    return torch.cat([first, rest.flatten(1)], 1)


def _layers(value: Tensor, mine: Tensor, model: Any, source: Any) -> Tensor:
    """Return weights (width, layers of a patch x kinds), interpolated over the layers of a patch."""
    many, few = (m.cell_net.patches.layers.shape[1] for m in (source, model))
    table = value.view(len(value), many, -1)
    there, here = np.linspace(0.0, 1.0, many), np.linspace(0.0, 1.0, few) if few > 1 else np.array([0.5])
    parts = (
        np.stack([np.interp(here, there, line) for line in np.eye(many)], 1)
        if many > 1
        else np.ones((few, 1))
    )
    found = torch.einsum("rs,wsk->wrk", torch.from_numpy(parts * (many / few)).to(value), table)
    return found.flatten(1)
