r"""Layer energies and cells of any detector as outputs of a network, and the view of them for a critic.

``LayerEnergies`` standardises the response and the layer fractions. With the layer energies :math:`E_l` and the incident energy E,

.. math:: t = \sum_l E_l / E, \qquad p_l = E_l / \sum_l E_l

get the mean and width that they have in the training showers at that incident energy. The inverse sets negative values to zero and
normalises the fractions, so that any output of a network is a set of layer energies. Response and fractions are separate because the width of
the total is many times smaller than that of the layers, whose fluctuations cancel.

``PlainNetworks`` generate cell energies over E, as ATL-SOFT-PUB-2018-001. ``LayeredNetworks`` generate response, layer fractions and
the shape of each layer, and show the critic the same quantities at unit width, so that small energies count, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from caloforge.geometry import Detector
from caloforge.models.calibration.moments import EnergyMoments

__all__ = [
    "CELL_NETWORKS",
    "NOTHING",
    "CellNetworks",
    "CellTable",
    "LayerEnergies",
    "LayerSums",
    "LayerView",
    "LayeredNetworks",
    "PlainNetworks",
    "drawn_in",
    "mlp",
    "reinitialise",
    "topk_ragged",
]


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    activation: Callable[[], nn.Module] = nn.SiLU,
    norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return linear layers with an activation after each but the last.

    Before each activation there is a layer norm if ``norm``, behind it dropout of that probability.
    """
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if norm:
            layers.append(nn.LayerNorm(size))
        layers.append(activation())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = size
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers)


def reinitialise(module: nn.Module) -> None:
    """Call ``reset_parameters`` of every submodule that has it; draws from torch's global generator."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


class CellTable(nn.Module):
    """Cells arranged in rows of equal length, with padding.

    ``index`` (rows, width) is the number of the cell at each place, ``n_cells`` in padding; each cell is there once.
    """

    index: Tensor
    back: Tensor

    def __init__(self, index: NDArray[np.int64], n_cells: int) -> None:
        super().__init__()
        flat = index.ravel()
        back = np.zeros(n_cells, np.int64)
        back[flat[flat < n_cells]] = np.nonzero(flat < n_cells)[0]
        self.padded = bool((flat == n_cells).any())
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.register_buffer("back", torch.from_numpy(back), persistent=False)

    def forward(self, cells: Tensor, fill: float = 0.0) -> Tensor:
        """Return the table (B, rows, width) of cells (B, n_cells), ``fill`` in padding."""
        if self.padded:
            cells = torch.cat([cells, torch.full_like(cells[:, :1], fill)], 1)
        return cells.index_select(1, self.index.flatten()).view(-1, *self.index.shape)

    def cells(self, table: Tensor) -> Tensor:
        """Return cells (B, n_cells) of a table (B, rows, width)."""
        return table.flatten(1).index_select(1, self.back)


class LayerView(CellTable):
    """Cells with one row a layer.

    Arguments:
        detector: The detector.
        radial: On a mesh the power of the distance from the axis in positions.

    Attributes:
        n_layers: Layers.
        width: Cells of the largest layer.
    """

    x: Tensor  # (n_layers, width) positions of the cells in units of the layer's half width, 0 in padding
    y: Tensor  # the same along the other axis

    def __init__(self, detector: Detector, radial: float = 1.0) -> None:
        width = max(len(cells) for cells in detector.layer_cells)
        index = np.full((detector.n_layers, width), detector.n_cells, np.int64)
        positions = np.zeros((2, detector.n_layers, width), np.float32)
        for layer, cells in enumerate(detector.layer_cells):
            index[layer, : len(cells)] = cells
            centres = drawn_in(detector.cell_centres[cells, :2], radial if detector.is_mesh else 1.0)
            low, high = centres.min(0), centres.max(0)
            positions[:, layer, : len(cells)] = (
                (centres - 0.5 * (low + high)) / np.maximum(0.5 * (high - low), 1e-6)
            ).T
        super().__init__(index, detector.n_cells)
        self.n_layers, self.width = index.shape
        self.register_buffer("x", torch.from_numpy(positions[0]), persistent=False)
        self.register_buffer("y", torch.from_numpy(positions[1]), persistent=False)

    def positions(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions x and y (B, n_layers, K) of places (B, n_layers, K) in each layer, 0 at the place ``width``."""
        flat = self._flat(places)
        x, y = (functional.pad(table, (0, 1)).flatten() for table in (self.x, self.y))
        return x.index_select(0, flat).view_as(places), y.index_select(0, flat).view_as(places)

    def placed(self, energy: Tensor, places: Tensor) -> Tensor:
        """Return cells (B, n_cells) with energies (B, n_layers, K) at these places, others 0."""
        n = len(self.back)
        cell = functional.pad(self.index, (0, 1), value=n).flatten().index_select(0, self._flat(places))
        cells = energy.new_zeros(energy.shape[0], n + 1).scatter_(
            1, cell.view(energy.shape[0], -1), energy.flatten(1)
        )
        return cells[:, :n].contiguous()

    def _flat(self, places: Tensor) -> Tensor:
        """Return the numbers of places (B, n_layers, K) in tables (n_layers, width + 1)."""
        row = torch.arange(self.n_layers, device=places.device)[:, None] * (self.width + 1)
        return (places + row).flatten()


def drawn_in(centres: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Return positions (n, 2) with their distances r from the axis replaced by R (r / R) ** power, R the largest."""
    if power == 1.0:
        return centres
    radius = np.hypot(*centres.T)
    return centres * ((radius / radius.max()) ** (power - 1.0))[:, None]


class LayerSums(nn.Module):
    """Sum the cells of each layer, or spread one value a layer over its cells.

    The cells of a grid are a matrix (cells of a layer, layers); otherwise the layers lie one after the other.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.interleaved = detector.is_grid
        self.n_layers = detector.n_layers
        self.counts: list[int] = [len(cells) for cells in detector.layer_cells]

    def forward(self, cells: Tensor) -> Tensor:
        """Return the layer energies (B, n_layers) of cells (B, n_cells)."""
        if self.interleaved:
            return cells.view(cells.shape[0], -1, self.n_layers).sum(1)
        return torch.stack([part.sum(1) for part in torch.split(cells, self.counts, dim=1)], dim=1)

    def spread(self, values: Tensor) -> Tensor:
        """Return values (B, n_layers) at each cell (B, n_cells)."""
        if self.interleaved:
            return values.repeat(1, self.counts[0])
        parts = [values[:, i : i + 1].expand(-1, count) for i, count in enumerate(self.counts)]
        return torch.cat(parts, dim=1)

    def normalise(self, cells: Tensor, energies: Tensor) -> Tensor:
        """Return cells (B, n_cells) scaled to the layer energies (B, n_layers); empty layers stay empty."""
        return cells * self.spread(energies / self(cells).clamp_min(1e-20))


class LayerEnergies(nn.Module):
    """Standardised response and layer fractions, ``size`` numbers; a detector of a single layer has a response only."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.sums = LayerSums(detector)
        self.size = 1 + (detector.n_layers if detector.n_layers > 1 else 0)
        self.scale = EnergyMoments(self.size)

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set the constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""
        self.scale.fit(self._plain(cells, energy), energy)

    def _plain(self, cells: Tensor, energy: Tensor) -> Tensor:
        layers: Tensor = self.sums(cells)
        total = layers.sum(1, keepdim=True)
        fractions = layers / total.clamp_min(1e-20) if self.size > 1 else layers[:, :0]
        return torch.cat([total / energy[:, None], fractions], dim=1)

    def forward(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the standardised numbers (B, size) of cells (B, n_cells) at incident energies (B,), MeV."""
        mean, std = self.scale(energy)
        numbers: Tensor = (self._plain(cells, energy) - mean) / std
        return numbers

    def inverse(self, numbers: Tensor, energy: Tensor) -> Tensor:
        """Return the layer energies (B, n_layers), MeV, of standardised numbers (B, size)."""
        mean, std = self.scale(energy)
        plain = torch.relu(mean + std * numbers)
        total = plain[:, :1] * energy[:, None]
        if self.size == 1:
            return total
        fractions = plain[:, 1:]
        return total * fractions / fractions.sum(1, keepdim=True).clamp_min(1e-20)


_REACH = 6.0  # standard deviations above its mean that a cell can reach before its layer is scaled
_LEAK = 1e-4  # largest energy of a cell that would be empty, in units of its reach
_EMPHASIS = 4.0
"""Weight of response and fractions in the critic's view: they are few beside the cells, and matter most."""
_HIT = 0.1  # energy below which a cell is noise, MeV; the scale of the critic's logarithm


class CellNetworks(nn.Module, ABC):
    """From a network's outputs to cells, and from cells to the critic's inputs.

    Arguments of all kinds: the detector; ``build``, a function that makes the network with so many outputs; ``output``, a module
    whose result is zero for negative numbers, a sparse sigmoid or a ReLU.
    """

    width: int  # inputs a shower of the critic
    extras: int  # how many of them, the first, are not cell by cell; the rest are maps of n_cells each
    output: nn.Module
    rise: float = 1.0  # of the small energies of ``dense`` with the network's numbers

    @abstractmethod
    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set constants from training showers: cells (N, n_cells) and incident energies (N,), MeV."""

    @abstractmethod
    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV, for the network's input (B, k).

        ``dense`` leaves small energies in cells that would be empty, which rise with the network's output.
        """

    def cut(self, numbers: Tensor, dense: bool) -> Tensor:
        """Return the output for the network's numbers (B, n_cells), never exactly zero if ``dense``."""
        result: Tensor = self.output(numbers)
        return result + _LEAK * torch.sigmoid(self.rise * numbers) if dense else result

    @abstractmethod
    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return the critic's inputs (B, width)."""


class PlainNetworks(CellNetworks):
    """Cells over expected visible energy, E times the sampling fraction, from one network; the critic sees the same."""

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.sampling_fraction = detector.sampling_fraction
        self.width, self.extras = detector.n_cells, 0
        self.net, self.output = build(detector.n_cells), output

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Do nothing; there are no constants."""

    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        return self.cut(self.net(inputs), dense) * (energy * self.sampling_fraction)[:, None]

    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return cells over expected visible energy."""
        return cells / (energy * self.sampling_fraction)[:, None]


class LayeredNetworks(CellNetworks):
    r"""Layer energies and shapes from one network with two heads.

    With f the output and :math:`c_i(E)` mean + 6 standard deviations of cell i over E,

    .. math:: e_i = E_{l(i)} \frac{c_i f(a_i)}{\sum_{j \in l(i)} c_j f(a_j)}

    The critic sees 4 times the standardised response and layer fractions, (e_i/E - mean) / std of each cell, and
    ln(1 + e_i / 0.1 MeV) / 4, which separates hits from noise.
    """

    def __init__(self, detector: Detector, build: Callable[[int], nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.energies = LayerEnergies(detector)
        self.cells = EnergyMoments(detector.n_cells, floor=1e-5)
        self.width, self.extras = self.energies.size + 2 * detector.n_cells, self.energies.size
        self.net, self.output = build(self.energies.size + detector.n_cells), output

    def fit(self, cells: Tensor, energy: Tensor) -> None:
        """Set means and widths."""
        self.energies.fit(cells, energy)
        self.cells.fit(cells / energy[:, None], energy)

    def make(self, inputs: Tensor, energy: Tensor, dense: bool = False) -> Tensor:
        """Return cells (B, n_cells), MeV."""
        out = self.net(inputs)
        layers = self.energies.inverse(out[:, : self.energies.size], energy)
        mean, std = self.cells(energy)
        shape = self.cut(out[:, self.energies.size :], dense) * (mean + _REACH * std)
        return self.energies.sums.normalise(shape, layers)

    def view(self, cells: Tensor, energy: Tensor) -> Tensor:
        """Return standardised energies and cells, and the cells' logarithms."""
        mean, std = self.cells(energy)
        linear = (cells / energy[:, None] - mean) / std
        energies = _EMPHASIS * self.energies(cells, energy)
        return torch.cat([energies, linear, torch.log1p(cells / _HIT) / 4.0], dim=1)


CELL_NETWORKS: dict[str, type[PlainNetworks] | type[LayeredNetworks]] = {
    "plain": PlainNetworks,
    "layered": LayeredNetworks,
}
"""Names in settings to classes."""


NOTHING = -1e4
"""Value of a column without a cell."""
_DENSE = 3  # ``torch.topk`` searches all rows when more than one of this many values is needed


def topk_ragged(values: Tensor, needed: Tensor, likely: float) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row (B, L, K), in descending order, and their places (B, L, K); K is the most needed in any row.

    In each row the first are the ``needed`` largest; further columns have the next ones, or ``NOTHING`` at the place W.

    ``torch.topk`` on a GPU. On a CPU the values above ``likely`` are gathered first, which are nearly always enough, and only rows
    that need more are searched by ``torch.topk``: 1.8 times as fast for 27,000 cells (0.21 instead of 0.37 ms a shower on one core, a
    tenth of the time of ``flow-matching-cpu``).

    Arguments:
        values: (B, L, W), all above ``NOTHING`` or equal to it.
        needed: Values needed in each row (B, L), at most W.
        likely: A value that about as many exceed as are needed; affects the time alone.
    """
    rows = values.flatten(0, 1)
    if torch.compiler.is_exporting():  # a graph has no sizes that depend on numbers: all of each row
        found, places = rows.sort(dim=1, descending=True, stable=True)
        return found.view_as(values), places.view_as(values)
    size = max(1, int(needed.max())) if needed.numel() else 1
    if values.device.type != "cpu" or not len(rows) or _DENSE * size > rows.shape[1]:
        found, places = rows.topk(size, 1)
    else:
        found, places = _gathered(rows, needed.flatten(), likely, size)
    shape = (*values.shape[:2], size)
    return found.view(shape), places.view(shape)


def _gathered(rows: Tensor, needed: Tensor, likely: float, size: int) -> tuple[Tensor, Tensor]:
    """Return the ``size`` largest values (R, size) of rows (R, W), or fewer where fewer are needed (R,), and their places."""
    width = rows.shape[1]
    taken = rows > likely
    counts = taken.sum(1, dtype=torch.int32)
    short = torch.nonzero(counts < needed)[:, 0]
    if len(short):
        best = rows[short].topk(size, 1).indices
        taken[short] = torch.zeros_like(taken[short]).scatter_(1, best, True)
        counts[short] = size
    most = max(size, int(counts.max()))
    flat = torch.nonzero(taken.flatten())[:, 0]
    row = flat.div(width, rounding_mode="floor")
    slot = torch.arange(len(flat)) - (counts.cumsum(0) - counts).index_select(0, row) + row * most
    found = rows.new_full((len(rows) * most,), NOTHING)
    places = torch.full((len(rows) * most,), width)
    found[slot] = rows.flatten().index_select(0, flat)
    places[slot] = flat - row * width
    found, order = found.view(-1, most).topk(size, 1)
    return found, places.view(-1, most).gather(1, order)
