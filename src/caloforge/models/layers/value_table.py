r"""Values of filled cells carried from the distribution that a model gives them to that of the training showers.

Few evaluations leave the values of cells between those of empty and filled ones too often: the estimate is a mean of both. Which
cells of a layer are filled is decided by rank, so a rising map repairs their values and changes nothing else. For each layer two
tables of quantiles at the same probabilities, those of equally spaced normal numbers, give

.. math:: v \mapsto F_{true}^{-1}\left(F_{made}(v)\right),

linear between the knots; beyond the ends the end's change is added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from caloforge.models.layers.quantiles import quantiles

__all__ = ["ValueTable"]

_KNOTS = 65
_REACH = 3.5
_LEAST = 100
"""Fewest values of a layer that make a table."""
_APART = 1e-5
"""Least distance of neighbouring knots."""


class ValueTable(nn.Module):
    """A rising map for each layer; before the fit it leaves values as they are.

    Arguments:
        n_layers: Layers.

    Attributes:
        made: (n_layers, knots), rising: quantiles of the model's values.
        truth: The same of the training showers.
    """

    made: Tensor
    truth: Tensor

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        line = torch.linspace(-4.0, 4.0, _KNOTS)
        self.register_buffer("made", line.repeat(n_layers, 1))
        self.register_buffer("truth", line.repeat(n_layers, 1))

    @torch.no_grad()
    def fit(self, layer: int, made: Tensor, truth: Tensor) -> None:
        """Set the tables of a layer from values (n,) of the model and (m,) of the training showers, if there are enough."""
        if min(len(made), len(truth)) < _LEAST:
            return
        for table, values in ((self.made, made), (self.truth, truth)):
            table[layer] = _rising(_knots(values)).to(table)

    @torch.no_grad()
    def refine(self, layer: int, found: Tensor, truth: Tensor) -> None:
        """Shift a layer's table by what its values still lack after later steps have changed them.

        Arguments:
            layer: The layer.
            found: Values (n,) of cells at the end, with the present table.
            truth: Values (m,) of the training showers.
        """
        if min(len(found), len(truth)) < _LEAST:
            return
        missing = (_knots(truth) - _knots(found)).to(self.truth)
        self.truth[layer] = _rising(self.truth[layer] + missing)

    def forward(self, values: Tensor) -> Tensor:
        """Return values (B, n_layers, K) carried."""
        rows = values.transpose(0, 1).flatten(1)
        right = torch.searchsorted(self.made, rows.contiguous()).clamp(1, _KNOTS - 1)
        x, y = ([table.gather(1, right - 1), table.gather(1, right)] for table in (self.made, self.truth))
        part = (rows - x[0]) / (x[1] - x[0])
        inside = y[0] + part * (y[1] - y[0])
        first, last = (self.truth[:, k, None] - self.made[:, k, None] for k in (0, -1))
        found = torch.where(part < 0.0, rows + first, torch.where(part > 1.0, rows + last, inside))
        return found.view(values.shape[1], values.shape[0], -1).transpose(0, 1)


def _knots(values: Tensor) -> Tensor:
    """Return the quantiles (K,) of values (n,) at the probabilities of equally spaced normal numbers."""
    levels = torch.special.ndtr(torch.linspace(-_REACH, _REACH, _KNOTS, dtype=torch.float64))
    return quantiles(values.cpu(), levels).float()


def _rising(knots: Tensor) -> Tensor:
    """Return knots (K,) made to rise by a least distance."""
    steps = _APART * torch.arange(_KNOTS, device=knots.device)
    rising: Tensor = (knots - steps).cummax(0).values + steps
    return rising
