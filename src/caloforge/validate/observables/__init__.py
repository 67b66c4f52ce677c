"""Observables of showers: one a file, all in one streaming pass.

from caloforge.showers import open_showers
from caloforge.validate.observables import observe

table = observe(open_showers("geant4.h5"))
table["visible_energy"]    # (N,) MeV
table["layer_energy"]      # (N, n_layers) MeV
"""

from caloforge.validate.observables.axes import AXIS_LABELS, SPECTRUM_EDGES, Axis, axis_edges
from caloforge.validate.observables.base import OBSERVABLES, Observable
from caloforge.validate.observables.batch import CellStatistics, ShowerBatch
from caloforge.validate.observables.energies import core_cells, tracked_cells
from caloforge.validate.observables.spectrum import mip_peak
from caloforge.validate.observables.streaming import cell_statistics, histogram_cells, observe
from caloforge.validate.observables.table import (
    Histogram,
    ObservableTable,
    layer_correlation,
    observable_correlation,
)

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
    "cell_statistics",
    "core_cells",
    "histogram_cells",
    "layer_correlation",
    "mip_peak",
    "observable_correlation",
    "observe",
    "tracked_cells",
]
