"""How much absorber a layer stands for, relative to the thinnest: 1 or 2 in calorimeters with two thicknesses.

A layer behind twice the absorber samples a shower half as often, so that its energy counts twice. The published BIB-AE
multiplies its cells by the ratio (2.03 there, from the visible energies).
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge.geometry import Detector

__all__ = ["absorber_ratios", "layer_depths"]


def absorber_ratios(detector: Detector) -> Tensor:
    """Return the radiation lengths in front of each layer since the last one, over the least of them.

    Arguments:
        detector: The detector; one whose stack is not known has ones.

    Returns:
        (n_layers,) float32; layers without absorber in front count as the least.
    """
    depths = [0.0] * detector.n_layers
    passed = 0.0
    for slab in detector.stack:
        if not slab.active:
            passed += slab.thickness / slab.material.x0
        elif slab.layer >= 0:
            depths[slab.layer] += passed
            passed = 0.0
    found = torch.tensor(depths)
    full = found[found > 0.1 * found.amax()] if found.amax() > 0 else found.new_ones(1)
    return (found / full.amin()).clamp_min(1.0)


def layer_depths(detector: Detector) -> Tensor:
    """Return the depth of each layer from -1 (first) to 1 (last): (n_layers,), by radiation lengths where known."""
    known = absorber_ratios(detector).cumsum(0)
    span = (known[-1] - known[0]).clamp_min(1e-6)
    return 2.0 * (known - known[0]) / span - 1.0
