"""Observables of showers, all computed in one streaming pass.

from caloforge.showers import open_showers
from caloforge.validate.observables import observe

table = observe(open_showers("geant4.h5"))
table["visible_energy"]    # (N,) MeV
table["layer_energy"]      # (N, n_layers) MeV
"""

from caloforge.validate.observables.base import (
    AXIS_LABELS,
    OBSERVABLES,
    SPECTRUM_EDGES,
    Axis,
    Observable,
    axis_edges,
)
from caloforge.validate.observables.batch import CellStatistics, ShowerBatch
from caloforge.validate.observables.shape import beam_window, tracked_cells
from caloforge.validate.observables.spectrum import mip_peak
from caloforge.validate.observables.streaming import Histogram, ObservableTable, cell_statistics, observe

__all__ = [
    "AXIS_LABELS",
    "OBSERVABLES",
    "SPECTRUM_EDGES",
    "Axis",
    "CellStatistics",
    "Histogram",
    "Observable",
    "ObservableTable",
    "ShowerBatch",
    "axis_edges",
    "beam_window",
    "cell_statistics",
    "mip_peak",
    "observe",
    "tracked_cells",
]
