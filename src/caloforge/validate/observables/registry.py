"""The observables by name."""

from __future__ import annotations

from caloforge.registry import Registry
from caloforge.validate.observables.base import Observable

__all__ = ["OBSERVABLES"]

_HERE = "caloforge.validate.observables"

OBSERVABLES: Registry[Observable] = Registry(
    "observable",
    {
        "visible_energy": f"{_HERE}.energy:VISIBLE_ENERGY",
        "response": f"{_HERE}.energy:RESPONSE",
        "peak_energy": f"{_HERE}.energy:PEAK_ENERGY",
        "hits": f"{_HERE}.hits:HITS",
        "sparsity": f"{_HERE}.hits:SPARSITY",
        "shower_depth": f"{_HERE}.depth:SHOWER_DEPTH",
        "shower_start": f"{_HERE}.depth:SHOWER_START",
        "depth_90": f"{_HERE}.depth:DEPTH_90",
        "radius_90": f"{_HERE}.containment:RADIUS_90",
        "centre_x": f"{_HERE}.moments:CENTRE_X",
        "centre_y": f"{_HERE}.moments:CENTRE_Y",
        "centre_z": f"{_HERE}.moments:CENTRE_Z",
        "second_moment_x": f"{_HERE}.moments:SECOND_X",
        "second_moment_y": f"{_HERE}.moments:SECOND_Y",
        "second_moment_z": f"{_HERE}.moments:SECOND_Z",
        "third_moment_x": f"{_HERE}.moments:THIRD_X",
        "third_moment_y": f"{_HERE}.moments:THIRD_Y",
        "third_moment_z": f"{_HERE}.moments:THIRD_Z",
        "angle_barycentres": f"{_HERE}.angles:ANGLE_BARYCENTRES",
        "angle_axis": f"{_HERE}.angles:ANGLE_AXIS",
        "core_mean": f"{_HERE}.core:CORE_MEAN",
        "core_std": f"{_HERE}.core:CORE_STD",
        "layer_energy": f"{_HERE}.layers:LAYER_ENERGY",
        "layer_fraction": f"{_HERE}.layers:LAYER_FRACTION",
        "layer_sparsity": f"{_HERE}.hits:LAYER_SPARSITY",
        "layer_centre_x": f"{_HERE}.lateral:LAYER_CENTRE_X",
        "layer_centre_y": f"{_HERE}.lateral:LAYER_CENTRE_Y",
        "layer_centre_r": f"{_HERE}.lateral:LAYER_CENTRE_R",
        "layer_width_x": f"{_HERE}.lateral:LAYER_WIDTH_X",
        "layer_width_y": f"{_HERE}.lateral:LAYER_WIDTH_Y",
        "layer_width_r": f"{_HERE}.lateral:LAYER_WIDTH_R",
        "x_profile": f"{_HERE}.profiles:X_PROFILE",
        "y_profile": f"{_HERE}.profiles:Y_PROFILE",
        "radial_profile": f"{_HERE}.profiles:RADIAL_PROFILE",
        "cell_spectrum": f"{_HERE}.spectrum:CELL_SPECTRUM",
        "core_cells": f"{_HERE}.core:CORE_CELLS",
    },
    group="caloforge.observables",
)
